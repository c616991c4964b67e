"""Extents: which parts of a disk hold data."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Kind(enum.Enum):
    DATA = "data"
    ZERO = "zero"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes (> 0) from `start`; all of one kind."""

    start: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        return self.start + self.length


def merge(items: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind; drops nothing, expects ascending order without gaps."""
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
    """The parts of `items` inside `[offset, offset + length)`."""
    end = offset + length
    for item in items:
        start, stop = max(item.start, offset), min(item.end, end)
        if start < stop:
            yield Extent(start, stop - start, item.kind)
