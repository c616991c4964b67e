"""Store to Writer: the hot loop of a restore.

The manifest is taken in spans; in a span every segment is read, opened and checked once, in the
order of the packs, on all threads, and written wherever the disk wants it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.codec import segment
from vimgvc.disk import protocol, room
from vimgvc.model import geometry, manifest
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, salvage, tree
from vimgvc.store import objects, pack

#: Chunks planned at once: bounds memory (about 100 bytes each) however large the disk is.
SPAN_CHUNKS = 1 << 18
#: So many neighbouring segments, of up to 1 MiB each, are read in one call where that costs a round trip.
_NEIGHBOURS = 4

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class References:
    """Chunks of a disk: identifiers (n, 32), offsets on the disk and lengths in bytes (n)."""

    ids: Ids
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def references(source: tree.Tree, span_chunks: int = SPAN_CHUNKS) -> Iterator[References]:
    """Every chunk of a disk in order, in bounded portions."""
    ids: list[bytes] = []
    offsets: list[int] = []
    lengths: list[int] = []
    for group in source.groups():
        for place, leaf in group:
            ids.append(leaf.ids)
            _leaf_ranges(place.number, leaf, offsets, lengths)
        if len(offsets) >= span_chunks:
            yield _pack_references(ids, offsets, lengths)
            ids, offsets, lengths = [], [], []
    if offsets:
        yield _pack_references(ids, offsets, lengths)


def _leaf_ranges(number: int, leaf: manifest.Leaf, offsets: list[int], lengths: list[int]) -> None:
    at = number * geometry.WINDOW
    for blocks, zero in leaf.runs:
        if not zero:
            offsets.append(at)
            lengths.append(blocks * geometry.BLOCK)
        at += blocks * geometry.BLOCK


def _pack_references(ids: list[bytes], offsets: list[int], lengths: list[int]) -> References:
    joined = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, geometry.ID_SIZE)
    return References(joined, np.array(offsets, np.int64), np.array(lengths, np.int64))


@dataclass(frozen=True, slots=True)
class _Item:
    """One segment and what is wanted of it, ordered by slot: which chunks, and where each goes on the disk."""

    pack: int
    segment: int
    slots: npt.NDArray[np.int64]
    ids: Ids
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def chunks(self) -> Iterator[tuple[bytes, int, int]]:
        """(identifier, offset on the disk, length) in order."""
        for at, (offset, length) in enumerate(zip(self.offsets.tolist(), self.lengths.tolist(), strict=True)):
            yield self.ids[at].tobytes(), offset, length


class _Worker:
    def __init__(self, job: _Job) -> None:
        self._job = job

    def work(self, run: list[_Item]) -> None:
        job = self._job
        stored = job.read_ahead(run)
        for item in run:
            wanted = int(item.lengths.sum())
            written = job.write_item(item, stored.get(item.segment))
            job.monitor.advance(wanted)
            with job.lock:
                job.written += written

    def close(self) -> None:
        pass


class _Job:
    def __init__(
        self,
        store: objects.Objects,
        size: int,
        writer: protocol.Target,
        monitor: Monitor,
        lost: salvage.Lost | None,
    ) -> None:
        self._store, self._size, self._writer, self.monitor = store, size, writer, monitor
        self._lost = lost
        self.lock = threading.Lock()
        self.written = 0

    def items(self, spans: Iterator[References]) -> Iterator[_Item]:
        for span in spans:
            places = self._store.index.lookup(span.ids)
            there = places.found
            for at in np.flatnonzero(~there).tolist():
                self._is_lost(span.ids[at].tobytes(), int(span.offsets[at]), int(span.lengths[at]), "is missing")
            if there.any():
                found = References(span.ids[there], span.offsets[there], span.lengths[there])
                yield from _group(found, places.pack[there], places.segment[there], places.slot[there])

    def runs(self, spans: Iterator[References]) -> Iterator[list[_Item]]:
        """The items, those of neighbouring segments together where a call costs a round trip."""
        most = _NEIGHBOURS if self._store.backend.capabilities.parallel > 1 else 1
        run: list[_Item] = []
        for item in self.items(spans):
            if run and (len(run) == most or (item.pack, item.segment) != (run[-1].pack, run[-1].segment + 1)):
                yield run
                run = []
            run.append(item)
        if run:
            yield run

    def read_ahead(self, run: list[_Item]) -> dict[int, memoryview]:
        """The segments of a run as they are stored, by number, when that is of use."""
        if len(run) == 1 or self._writer.resumed:
            return {}
        return self._store.read_run(run[0].pack, run[0].segment, run[-1].segment)

    def write_item(self, item: _Item, stored: memoryview | None) -> int:
        """Returns the bytes written; what the target has already is left alone."""
        if self._writer.resumed and self._is_there(item):
            return 0
        try:
            table, plain = self._store.read_slots(item.pack, item.segment, int(item.slots[-1]), stored)
            starts = self._check_slots(item, table, memoryview(plain))
        except objects.UNREADABLE as error:
            if newer := self._store.newer(error):
                return self._write_again(newer, item)
            return self._write_from_copies(item, error)
        written = 0
        for start, offset, length in _runs(starts, item.offsets, item.lengths):
            part = min(length, self._size - offset)
            self._writer.pwrite(offset, memoryview(plain)[start : start + part])
            written += part
        return written

    def _is_lost(
        self, chunk_id: bytes, offset: int, length: int, reason: str, problem: errors.VimgvcError | None = None
    ) -> None:
        """Remember the range when losses are to be survived; else raise."""
        if self._lost is not None:
            self._lost.add(offset, length)
        elif isinstance(problem, errors.BackendError):
            raise problem
        else:
            raise errors.IntegrityError(chunk_name(chunk_id, offset), reason)

    def _is_there(self, item: _Item) -> bool:
        buffer = room.pages(pack.MAX_SLOT[segment.DATA])
        for chunk_id, offset, length in item.chunks():
            part = min(length, self._size - offset)
            self._writer.pread_into(offset, buffer[:part])
            buffer[part:length] = bytes(length - part)
            if self._store.seals.chunk_id(buffer[:length]) != chunk_id:
                return False
        return True

    def _check_slots(self, item: _Item, table: pack.Table, plain: memoryview) -> npt.NDArray[np.int64]:
        """Where each of the item's chunks begins in `plain`; raises `IntegrityError` unless all are right."""
        _, starts, lengths = table.slots(item.segment)
        if item.slots[-1] >= len(lengths) or (lengths[item.slots] != item.lengths).any():
            raise errors.IntegrityError(f"pack {item.pack}", "holds chunks of other lengths than the manifest says")
        at = starts[item.slots]
        checked = None
        for start, (chunk_id, offset, length) in zip(at.tolist(), item.chunks(), strict=True):
            if checked != (start, chunk_id):
                data = plain[start : start + length]
                self._store.seals.check_slot(segment.DATA, data, chunk_id, chunk_name(chunk_id, offset))
                checked = (start, chunk_id)
        return at

    def _write_again(self, newer: objects.Objects, item: _Item) -> int:
        """The pack is gone: the same from where it is now."""
        job = _Job(newer, self._size, self._writer, self.monitor, self._lost)
        wanted = References(item.ids, item.offsets, item.lengths)
        return sum(job.write_item(part, None) for part in job.items(iter([wanted])))

    def _write_from_copies(self, item: _Item, problem: errors.VimgvcError) -> int:
        """The segment cannot be used: take each chunk from wherever else it is; raises when it is nowhere."""
        written = 0
        for chunk_id, offset, length in item.chunks():
            data = self._store.chunk(chunk_id)
            if data is None or len(data) != length:
                self._is_lost(chunk_id, offset, length, "is damaged", problem)
                continue
            part = min(length, self._size - offset)
            self._writer.pwrite(offset, memoryview(data)[:part])
            written += part
        return written


