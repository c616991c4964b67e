"""Extents: which parts of a disk hold data.

Every function takes extents in ascending order without overlap, is lazy, and needs memory for one
extent, so that a fragmented disk of terabytes passes through.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Kind(enum.Enum):
    DATA = "data"
    ZERO = "zero"
    HOLE = "hole"


#: What a range is that holds several kinds: it must be read if any part must be.
_RANK = {Kind.HOLE: 0, Kind.ZERO: 1, Kind.DATA: 2}


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes (> 0) from `start`; all of one kind."""

    start: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        return self.start + self.length


def check_range(size: int, offset: int, length: int) -> None:
    """`ValueError` unless `[offset, offset + length)` lies inside a disk of `size` bytes."""
    if offset < 0 or length < 0 or offset + length > size:
        msg = f"{length} bytes at {offset} are outside a disk of {size} bytes"
        raise ValueError(msg)


def merge(items: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind that touch. Gaps stay gaps."""
    last: Extent | None = None
    for item in items:
        if last is not None and last.kind is item.kind and last.end == item.start:
            last = Extent(last.start, last.length + item.length, last.kind)
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last


def clip(items: Iterable[Extent], offset: int, length: int) -> Iterator[Extent]:
    """The parts of `items` inside `[offset, offset + length)`; stops at the first extent beyond it."""
    end = offset + length
    for item in items:
        if item.start >= end:
            return
        start, stop = max(item.start, offset), min(item.end, end)
        if start < stop:
            yield Extent(start, stop - start, item.kind)


def cover(items: Iterable[Extent], offset: int, length: int, kind: Kind) -> Iterator[Extent]:
    """Exactly `[offset, offset + length)`: `items` clipped to it, gaps filled with `kind`, merged."""
    return merge(_fill(clip(items, offset, length), offset, offset + length, kind))


def _fill(items: Iterable[Extent], position: int, end: int, kind: Kind) -> Iterator[Extent]:
    for item in items:
        if position < item.start:
            yield Extent(position, item.start - position, kind)
        yield item
        position = item.end
    if position < end:
        yield Extent(position, end - position, kind)


def align(items: Iterable[Extent], grid: int, size: int) -> Iterator[Extent]:
    """Move every border outwards to a multiple of `grid`, or to `size` in the last cell; merged.

    A cell of the grid that several kinds touch is DATA if any is, else ZERO. `items` lie below
    `size`; cells that none of them touches stay gaps.
    """
    return merge(_align(items, grid, size))


def _align(items: Iterable[Extent], grid: int, size: int) -> Iterator[Extent]:
    # The last cell touched so far is held back: the next extent may raise its kind.
    cell, kind = -1, Kind.HOLE
    for item in items:
        first, last = item.start // grid, (item.end - 1) // grid
        if first == cell:
            kind = max(kind, item.kind, key=_RANK.__getitem__)
            first += 1
        if first > last:
            continue
        if cell >= 0:
            yield _cells(cell, cell + 1, grid, size, kind)
        if first < last:
            yield _cells(first, last, grid, size, item.kind)
        cell, kind = last, item.kind
    if cell >= 0:
        yield _cells(cell, cell + 1, grid, size, kind)


def _cells(first: int, end: int, grid: int, size: int, kind: Kind) -> Extent:
    start = first * grid
    return Extent(start, min(end * grid, size) - start, kind)
