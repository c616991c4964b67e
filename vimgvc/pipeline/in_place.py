"""A target that holds another state becomes a disk: only what differs is written.

What differs is told by the manifest of the state that the target is in, or found by hashing the
target along the leaves of the disk.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vimgvc import errors
from vimgvc.disk import extents, protocol, room
from vimgvc.model import geometry, manifest
from vimgvc.monitor import Monitor
from vimgvc.pipeline import materialize, ordered, tree, treediff, window, windows
from vimgvc.store import objects

_NO_RANGES = windows.Ranges()


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done in a part of the disk, in bytes.

    `chunks` are (offset, length, identifier) to be written; `zeros` (offset, length) to be zeroed.
    """

    chunks: list[tuple[int, int, bytes]]
    zeros: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes that were read of the target, written to it, and zeroed in it."""

    compared: int
    written: int
    zeroed: int


def known(source: tree.Tree, base: tree.Tree) -> Iterator[Change]:
    """What turns a target that holds `base` into `source`, by the manifests: nothing else is read.

    Raises `IntegrityError` where what differs of the manifests is damaged.
    """
    pieces = _by_window(treediff.changed(source, base))
    for family, found in itertools.groupby(pieces, lambda piece: piece[0] // geometry.FANOUT):
        ranges: dict[int, list[tuple[int, int]]] = {}
        zeros = []
        for number, item in found:
            if item.kind is extents.Kind.ZERO:
                zeros.append((item.start, item.length))
            else:
                ranges.setdefault(number, []).append((item.start, item.end))
        yield Change([], zeros)
        for chunks in _chunks(source, family, ranges):
            yield Change(chunks, [])


def _by_window(items: Iterator[extents.Extent]) -> Iterator[tuple[int, extents.Extent]]:
    for item in items:
        at = item.start
        while at < item.end:
            number = at // geometry.WINDOW
            end = min(item.end, (number + 1) * geometry.WINDOW)
            yield number, extents.Extent(at, end - at, item.kind)
            at = end


def _chunks(
    source: tree.Tree, family: int, ranges: dict[int, list[tuple[int, int]]]
) -> Iterator[list[tuple[int, int, bytes]]]:
    """By window of one family, the chunks that begin in `ranges`: those are made of whole chunks."""
    if not ranges:
        return
    first = family * geometry.FANOUT
    last = min(first + geometry.FANOUT, geometry.windows(source.size))
    wanted = [place for place in source.windows(first, last) if place.number in ranges]
    for place, leaf in source.leaves(wanted):
        yield _beginning_in(ranges[place.number], place.number * geometry.WINDOW, window.chunks(leaf))


def _beginning_in(
    ranges: list[tuple[int, int]], start: int, chunks: list[tuple[int, int, bytes]]
) -> list[tuple[int, int, bytes]]:
    """The chunks of the window at `start` that begin in `ranges`, which are of the disk."""
    offsets = [offset for offset, _, _ in chunks]
    return [
        (start + offset, length, chunk_id)
        for first, end in ranges
        for offset, length, chunk_id in chunks[
            bisect.bisect_left(offsets, first - start) : bisect.bisect_left(offsets, end - start)
        ]
    ]


class _Comparison:
    """Hashes a target along the leaves of a disk."""

    def __init__(self, store: objects.Objects, source: tree.Tree, target: protocol.Target, monitor: Monitor) -> None:
        self._chunk_id, self._source, self._target, self._monitor = store.seals.chunk_id, source, target, monitor
        self._local = threading.local()
        self._lock = threading.Lock()
        self.compared = 0

    def items(self) -> Iterator[tuple[int, windows.Ranges | None, manifest.Leaf | None]]:
        """Every window that either side has data in."""
        leaves = ((place.number, leaf) for group in self._source.groups() for place, leaf in group)
        data = windows.data(self._target.extents(0, self._source.size))
        return windows.pair(windows.split(data), leaves)

    def change(self, item: tuple[int, windows.Ranges | None, manifest.Leaf | None]) -> Change:
        number, ranges, leaf = item
        blocks = geometry.window_blocks(self._source.size, number)
        view = self._view()[: blocks * geometry.BLOCK]
        done = windows.read(self._target, number, _NO_RANGES if ranges is None else ranges, view)
        with self._lock:
            self.compared += done
        self._monitor.advance(done)
        return self._differences(number * geometry.WINDOW, view, ((blocks, True),) if leaf is None else leaf.runs, leaf)

    def _view(self) -> memoryview:
        view: memoryview | None = getattr(self._local, "view", None)
        if view is None:
            view = self._local.view = room.pages(geometry.WINDOW)
        return view

    def _differences(
        self, start: int, view: memoryview, runs: tuple[tuple[int, bool], ...], leaf: manifest.Leaf | None
    ) -> Change:
        found = Change([], [])
        ids = iter(leaf.chunk_ids() if leaf else ())
        at = 0
        for blocks, zero in runs:
            length = blocks * geometry.BLOCK
            part = view[at : at + length]
            if zero:
                if np.frombuffer(part, np.uint64).any():
                    found.zeros.append((start + at, length))
            elif self._chunk_id(part) != (chunk_id := next(ids)):
                found.chunks.append((start + at, length, chunk_id))
            at += length
        return found


class _Applied:
    """Changes in bounded portions: nothing of a portion is written before all of it is known to be there."""

    def __init__(self, store: objects.Objects, target: protocol.Target) -> None:
        self._store, self._target = store, target
        self.zeroed = 0

    def spans(self, portions: Iterable[Change]) -> Iterator[materialize.References]:
        for portion in portions:
            check_there(self._store, portion.chunks)
            for offset, length in portion.zeros:
                inside = min(length, self._target.size - offset)
                self._target.zero(offset, inside)
                self.zeroed += inside
            if portion.chunks:
                yield _references(portion.chunks)


def _portions(changes: Iterable[Change], most: int) -> Iterator[Change]:
    """The same changes, some together: about `most` chunks and ranges of zeros at once."""
    found = Change([], [])
    for change in changes:
        found.chunks.extend(change.chunks)
        found.zeros.extend(change.zeros)
        if len(found.chunks) + len(found.zeros) >= most:
            yield found
            found = Change([], [])
    if found.chunks or found.zeros:
        yield found


def _references(chunks: list[tuple[int, int, bytes]]) -> materialize.References:
    offsets, lengths, ids = zip(*chunks, strict=True)
    joined = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, geometry.ID_SIZE)
    return materialize.References(joined, np.array(offsets, np.int64), np.array(lengths, np.int64))


def check_there(store: objects.Objects, chunks: list[tuple[int, int, bytes]]) -> None:
    """Raise `IntegrityError` naming the first of `chunks` that is in no pack."""
    if not chunks:
        return
    found = store.index.contains(_references(chunks).ids)
    for at in np.flatnonzero(~found).tolist():
        offset, _, chunk_id = chunks[at]
        raise errors.IntegrityError(materialize.chunk_name(chunk_id, offset), "is missing")


def from_base(
    store: objects.Objects,
    source: tree.Tree,
    base: tree.Tree,
    target: protocol.Target,
    *,
    threads: int,
    monitor: Monitor,
    span_chunks: int = materialize.SPAN_CHUNKS,
) -> Written:
    """Write what `source` has otherwise than `base`, which `target` must hold, with zeros behind it.

    Nothing is written before every chunk is known to be there. Raises `IntegrityError`, and what `target` raises.
    """
    total, only = 0, None
    for number, portion in enumerate(_portions(known(source, base), span_chunks)):
        check_there(store, portion.chunks)
        total += sum(length for _, length, _ in portion.chunks)
        only = None if number else portion
    monitor.start("restoring", total)
    work = _Applied(store, target)
    # More than one portion is not held: the manifests are read again.
    portions = [only] if only is not None else _portions(known(source, base), span_chunks)
    written = materialize.write(store, work.spans(portions), target, threads, monitor)
    return Written(0, written, work.zeroed)


def compared(
    store: objects.Objects,
    source: tree.Tree,
    target: protocol.Target,
    *,
    threads: int,
    monitor: Monitor,
    span_chunks: int = materialize.SPAN_CHUNKS,
) -> Written:
    """Hash `target` along the leaves of `source` and write what differs; of equal data nothing is read here.

    Raises `IntegrityError`, and what `target` raises.
    """
    total = sum(length for _, length in windows.data(target.extents(0, source.size)))
    comparison, work = _Comparison(store, source, target, monitor), _Applied(store, target)
    monitor.start("comparing", total)

    def told() -> Generator[materialize.References, None, None]:
        with contextlib.closing(ordered.ordered(comparison.items(), comparison.change, threads)) as changes:
            for span in work.spans(_portions(changes, span_chunks)):
                monitor.start("restoring", int(span.lengths.sum()))
                yield span
                monitor.start("comparing", total - comparison.compared)

    with contextlib.closing(told()) as spans:
        written = materialize.write(store, spans, target, threads, monitor)
    return Written(comparison.compared, written, work.zeroed)
