"""What damage means: from packs and nodes to ranges of disks.

A subtree is examined once for each extent it has on a disk, however often disks and commits refer
to it, and what is wrong with it is kept in bounded space: a few nodes can stand for 2^41 windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.model import geometry, manifest
from vimgvc.pipeline import tree
from vimgvc.store import index, objects, runs

#: What reading an object may raise; none of it stops the check of the others.
UNREADABLE = (*objects.UNREADABLE, errors.Unsupported)
MOST = 100


@dataclass(slots=True)
class Bad:
    """Numbers of packs whose table is lost, and (pack, segment) of segments that cannot be opened."""

    packs: set[int] = field(default_factory=set)
    segments: set[tuple[int, int]] = field(default_factory=set)


@dataclass(slots=True)
class Damage:
    """Ranges (start, length) in bytes, ascending and apart, and the reasons; at most `MOST` of each.

    What does not fit any more makes the last range longer, so that the ranges still cover it.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def add(self, start: int, length: int, reason: str) -> None:
        """One more range, behind all others."""
        self._extend(start, length)
        if len(self.reasons) < MOST:
            self.reasons.add(reason)

    def add_all(self, other: Damage, start: int) -> None:
        """What is wrong with a part that begins at `start`, behind all others."""
        for offset, length in other.ranges:
            self._extend(start + offset, length)
        if len(self.reasons) < MOST:
            self.reasons |= other.reasons

    def _extend(self, start: int, length: int) -> None:
        if self.ranges:
            first, before = self.ranges[-1]
            if first + before == start or len(self.ranges) == MOST:
                self.ranges[-1] = (first, start + length - first)
                return
        self.ranges.append((start, length))


_SOUND = Damage()


class Disks:
    """Examines disks; not thread-safe.

    With `promised` chunks that no pack has are no damage; `absent` counts their bytes, once for each window that
    differs.
    """

    def __init__(self, store: objects.Objects, bad: Bad, *, promised: bool = False) -> None:
        self._store, self._bad, self._promised = store, bad, promised
        self.absent = 0
        #: By identifier, level and length in bytes.
        self._known: dict[tuple[bytes, int, int], Damage] = {}

    def examine(self, source: tree.Tree) -> Damage:
        """What of a disk cannot be restored, as ranges of its windows and chunks."""
        if source.root.top == geometry.ZERO_ID:
            return _SOUND
        return self._node(source, source.root.level, 0, source.root.top)

    def _node(self, source: tree.Tree, level: int, window: int, node_id: bytes) -> Damage:
        """Ranges count from the node's first window."""
        start = window * geometry.WINDOW
        length = min(geometry.span(level) * geometry.WINDOW, source.size - start)
        key = (node_id, level, length)
        if key not in self._known:
            try:
                damage = self._open_node(source, level, window, node_id)
            except UNREADABLE as error:
                damage = Damage([(0, length)], {str(error)})
            self._known[key] = damage or _SOUND
        return self._known[key]

    def _open_node(self, source: tree.Tree, level: int, window: int, node_id: bytes) -> Damage:
        damage = Damage()
        if level == 0:
            [(_, leaf)] = source.leaves([tree.Window(window, node_id)])
            for start, length, reason in self._lost_chunks(leaf):
                damage.add(start, length, reason)
            return damage
        step = geometry.span(level - 1)
        for child, child_id in source.inner(level, window, node_id).children.items():
            part = self._node(source, level - 1, window + child * step, child_id)
            damage.add_all(part, child * step * geometry.WINDOW)
        return damage

    def _lost_chunks(self, leaf: manifest.Leaf) -> Iterator[tuple[int, int, str]]:
        """(start in the window, length, reason) of the chunks that no sound pack has."""
        runs = np.array(leaf.runs, np.int64)
        lengths = runs[:, 0] * geometry.BLOCK
        starts = np.cumsum(lengths) - lengths
        chunks = runs[:, 1] == 0
        starts, lengths = starts[chunks], lengths[chunks]
        ids = np.frombuffer(leaf.ids, np.uint8).reshape(-1, geometry.ID_SIZE)
        places = self._store.index.lookup(ids)
        wrong = ~self._fits(ids, lengths, places)
        if self._promised:
            self.absent += int(lengths[~places.found].sum())
            wrong &= places.found
        for chunk in np.flatnonzero(wrong).tolist():
            reason = self._why(ids[chunk].tobytes(), int(lengths[chunk]), places, chunk)
            if reason:
                yield int(starts[chunk]), int(lengths[chunk]), reason

    def _fits(
        self, ids: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], places: index.Places
    ) -> npt.NDArray[np.bool_]:
        """Which chunks have a sound segment where the index says, and their length in its pack's table."""
        fits = np.zeros(len(ids), np.bool_)
        for number in runs.distinct(places.pack[places.found]).tolist():
            if number in self._bad.packs:
                continue
            try:
                table = self._store.table(number)
            except UNREADABLE:
                self._bad.packs.add(number)
                continue
            here = np.flatnonzero(places.found & (places.pack == number))
            segments, slots = places.segment[here].astype(np.int64), places.slot[here].astype(np.int64)
            there = segments < len(table.segments)
            segments[~there] = 0
            there &= slots < table.segments["slots"][segments]
            slots[~there] = 0
            at = table.first_slot[segments] + slots
            there &= (table.ids[at] == ids[here]).all(axis=1) & (table.lengths[at] == lengths[here])
            if self._bad.segments:
                there &= [(number, segment) not in self._bad.segments for segment in segments.tolist()]
            fits[here] = there
        return fits

    def _why(self, chunk_id: bytes, length: int, places: index.Places, chunk: int) -> str:
        """Why a chunk that is not where it should be is lost; empty when another copy serves."""
        if not places.found[chunk]:
            return "chunks are missing"
        data = self._store.chunk(chunk_id)
        if data is None:
            return f"chunks are lost in pack {self._store.index.pack(int(places.pack[chunk])).name[:12]}"
        return "" if len(data) == length else "chunks are not as long as the manifest says"
