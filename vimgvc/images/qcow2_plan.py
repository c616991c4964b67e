"""Where everything lies in a qcow2 image that is to be written, from the extents of its disk alone.

Specs: specs/qcow2.md §§4-6. Nothing here touches a file: the same plan serves files and pipes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import qcow2_layout, qcow2_options, units

Options = qcow2_options.Options
parse_options = qcow2_options.parse_options

#: Tables are made in pieces of about this many bytes.
PIECE = 1 << 20
_SECTOR = 512
_MAX_REFCOUNT_TABLE = 8 << 20  # QEMU opens no larger one

#: For `count` data clusters from rank `first` on: their entries in the L2 tables.
Place = Callable[[int, int], npt.NDArray[np.uint64]]


class Plan:
    """The layout of an image; offsets and sizes in bytes.

    `data`: what the disk holds, ascending, inside `size`. Without a backing file only DATA matters; with
    one, gaps and HOLE are the backing file's, ZERO reads as zeros, DATA is the disk's own.

    A *unit* is what can be allocated by itself: a cluster, or with extended L2 entries a 32nd of one.
    Raises `UsageError` where the options do not allow such a disk.
    """

    def __init__(self, size: int, options: Options, data: Iterable[extents.Extent]) -> None:
        qcow2_options.check(options)
        self.size = size
        self.options = options
        #: What the header says: QEMU counts in sectors.
        self.disk_size = -(-size // _SECTOR) * _SECTOR
        self.cluster = options.cluster_size
        self.entry_size = 16 if options.extended_l2 else 8
        #: Entries of an L2 table.
        self.per_table = self.cluster // self.entry_size
        self.subclusters = options.extended_l2 and not options.compressed
        self.unit = self.cluster // qcow2_layout.SUBCLUSTERS if self.subclusters else self.cluster
        self.clusters = -(-self.disk_size // self.cluster)
        self._check_size()
        #: Units with data of their own; units that read as zeros instead of the backing file; units of
        #: which the extents name only a part.
        self.units, self.zeros, self.ragged = self._collect(data)
        wanted = self.units.grouped(qcow2_layout.SUBCLUSTERS) if self.subclusters else self.units
        #: Guest clusters that have a host cluster; they lie in the order of the disk.
        self.allocated = wanted if options.preallocation == "off" else _all(self.clusters)
        self.zero_clusters = self.zeros.grouped(qcow2_layout.SUBCLUSTERS) if self.subclusters else self.zeros
        #: Entries of the L1 table that have an L2 table.
        self.tables = (self.allocated | self.zero_clusters).grouped(self.per_table)
        self._lay_out()

    def _check_size(self) -> None:
        self.l1_entries = -(-self.clusters // self.per_table)
        limit = qcow2_layout.MAX_L1_BYTES // 8
        if self.l1_entries > limit:
            most = limit * self.per_table * self.cluster
            raise errors.UsageError(
                f"cluster_size is {self.cluster}, which allows a disk of {most} bytes, not of {self.size}",
                hint="choose larger clusters",
            )

    def _lay_out(self) -> None:
        l1_clusters = -(-self.l1_entries * 8 // self.cluster)
        fixed = 1 + l1_clusters + self.tables.total
        if self.options.compressed:
            self.refcounts = self.refcount_table = Span(0, 0)
            at = 1
        else:
            blocks, table = self.refcount_clusters(fixed + self.allocated.total)
            self.refcount_table = Span(self.cluster, table)
            self.refcounts = Span((1 + table) * self.cluster, blocks)
            at = 1 + table + blocks
        self.l1_offset = at * self.cluster if self.l1_entries else 0
        self.l2_offset = (at + l1_clusters) * self.cluster
        #: Where the data begins; of a compressed image it is followed by the refcounts.
        self.data_offset = self.l2_offset + self.tables.total * self.cluster
        #: Where the file ends; of a compressed image where it would if nothing could be compressed.
        self.file_size = self.data_offset + self.allocated.total * self.cluster

    def refcount_clusters(self, others: int) -> tuple[int, int]:
        """How many clusters of refcount blocks and of the refcount table come to `others` clusters."""
        per_block = self.cluster * 8 // self.options.refcount_bits
        blocks, table = 1, 1
        while True:
            need = -(-(others + blocks + table) // per_block)
            room = -(-need * 8 // self.cluster)
            if (need, room) == (blocks, table):
                break
            blocks, table = max(need, blocks), max(room, table)
        if table * self.cluster > _MAX_REFCOUNT_TABLE:
            raise errors.UsageError(
                f"cluster_size is {self.cluster}, which is too small for a file of {others} clusters",
                hint="choose larger clusters",
            )
        return blocks, table

    def _collect(self, data: Iterable[extents.Extent]) -> tuple[units.UnitSet, units.UnitSet, units.UnitSet]:
        count = self.clusters * (self.cluster // self.unit)
        wanted, zeros, ragged = units.Builder(count), units.Builder(count), units.Builder(count)
        overlay = self.options.backing_file is not None
        for item in extents.merge(data):
            if item.kind is extents.Kind.HOLE or (item.kind is extents.Kind.ZERO and not overlay):
                continue
            extents.check_range(self.size, item.start, item.length)
            first, end = item.start // self.unit, -(-item.end // self.unit)
            # Units that the extent fills; the last one of the disk ends with the disk.
            inner = -(-item.start // self.unit)
            outer = end if item.end == self.size else item.end // self.unit
            if inner >= outer:
                inner = outer = end
            if item.kind is extents.Kind.DATA or not self._has_zero_flag:
                wanted.add(first, end)
            else:
                wanted.add(first, inner)
                zeros.add(inner, outer)
                wanted.add(outer, end)
            ragged.add(first, inner)
            ragged.add(outer, end)
        return wanted.done(), zeros.done(), ragged.done()

    @property
    def _has_zero_flag(self) -> bool:
        return self.options.compat != "0.10"

    def pieces(self) -> Iterator[extents.Extent]:
        """What of the disk is to be written: DATA, whole units, up to the end of the disk.

        More than the extents that the plan was made of where these cut through units.
        """
        for first, end in self.units.runs():
            start = first * self.unit
            yield extents.Extent(start, min(end * self.unit, self.size) - start, extents.Kind.DATA)

    def kinds(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """What a range will be: DATA, ZERO, and HOLE for what is not in the image. Covers it, merged."""
        first, end = offset // self.unit, -(-(offset + length) // self.unit)
        found = [(start, stop, extents.Kind.ZERO) for start, stop in self.zeros.runs(first, end)]
        found += [(start, stop, extents.Kind.DATA) for start, stop in self.units.runs(first, end)]
        runs = (extents.Extent(a * self.unit, (b - a) * self.unit, kind) for a, b, kind in sorted(found, key=_start))
        return extents.cover(runs, offset, length, extents.Kind.HOLE)

    def readable(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """As `kinds`; raises `ValueError` at what is the backing file's and cannot be read or zeroed here."""
        overlay = self.options.backing_file is not None
        for item in self.kinds(offset, length):
            if item.kind is extents.Kind.HOLE and overlay:
                msg = f"{item.length} bytes at {item.start} are the backing file's"
                raise ValueError(msg)
            yield item

    def locate(self, offset: int, length: int) -> int:
        """Where in the file a range (> 0 bytes) of the disk lies; `ValueError` unless all of it is planned."""
        first, end = offset // self.unit, -(-(offset + length) // self.unit)
        if not self.units.has_all(first, end):
            msg = f"{length} bytes at {offset} are not among the data that was planned"
            raise ValueError(msg)
        cluster, inside = divmod(offset, self.cluster)
        return self.data_offset + self.allocated.rank(cluster) * self.cluster + inside

    def reserved(self) -> Iterator[tuple[int, int]]:
        """(offset in the file, length) of units that need all of their space though only a part is written."""
        for first, end in self.ragged.runs():
            start, stop = first * self.unit, min(end * self.unit, self.clusters * self.cluster)
            yield self.locate(start, stop - start), stop - start

    def header(self, refcount_table: Span) -> bytes:
        """The first cluster."""
        options = self.options
        zstd = options.compression_type == "zstd"
        plain = qcow2_layout.Header(
            size=self.disk_size,
            version=2 if options.compat == "0.10" else 3,
            cluster_bits=self.cluster.bit_length() - 1,
            l1_entries=self.l1_entries,
            l1_offset=self.l1_offset,
            refcount_offset=refcount_table.offset,
            refcount_clusters=refcount_table.clusters,
            incompatible=(qcow2_layout.EXTENDED_L2 if options.extended_l2 else 0)
            | (qcow2_layout.COMPRESSION if zstd else 0),
            compatible=qcow2_layout.LAZY_REFCOUNTS if options.lazy_refcounts else 0,
            refcount_order=options.refcount_bits.bit_length() - 1,
            compression=qcow2_layout.ZSTD if zstd else qcow2_layout.ZLIB,
            backing_file=qcow2_options.encoded(options.backing_file),
            backing_format=qcow2_options.encoded(options.backing_format),
            extensions=() if self.cluster >= qcow2_options.NAMES_FROM else ((qcow2_layout.EXT_FEATURES, b""),),
        )
        return qcow2_layout.encode_header(plain).ljust(self.cluster, b"\0")

    def head(self) -> Iterator[bytes]:
        """Everything before the data, in pieces of bounded size; not for compressed images."""
        yield self.header(self.refcount_table)
        yield from self.refcount_table_bytes(self.refcounts)
        total = self.file_size // self.cluster
        per_block = self.cluster * 8 // self.options.refcount_bits
        step = max(PIECE // self.cluster, 1) * per_block
        for first in range(0, self.refcounts.clusters * per_block, step):
            end = min(first + step, self.refcounts.clusters * per_block)
            yield self.refcount_bytes((np.arange(first, end) < total).astype(np.uint16))
        yield from self.tables_bytes(self.place)

    def refcount_table_bytes(self, blocks: Span) -> Iterator[bytes]:
        """The refcount table for blocks that lie at `blocks`."""
        offsets = blocks.offset + np.arange(blocks.clusters, dtype=np.int64) * self.cluster
        data = offsets.astype(">u8").tobytes()
        yield data.ljust(-(-len(data) // self.cluster) * self.cluster, b"\0")

    def refcount_bytes(self, counts: npt.NDArray[np.uint16]) -> bytes:
        """Counts as they stand in refcount blocks."""
        bits = self.options.refcount_bits
        if bits >= 8:
            return counts.astype(f">u{bits // 8}").tobytes()
        groups = counts.reshape(-1, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint16)
        packed: npt.NDArray[np.uint8] = groups.sum(axis=1).astype(np.uint8)
        return packed.tobytes()

    def tables_bytes(self, place: Place) -> Iterator[bytes]:
        """The L1 table and all L2 tables."""
        step = PIECE // 8
        room = self.l2_offset - self.l1_offset if self.l1_entries else 0
        for first in range(0, room // 8, step):
            end = min(first + step, room // 8)
            has = self.tables.mask(first, end)
            entries = np.zeros(end - first, np.uint64)
            start = self.l2_offset + self.tables.rank(min(first, self.l1_entries)) * self.cluster
            offsets = start + np.arange(int(has.sum()), dtype=np.int64) * self.cluster
            entries[has] = offsets.astype(np.uint64) | np.uint64(qcow2_layout.COPIED)
            yield entries.astype(">u8").tobytes()
        at_once = max(PIECE // self.cluster, 1)
        for start, stop in self.tables.runs():
            for low in range(start, stop, at_once):
                yield self._l2_bytes(low, min(low + at_once, stop), place)

    def place(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Entries of data clusters that lie one behind the other."""
        offsets = self.data_offset + (first + np.arange(count, dtype=np.int64)) * self.cluster
        return offsets.astype(np.uint64) | np.uint64(qcow2_layout.COPIED)

    def entry_offset(self, cluster: int) -> int:
        """Where in the file the L2 entry of a guest cluster stands; the cluster is allocated or zero."""
        table, number = divmod(cluster, self.per_table)
        return self.l2_offset + self.tables.rank(table) * self.cluster + number * self.entry_size

    def _l2_bytes(self, first: int, end: int, place: Place) -> bytes:
        low, high = first * self.per_table, end * self.per_table
        has = self.allocated.mask(low, high)
        entries = np.zeros(high - low, np.uint64)
        rank = self.allocated.rank(min(low, self.clusters))
        entries[has] = place(rank, int(has.sum()))
        if not self.options.extended_l2:
            zero = self.zeros.mask(low, high)
            entries[zero] |= np.uint64(qcow2_layout.ZERO)
            return entries.astype(">u8").tobytes()
        both = np.zeros((high - low, 2), np.uint64)
        both[:, 0] = entries
        both[:, 1] = self._bitmaps(low, high, entries)
        return both.astype(">u8").tobytes()

    def _bitmaps(self, low: int, high: int, entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """The subcluster bitmaps: allocated in the low half, zeros in the high half."""
        if self.subclusters:
            own, zero = self.units.words(low, high), self.zeros.words(low, high)
        else:
            full = np.uint32(0xFFFF_FFFF)
            plain = (entries & np.uint64(qcow2_layout.COPIED)) != 0
            own, zero = plain * full, self.zeros.mask(low, high) * full
        return own.astype(np.uint64) | zero.astype(np.uint64) << np.uint64(32)

    def fingerprint(self) -> str:
        """16 hex digits, the same for the same layout and options."""
        parts = [repr(self.options).encode(), self.size.to_bytes(8, "big")]
        parts += [chosen.fingerprint() for chosen in (self.units, self.zeros)]
        return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


class Span:
    """Whole clusters: `offset` in bytes, `clusters` of them."""

    __slots__ = ("clusters", "offset")

    def __init__(self, offset: int, clusters: int) -> None:
        self.offset = offset
        self.clusters = clusters


def _all(count: int) -> units.UnitSet:
    everything = units.Builder(count)
    everything.add(0, count)
    return everything.done()


def _start(run: tuple[int, int, extents.Kind]) -> int:
    return run[0]
