"""The local cache of the index: it saves time, and whatever happens to it changes no answer."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import stat
import struct
from collections.abc import Callable

import blake3
import numpy as np
import pytest

from tests import index_model
from vimgvc import monitor
from vimgvc.store import index, index_base

_SMALL = index_base.Limits(unsaved=50, loaded=100, parts=2, smallest_cached=40, smallest_added=20)
_SILENT = monitor.NullMonitor()


def _objects(count: int, *, seed: int = 1, entries: int = 30) -> tuple[index_model.Objects, index_model.Ids]:
    """That many index objects of one pack each, and the identifiers in them."""
    objects = index_model.Objects()
    ids = index_model.random_ids(count * entries, seed)
    for number in range(count):
        _add_object(objects, seed * 1000 + number, ids[entries * number : entries * (number + 1)])
    return objects, ids


def _add_object(objects: index_model.Objects, number: int, ids: index_model.Ids) -> str:
    pack = index_model.pack_name(number)
    entries = [(item.tobytes(), (pack, number % 100, slot)) for slot, item in enumerate(ids)]
    return objects.store(index_model.body_of(entries, [pack]))


def _open(objects: index_model.Objects, cache: pathlib.Path | None, limits: index_base.Limits = _SMALL) -> index.Index:
    return index.Index.open(list(objects.bodies), objects.load, cache, _SILENT, limits=limits)


def _loads(objects: index_model.Objects, cache: pathlib.Path, ids: index_model.Ids) -> int:
    """How many index objects are read to open the index and find all of `ids`."""
    before = len(objects.loads)
    assert _open(objects, cache).contains(ids).all()
    return len(objects.loads) - before


def test_what_is_cached_is_not_read_again(tmp_path: pathlib.Path) -> None:
    """Opening reads each index object once; later only what is new; `log` twice reads nothing twice."""
    objects, ids = _objects(10)
    cache = tmp_path / "deep" / "cache"
    assert _loads(objects, cache, ids) == 10
    assert _loads(objects, cache, ids) == 0
    more = index_model.random_ids(5, 9)
    name = _add_object(objects, 77, more)
    assert _loads(objects, cache, np.concatenate((ids, more))) == 1
    assert objects.loads[-1] == name
    assert _loads(objects, cache, np.concatenate((ids, more))) == 0


def test_no_index_objects_no_cache(tmp_path: pathlib.Path) -> None:
    """A repository without index objects leaves no folder behind."""
    _open(index_model.Objects(), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_private_and_marked(tmp_path: pathlib.Path) -> None:
    """Only this user can enter it, and backup programs are told to pass it over."""
    objects, _ = _objects(1)
    _open(objects, tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    tag = (tmp_path / "cache" / "CACHEDIR.TAG").read_bytes()
    assert tag.startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")


def test_many_small_additions_leave_few_runs(tmp_path: pathlib.Path) -> None:
    """After 60 commits of few chunks there are as few files as after one."""
    objects = index_model.Objects()
    cache = tmp_path / "cache"
    everything = index_model.random_ids(60 * 7, 1)
    for number in range(60):
        _add_object(objects, number, everything[7 * number : 7 * number + 7])
        _open(objects, cache)
        assert len(list(cache.glob("run-*"))) <= 3
    assert _loads(objects, cache, everything) == 0


def test_leftovers_are_removed(tmp_path: pathlib.Path) -> None:
    """What an interrupted process left is gone after the next change; other files are not touched."""
    objects, ids = _objects(2)
    cache = tmp_path / "cache"
    _open(objects, cache)
    for name in (".tmp-abc", "run-" + "ab" * 32, "mine"):
        (cache / name).write_bytes(b"x")
    more = index_model.random_ids(5, 9)
    _add_object(objects, 77, more)
    assert _loads(objects, cache, np.concatenate((ids, more))) == 1
    names = {path.name.partition("-")[0] for path in cache.iterdir()}
    assert names == {"CACHEDIR.TAG", "lock", "contents", "run", "mine"}
    assert not (cache / ("run-" + "ab" * 32)).exists()


def _flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.slow
def test_d17_every_byte_of_the_contents(tmp_path: pathlib.Path) -> None:
    """Any byte of the table of contents changed, or any part of it cut off: rebuilt, and right."""
    objects, ids = _objects(3, entries=5)
    cache = tmp_path / "cache"
    _open(objects, cache)
    good = (cache / "contents").read_bytes()
    changes = [_flip(at)(good) for at in range(len(good))]
    changes += [good[:length] for length in range(0, len(good), 7)] + [good + b"\0", bytes(len(good))]
    for bad in changes:
        (cache / "contents").write_bytes(bad)
        assert _loads(objects, cache, ids) == 3
        assert _loads(objects, cache, ids) == 0


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_d17_damage_anywhere_in_a_run(tmp_path: pathlib.Path, seed: int, held: bool) -> None:
    """A changed byte in a run, before the index is opened or while it is: every answer is right."""
    objects, ids = _objects(4, seed=seed)
    cache = tmp_path / "cache"
    _open(objects, cache)
    (run,) = cache.glob("run-*")
    good = run.read_bytes()
    expected = index_model.answers(_open(objects, None), ids)
    never = index_model.random_ids(50, seed + 1)
    generator = np.random.default_rng(seed)
    for at in [*generator.integers(0, len(good), 120).tolist(), 0, len(good) - 1]:
        keep = tmp_path / "keep"
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(cache, keep)
        of = _open(objects, keep) if held else None
        with (keep / run.name).open("r+b") as file:
            file.seek(at)
            file.write(bytes([good[at] ^ 1 << int(generator.integers(8))]))
        of = of or _open(objects, keep)
        assert index_model.answers(of, ids) == expected
        assert not of.contains(never).any()
        assert index_model.places_of(of, ids[7].tobytes()) == {expected[7]}
        assert index_model.answers(_open(objects, keep), ids) == expected
        assert _loads(objects, keep, ids) == 0


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "longer", "zeros", "swapped", "folder"])
def test_d17_runs_that_are_not_what_they_were(tmp_path: pathlib.Path, damage: str) -> None:
    """A run file that is missing, cut, extended, zeroed or another one: rebuilt, and right."""
    objects, ids = _objects(12)
    limits = index_base.Limits(unsaved=50, loaded=100, parts=2, smallest_cached=1, smallest_added=20)
    cache = tmp_path / "cache"
    names = list(objects.bodies)
    first = index_model.Objects()
    first.bodies = {name: objects.bodies[name] for name in names[:11]}
    _open(first, cache, limits)
    _open(objects, cache, limits)
    runs = sorted(cache.glob("run-*"), key=lambda path: path.stat().st_size)
    assert len(runs) == 2
    data = runs[0].read_bytes()
    changes: dict[str, bytes] = {
        "empty": b"",
        "cut": data[:-1],
        "longer": data + b"\0",
        "zeros": bytes(len(data)),
        "swapped": runs[1].read_bytes(),
    }
    runs[0].unlink()
    if damage == "folder":
        runs[0].mkdir()
    elif damage != "gone":
        runs[0].write_bytes(changes[damage])
    assert _open(objects, cache, limits).contains(ids).all()
    assert (
        _open(objects, None).lookup(ids).segment.tolist() == _open(objects, cache, limits).lookup(ids).segment.tolist()
    )


def test_d17_damage_met_while_merging(tmp_path: pathlib.Path) -> None:
    """Damage found when a new index object joins an old run: all are read again, and the cache is right again."""
    objects, ids = _objects(5)
    cache = tmp_path / "cache"
    _open(objects, cache)
    (run,) = cache.glob("run-*")
    data = run.read_bytes()
    run.write_bytes(_flip(1000)(data))
    more = index_model.random_ids(30, 9)
    _add_object(objects, 77, more)
    everything = np.concatenate((ids, more))
    assert _open(objects, cache, index_base.DEFAULT).contains(everything).all()
    assert _loads(objects, cache, everything) == 0


def test_d17_stale_cache(tmp_path: pathlib.Path) -> None:
    """A cache that covers an index object which is gone is given up: what it held is not found."""
    objects, ids = _objects(3)
    cache = tmp_path / "cache"
    _open(objects, cache)
    gone = next(iter(objects.bodies))
    del objects.bodies[gone]
    of = _open(objects, cache)
    assert of.contains(ids).tolist() == [False] * 30 + [True] * 60
    assert len(list(of.packs())) == 2
    assert _loads(objects, cache, ids[30:]) == 0


def test_r8_damaged_index_object_is_not_taken_for_read(tmp_path: pathlib.Path) -> None:
    """An index object that could not be read is tried again at every start, and counts once it is whole."""
    objects, ids = _objects(3)
    cache = tmp_path / "cache"
    bad = list(objects.bodies)[1]
    objects.damaged.add(bad)
    for _ in range(2):
        of = _open(objects, cache)
        assert of.damaged == [bad]
        assert of.contains(ids).tolist() == [True] * 30 + [False] * 30 + [True] * 30
    objects.damaged.clear()
    assert _loads(objects, cache, ids) == 1
    assert _loads(objects, cache, ids) == 0


def test_many_index_objects_do_not_use_up_descriptors() -> None:
    """However many index objects there are, few files are open while they are read."""
    objects, ids = _objects(60, entries=60)
    most = 0

    def load(name: str) -> bytes:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        return objects.load(name)

    limits = index_base.Limits(unsaved=20, loaded=50, parts=4, smallest_cached=16, smallest_added=8)
    before = len(os.listdir("/proc/self/fd"))
    of = index.Index.open(list(objects.bodies), load, None, _SILENT, limits=limits)
    assert of.contains(ids).all()
    assert most - before <= 8


def test_d17_damage_that_many_threads_meet(tmp_path: pathlib.Path) -> None:
    """Threads that meet the same damage at once all get right answers, and it is repaired once."""
    objects, ids = _objects(20)
    cache = tmp_path / "cache"
    _open(objects, cache)
    of = _open(objects, cache)
    (run,) = cache.glob("run-*")
    with run.open("r+b") as file:
        file.write(bytes(100))
    del objects.loads[:]

    def ask() -> None:
        assert of.contains(ids).all()

    index_model.run_all([ask] * 8)
    assert sorted(objects.loads) == sorted(objects.bodies)


def test_d17_foreign_cache(tmp_path: pathlib.Path) -> None:
    """The cache of another repository in the place of ours: nothing in it is believed."""
    ours, ids = _objects(2, seed=1)
    theirs, foreign = _objects(2, seed=2)
    _open(theirs, tmp_path / "cache")
    of = _open(ours, tmp_path / "cache")
    assert of.contains(ids).all()
    assert not of.contains(foreign).any()


def test_d17_damage_during_a_commit(tmp_path: pathlib.Path) -> None:
    """When the base is made again, what was added stays, numbers stay, and dropped packs stay dropped."""
    objects, ids = _objects(4)
    cache = tmp_path / "cache"
    _open(objects, cache)
    of = _open(objects, cache)
    new = index_model.random_ids(70, 9)
    number = index_model.add(of, index_model.pack_name(1), new)
    dropped = index_model.pack_name(1002)
    of.drop_packs([dropped.hex()])
    numbers = {pack.number: pack.name for pack in of.packs()}
    (run,) = cache.glob("run-*")
    with run.open("r+b") as file:
        file.write(b"\xff" * 3000)
    found = of.lookup(np.concatenate((new, ids)))
    assert found.found.tolist() == [True] * 70 + [True] * 60 + [False] * 30 + [True] * 30
    assert set(found.pack[:70].tolist()) == {number}
    assert {pack.number: pack.name for pack in of.packs()} == numbers
    assert of.unsaved == 70
    # The unsaved pack is not in what the next process finds in the cache.
    assert index_model.pack_name(1).hex() not in {pack.name for pack in _open(objects, cache).packs()}


def _make_file(cache: pathlib.Path) -> None:
    cache.write_bytes(b"")


def _make_writable_by_all(cache: pathlib.Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


def _make_dangling(cache: pathlib.Path) -> None:
    cache.symlink_to(cache.parent / "nowhere" / "at" / "all")


def test_the_example_of_the_specification(tmp_path: pathlib.Path) -> None:
    """The run that specs/index-cache.md shows is the run that is written, and its contents are laid out as it says."""
    text = (pathlib.Path(__file__).parents[2] / "specs" / "index-cache.md").read_text()
    (shown,) = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    (name,) = re.findall(r"named `(run-[0-9a-f]{64})`", text)
    objects = index_model.Objects()
    packs = [index_model.pack_name(0), index_model.pack_name(1)]
    objects.store(index_model.body_of([(bytes(range(32)), (packs[1], 2, 3))], packs))
    _open(objects, tmp_path / "cache")
    data = (tmp_path / "cache" / name).read_bytes()
    assert data.startswith(bytes.fromhex(shown))
    assert len(data) == 328
    assert data[-32:] == blake3.blake3(data[:40]).digest()
    contents = (tmp_path / "cache" / "contents").read_bytes()
    (item,) = objects.bodies
    assert contents[:24] == b"vimgvcX\x01" + struct.pack("<IIII", 1, 2, 1, 0)
    assert contents[24:56] == bytes.fromhex(item)
    assert contents[56:88] + contents[104:136] == b"".join(packs)
    assert contents[152:192] == bytes.fromhex(name[4:]) + struct.pack("<Q", 1)
    assert contents[192:] == blake3.blake3(contents[:192]).digest()


@pytest.mark.parametrize("spoil", [_make_file, _make_writable_by_all, _make_dangling])
def test_no_usable_folder(tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None]) -> None:
    """Where a cache cannot or must not be kept the answers are the same, and nothing is written."""
    objects, ids = _objects(10)
    cache = tmp_path / "cache"
    spoil(cache)
    before = sorted(os.listdir(tmp_path))
    assert _loads(objects, cache, ids) == 10
    assert _loads(objects, cache, ids) == 10
    assert sorted(os.listdir(tmp_path)) == before
    assert not cache.is_dir() or list(cache.iterdir()) == []


def test_a_cache_others_can_write_is_not_believed(tmp_path: pathlib.Path) -> None:
    """A cache in a folder that others can write might claim that data is stored which is not."""
    objects, ids = _objects(2)
    cache = tmp_path / "cache"
    _open(objects, cache)
    assert _loads(objects, cache, ids) == 0
    cache.chmod(0o770)
    assert _loads(objects, cache, ids) == 2


def test_processes_at_the_same_time(tmp_path: pathlib.Path) -> None:
    """Many that open one cache at once, from nothing and while it grows, all get right answers."""
    objects, ids = _objects(12)
    cache = tmp_path / "cache"
    names = list(objects.bodies)

    def opener(count: int) -> None:
        for some in (names[:count], names):
            of = index.Index.open(some, objects.load, cache, _SILENT, limits=_SMALL)
            assert of.contains(ids[: 30 * len(some)]).all()
            assert not of.contains(ids[30 * len(some) :]).any()

    index_model.run_all([lambda count=count: opener(count) for count in (1, 3, 6, 9, 12, 12)])  # type: ignore[misc]
    assert _open(objects, cache).contains(ids).all()
    assert not list(cache.glob(".tmp-*"))


def test_a_locked_cache_is_left_alone(tmp_path: pathlib.Path) -> None:
    """While another process changes the cache, this one does without and does not wait."""
    import fcntl

    objects, ids = _objects(2)
    cache = tmp_path / "cache"
    _open(objects, cache)
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    with (cache / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        more = index_model.random_ids(5, 9)
        _add_object(objects, 77, more)
        assert _loads(objects, cache, np.concatenate((ids, more))) == 1
        assert {path.name: path.read_bytes() for path in cache.iterdir()} == before
