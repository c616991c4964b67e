"""Where a guest disk lies in a qcow2 image: L1 and L2 tables, decoded to runs (specs/qcow2.md §2).

Tables are read and decoded a span (8192 clusters) at a time with numpy; what is kept of them are runs,
and of these a few MiB. Damage is found when tables are decoded and told when somebody reads there.
"""

from __future__ import annotations

import bisect
import collections
import itertools
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vimgvc.disk import protocol
from vimgvc.images import qcow2_layout as layout

#: What a run is. The place of DATA is an offset in the data's file, of COMPRESSED the descriptor, of
#: DAMAGED an index into `REASONS`.
HOLE, ZERO, DATA, COMPRESSED, DAMAGED = range(5)

REASONS = (
    "its L2 entry has reserved bits set",
    "its L2 entry has the zero flag, which version 2 does not know",
    "its L2 entry has an offset that is not aligned to a cluster",
    "its L2 entry leads beyond the end of the file",
    "its L2 entry leads to another place of the external data file",
    "its L2 entry is compressed, but data lies in an external file",
    "its L2 entry's subclusters contradict each other",
    "its L1 entry has reserved bits set",
    "its L1 entry has an offset that is not aligned to a cluster",
    "its L1 entry leads beyond the end of the file",
)
(
    _L2_RESERVED,
    _ZERO_FLAG,
    _L2_MISALIGNED,
    _L2_BEYOND,
    _OTHER_PLACE,
    _DATA_FILE_COMPRESSED,
    _CONTRADICTION,
    _L1_RESERVED,
    _L1_MISALIGNED,
    _L1_BEYOND,
) = range(len(REASONS))
_FINE = 255

_SPAN = 8192
_EXTENDED_SPAN = 1024  # times 32 subclusters
_L1_AT_ONCE = 8192
_CACHE_BYTES = 4 << 20

_U64 = npt.NDArray[np.uint64]
_U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Span:
    """The runs of guest bytes `starts[0]` up to `starts[-1]`: run i ends where run i + 1 starts."""

    starts: array[int]
    kinds: bytes
    places: array[int]

    @property
    def cost(self) -> int:
        return 256 + 17 * len(self.kinds)


