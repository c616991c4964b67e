"""The space of compressed data in a qcow2 image, and the refcounts behind it (specs/qcow2.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from vimgvc.images import qcow2_layout, qcow2_plan

Entries = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.uint16]


class Space:
    """Gives out space behind the tables, and counts who uses each host cluster. Not locked."""

    def __init__(self, plan: qcow2_plan.Plan) -> None:
        self._cluster = plan.cluster
        self._first = plan.data_offset // plan.cluster
        self._offset_bits = qcow2_layout.compressed_bits(plan.cluster.bit_length() - 1)
        self._counts = np.zeros(max(plan.allocated.total, 1), np.uint16)
        self._byte = plan.data_offset  # where the next compressed cluster goes
        #: Where the first unused host cluster lies.
        self.end = plan.data_offset

    def take(self, length: int | None) -> int:
        """Space for `length` compressed bytes, or for a whole cluster; returns its offset in the file."""
        if length is None:
            offset, self.end = self.end, self.end + self._cluster
            self._count(offset, self._cluster, 1)
            return offset
        room = -self._byte % self._cluster
        # A cluster that was begun goes on in the next one only if that is unused.
        if length > room and self._byte + room != self.end:
            self._byte = self.end
        offset = self._byte
        self._byte += length
        self.end = max(self.end, -(-self._byte // self._cluster) * self._cluster)
        self._count(offset, length, 1)
        return offset

    def release(self, entry: int) -> list[int]:
        """Nobody uses any more what this L2 entry leads to: the offsets of host clusters that are free now."""
        if entry & qcow2_layout.COMPRESSED:
            offset = entry & (1 << self._offset_bits) - 1
            sectors = (entry & ~qcow2_layout.COMPRESSED) >> self._offset_bits
            used = self._count(offset, (sectors + 1) * 512 - offset % 512, -1)
        elif entry & qcow2_layout.COPIED:
            used = self._count(entry & qcow2_layout.OFFSET_MASK, self._cluster, -1)
        else:
            return []
        return [(self._first + number) * self._cluster for number in used if not self._counts[number]]

    def counts(self, first: int, end: int) -> Counts:
        """Of the host clusters `first` up to `end`, counted from the first one of the data."""
        part = self._counts[first:end]
        return np.concatenate([part, np.zeros(end - first - part.size, np.uint16)])

    def _count(self, offset: int, length: int, change: int) -> set[int]:
        first = offset // self._cluster - self._first
        last = (offset + length - 1) // self._cluster - self._first
        if last >= self._counts.size:
            grown = np.zeros(max(last + 1, self._counts.size * 2), np.uint16)
            grown[: self._counts.size] = self._counts
            self._counts = grown
        numbers = {first, last}  # no compressed cluster is longer than a host cluster
        for number in numbers:
            self._counts[number] = int(self._counts[number]) + change
        return numbers


class Tail:
    """The refcounts of an image whose data ends at `data_end`, a multiple of the cluster."""

    def __init__(self, plan: qcow2_plan.Plan, data_end: int) -> None:
        self._plan = plan
        self._data_first = plan.data_offset // plan.cluster
        self._data_end = data_end // plan.cluster
        blocks, table = plan.refcount_clusters(self._data_end)
        self._blocks = qcow2_plan.Span(data_end, blocks)
        self.refcount_table = qcow2_plan.Span(data_end + blocks * plan.cluster, table)
        #: Where the file ends.
        self.end = data_end + (blocks + table) * plan.cluster

    def pieces(self, counts: Callable[[int, int], Counts]) -> Iterator[bytes]:
        """The refcount blocks and the refcount table; `counts` of data clusters as of `Space.counts`."""
        per_block = self._plan.cluster * 8 // self._plan.options.refcount_bits
        step = max(qcow2_plan.PIECE // self._plan.cluster, 1) * per_block
        total = self._blocks.clusters * per_block
        for first in range(0, total, step):
            yield self._plan.refcount_bytes(self._counts(first, min(first + step, total), counts))
        yield from self._plan.refcount_table_bytes(self._blocks)

    def _counts(self, first: int, end: int, counts: Callable[[int, int], Counts]) -> Counts:
        numbers = np.arange(first, end)
        result = ((numbers < self._data_first) | (numbers >= self._data_end)).astype(np.uint16)
        result[numbers >= self.end // self._plan.cluster] = 0
        low, high = max(first, self._data_first), min(end, self._data_end)
        if low < high:
            result[low - first : high - first] = counts(low - self._data_first, high - self._data_first)
        return result
