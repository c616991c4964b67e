"""A target that holds one state becomes another one by what differs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests import repos
from tests.damage import damaged
from vimgvc import errors, monitor
from vimgvc.backends import memory
from vimgvc.disk import extents
from vimgvc.disk import memory as disk_memory
from vimgvc.model import geometry
from vimgvc.pipeline import in_place, tree
from vimgvc.repo import disk, repository

BLOCK, WINDOW = geometry.BLOCK, geometry.WINDOW


class Target(disk_memory.MemoryDisk):
    """A disk in memory that holds something, and remembers what was done to it."""

    def __init__(self, content: bytes, size: int, *, holes: bool = False) -> None:
        super().__init__(size)
        there = content[:size]
        self._bytes[: len(there)] = there
        kind = extents.Kind.HOLE if holes and not any(there) else extents.Kind.DATA
        self._extents = [extents.Extent(0, size, kind)] if size else []
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.zeros: list[tuple[int, int]] = []

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, buffer.nbytes))
        super().pread_into(offset, buffer)

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.writes.append((offset, data.nbytes))
        super().pwrite(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.zeros.append((offset, length))
        super().zero(offset, length)


def _states(seed: int, size: int) -> Iterator[bytes]:
    """A disk as it changes: data, zeros where data was, data where zeros were."""
    rng = np.random.default_rng(seed)
    state = bytearray(repos.text(seed, size))
    state[size // 3 : size // 2] = bytes(size // 2 - size // 3)
    for number in range(4):
        yield bytes(state)
        for _ in range(5):
            at, length = int(rng.integers(size)), int(rng.integers(1, 40 * BLOCK))
            part = state[at : at + length]
            state[at : at + length] = bytes(len(part)) if rng.integers(2) else repos.noise(seed + number, len(part))


def _stored(repo: repository.Repository, content: bytes) -> disk.StoredDisk:
    return repo.open_disk(repos.commit(repo, ("vm", content), allow_empty=True).commit.disk())


def _rewrite(source: disk.StoredDisk, target: Target, base: disk.StoredDisk | None = None) -> disk.Rewritten:
    return source.rewrite(target, monitor.NullMonitor(), 2, base=base)


@pytest.mark.parametrize("size", [1, BLOCK + 1, WINDOW + 12_345, 3 * WINDOW])
@pytest.mark.parametrize("is_known", [True, False])
def test_any_state_becomes_any_other(size: int, is_known: bool, seed: int) -> None:
    """From each state of a disk to each other one, known or compared, the result is the disk, to the byte."""
    repo = repos.create(average=16384)
    states = list(_states(seed, size))
    stored = [_stored(repo, state) for state in states]
    for before, content in zip(stored, states, strict=True):
        for after, wanted in zip(stored, states, strict=True):
            target = Target(content, size)
            _rewrite(after, target, before if is_known else None)
            assert target.content() == wanted
            assert target.finished


@pytest.mark.parametrize(("old", "new"), [(5000, 2 * WINDOW + 5000), (2 * WINDOW + 5000, 5000), (0, 9000), (9000, 0)])
@pytest.mark.parametrize("is_known", [True, False])
def test_sizes_that_differ(old: int, new: int, is_known: bool, seed: int) -> None:
    """A disk that grew or shrank: the target has its size already, and zeros where the old one had nothing."""
    repo = repos.create()
    longer = repos.noise(seed, max(old, new))
    before, after = _stored(repo, longer[:old]), _stored(repo, longer[:new])
    target = Target(longer[:old], new)
    _rewrite(after, target, before if is_known else None)
    assert target.content() == longer[:new]


def test_a_known_base_is_not_read(seed: int) -> None:
    """With the base known nothing of the target is read, and only chunks and blocks that differ are touched."""
    repo = repos.create()
    old = bytearray(repos.noise(seed, 4 * WINDOW))
    before = _stored(repo, bytes(old))
    old[WINDOW : WINDOW + BLOCK] = repos.noise(seed + 1, BLOCK)
    old[3 * WINDOW : 3 * WINDOW + 512 * 1024] = bytes(512 * 1024)
    after = _stored(repo, bytes(old))
    # A target that does not hold the base shows that nothing else is looked at or repaired.
    target = Target(bytes(len(old)), len(old))
    done = _rewrite(after, target, before)
    assert target.reads == []
    assert done.compared == 0
    assert done.written == sum(length for _, length in target.writes) < WINDOW
    assert done.zeroed == sum(length for _, length in target.zeros) >= 512 * 1024 - 2 * BLOCK
    touched = sorted([*target.writes, *target.zeros])
    told = list(after.changed_since(before))
    assert sum(length for _, length in touched) == sum(item.length for item in told)
    assert all(any(item.start <= at and at + length <= item.end for item in told) for at, length in touched)


def test_comparing_reads_everything_and_writes_what_differs(seed: int) -> None:
    """Compared, an equal target is not written to; one wrong bit costs one chunk; stored data is read for it only."""
    repo = repos.create()
    content = bytearray(repos.noise(seed, 3 * WINDOW) + bytes(WINDOW))
    stored = _stored(repo, bytes(content))
    equal = Target(bytes(content), len(content))
    done = _rewrite(stored, equal)
    assert (equal.writes, equal.zeros, done.written, done.zeroed) == ([], [], 0, 0)
    assert done.compared == len(content)
    wrong = bytearray(content)
    wrong[WINDOW + 5] ^= 1
    wrong[3 * WINDOW + 9] = 1
    target = Target(bytes(wrong), len(content))
    done = _rewrite(stored, target)
    assert target.content() == content
    assert len(target.writes) == 1
    assert 0 < done.written <= 256 * 1024
    assert target.zeros == [(3 * WINDOW, WINDOW)]


def test_holes_of_the_target_are_not_read(seed: int) -> None:
    """What the target says to be a hole is zeros: it is not read, and written where the disk has data."""
    repo = repos.create()
    content = bytes(2 * WINDOW) + repos.noise(seed, 100_000)
    target = Target(bytes(len(content)), len(content), holes=True)
    done = _rewrite(_stored(repo, content), target)
    assert (target.reads, done.compared) == ([], 0)
    assert target.content() == content


@pytest.mark.parametrize("portion", [1, 3, 1000])
def test_portions(portion: int, seed: int) -> None:
    """However small the portions are that changes are done in, the result is the disk."""
    repo = repos.create(average=16384)
    old, new = list(_states(seed, WINDOW + 5000))[:2]
    before, after = _stored(repo, old), _stored(repo, new)
    store = repo.objects(monitor.NullMonitor())
    trees = [tree.Tree(store, bytes.fromhex(found)) for found in _manifests(repo)]
    for base in (trees[0], None):
        target = Target(old, len(new))
        if base is None:
            in_place.compared(store, trees[1], target, threads=2, monitor=monitor.NullMonitor(), span_chunks=portion)
        else:
            in_place.from_base(
                store, trees[1], base, target, threads=2, monitor=monitor.NullMonitor(), span_chunks=portion
            )
        assert target.content() == new
    assert before.size == after.size


def _manifests(repo: repository.Repository) -> list[str]:
    return [commit.disk().manifest for commit in repo.history("vm")][::-1]


def _packs(repo: repository.Repository) -> frozenset[str]:
    """Those of data."""
    return frozenset(item.name for item in repo.objects(monitor.NullMonitor()).index.packs() if item.kind == 1)


def _without_data(
    repo: repository.Repository, backend: memory.MemoryBackend, kept: frozenset[str] = frozenset()
) -> repository.Repository:
    """The same repository without the packs of data but those `kept`."""
    lost = _packs(repo) - kept
    blobs = {name: blob for name, blob in backend._blobs.items() if not any(pack in name for pack in lost)}
    return damaged.open_repository(blobs, repo.unlocked, repos.Collector())


@pytest.mark.parametrize("is_known", [True, False])
def test_x6_lost_data_is_told_before_anything_is_written(is_known: bool, seed: int) -> None:
    """Row X6: where chunks are nowhere, a target is not begun to be written to; what it has itself is not needed."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    old = repos.noise(seed, WINDOW)
    new = repos.noise(seed + 1, BLOCK) + old[BLOCK : WINDOW // 2] + bytes(WINDOW // 2)
    facts = [repos.commit(repo, ("vm", content)).commit.disk() for content in (old, new)]
    lost = _without_data(repo, backend)
    before, after = lost.open_disk(facts[0]), lost.open_disk(facts[1])
    target = Target(old, len(old))
    with pytest.raises(errors.IntegrityError, match="is missing"):
        _rewrite(after, target, before if is_known else None)
    assert (target.writes, target.zeros, target.finished) == ([], [], False)
    whole = Target(new, len(new))
    _rewrite(after, whole)
    assert whole.content() == new


def test_x6_a_known_target_is_not_begun_where_anything_is_lost(seed: int) -> None:
    """Row X6: with the base known that holds of the whole disk, however small the portions are."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    old = bytes(6 * WINDOW)
    middle = repos.noise(seed, WINDOW) + old[WINDOW:]
    new = middle[: 5 * WINDOW] + repos.noise(seed + 1, WINDOW)
    facts = [repos.commit(repo, ("vm", content)).commit.disk() for content in (old, middle)]
    kept = _packs(repo)
    facts.append(repos.commit(repo, ("vm", new)).commit.disk())
    lost = _without_data(repo, backend, kept)
    store = lost.objects(monitor.NullMonitor())
    base, source = (tree.Tree(store, bytes.fromhex(facts[at].manifest)) for at in (0, 2))
    target = Target(old, len(old))
    with pytest.raises(errors.IntegrityError, match="is missing"):
        in_place.from_base(store, source, base, target, threads=1, monitor=monitor.NullMonitor(), span_chunks=1)
    assert (target.writes, target.zeros) == ([], [])


class _Breaks(Target):
    """A target whose write number `at` fails."""

    at = 0

    def pwrite(self, offset: int, data: memoryview) -> None:
        if len(self.writes) >= self.at:
            raise errors.NoSpace("the target is full")
        super().pwrite(offset, data)


def test_x4_what_broke_in_the_middle_is_made_whole(seed: int) -> None:
    """Row X4: after a failed write at any place the target is aborted; comparing makes any mixture whole."""
    repo = repos.create(average=16384)
    old = repos.noise(seed, WINDOW)
    changed = bytearray(old)
    for offset in range(0, WINDOW, WINDOW // 8):
        changed[offset] ^= 1
    new = bytes(changed)
    before, after = _stored(repo, old), _stored(repo, new)
    for at in (0, 1, 5):
        target = _Breaks(old, len(old))
        target.at = at
        with pytest.raises(errors.NoSpace):
            _rewrite(after, target, before)
        assert not target.finished
        again = Target(target.content(), len(old))
        _rewrite(after, again)
        assert again.content() == new
