"""A disk of a commit read anywhere."""

from __future__ import annotations

import concurrent.futures
import pathlib
import threading

import numpy as np
import pytest

from tests import repos
from tests.damage import damaged
from tests.suites import reader
from vimgvc import errors, monitor
from vimgvc.backends import memory
from vimgvc.codec import segment
from vimgvc.disk import extents, protocol
from vimgvc.disk import memory as disk_memory
from vimgvc.model import geometry
from vimgvc.pipeline import ingest, materialize, random_access, tree
from vimgvc.repo import disk, repository
from vimgvc.store import objects, pack

BLOCK, WINDOW = geometry.BLOCK, geometry.WINDOW


def _stored(repo: repository.Repository, revision: str = "vm", *, survive: bool = False) -> disk.StoredDisk:
    return repo.open_disk(repo.resolve(revision).disk(), survive=survive)


def _places(repo: repository.Repository) -> list[tuple[int, int, int, int]]:
    """(offset, length, pack, segment) of every chunk of the disk `vm`."""
    store = repo.objects(repos.Collector())
    source = tree.Tree(store, bytes.fromhex(repo.resolve("vm").disk().manifest))
    found = []
    for span in materialize.references(source):
        places = store.index.lookup(span.ids)
        columns = (span.offsets, span.lengths, places.pack, places.segment)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    return found


def _blobs(repo: repository.Repository) -> dict[str, bytes]:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend._blobs


def _largest(repo: repository.Repository) -> str:
    return max(_blobs(repo), key=lambda name: len(_blobs(repo)[name]))


def _damage_segment(repo: repository.Repository, number: int, segment_number: int) -> repository.Repository:
    """The repository with a bit of one segment changed."""
    store = repo.objects(repos.Collector())
    offset, _ = store.table(number).shape(segment_number)
    name = f"packs/{store.index.pack(number).name[:2]}/{store.index.pack(number).name}"
    return damaged.open_repository(damaged.flip(_blobs(repo), name, offset + 20), repo.unlocked)


class TestStoredReader(reader.ReaderSuite):
    hole_grid = BLOCK

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        repo = repos.create()
        repos.commit(repo, ("vm", sample.content))
        return _stored(repos.reopen(repo)).reader(2)


class TestCrowdedReader(TestStoredReader):
    """With a cache that keeps nothing, two windows, and chunks of several commits."""

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        repo = repos.create()
        other = bytearray(sample.content)
        other[1000:9000] = bytes(len(other[1000:9000]))
        repos.commit(repo, ("vm", bytes(other)))
        repos.commit(repo, ("vm", sample.content))
        found = _stored(repos.reopen(repo)).reader(2)
        assert isinstance(found, random_access.StoredReader)
        found._segments = random_access.Cache(1, len)
        found._windows = random_access.Cache(2, lambda _: 1)
        return found


def test_extents_read_no_data(seed: int) -> None:
    """Extents come from the manifest: no pack of data is opened, and zero blocks are holes."""
    repo = repos.create()
    data = repos.noise(seed, 5 * BLOCK) + bytes(WINDOW) + repos.noise(seed + 1, 2 * BLOCK + 7)
    repos.commit(repo, ("vm", data))
    broken = _stored(damaged.open_repository(damaged.replace(_blobs(repo), _largest(repo), None), repo.unlocked))
    kinds = [(item.start, item.length, item.kind) for item in broken.extents(0, len(data))]
    tail = 5 * BLOCK + WINDOW
    assert kinds == [
        (0, 5 * BLOCK, extents.Kind.DATA),
        (5 * BLOCK, WINDOW, extents.Kind.HOLE),
        (tail, 2 * BLOCK + 7, extents.Kind.DATA),
    ]
    [part] = broken.extents(tail - 1, 1)
    assert part == extents.Extent(tail - 1, 1, extents.Kind.HOLE)


