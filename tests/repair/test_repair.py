"""What a repair does to each kind of damage, what it leaves alone, and that it writes nothing without damage."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable

import pytest

from tests import repos
from tests.gc import hooked, past
from tests.repair import left
from vimgvc import errors
from vimgvc.backends import local, memory
from vimgvc.codec import segment
from vimgvc.repo import gcrecords, repair, repository
from vimgvc.store import pack, reindex, writer

MIB = 1 << 20
DRY = repair.Options(dry_run=True)
DATA = repair.Options(data=True)


def blobs_of(repo: repository.Repository) -> dict[str, bytes]:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend._blobs


def aside_of(repo: repository.Repository) -> dict[str, bytes]:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend.aside


def largest(repo: repository.Repository) -> str:
    return max(
        (name for name in blobs_of(repo) if name.startswith("packs")), key=lambda name: len(blobs_of(repo)[name])
    )


def reopen(repo: repository.Repository) -> repository.Repository:
    return repository.Repository.open(repo.backend, unlocked=repo.unlocked, clock=repo.clock)


def damage(repo: repository.Repository, name: str, content: bytes | None) -> None:
    """Put `content`, or nothing, in the place of a blob."""
    blobs_of(repo).pop(name)
    if content is not None:
        blobs_of(repo)[name] = content


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]


@pytest.fixture
def repo(seed: int) -> repository.Repository:
    """One commit whose data pack has three segments."""
    made = repos.create()
    repos.commit(made, ("vm", repos.noise(seed, 5 * MIB // 2)))
    return made


# -- nothing to do -------------------------------------------------------------------------------


def _tree(root: pathlib.Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Inode, mode, time of the last change and content of everything."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.stat()
        content = b"" if path.is_dir() else path.read_bytes()
        found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.mark.parametrize("options", [repair.Options(), DRY, DATA], ids=["default", "dry run", "data"])
def test_r25_repair_noop_on_healthy(tmp_path: pathlib.Path, options: repair.Options, seed: int) -> None:
    """R25: in a healthy repository with a past not a byte, name or time changes, and nothing is reported."""
    root = tmp_path / "repository"
    place = past.build(local.LocalBackend.create(root))
    # Many small index objects, which a collection would merge.
    for number in range(9):
        past.commit(place.open(), {"vm": repos.noise(seed + number, 5000)}, "more")
    before = _tree(root)
    done = place.open().repair(options)
    assert _tree(root) == before
    assert (done.problems, done.actions, done.remaining, done.written_bytes) == ((), (), (), 0)


def test_unfinished_collection_is_no_damage(seed: int) -> None:
    """Packs that an interrupted collection condemned are not named again, and nothing is written."""
    place = past.build()
    repo = place.open()
    old = sorted(past.packs(place.backend))[:2]
    records = gcrecords.Records(place.backend, repo.seals)
    records.put(gcrecords.Record(1, gcrecords.CONDEMN, "2027-01-15T08:00:00Z", "host", packs=tuple(old)))
    before = dict(place.backend._blobs)  # type: ignore[attr-defined]
    assert place.open().repair().actions == ()
    assert place.backend._blobs == before  # type: ignore[attr-defined]


# -- packs ---------------------------------------------------------------------------------------


def test_repair_keeps_valid_items(repo: repository.Repository) -> None:
    """R26: of a pack with one damaged segment the others move as they are; the lost range is told; data heals it."""
    data = repos.restore(repo, "vm")
    name = largest(repo)
    damaged_blob = flipped(blobs_of(repo)[name], 3 * MIB // 2)
    damage(repo, name, damaged_blob)
    before = left.readable(reopen(repo))
    done = reopen(repo).repair()
    assert (done.segments_saved, done.segments_lost, done.packs_written) == (2, 1, 1)
    assert left.readable(reopen(repo)) == before
    assert aside_of(repo)[name] == damaged_blob
    [lost] = done.remaining
    commit = reopen(repo).resolve("vm")
    assert (lost.kind, lost.object) == ("disk", f"{commit.id[:12]}:vm")
    assert re.fullmatch(rf"{commit.id[:12]}:vm \d+\+\d+", lost.affected[0])
    again = repos.commit(reopen(repo), ("vm", data), allow_empty=True).commit.disk()
    # Only what was lost is stored again.
    assert 0 < again.new_bytes < MIB + MIB // 4
    assert repos.restore(reopen(repo), "vm~1") == data
    assert reopen(repo).repair().problems == ()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda blob: blob + b"junk", id="longer"),
        pytest.param(lambda blob: blob[:-20], id="shorter"),
        pytest.param(lambda blob: flipped(blob, -10), id="tail"),
        pytest.param(lambda blob: flipped(blob, -100), id="second table"),
        pytest.param(lambda blob: flipped(blob, 3), id="header"),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_packs_that_are_damaged_at_an_end(
    repo: repository.Repository, change: Callable[[bytes], bytes], indexed: bool, seed: int
) -> None:
    """R26: everything in them is saved, whether the index object is there or not."""
    data = repos.restore(repo, "vm")
    name = largest(repo)
    damage(repo, name, change(blobs_of(repo)[name]))
    if not indexed:
        damage(repo, next(name for name in blobs_of(repo) if name.startswith("index")), None)
    done = reopen(repo).repair()
    assert (done.segments_saved, done.segments_lost, done.remaining) == (3, 0, ())
    assert repos.restore(reopen(repo), "vm") == data
    assert reopen(repo).verify("data").problems == []


def test_packs_that_traded_places(seed: int) -> None:
    """R6, R26: what is under the name of another pack is saved all the same."""
    repo = repos.create()
    for number in range(2):
        repos.commit(repo, ("vm", repos.noise(seed + number, 300_000 + number)))
    one, two = sorted(blobs_of(repo), key=lambda name: -len(blobs_of(repo)[name]))[:2]
    blobs_of(repo)[one], blobs_of(repo)[two] = blobs_of(repo)[two], blobs_of(repo)[one]
    reopen(repo).repair()
    assert reopen(repo).verify("data").problems == []
    assert [len(repos.restore(reopen(repo), revision)) for revision in ("vm~1", "vm")] == [300_000, 300_001]


def test_a_segment_that_lies_about_one_slot(repo: repository.Repository, seed: int) -> None:
    """With --data the sound slots of a segment that was sealed wrong are sealed again; without, nothing is amiss."""
    store = repo.objects(repos.Collector())
    out = writer.Writer(repo.backend, repo.seals, reindex.empty_index())
    parts = [repos.noise(seed + number, 8192) for number in range(3)]
    ids = [store.seals.slot_id(segment.DATA, part) for part in parts]
    parts[1] = bytes(8192)
    sealer = repo.seals.sealer(level=3, verify=True, capacity=MIB)
    shape, stored = sealer.seal(segment.DATA, bytearray(b"".join(parts)), 3 * 8192, b"".join(ids))
    out.add(shape, stored, b"".join(ids), [8192] * 3)
    out.finish()
    assert reopen(repo).repair().actions == ()
    done = reopen(repo).repair(DATA)
    assert (done.segments_saved, len(aside_of(repo))) == (1, 2)
    found = reopen(repo).objects(repos.Collector())
    assert [found.chunk(item) is not None for item in ids] == [True, False, True]
    assert reopen(repo).repair(DATA).actions == ()


def test_what_another_pack_has_is_not_saved_again(repo: repository.Repository) -> None:
    """A segment counts as elsewhere only when the copy there can be read."""
    store = repo.objects(repos.Collector())
    name = largest(repo)
    number = next(item.number for item in store.index.packs() if pack.blob_name(item.name) == name)
    table = store.table(number)
    out = writer.Writer(repo.backend, repo.seals, reindex.empty_index())
    for at in range(2):
        offset, shape = table.shape(at)
        ids, _, lengths = table.slots(at)
        out.add(shape, memoryview(blobs_of(repo)[name][offset : offset + shape.stored_length]), ids, lengths.tolist())
    out.finish()
    damage(repo, name, flipped(blobs_of(repo)[name], 3))
    done = reopen(repo).repair()
    assert done.segments_saved == 1
    assert "2 stored elsewhere" in next(one.detail for one in done.actions if one.kind == "pack")
    assert reopen(repo).verify("data").problems == []


def test_a_copy_elsewhere_that_is_wrong(repo: repository.Repository, seed: int) -> None:
    """What only seems to be in another pack as well, sealed there with other bytes, is saved."""
    name = largest(repo)
    store = repo.objects(repos.Collector())
    number = next(item.number for item in store.index.packs() if pack.blob_name(item.name) == name)
    table, plain = store.read_segment(number, 1)
    ids, _, lengths = table.slots(1)
    out = writer.Writer(repo.backend, repo.seals, reindex.empty_index())
    sealer = repo.seals.sealer(level=3, verify=True, capacity=segment.MAX_PLAIN)
    shape, stored = sealer.seal(segment.DATA, bytearray(repos.noise(seed + 1, len(plain))), len(plain), ids)
    out.add(shape, stored, ids, lengths.tolist())
    out.finish()
    damage(repo, name, flipped(blobs_of(repo)[name], 3))
    assert reopen(repo).repair().segments_saved == 3
    found = reopen(repo).objects(repos.Collector())
    assert all(found.chunk(ids[at : at + 32]) is not None for at in range(0, len(ids), 32))


# -- the rest ------------------------------------------------------------------------------------


def test_r8_lost_index_objects(repo: repository.Repository) -> None:
    """R8, V7: packs that no index object names get one, and a damaged one is set aside."""
    repos.commit(repo, ("vm", b"more"))
    one, two = (name for name in blobs_of(repo) if name.startswith("index"))
    damage(repo, one, flipped(blobs_of(repo)[one], 60))
    damage(repo, two, None)
    done = reopen(repo).repair()
    assert [one.kind for one in done.actions] == ["index", "index"]
    assert list(aside_of(repo)) == [one]
    assert reopen(repo).repair().problems == ()
    watched = repo.backend
    assert isinstance(watched, memory.MemoryBackend)
    watched.calls.clear()
    assert repos.restore(reopen(repo), "vm") == b"more"


def test_what_a_later_version_wrote_stays(repo: repository.Repository) -> None:
    """R8, P-11: an index object and a pack of a later version are no damage; they stay, and are reported."""
    from blake3 import blake3

    from vimgvc.codec import aead

    def later(blob: bytes) -> bytes:
        body = blob[:7] + b"\x02" + blob[8:-32]
        return body + blake3(body).digest()

    index = later(repo.seals.seal(aead.INDEX, b"?"))
    table = later(repo.seals.seal(aead.TABLE, b"?"))
    packed = bytes(24) + table * 2 + len(table).to_bytes(4, "little")
    packed += (len(table) ^ 0xFFFFFFFF).to_bytes(4, "little") + b"vimgvcE\x01"
    name = blake3(packed).hexdigest()
    blobs_of(repo)[f"index/{blake3(index).hexdigest()}"] = index
    blobs_of(repo)[pack.blob_name(name)] = packed
    before = dict(blobs_of(repo))
    done = reopen(repo).repair()
    assert (done.actions, blobs_of(repo)) == ((), before)
    assert {one.kind for one in done.remaining} == {"pack", "index"}


def test_keys_and_config(repo: repository.Repository) -> None:
    """V8, V9: copies of key slots and the configuration come back; what was damaged is kept."""
    one, two = sorted(name for name in blobs_of(repo) if name.startswith("keys"))
    key, config = blobs_of(repo)[one], blobs_of(repo)["config"]
    for wrong in (None, b"?", flipped(key, 100)):
        damage(repo, two, wrong)
        damage(repo, "config", wrong)
        done = reopen(repo).repair()
        assert (blobs_of(repo)[two], blobs_of(repo)["config"]) == (key, config)
        assert done.remaining == ()
    assert sorted(aside_of(repo)) == ["config", "config.1", two, f"{two}.1"]


def test_without_a_key_slot_config_stays(repo: repository.Repository) -> None:
    """A directory with neither is no repository: then it is not moved, not even for a moment."""
    for name in [name for name in blobs_of(repo) if name.startswith("keys")]:
        damage(repo, name, None)
    damage(repo, "config", b"?")
    assert reopen(repo).repair().actions == ()
    assert blobs_of(repo)["config"] == b"?"


def test_r12_r13_commits_and_ref_entries_stay(repo: repository.Repository) -> None:
    """R12, R13: damaged ones are reported and left; nothing more would restore, and a log that got shorter lies."""
    for number in range(2):
        repos.commit(repo, ("vm", b"%d" % number))
    commit = repo.resolve("vm~1").id
    damage(repo, f"commits/{commit}", flipped(blobs_of(repo)[f"commits/{commit}"], 60))
    ref = sorted(name for name in blobs_of(repo) if name.startswith("refs"))[1]
    damage(repo, ref, flipped(blobs_of(repo)[ref], 60))
    before = dict(blobs_of(repo))
    done = reopen(repo).repair()
    assert (done.actions, blobs_of(repo)) == ((), before)
    assert {one.kind for one in done.remaining} == {"commit", "ref"}
    assert repos.restore(reopen(repo), "vm") == b"1"


def test_quarantine_is_not_looked_at(tmp_path: pathlib.Path, seed: int) -> None:
    """Verify, commits and collections work as ever beside what was set aside."""
    root = tmp_path / "repository"
    place = past.build(local.LocalBackend.create(root))
    [name, *_] = sorted(str(path.relative_to(root)) for path in (root / "index").iterdir())
    os.chmod(root / name, 0o600)
    (root / name).write_bytes(b"?")
    place.open().repair()
    assert (root / "quarantine" / name).read_bytes() == b"?"
    past.check(place)
    past.commit(place.open(), {"vm": repos.noise(seed, 9000)}, "vm")
    place.open().collect(past.FORCE)
    past.check(place)
    assert (root / "quarantine" / name).read_bytes() == b"?"


# -- refusing ------------------------------------------------------------------------------------


def test_k9_repair_needs_the_place_alone(tmp_path: pathlib.Path) -> None:
    """K9: while somebody writes it is busy; a dry run is not."""
    place = past.build(local.LocalBackend.create(tmp_path / "repository"))
    with local.LocalBackend.open(tmp_path / "repository").lock_shared():
        with pytest.raises(errors.Busy):
            place.open().repair()
        assert place.open().repair(DRY).actions == ()


@pytest.mark.parametrize("kind", ["EACCES", "EIO"])
def test_what_cannot_be_read_for_now(repo: repository.Repository, kind: str) -> None:
    """A pack that may not be read is not damaged: nothing is moved. A bad sector is damage."""
    name = largest(repo)

    class Place(memory.MemoryBackend):
        def get(self, wanted: str, offset: int = 0, length: int | None = None) -> bytes:
            if wanted == name and offset < 100:
                raise errors.BackendError(wanted, kind, "no")
            return super().get(wanted, offset, length)

    place = Place()
    place._blobs = dict(blobs_of(repo))
    opened = repository.Repository.open(place, unlocked=repo.unlocked)
    if kind == "EIO":
        assert opened.repair().segments_saved == 2
        return
    with pytest.raises(errors.BackendError):
        opened.repair()
    assert (place._blobs, place.aside) == (blobs_of(repo), {})


def test_full_disk(repo: repository.Repository) -> None:
    """Without room for what is to be saved nothing is set aside, and what restored restores."""
    name = largest(repo)
    damage(repo, name, flipped(blobs_of(repo)[name], 3 * MIB // 2))
    before = left.readable(reopen(repo))
    place = hooked.Room(blobs_of(repo), MIB, errors.NoSpace)
    opened = repository.Repository.open(place, unlocked=repo.unlocked)
    with pytest.raises(errors.NoSpace):
        opened.repair()
    assert place.aside == {}
    assert left.readable(repository.Repository.open(place, unlocked=repo.unlocked)) >= before


@pytest.mark.slow
def test_k9_verify_during_writes() -> None:
    """K9: commits and a branch made at any moment of a verification never look like damage."""
    place = past.build()
    blobs = hooked.blobs(place)

    def run(at: int) -> tuple[int, list[object]]:
        backend = hooked.Hooked(blobs)

        def write(number: int, _operation: str, _name: str) -> None:
            if number == at:
                other = place.open(backend)
                for size in (70_000, 80_000):
                    past.commit(other, {"vm": repos.noise(size, size)}, "vm")
                past.commit(other, {"vm": repos.noise(9, 9000)}, "new")

        backend._hook = write
        return backend.count, list(place.open(backend).verify("default").problems)

    backend = hooked.Hooked(blobs, lambda *_: None)
    place.open(backend).verify("default")
    assert backend.count > 50
    for at in range(backend.count):
        assert run(at)[1] == [], f"at operation {at}"
