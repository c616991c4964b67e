"""Reader to Target, without a repository between them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vimgvc.disk import extents, protocol, room
from vimgvc.model import geometry
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, windows

#: One of so many words is looked at first: most blocks are known by it to be no zeros.
_SAMPLE = 64

#: Data of a window, or a range of zeros.
_Item = tuple[int, windows.Ranges] | extents.Extent


class _Job:
    def __init__(
        self, reader: protocol.Reader, target: protocol.Target, monitor: Monitor, grid: int, *, zeroing: bool
    ) -> None:
        self.reader, self.target, self.monitor, self.grid = reader, target, monitor, grid
        self.zeroing = zeroing
        self.resumed = target.resumed
        self.lock = threading.Lock()
        self.written = 0


class _Worker:
    def __init__(self, job: _Job) -> None:
        self._job = job
        self._view = room.pages(geometry.WINDOW)
        self._words = np.frombuffer(self._view, np.uint64).reshape(-1, job.grid // 8)
        self._there = room.pages(geometry.WINDOW) if job.resumed else memoryview(b"")

    def work(self, item: _Item) -> None:
        if isinstance(item, extents.Extent):
            self._job.target.zero(item.start, item.length)
            return
        number, ranges = item
        written = sum(self._copy(number * geometry.WINDOW, offset, length) for offset, length in ranges)
        with self._job.lock:
            self._job.written += written

    def close(self) -> None:
        pass

    def _copy(self, base: int, first: int, length: int) -> int:
        """Copy a range of the window that begins at `base`; returns the bytes written."""
        job, grid, end = self._job, self._job.grid, first + length
        job.reader.pread_into(base + first, self._view[first:end])
        padded = -(-end // grid) * grid
        self._view[end:padded] = bytes(padded - end)
        written = 0
        for start, stop, zero in _runs(self._words[first // grid : padded // grid]):
            low, high = first + start * grid, min(first + stop * grid, end)
            if not zero:
                written += self._write(base + low, self._view[low:high])
            elif job.zeroing:
                job.target.zero(base + low, high - low)
        job.monitor.advance(length)
        return written

    def _write(self, offset: int, data: memoryview) -> int:
        if self._job.resumed:
            there = self._there[: len(data)]
            self._job.target.pread_into(offset, there)
            if there == data:
                return 0
        self._job.target.pwrite(offset, data)
        return len(data)


def _runs(cells: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int, bool]]:
    """(first, end, all zeros) of the runs of equal kind among `cells`, shape (n, words)."""
    zero: npt.NDArray[np.bool_] = np.logical_not(cells[:, ::_SAMPLE].any(axis=1))
    candidates = np.flatnonzero(zero)
    if candidates.size:
        zero[candidates] = np.logical_not(cells[candidates].any(axis=1))
    edges = [0, *(np.flatnonzero(zero[1:] != zero[:-1]) + 1).tolist(), len(zero)]
    for first, end in itertools.pairwise(edges):
        yield first, end, bool(zero[first])


def copy(
    reader: protocol.Reader,
    target: protocol.Target,
    monitor: Monitor,
    threads: int,
    pieces: Iterable[extents.Extent] | None = None,
    *,
    grid: int = geometry.BLOCK,
) -> int:
    """Write what `reader` has to `target`, which then only needs `finish`; returns the bytes written.

    Only DATA is read, a window at a time. Cells of `grid` bytes (a multiple of 4096 that divides a
    window) are written as a whole, and those that are zeros not at all. With `pieces` (ascending,
    merged) nothing else is touched, and zeros in them are zeroed, because something may lie below.
    A target that was filled before (`resumed`) is compared, and gets what differs.
    """
    assert target.size >= reader.size
    assert grid % geometry.BLOCK == 0
    assert geometry.WINDOW % grid == 0
    total = 0
    if pieces is None:
        total = sum(length for _, length in windows.data(reader.extents(0, reader.size)))
    monitor.start("copying", total)
    job = _Job(reader, target, monitor, grid, zeroing=target.resumed or pieces is not None)
    crew.run(_items(job, pieces), lambda: _Worker(job), threads)
    return job.written


def _items(job: _Job, pieces: Iterable[extents.Extent] | None) -> Iterator[_Item]:
    size = job.reader.size
    number, ranges = -1, windows.Ranges()
    for item in extents.align(job.reader.extents(0, size) if pieces is None else pieces, job.grid, size):
        if item.kind is not extents.Kind.DATA:
            if job.zeroing:
                yield item
            continue
        for here, parts in windows.split([(item.start, item.length)]):
            if ranges and here != number:
                yield number, ranges
                ranges = []
            number, ranges = here, ranges + parts
    if ranges:
        yield number, ranges
    if job.resumed and pieces is None and job.target.size > size:
        yield extents.Extent(size, job.target.size - size, extents.Kind.HOLE)