def chunk_name(chunk_id: bytes, offset: int) -> str:
    """What messages call a chunk."""
    return f"chunk {chunk_id.hex()[:12]} at byte {offset} of the disk"


def _group(
    span: References, packs: npt.NDArray[np.uint32], segments: npt.NDArray[np.uint16], slots: npt.NDArray[np.uint16]
) -> Iterator[_Item]:
    """References by segment, in pack order; inside a segment by slot, then by offset."""
    order = np.lexsort((span.offsets, slots, segments, packs))
    packs, segments = packs[order], segments[order]
    slot, ids = slots[order].astype(np.int64), span.ids[order]
    offsets, lengths = span.offsets[order], span.lengths[order]
    changes = np.flatnonzero((packs[1:] != packs[:-1]) | (segments[1:] != segments[:-1])) + 1
    edges = [0, *changes.tolist(), len(order)]
    for first, last in itertools.pairwise(edges):
        part = slice(first, last)
        yield _Item(int(packs[first]), int(segments[first]), slot[part], ids[part], offsets[part], lengths[part])


def _runs(
    starts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int, int]]:
    """Neighbours in the segment that are neighbours on the disk, as one (start, offset, length)."""
    breaks = (starts[1:] != starts[:-1] + lengths[:-1]) | (offsets[1:] != offsets[:-1] + lengths[:-1])
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(starts)]
    for first, last in itertools.pairwise(edges):
        length = int(starts[last - 1] + lengths[last - 1] - starts[first])
        yield int(starts[first]), int(offsets[first]), length


def data_bytes(source: tree.Tree) -> int:
    """Bytes of a disk that are not zeros, by whole chunks."""
    return sum(int(span.lengths.sum()) for span in references(source))


def materialize(
    store: objects.Objects,
    source: tree.Tree,
    writer: protocol.Target,
    threads: int,
    monitor: Monitor,
    *,
    lost: salvage.Lost | None = None,
) -> int:
    """Write a disk to `writer`, which then only needs `finish`; returns the bytes written.

    Raises `IntegrityError` before any wrong byte is written. A target that was filled before
    (`resumed`) is compared first and gets only what differs. With `lost`, which then must be that
    of `source` too, losses do not stop the rest; they are filled with a pattern at the end.
    """
    assert writer.size == source.size
    monitor.start("restoring", data_bytes(source))
    if writer.resumed:
        _zero_gaps(source, writer)
    written = write(store, references(source), writer, threads, monitor, lost=lost)
    if lost is not None:
        lost.fill(writer)
    return written


def write(
    store: objects.Objects,
    spans: Iterator[References],
    writer: protocol.Target,
    threads: int,
    monitor: Monitor,
    *,
    lost: salvage.Lost | None = None,
) -> int:
    """Write chunks of a disk as large as `writer`; returns the bytes written. Raises as `materialize`.

    `spans` is advanced by one thread at a time.
    """
    job = _Job(store, writer.size, writer, monitor, lost)
    crew.run(job.runs(spans), lambda: _Worker(job), threads)
    return job.written


def _zero_gaps(source: tree.Tree, writer: protocol.Target) -> None:
    at = 0
    for span in references(source):
        for offset, length in zip(span.offsets.tolist(), span.lengths.tolist(), strict=True):
            if offset > at:
                writer.zero(at, offset - at)
            at = min(offset + length, source.size)
    if at < source.size:
        writer.zero(at, source.size - at)
