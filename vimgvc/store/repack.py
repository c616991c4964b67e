"""Needed slots of packs that hold other things too, moved into new packs.

A segment that is needed as a whole moves as it is, after its tag was checked. Of another one the needed slots are
checked one by one and sealed again. What cannot be read stays where it is: its pack is kept.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass

import numpy as np

from vimgvc import errors
from vimgvc.codec import segment
from vimgvc.monitor import Monitor
from vimgvc.store import mark, objects, pack, pack_table, survey, writer

#: Stored bytes that one thread works on at a time.
_UNIT = 4 << 20
#: As a commit makes them.
_SIZES = {segment.DATA: 1 << 20, segment.TREE: 128 << 10}


@dataclass(frozen=True, slots=True)
class Effort:
    """zstd level, reading new segments back, threads."""

    level: int
    verify: bool
    threads: int


@dataclass(frozen=True, slots=True)
class _Unit:
    """Segments of one pack, with the flags of each one's slots."""

    source: pack_table.Pack
    table: pack.Table
    segments: tuple[tuple[int, mark.Flags], ...]
    stored: int


@dataclass(frozen=True, slots=True)
class _Sealed:
    shape: segment.Shape
    stored: memoryview
    ids: bytes
    lengths: list[int]


def repack(
    marker: mark.Marker,
    packs: Sequence[pack_table.Pack],
    out: writer.Writer,
    effort: Effort,
    monitor: Monitor,
    *,
    unreadable: Callable[[errors.VimgvcError], None] | None = None,
) -> set[str]:
    """Hand everything needed of `packs` to `out`; returns the names of those of which something cannot be read.

    `unreadable` is told why; without it a warning says that such a pack stays. The same packs give the same segments
    in the same order, however many threads there are.
    """
    stay: set[str] = set()

    def keep(name: str, error: errors.VimgvcError) -> None:
        if name not in stay:
            stay.add(name)
            if unreadable is None:
                monitor.problem(f"{error}; pack {name[:12]} stays as it is")
            else:
                unreadable(error)

    monitor.start("repacking", sum(item.size for item in packs))
    worker = _Worker(marker.store, effort)
    waiting: collections.deque[tuple[_Unit, futures.Future[list[_Sealed]]]] = collections.deque()

    def take() -> None:
        unit, result = waiting.popleft()
        try:
            sealed = result.result()
        except objects.UNREADABLE as error:
            keep(unit.source.name, error)
            return
        for one in sealed:
            out.add(one.shape, one.stored, one.ids, one.lengths)
        monitor.advance(unit.stored)

    with futures.ThreadPoolExecutor(effort.threads, "vimgvc-repack") as pool:
        try:
            for unit in _units(marker, packs, keep):
                waiting.append((unit, pool.submit(worker.work, unit)))
                if len(waiting) > effort.threads:
                    take()
            while waiting:
                take()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return stay


def _units(
    marker: mark.Marker, packs: Sequence[pack_table.Pack], keep: Callable[[str, errors.VimgvcError], None]
) -> Iterator[_Unit]:
    for item in packs:
        try:
            table = marker.store.table(item.number)
            needed = survey.flags_of(marker, item.number, table)
        except objects.UNREADABLE as error:
            keep(item.name, error)
            continue
        chosen: list[tuple[int, mark.Flags]] = []
        size = 0
        for number, flags in enumerate(np.split(needed, table.first_slot[1:])):
            if not flags.any():
                continue
            chosen.append((number, flags))
            size += int(table.segments["stored"][number])
            if size >= _UNIT:
                yield _Unit(item, table, tuple(chosen), size)
                chosen, size = [], 0
        if chosen:
            yield _Unit(item, table, tuple(chosen), size)


