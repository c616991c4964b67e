"""A disk put together from pieces of other readers: disks in several files, and members of archives."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vimgvc.disk import extents, protocol


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes (> 0) of `source` from `offset` on, which lie inside it; zeros if there is no source."""

    length: int
    source: protocol.Source | None = None
    offset: int = 0


class PiecesReader:
    """The concatenation of `pieces` as a Source; closing it closes their sources, each once."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = tuple(pieces)
        self._starts = []
        self._size = 0
        for piece in self._pieces:
            if piece.source is not None:
                extents.check_range(piece.source.size, piece.offset, piece.length)
            self._starts.append(self._size)
            self._size += piece.length
        self._sources = _distinct(self._pieces)

    @property
    def size(self) -> int:
        return self._size

    @property
    def allocated_bytes(self) -> int:
        return min(self._size, sum(source.allocated_bytes for source in self._sources))

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        done = 0
        for piece, start, length in self._parts(offset, buffer.nbytes):
            part = buffer[done : done + length]
            if piece.source is None:
                part[:] = bytes(length)
            else:
                piece.source.pread_into(piece.offset + start, part)
            done += length

    def _extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        position = offset
        for piece, start, part in self._parts(offset, length):
            if piece.source is None:
                yield extents.Extent(position, part, extents.Kind.HOLE)
            else:
                shift = position - piece.offset - start
                for item in piece.source.extents(piece.offset + start, part):
                    yield extents.Extent(item.start + shift, item.length, item.kind)
            position += part

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        return extents.merge(self._extents(offset, length))

    def check_unchanged(self) -> None:
        for source in self._sources:
            source.check_unchanged()

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for source in self._sources:
                stack.callback(source.close)

    def _parts(self, offset: int, length: int) -> Iterator[tuple[Piece, int, int]]:
        """The pieces of a range, in order: each with the place in it and how much of it."""
        end = offset + length
        number = bisect.bisect_right(self._starts, offset) - 1
        while offset < end:
            piece, start = self._pieces[number], self._starts[number]
            stop = min(end, start + piece.length)
            yield piece, offset - start, stop - offset
            offset, number = stop, number + 1


class SliceReader:
    """`length` bytes of `source` from `offset` on as a Source of their own, which leaves `source` open.

    `source`, `offset` and `length` tell a program that opens the file itself where to look.
    """

    def __init__(self, source: protocol.Source, offset: int, length: int) -> None:
        extents.check_range(source.size, offset, length)
        self.source = source
        self.offset = offset
        self.length = length

    @property
    def size(self) -> int:
        return self.length

    @property
    def allocated_bytes(self) -> int:
        return min(self.length, self.source.allocated_bytes)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.length, offset, buffer.nbytes)
        self.source.pread_into(self.offset + offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.length, offset, length)
        return (
            extents.Extent(item.start - self.offset, item.length, item.kind)
            for item in self.source.extents(self.offset + offset, length)
        )

    def check_unchanged(self) -> None:
        self.source.check_unchanged()

    def close(self) -> None:
        """The source stays open: other slices may be in use."""


def _distinct(pieces: Sequence[Piece]) -> tuple[protocol.Source, ...]:
    found: dict[int, protocol.Source] = {}
    for piece in pieces:
        if piece.source is not None:
            found.setdefault(id(piece.source), piece.source)
    return tuple(found.values())
