"""Copying between disks, comparing a disk with a commit, and parallel work in order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests import repos
from tests.suites import reader as suite
from vimgvc import errors, monitor
from vimgvc.disk import extents, memory
from vimgvc.model import geometry
from vimgvc.pipeline import copy, ordered, windows
from vimgvc.repo import disk

BLOCK, WINDOW = geometry.BLOCK, geometry.WINDOW
SIZES = [0, 1, BLOCK, WINDOW, WINDOW + 12_345, 2 * WINDOW - 1]


class WatchedDisk(memory.MemoryDisk):
    """Remembers what was read and written; may have been filled before."""

    was_filled = False

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.zeroed: list[tuple[int, int]] = []

    @property
    def resumed(self) -> bool:
        return self.was_filled

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, len(buffer)))
        super().pread_into(offset, buffer)

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.writes.append((offset, len(data)))
        super().pwrite(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.zeroed.append((offset, length))
        super().zero(offset, length)


def _source(size: int, seed: int) -> WatchedDisk:
    """Random data, written zeros and holes."""
    sample = suite.make_sample(size, seed)
    return WatchedDisk.of(sample.content, extents.cover(sample.holes, 0, size, extents.Kind.DATA))  # type: ignore[return-value]


def _copy(source: memory.MemoryDisk, target: memory.MemoryDisk, grid: int = BLOCK) -> int:
    return copy.copy(source, target, monitor.NullMonitor(), 2, grid=grid)


@pytest.mark.parametrize("grid", [BLOCK, 65536, 2 << 20])
@pytest.mark.parametrize("size", SIZES)
def test_copy_is_equal(size: int, grid: int, seed: int) -> None:
    """Every byte arrives; holes are not read, and no cell of zeros is written, nor a part of a cell."""
    source, target = _source(size, seed), WatchedDisk(size)
    written = _copy(source, target, grid=grid)
    assert target.content() == source.content()
    assert written == sum(length for _, length in target.writes)
    assert not target.zeroed
    assert not target.reads
    content = source.content()
    for offset, length in target.writes:
        assert offset % grid == 0
        assert (offset + length) % grid == 0 or offset + length == size
        for at in range(offset, offset + length, grid):
            assert content[at : at + grid].strip(b"\0")
    allowed = list(extents.align(suite.make_sample(size, seed).data(), grid, size))
    for offset, length in source.reads:
        assert sum(item.length for item in extents.clip(allowed, offset, length)) == length


def test_copy_of_zeros_inside_data(seed: int) -> None:
    """Single blocks of zeros inside data are found, also those that are zeros only where a sample looks."""
    content = bytearray(repos.noise(seed, WINDOW))
    content[3 * BLOCK : 4 * BLOCK] = bytes(BLOCK)
    content[9 * BLOCK : 10 * BLOCK] = bytes(BLOCK)
    content[9 * BLOCK + 17] = 1
    target = WatchedDisk(WINDOW)
    _copy(memory.MemoryDisk.of(bytes(content)), target)
    assert target.content() == bytes(content)
    assert target.writes == [(0, 3 * BLOCK), (4 * BLOCK, WINDOW - 4 * BLOCK)]


@pytest.mark.parametrize("size", SIZES)
def test_resumed_target_is_compared(size: int, seed: int) -> None:
    """What an earlier attempt left is kept where it is right and replaced where it is not, to the last byte."""
    source, target = _source(size, seed), WatchedDisk(size + 9000)
    rng = np.random.default_rng(seed)
    before = bytearray(source.content() + b"rest")
    for start in range(0, size, BLOCK):
        if rng.integers(3) == 0:
            before[start : start + BLOCK] = rng.bytes(len(before[start : start + BLOCK]))
    target.pwrite(0, memoryview(before))
    target.was_filled = True
    _copy(source, target)
    assert target.content() == source.content() + bytes(9000)
    target.writes.clear()
    assert _copy(source, target) == 0
    assert target.writes == []


def test_pieces_only(seed: int) -> None:
    """Only the pieces are touched, and what is zeros in them is zeroed over what lies below."""
    size = 3 * WINDOW
    source = _source(size, seed)
    below = repos.noise(seed + 1, size)
    target = WatchedDisk.of(below)
    target._open = True
    kinds = [extents.Kind.DATA, extents.Kind.ZERO]
    pieces = [
        extents.Extent(start * 10 * BLOCK, 5 * BLOCK, kinds[start % 2]) for start in range(1, size // BLOCK // 10)
    ]
    for piece in pieces:
        if piece.kind is extents.Kind.ZERO:
            source._open = True
            source.zero(piece.start, piece.length)
    copy.copy(source, target, monitor.NullMonitor(), 2, pieces)
    expected = bytearray(below)
    for piece in pieces:
        expected[piece.start : piece.end] = source.content()[piece.start : piece.end]
    assert target.content() == bytes(expected)


class TestOrdered:
    def test_order_and_bound(self, seed: int) -> None:
        """Results come in order, each item is worked on once, and no more than 2·threads are ahead."""
        taken = itertools.count()
        state = {"taken": 0}

        def items() -> Iterator[int]:
            for number in itertools.islice(taken, 50):
                state["taken"] = number + 1
                yield number

        for at, result in enumerate(ordered.ordered(items(), lambda item: item * item, 3)):
            assert result == at * at
            assert state["taken"] - at <= 6
        assert state["taken"] == 50

    def test_works_in_parallel(self) -> None:
        """Several items are worked on at the same time, by threads that are gone afterwards."""
        before = set(threading.enumerate())
        together = threading.Barrier(3, timeout=30)
        assert list(ordered.ordered(iter(range(6)), lambda _: together.wait() >= 0, 3)) == [True] * 6
        assert set(threading.enumerate()) == before

    def test_first_failure_wins(self) -> None:
        """The first failing item in the order is raised after the results before it, whoever fails earlier in time."""
        later = threading.Event()

        def work(item: int) -> int:
            if item == 2:
                assert later.wait(30)
                raise errors.NotFound("item", "2")
            if item == 3:
                later.set()
                raise errors.NotFound("item", "3")
            return item

        before = set(threading.enumerate())
        results: list[int] = []
        with pytest.raises(errors.NotFound, match="item not found: 2"):
            results.extend(ordered.ordered(iter(range(100)), work, 4))
        assert set(threading.enumerate()) == before

    def test_failing_items(self) -> None:
        """A failure of the source of items is raised, and the threads end."""

        def items() -> Iterator[int]:
            yield 1
            raise errors.NotFound("item", "next")

        before = set(threading.enumerate())
        with pytest.raises(errors.NotFound, match="next"):
            list(ordered.ordered(items(), lambda item: item, 2))
        assert set(threading.enumerate()) == before

    def test_closing_ends_it(self) -> None:
        """Closed after its first result it begins nothing new and leaves no thread."""
        before = set(threading.enumerate())
        begun: list[int] = []

        def work(item: int) -> int:
            begun.append(item)
            return item

        results = ordered.ordered(iter(range(1000)), work, 2)
        assert next(results) == 0
        results.close()
        assert set(threading.enumerate()) == before
        assert len(begun) <= 5


class TestMatches:
    def _stored(self, content: bytes) -> disk.StoredDisk:
        repo = repos.create()
        repos.commit(repo, ("vm", content))
        return repo.open_disk(repo.resolve("vm").disk())

    @pytest.mark.parametrize("size", SIZES)
    def test_equal_disk(self, size: int, seed: int) -> None:
        """A disk equals its commit, also when it is larger by zeros; its holes are not read."""
        source = _source(size, seed)
        stored = self._stored(source.content())
        for extra in (0, 1, 5000, 2 * WINDOW):
            larger = _larger(source, extra)
            stored.matches(larger, monitor.NullMonitor(), 2)
            allowed = list(larger.extents(0, larger.size))
            for offset, length in larger.reads:
                [part] = extents.clip(allowed, offset, length)
                assert part.kind is extents.Kind.DATA

    def test_any_changed_byte_is_found(self, seed: int) -> None:
        """One changed byte anywhere, in data, zeros, holes or behind the end, is found, and its range named."""
        size = 2 * WINDOW + 12_345
        source = _source(size, seed)
        stored = self._stored(source.content())
        rng = np.random.default_rng(seed)
        for at in [0, size - 1, size, size + 3000, size + WINDOW, *rng.integers(0, size, 40).tolist()]:
            changed = _larger(source, WINDOW + 1)
            changed.pwrite(at, memoryview(bytes([(changed.content()[at] + 1) % 256])))
            with pytest.raises(errors.IntegrityError, match="not what was committed") as caught:
                stored.matches(changed, monitor.NullMonitor(), 2)
            length, offset = (int(word) for word in caught.value.where.split(" bytes at "))
            assert offset <= at < offset + length <= changed.size

    def test_first_difference_is_named(self, seed: int) -> None:
        """Of several differences the first on the disk is named."""
        content = repos.noise(seed, 6 * WINDOW)
        stored = self._stored(content)
        changed = WatchedDisk.of(content)
        changed._open = True
        for window in (5, 3, 4):
            changed.pwrite(window * WINDOW + 100, memoryview(b"other"))
        with pytest.raises(errors.IntegrityError, match=rf"bytes at {3 * WINDOW}"):
            stored.matches(changed, monitor.NullMonitor(), 3)

    def test_shorter_disk(self, seed: int) -> None:
        """A disk that lacks its end is another one, even if that is zeros."""
        content = repos.noise(seed, 9000) + bytes(9000)
        stored = self._stored(content)
        with pytest.raises(errors.IntegrityError, match="has 17999 bytes and not 18000"):
            stored.matches(memory.MemoryDisk.of(content[:-1]), monitor.NullMonitor())


def _larger(source: memory.MemoryDisk, extra: int) -> WatchedDisk:
    """A copy of a disk with a hole behind it."""
    size = source.size + extra
    kinds = extents.cover(source.extents(0, source.size), 0, size, extents.Kind.HOLE)
    larger = WatchedDisk.of(source.content() + bytes(extra), kinds)
    larger._open = True
    assert isinstance(larger, WatchedDisk)
    return larger


def test_pair_is_the_union() -> None:
    """Both streams come out, ascending, joined where their numbers are equal."""
    left = [(1, "a"), (4, "b"), (9, "c")]
    right = [(0, 1.0), (4, 2.0), (5, 3.0)]
    expected = [(0, None, 1.0), (1, "a", None), (4, "b", 2.0), (5, None, 3.0), (9, "c", None)]
    assert list(windows.pair(iter(left), iter(right))) == expected
    assert list(windows.pair(iter(left), iter([]))) == [(*item, None) for item in left]
