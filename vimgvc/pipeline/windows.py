"""Disks by windows, and two ascending streams as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from vimgvc.disk import extents
from vimgvc.model import geometry

A = TypeVar("A")
B = TypeVar("B")
#: (offset, length) of parts of a window, ascending.
Ranges = list[tuple[int, int]]

_ZEROS = memoryview(bytes(geometry.WINDOW))


class Readable(Protocol):
    """What a `Reader` and a `Target` have in common."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        """As of a `Reader`."""


def data(items: Iterable[extents.Extent]) -> Iterator[tuple[int, int]]:
    """(start, length) of what is DATA among `items`."""
    for item in items:
        if item.kind is extents.Kind.DATA:
            yield item.start, item.length


def split(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Ranges]]:
    """The windows that ascending (start, length) on a disk touch, with their parts inside each."""
    number, ranges = -1, Ranges()
    for start, length in parts:
        at, end = start, start + length
        while at < end:
            here, offset = divmod(at, geometry.WINDOW)
            piece = min(end - at, geometry.WINDOW - offset)
            if here != number:
                if ranges:
                    yield number, ranges
                number, ranges = here, []
            ranges.append((offset, piece))
            at += piece
    if ranges:
        yield number, ranges


def pair(left: Iterator[tuple[int, A]], right: Iterator[tuple[int, B]]) -> Iterator[tuple[int, A | None, B | None]]:
    """Every number of either ascending stream once, with what each of them has for it."""
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None
            yield one[0], one[1], None
            one = next(left, None)
        elif one is None or two[0] < one[0]:
            yield two[0], None, two[1]
            two = next(right, None)
        else:
            yield one[0], one[1], two[1]
            one, two = next(left, None), next(right, None)


def read(reader: Readable, number: int, ranges: Ranges, view: memoryview) -> int:
    """Fill `view` with the bytes that a window has in `ranges`, and zeros between them; returns the bytes read."""
    at, done = 0, 0
    for offset, length in ranges:
        view[at:offset] = _ZEROS[: offset - at]
        at = offset + length
        reader.pread_into(number * geometry.WINDOW + offset, view[offset:at])
        done += length
    view[at:] = _ZEROS[: len(view) - at]
    return done