class _Worker:
    """What the threads do; each has its own sealers."""

    def __init__(self, store: objects.Objects, effort: Effort) -> None:
        self._store, self._effort = store, effort
        self._local = threading.local()

    def work(self, unit: _Unit) -> list[_Sealed]:
        """The needed slots of the unit in new segments; raises `IntegrityError` for what is damaged."""
        done: list[_Sealed] = []
        pieces = _Pieces(self._sealer(unit.table.kind), unit.table.kind, done)
        for number, flags in unit.segments:
            offset, shape = unit.table.shape(number)
            slots = unit.table.slots(number)
            where = f"pack {unit.source.name[:12]} segment {number}"
            stored = self._store.backend.get(pack.blob_name(unit.source.name), offset, shape.stored_length)
            if flags.all():
                self._store.opener().authenticate(shape, stored, slots[0], where)
                done.append(_Sealed(shape, memoryview(stored), slots[0], slots[2].tolist()))
            else:
                for data, item in self._needed(shape, stored, slots, flags, where):
                    pieces.add(data, item)
        pieces.flush()
        return done

    def _needed(
        self, shape: segment.Shape, stored: bytes, slots: tuple[bytes, mark.Numbers, mark.Sizes], flags: mark.Flags,
        where: str,
    ) -> Iterator[tuple[memoryview, bytes]]:  # fmt: skip
        """The chosen slots of a segment with their identifiers, checked; what is behind them is not decompressed."""
        ids, offsets, lengths = slots
        chosen = np.flatnonzero(flags)
        starts, ends = offsets[chosen].tolist(), (offsets + lengths)[chosen].tolist()
        plain = memoryview(self._store.opener().beginning(shape, stored, ids, ends[-1], where))
        for slot, start, end in zip(chosen.tolist(), starts, ends, strict=True):
            data, item = plain[start:end], ids[32 * slot : 32 * slot + 32]
            self._store.seals.check_slot(shape.kind, data, item, "stored segment")
            yield data, item

    def _sealer(self, kind: int) -> segment.Sealer:
        sealers: dict[int, segment.Sealer] | None = getattr(self._local, "sealers", None)
        if sealers is None:
            sealers = self._local.sealers = {}
        if kind not in sealers:
            capacity = _SIZES[kind] + pack.MAX_SLOT[kind]
            sealers[kind] = self._store.seals.sealer(
                level=self._effort.level, verify=self._effort.verify, capacity=capacity
            )
        return sealers[kind]


class _Pieces:
    """Collects slots and seals them as segments."""

    def __init__(self, sealer: segment.Sealer, kind: int, done: list[_Sealed]) -> None:
        self._sealer, self._kind, self._done = sealer, kind, done
        self._buffer = bytearray(_SIZES[kind] + pack.MAX_SLOT[kind])
        self._length = 0
        self._ids: list[bytes] = []
        self._lengths: list[int] = []

    def add(self, data: memoryview, item: bytes) -> None:
        if self._length + len(data) > _SIZES[self._kind]:
            self.flush()
        self._buffer[self._length : self._length + len(data)] = data
        self._length += len(data)
        self._ids.append(item)
        self._lengths.append(len(data))

    def flush(self) -> None:
        if not self._length:
            return
        ids = b"".join(self._ids)
        shape, stored = self._sealer.seal(self._kind, self._buffer, self._length, ids)
        self._done.append(_Sealed(shape, memoryview(bytes(stored)), ids, self._lengths))
        self._length, self._ids, self._lengths = 0, [], []


def check_packs(store: objects.Objects, packs: Sequence[pack_table.Pack]) -> None:
    """Read new packs back; raises `IntegrityError` unless each is what its name says."""
    from blake3 import blake3

    for item in packs:
        hasher, blob = blake3(), pack.blob_name(item.name)
        for start in range(0, item.size, _UNIT):
            hasher.update(store.backend.get(blob, start, min(_UNIT, item.size - start)))
        if hasher.hexdigest() != item.name:
            raise errors.IntegrityError(f"pack {item.name[:12]}", "is not what was written")