def test_damage_fails_exactly_the_reads_that_touch_it(seed: int) -> None:
    """With one segment damaged, reads fail if and only if they touch one of its chunks, and no read is wrong."""
    repo = repos.create()
    data = repos.text(seed, 3 << 20) + bytes(1 << 20) + repos.text(seed + 1, 2 << 20)
    repos.commit(repo, ("vm", data))
    places = _places(repo)
    *_, number, chosen = places[len(places) // 2]
    lost = [(offset, offset + length) for offset, length, *place in places if place == [number, chosen]]
    assert 0 < len(lost) < len(places)
    stored = _stored(_damage_segment(repo, number, chosen)).reader()
    edges = [(first - 9, 9) for first, _ in lost if first] + [(last, 9) for _, last in lost if last + 9 <= len(data)]
    edges += [(first, 1) for first, _ in lost] + [(last - 1, 1) for _, last in lost]
    for offset, length in [*reader.ranges(len(data), seed, 300), *edges]:
        touches = any(offset < last and offset + length > first for first, last in lost) and length > 0
        if touches:
            with pytest.raises(errors.IntegrityError, match="at byte"):
                reader.read(stored.pread_into, offset, length)
        else:
            assert reader.read(stored.pread_into, offset, length) == data[offset : offset + length]


def test_chunk_with_other_content_is_not_returned(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A slot whose bytes do not hash to its identifier is refused, although its segment opens."""
    data = repos.noise(seed, 8 * BLOCK)
    repo = repos.create()
    with monkeypatch.context() as patch:
        patch.setattr(ingest._Accumulator, "add", _wrong_add)
        repos.commit(repo, ("vm", data))
    with pytest.raises(errors.IntegrityError, match="is damaged"):
        reader.read(_stored(repo).reader().pread_into, 100, 1)


_right_add = ingest._Accumulator.add


def _wrong_add(self: ingest._Accumulator, data: memoryview | bytes, item_id: bytes) -> None:
    """Stores other bytes than the identifier says, but leaves manifest nodes alone."""
    changed = bytes(data) if len(data) % BLOCK else bytes(len(data))
    _right_add(self, changed, item_id)


def test_other_copies_are_used(seed: int) -> None:
    """A chunk that is in two packs is read from the sound one, whichever of them is damaged."""
    place = memory.MemoryBackend()
    repo = repos.create(place)
    data = repos.noise(seed, 300_000)
    twin = repository.Repository.open(damaged.backend(_blobs(repo)), unlocked=repo.unlocked, clock=repo.clock)
    repos.commit(repo, ("vm", data))
    repos.commit(twin, ("vm", data))
    both = damaged.open_repository({**_blobs(twin), **_blobs(repo)}, repo.unlocked)
    packs = [item for item in both.objects(repos.Collector()).index.packs() if item.kind == segment.DATA]
    assert len(packs) == 2
    for item in packs:
        name = f"packs/{item.name[:2]}/{item.name}"
        broken = damaged.open_repository(damaged.flip(_blobs(both), name, 1000), repo.unlocked)
        assert reader.read(_stored(broken).reader().pread_into, 0, len(data)) == data
    alone = damaged.open_repository(damaged.flip(_blobs(repo), _largest(repo), 1000), repo.unlocked)
    with pytest.raises(errors.IntegrityError):
        reader.read(_stored(alone).reader().pread_into, 0, len(data))


def test_salvage_never_reads_as_zeros(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A reader of a disk that is opened to survive losses refuses what is lost instead of showing zeros."""
    monkeypatch.setattr(ingest, "TREE_SEGMENT_SIZE", 1)
    repo = repos.create()
    data = repos.noise(seed, BLOCK) + bytes(WINDOW - BLOCK) + repos.noise(seed, 2 * BLOCK)
    repos.commit(repo, ("vm", data))
    store = repo.objects(repos.Collector())
    first, second = tree.Tree(store, bytes.fromhex(repo.resolve("vm").disk().manifest)).windows()
    [place] = store.index.lookup_all(first.leaf_id)
    stored = _stored(_damage_segment(repo, place.pack, place.segment), survive=True)
    found = stored.reader()
    for read in (lambda: reader.read(found.pread_into, 0, 1), lambda: list(stored.extents(0, 1))):
        with pytest.raises(errors.IntegrityError):
            read()
    at = second.number * WINDOW
    assert reader.read(found.pread_into, at, 100) == data[at : at + 100]
    assert [item.kind for item in stored.extents(at, 100)] == [extents.Kind.DATA]


class TestCache:
    def test_is_bounded(self, seed: int) -> None:
        """What is kept never exceeds the capacity, the last used stays, and a value larger than all is not kept."""
        rng = np.random.default_rng(seed)
        cache: random_access.Cache[int, bytes] = random_access.Cache(100, len)
        for key in rng.integers(0, 30, 500).tolist():
            assert cache.get(key, bytes) == bytes(key)
            assert cache._size == sum(slot.size for slot in cache._slots.values()) <= 100
            assert key in cache._slots
        cache.get(101, bytes)
        assert 101 not in cache._slots

    def test_loads_once_for_all_threads(self) -> None:
        """Threads that want the same at once get what one of them loaded."""
        loaded: list[int] = []
        arrived = threading.Barrier(4)
        cache: random_access.Cache[int, str] = random_access.Cache(10, len)

        def load(key: int) -> str:
            loaded.append(key)
            return str(key)

        def work(_: int) -> str:
            arrived.wait()
            return cache.get(7, load)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(work, range(4))) == ["7"] * 4
        assert loaded == [7]

    def test_failure_is_not_kept(self) -> None:
        """After a load that failed the next one is tried again."""
        cache: random_access.Cache[int, str] = random_access.Cache(10, len)
        with pytest.raises(ZeroDivisionError):
            cache.get(1, lambda key: str(key / 0))
        assert cache.get(1, str) == "1"
        assert not set(cache._slots) - {1}


def test_threads_side_by_side_open_different_segments(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A thread that wants a segment which another one is just opening opens the next one meanwhile."""
    repo = repos.create()
    data = repos.noise(seed, 4 << 20)
    repos.commit(repo, ("vm", data), threads=1)
    (first, second, *_) = dict.fromkeys((number, item) for _, _, number, item in _places(repo))
    found = _stored(repo).reader(2)
    first_begun, second_begun = threading.Event(), threading.Event()
    read_segment = objects.Objects.read_segment

    def watched(self: objects.Objects, number: int, item: int) -> tuple[pack.Table, bytes]:
        if (number, item) == first:
            first_begun.set()
            assert second_begun.wait(60)
        if (number, item) == second:
            second_begun.set()
        return read_segment(self, number, item)

    monkeypatch.setattr(objects.Objects, "read_segment", watched)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        one = pool.submit(reader.read, found.pread_into, 0, 100)
        assert first_begun.wait(60)
        two = pool.submit(reader.read, found.pread_into, 50, 100)
        assert (one.result(), two.result()) == (data[:100], data[50:150])


def test_check_runs_before_the_name(seed: int) -> None:
    """The check of a restore sees everything written and nothing finished; when it raises the target is aborted."""
    repo = repos.create()
    data = repos.noise(seed, 50_000)
    repos.commit(repo, ("vm", data))
    target = disk_memory.MemoryDisk(len(data))
    seen: list[tuple[bytes, bool]] = []
    _stored(repo).restore(target, monitor.NullMonitor(), check=lambda: seen.append((target.content(), target.finished)))
    assert seen == [(data, False)]
    assert target.finished

    def refuse() -> None:
        raise errors.IntegrityError("target", "is another one")

    refused = disk_memory.MemoryDisk(len(data))
    with pytest.raises(errors.IntegrityError, match="another one"):
        _stored(repo).restore(refused, monitor.NullMonitor(), check=refuse)
    assert not refused.finished