class Tables:
    """The mapping of one disk of `size` bytes: the active one, or a snapshot's. Shared by threads.

    `l1_offset`, `l1_entries`: checked to lie inside `file`; guest clusters beyond the table are holes.
    `data_size`: bytes of the file in which the data lies.
    """

    def __init__(
        self,
        file: protocol.Reader,
        header: layout.Header,
        *,
        l1_offset: int,
        l1_entries: int,
        size: int,
        data_size: int,
    ) -> None:
        self._file = file
        self._header = header
        self._l1_offset = l1_offset
        self._l1_entries = l1_entries
        self._size = size
        self._data_size = data_size
        self._clusters = -(-size // header.cluster_size)
        self._per_span = _EXTENDED_SPAN if header.extended_l2 else _SPAN
        self._span_bytes = self._per_span << header.cluster_bits
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[int, Span] = collections.OrderedDict()
        self._cached = 0

    @property
    def spans(self) -> int:
        return -(-self._size // self._span_bytes)

    def runs(self, offset: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(start, stop, kind, place, start of the run) of what covers `[offset, end)`, clipped to it, in order.

        `place` belongs to the start of the whole run.
        """
        while offset < end:
            span = self._span(offset // self._span_bytes)
            starts, kinds, places = span.starts, span.kinds, span.places
            last = min(end, starts[-1])
            index = bisect.bisect_right(starts, offset) - 1
            while offset < last:
                stop = min(starts[index + 1], last)
                yield offset, stop, kinds[index], places[index], starts[index]
                offset = stop
                index += 1

    def census(self, number: int) -> tuple[int, int, int]:
        """(clusters, those that have space of their own, compressed ones) of the span `number`."""
        first = number * self._per_span
        count = min(self._per_span, self._clusters - first)
        words, _ = self._entries(first, count)
        compressed = (words[:, 0] & np.uint64(layout.COMPRESSED)) != 0
        there = compressed | ((words[:, 0] & np.uint64(layout.OFFSET_MASK)) != 0)
        if self._header.has_data_file:
            there |= (words[:, 0] & np.uint64(layout.COPIED)) != 0
        return count, int(there.sum()), int(compressed.sum())

    def next_used(self, number: int) -> int:
        """The first span from `number` on that has an L2 table, looking some way ahead."""
        per_table = self._header.l2_entries
        table = number * self._per_span // per_table
        entries = self._l1(table, _L1_AT_ONCE)
        used = np.flatnonzero(entries & np.uint64(layout.L1_RESERVED | layout.OFFSET_MASK))
        end = table + (int(used[0]) if len(used) else len(entries))
        if not len(used) and table + len(entries) >= min(self._l1_entries, layout.l1_needed(self._header, self._size)):
            return self.spans  # what the table does not reach is a hole
        return max(number, end * per_table // self._per_span)

    def _span(self, number: int) -> Span:
        with self._lock:
            span = self._cache.get(number)
            if span is not None:
                self._cache.move_to_end(number)
                return span
        span = self._load(number)
        with self._lock:
            if number not in self._cache:
                self._cache[number] = span
                self._cached += span.cost
                while self._cached > _CACHE_BYTES and len(self._cache) > 1:
                    self._cached -= self._cache.popitem(last=False)[1].cost
        return span

    def _load(self, number: int) -> Span:
        start = number * self._span_bytes
        hole = self.next_used(number)
        if hole > number:
            end = min(hole * self._span_bytes, self._size)
            return Span(array("Q", [start, end]), bytes([HOLE]), array("Q", [0]))
        first = number * self._per_span
        words, table_reasons = self._entries(first, min(self._per_span, self._clusters - first))
        kinds, places, reasons = self._decode(words, first)
        if table_reasons is not None:
            reasons = np.where(table_reasons != _FINE, table_reasons, reasons)
        subclusters = layout.SUBCLUSTERS if self._header.extended_l2 else 1
        if subclusters > 1:
            reasons = np.repeat(reasons, subclusters)
        unit = self._header.cluster_size // subclusters
        beyond = self._beyond(kinds, places, start, unit)
        if beyond is not None:
            reasons = np.where(beyond & (reasons == _FINE), _L2_BEYOND, reasons)
        if (reasons != _FINE).any():
            kinds = np.where(reasons != _FINE, DAMAGED, kinds)
            places = np.where(reasons != _FINE, reasons.astype(np.uint64), places)
        return self._joined(kinds, places, start, unit, subclusters)

    def _joined(self, kinds: _U8, places: _U64, start: int, unit: int, subclusters: int) -> Span:
        """Units next to each other of one kind, whose data lies next to each other too, are one run."""
        new = np.ones(len(kinds), np.bool_)
        step = np.where(kinds[1:] == DATA, np.uint64(unit), np.uint64(0))
        np.logical_or(kinds[1:] != kinds[:-1], places[1:] - places[:-1] != step, out=new[1:])
        new[::subclusters] |= kinds[::subclusters] == COMPRESSED
        index = np.flatnonzero(new)
        starts = array("Q", (index.astype(np.uint64) * np.uint64(unit) + np.uint64(start)).tobytes())
        starts.append(min(start + self._span_bytes, self._size))
        return Span(starts, kinds[index].astype(np.uint8).tobytes(), array("Q", places[index].tobytes()))

    def _beyond(self, kinds: _U8, places: _U64, start: int, unit: int) -> npt.NDArray[np.bool_] | None:
        """Which units have data that the guest can see and the file does not have; None: none."""
        is_data = kinds == DATA
        ends = places + np.uint64(unit)
        # What lies behind the disk's end is in no run.
        behind, part = divmod(start + len(kinds) * unit - self._size, unit)
        if part and behind >= 0:
            ends[-1 - behind] -= np.uint64(part)
        beyond: npt.NDArray[np.bool_] = is_data & (ends > np.uint64(self._data_size))
        packed = kinds == COMPRESSED
        if packed.any():
            mask = np.uint64((1 << layout.compressed_bits(self._header.cluster_bits)) - 1)
            beyond |= packed & ((places & mask) >= np.uint64(self._file.size))
        return beyond if beyond.any() else None

    def _decode(self, words: _U64, first: int) -> tuple[_U8, _U64, _U8]:
        """Kinds and places of the units, and per cluster the reason why it is damaged."""
        header = self._header
        entry = words[:, 0]
        packed = (entry & np.uint64(layout.COMPRESSED)) != 0
        offset = entry & np.uint64(layout.OFFSET_MASK)
        there = offset != 0
        if header.has_data_file:
            there |= (entry & np.uint64(layout.COPIED)) != 0
        flag = (entry & np.uint64(layout.ZERO)) != 0

        reasons = np.full(len(entry), _FINE, np.uint8)
        if header.extended_l2:
            reasons[flag & ~packed] = _L2_RESERVED
        elif header.version == 2:
            reasons[flag & ~packed] = _ZERO_FLAG
        reasons[((offset & np.uint64(header.cluster_size - 1)) != 0) & ~packed] = _L2_MISALIGNED
        reasons[((entry & np.uint64(layout.L2_RESERVED)) != 0) & ~packed] = _L2_RESERVED
        if header.has_data_file:
            guest = np.arange(first, first + len(entry), dtype=np.uint64) << np.uint64(header.cluster_bits)
            reasons[there & (offset != guest)] = _OTHER_PLACE
            reasons[packed] = _DATA_FILE_COMPRESSED
        if header.extended_l2:
            return self._decode_subclusters(words, packed, there, reasons)
        kinds = np.where(there, np.uint8(DATA), np.uint8(HOLE))
        kinds[flag] = ZERO
        kinds[packed] = COMPRESSED
        places = np.where(kinds == DATA, offset, np.uint64(0))
        return kinds, np.where(packed, entry & np.uint64(layout.COMPRESSED - 1), places), reasons

    def _decode_subclusters(
        self, words: _U64, packed: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_], reasons: _U8
    ) -> tuple[_U8, _U64, _U8]:
        entry, bitmap = words[:, 0], words[:, 1]
        allocated, zero = bitmap & np.uint64(0xFFFF_FFFF), bitmap >> np.uint64(32)
        wrong = np.where(there, allocated & zero, allocated) != 0
        reasons[wrong & ~packed & (reasons == _FINE)] = _CONTRADICTION
        bits = np.unpackbits(bitmap.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        kinds = np.where(bits[:, 32:] != 0, np.uint8(ZERO), np.uint8(HOLE))
        kinds[bits[:, :32] != 0] = DATA
        kinds[packed] = COMPRESSED
        inside = np.arange(layout.SUBCLUSTERS, dtype=np.uint64) * np.uint64(
            self._header.cluster_size // layout.SUBCLUSTERS
        )
        places = (entry & np.uint64(layout.OFFSET_MASK))[:, None] + inside
        places[kinds != DATA] = 0
        places[packed] = (entry[packed] & np.uint64(layout.COMPRESSED - 1))[:, None]
        return kinds.reshape(-1), places.reshape(-1), reasons

    def _l1(self, first: int, count: int) -> _U64:
        """Up to `count` entries of the L1 table; fewer where it ends."""
        count = max(0, min(count, self._l1_entries - first))
        return self._words(self._l1_offset + first * 8, count)

    def _entries(self, first: int, count: int) -> tuple[_U64, _U8 | None]:
        """The L2 entries of `count` clusters from `first` on, a row each, and per cluster what is wrong with its table.

        A cluster without a table has the entry 0. None: every table is fine.
        """
        per_table, width = self._header.l2_entries, self._header.l2_entry_size
        words = np.zeros((count, width // 8), np.uint64)
        table = first // per_table
        l1 = self._l1(table, (first + count - 1) // per_table + 1 - table)
        reasons = self._judged(l1)
        offsets = np.where(reasons == _FINE, l1 & np.uint64(layout.OFFSET_MASK), np.uint64(0))
        # Tables that lie behind one another are read at once.
        new = np.ones(len(offsets), np.bool_)
        new[1:] = (offsets[1:] != offsets[:-1] + np.uint64(self._header.cluster_size)) | (offsets[:-1] == 0)
        borders = [*np.flatnonzero(new).tolist(), len(offsets)]
        for low, high in itertools.pairwise(borders):
            place = int(offsets[low])
            if place:
                begin = max((table + low) * per_table, first)
                end = min((table + high) * per_table, first + count)
                inside = (begin - (table + low) * per_table) * width
                got = self._words(place + inside, (end - begin) * width // 8)
                words[begin - first : end - first] = got.reshape(-1, width // 8)
        if (reasons == _FINE).all():
            return words, None
        spread = np.full(count, _FINE, np.uint8)
        wide = np.repeat(reasons, per_table)[first - table * per_table :][:count]
        spread[: len(wide)] = wide
        return words, spread

    def _judged(self, l1: _U64) -> _U8:
        offsets = l1 & np.uint64(layout.OFFSET_MASK)
        reasons = np.full(len(l1), _FINE, np.uint8)
        reasons[offsets + np.uint64(self._header.cluster_size) > np.uint64(self._file.size)] = _L1_BEYOND
        reasons[offsets == 0] = _FINE
        reasons[(offsets & np.uint64(self._header.cluster_size - 1)) != 0] = _L1_MISALIGNED
        reasons[(l1 & np.uint64(layout.L1_RESERVED)) != 0] = _L1_RESERVED
        return reasons

    def _words(self, offset: int, count: int) -> _U64:
        raw = bytearray(count * 8)
        if count:
            self._file.pread_into(offset, memoryview(raw))
        return np.frombuffer(raw, ">u8").astype(np.uint64)
