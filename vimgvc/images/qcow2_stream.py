"""qcow2 images as streams: written from the first byte to the last, without seeking (specs/qcow2.md §§4-6).

    stream = Stream(size, options, data)
    if stream.two_passes:
        for window in stream.windows(): stream.measure(window.start, what the disk has there)
    put every piece of stream.head()
    for window in stream.windows(): put stream.encode(window.start, what the disk has there)
    put every piece of stream.tail()

`measure` and `encode` may be called by many threads in any order; what `encode` returns is to be put in
the order of the windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import qcow2_compress, qcow2_layout, qcow2_plan, qcow2_tail

#: Windows lie on a grid of this many bytes, or of a cluster if that is larger.
WINDOW = 4 << 20

_UNKNOWN = 0xFFFF_FFFF
_BATCH = 1 << 17

_Lengths = npt.NDArray[np.uint32]
_Offsets = npt.NDArray[np.int64]


class Stream:
    """The image of a disk of `size` bytes with `data`, as of `qcow2_plan.Plan`, which raises what this raises."""

    def __init__(self, size: int, options: qcow2_plan.Options, data: Iterable[extents.Extent]) -> None:
        self.plan = plan = qcow2_plan.Plan(size, options, data)
        #: Whether every window must be measured before the first byte.
        self.two_passes = options.compressed
        self._grid = max(WINDOW, plan.cluster)
        self._measured = _Measured(plan, self._grid) if options.compressed else None

    def windows(self) -> Iterator[extents.Extent]:
        """What is to be read of the disk, in order: DATA of at most a window each."""
        first = last = 0
        for start, end in self._runs():
            if last and start // self._grid != first // self._grid:
                yield extents.Extent(first, last - first, extents.Kind.DATA)
                last = 0
            if not last:
                first = start
            last = end
        if last:
            yield extents.Extent(first, last - first, extents.Kind.DATA)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """The disk's allocated clusters as runs of bytes (start, end) that do not cross the grid."""
        for first, last in self.plan.allocated.runs():
            start, end = first * self.plan.cluster, min(last * self.plan.cluster, self.plan.size)
            for cut in range(start // self._grid * self._grid, end, self._grid):
                yield max(start, cut), min(end, cut + self._grid)

    def measure(self, offset: int, data: memoryview) -> None:
        """Learn how small a window becomes. `ValueError` when that need not be known."""
        if self._measured is None:
            msg = "this image is not compressed"
            raise ValueError(msg)
        self._measured.measure(offset, data)

    def head(self) -> Iterator[bytes]:
        """Everything before the data. `ValueError` if something was not measured that must be."""
        return self.plan.head() if self._measured is None else self._measured.head()

    def encode(self, offset: int, data: memoryview) -> bytes | memoryview:
        """What stands in the image for a window; `data` is all of it, and may be what is returned.

        Raises `VimgvcError` when it is not what was measured.
        """
        if self._measured is not None:
            return self._measured.encode(offset, data)
        first, end = offset // self.plan.cluster, -(-(offset + data.nbytes) // self.plan.cluster)
        whole = data.nbytes % self.plan.cluster == 0
        if whole and self.plan.allocated.has_all(first, end):
            return data
        runs = self.plan.allocated.runs(first, end)
        pieces = [data[a * self.plan.cluster - offset : b * self.plan.cluster - offset] for a, b in runs]
        joined = b"".join(pieces)
        return joined.ljust(-(-len(joined) // self.plan.cluster) * self.plan.cluster, b"\0")

    def tail(self) -> Iterator[bytes]:
        """Everything behind the data."""
        return iter(()) if self._measured is None else self._measured.tail()

    @property
    def file_size(self) -> int:
        """Bytes of the stream; of a compressed image known when everything is measured."""
        return self.plan.file_size if self._measured is None else self._measured.file_size


class _Measured:
    """The places of compressed clusters, which lie in the order of the disk.

    Lengths: 0 is a cluster of zeros, which has no place; a whole cluster's is stored as it is, aligned.
    """

    def __init__(self, plan: qcow2_plan.Plan, grid: int) -> None:
        self._plan = plan
        self._grid = grid
        self._leave_zeros = plan.options.backing_file is None
        self._compressor = qcow2_compress.Compressor(plan.options.compression_type, plan.cluster)
        self._lengths: _Lengths = np.full(plan.allocated.total, _UNKNOWN, np.uint32)
        self._starts: _Offsets = np.zeros(0, np.int64)
        self._counts: qcow2_tail.Counts = np.zeros(0, np.uint16)
        self._end = 0
        self._tail: qcow2_tail.Tail | None = None

    def measure(self, offset: int, data: memoryview) -> None:
        for rank, cluster in self._clusters(offset, data):
            packed = self._pack(cluster)
            self._lengths[rank] = self._plan.cluster if packed is None else len(packed)

    def _clusters(self, offset: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(rank, content) of the clusters in a window that have data."""
        size = self._plan.cluster
        first = offset // size
        rank = self._plan.allocated.rank(first)
        for low, high in self._plan.allocated.runs(first, -(-(offset + data.nbytes) // size)):
            for number in range(low, high):
                piece = data[number * size - offset : (number + 1) * size - offset]
                if piece.nbytes < size:
                    piece = memoryview(piece.tobytes().ljust(size, b"\0"))
                yield rank, piece
                rank += 1

    def _pack(self, cluster: memoryview) -> bytes | None:
        if self._leave_zeros and not np.frombuffer(cluster, np.uint8).any():
            return b""
        return self._compressor.compress(cluster)

    def _batches(self) -> Iterator[tuple[int, _Lengths, _Offsets]]:
        """(first rank, lengths, offsets) of all clusters; afterwards `_end` is known."""
        at = self._plan.data_offset
        for first in range(0, self._lengths.size, _BATCH):
            lengths = self._lengths[first : first + _BATCH]
            offsets, at = place(lengths, at, self._plan.cluster)
            yield first, lengths, offsets
        self._end = -(-at // self._plan.cluster) * self._plan.cluster

    def _seal(self) -> qcow2_tail.Tail:
        """Give every cluster its place, once."""
        if self._tail is not None:
            return self._tail
        if (self._lengths == _UNKNOWN).any():
            msg = "not every window was measured"
            raise ValueError(msg)
        cluster, base = self._plan.cluster, self._plan.data_offset // self._plan.cluster
        # Every cluster begins at most one new host cluster.
        self._counts = np.zeros(self._lengths.size + 1, np.uint16)
        per_window = self._grid // cluster
        edges = range(0, self._plan.clusters + per_window, per_window)
        ranks = np.array([self._plan.allocated.rank(min(edge, self._plan.clusters)) for edge in edges], np.int64)
        self._starts = np.full(ranks.size, self._plan.data_offset, np.int64)
        for first, lengths, offsets in self._batches():
            low, high = np.searchsorted(ranks, [first + 1, first + lengths.size + 1])
            before = ranks[low:high] - 1 - first
            self._starts[low:high] = offsets[before] + lengths[before]
            used = lengths > 0
            begin = offsets[used] // cluster - base
            end = (offsets[used] + lengths[used] - 1) // cluster - base
            for numbers in (begin, end[end != begin]):
                if numbers.size:
                    least = int(numbers.min())
                    found = np.bincount(numbers - least)
                    self._counts[least : least + found.size] += found.astype(np.uint16)
        self._tail = qcow2_tail.Tail(self._plan, self._end)
        return self._tail

    @property
    def file_size(self) -> int:
        return self._seal().end

    def head(self) -> Iterator[bytes]:
        tail = self._seal()
        yield self._plan.header(tail.refcount_table)
        entries = self._entries()
        yield from self._plan.tables_bytes(entries.take)

    def _entries(self) -> _Entries:
        return _Entries(self._plan, self._lengths, self._compressor)

    def encode(self, offset: int, data: memoryview) -> bytes:
        self._seal()
        at = int(self._starts[offset // self._grid])
        pieces: list[bytes | memoryview] = []
        for rank, cluster in self._clusters(offset, data):
            packed: bytes | memoryview | None = self._pack(cluster)
            if packed is None:
                pieces.append(bytes(-at % self._plan.cluster))
                at += -at % self._plan.cluster
                packed = cluster
            if len(packed) != self._lengths[rank]:
                raise errors.VimgvcError(
                    f"bytes {offset} to {offset + data.nbytes - 1} of the disk are not what was measured before",
                    hint="write to a file instead of a pipe, or without compression",
                )
            pieces.append(packed)
            at += len(packed)
        return b"".join(pieces)

    def tail(self) -> Iterator[bytes]:
        tail = self._seal()
        yield bytes(self._end - int(self._starts[-1]))
        yield from tail.pieces(self._data_counts)

    def _data_counts(self, first: int, end: int) -> qcow2_tail.Counts:
        return self._counts[first:end]


class _Entries:
    """L2 entries of compressed clusters, asked for in the order of the disk."""

    def __init__(self, plan: qcow2_plan.Plan, lengths: _Lengths, compressor: qcow2_compress.Compressor) -> None:
        self._plan, self._lengths, self._compressor = plan, lengths, compressor
        self._next, self._at = 0, plan.data_offset

    def take(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        assert first == self._next
        self._next += count
        lengths = self._lengths[first : first + count]
        offsets, self._at = place(lengths, self._at, self._plan.cluster)
        plain = offsets.astype(np.uint64) | np.uint64(qcow2_layout.COPIED)
        packed = self._compressor.descriptors(offsets, lengths.astype(np.int64))
        found = np.where(lengths == self._plan.cluster, plain, packed)
        found[lengths == 0] = 0
        return found


def place(lengths: _Lengths, start: int, cluster: int) -> tuple[_Offsets, int]:
    """The offsets of clusters that take `lengths` bytes from `start` on, and where the last one ends.

    A length of `cluster` is aligned to it; everything else follows what is before.
    """
    if not lengths.size:
        return np.zeros(0, np.int64), start
    whole = lengths == cluster
    heads = np.flatnonzero(np.concatenate([[True], whole[1:] != whole[:-1]]))
    wide = lengths.astype(np.int64)
    sums = np.add.reduceat(wide, heads)
    if whole[0]:
        start += -start % cluster
    # Only the first run can begin unaligned; it and every other one that is followed ends aligned.
    taken = -(-sums // cluster) * cluster
    taken[0] = -(-(start + sums[0]) // cluster) * cluster - start
    begins = start + np.cumsum(taken) - taken
    before = np.cumsum(wide) - wide
    run = np.repeat(np.arange(heads.size), np.diff(np.append(heads, lengths.size)))
    offsets = begins[run] + before - before[heads][run]
    return offsets, int(begins[-1] + sums[-1])
