"""Disks whose pieces of one size lie anywhere in a file, as tables say: grains, blocks, clusters."""

from __future__ import annotations

import abc
import collections
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.disk import extents, protocol

if TYPE_CHECKING:
    import numpy as np

#: What a place is that is none.
HOLE, ZERO, BAD = -1, -2, -3

#: Tables kept: a few KiB each.
_TABLES = 128
_KINDS = {HOLE: extents.Kind.HOLE, ZERO: extents.Kind.ZERO}


class TableReader(abc.ABC):
    """A disk of `size` bytes in an open file, in pieces of `unit` bytes, as a Source. Closing it closes the file.

    `load` tells where the pieces of one table lie; every table has `per_table` of them. Reads raise
    `ImageDamaged` where the tables make no sense.
    """

    def __init__(self, file: protocol.Source, name: str, size: int, unit: int, per_table: int) -> None:
        self.file, self.name, self.unit, self.per_table = file, name, unit, per_table
        self._size = size
        self._lock = threading.Lock()
        self._tables: collections.OrderedDict[int, np.ndarray | int] = collections.OrderedDict()

    @abc.abstractmethod
    def load(self, number: int) -> np.ndarray | int:
        """Where the pieces of table `number` lie (int64, negative: `HOLE` and so on); one number if all are alike."""

    @property
    def size(self) -> int:
        return self._size

    @property
    def allocated_bytes(self) -> int:
        return min(self.size, self.file.allocated_bytes)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        for start, length, place in self._runs(offset, buffer.nbytes):
            part = buffer[start - offset : start - offset + length]
            if place < 0:
                part[:] = bytes(length)
            elif place + length > self.file.size:
                raise self.damaged(start, "its data lies behind the end of the file")
            else:
                self.file.pread_into(place, part)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        return extents.merge(
            extents.Extent(start, count, _KINDS.get(place, extents.Kind.DATA))
            for start, count, place in self._runs(offset, length)
        )

    def check_unchanged(self) -> None:
        self.file.check_unchanged()

    def close(self) -> None:
        self.file.close()

    def damaged(self, offset: int, reason: str) -> errors.ImageDamaged:
        return errors.ImageDamaged(f"{self.name}, guest offset {offset}", reason)

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(guest offset, length, place in the file or `HOLE` or `ZERO`), in order, contiguous within a table."""
        unit, covered, end = self.unit, self.unit * self.per_table, offset + length
        while offset < end:
            number, within = divmod(offset, covered)
            stop = min(end, (number + 1) * covered)
            places = self._places(number)
            if isinstance(places, int):
                yield offset, stop - offset, places
                offset = stop
                continue
            first, last = within // unit, (stop - 1 - number * covered) // unit
            for begin, count, place in _joined(places[first : last + 1], unit):
                start = max(offset, number * covered + (first + begin) * unit)
                finish = min(stop, number * covered + (first + begin + count) * unit)
                if place == BAD:
                    raise self.damaged(start, "the entry of its grain makes no sense")
                skipped = start - (number * covered + (first + begin) * unit)
                yield start, finish - start, place + skipped if place >= 0 else place
            offset = stop

    def _places(self, number: int) -> np.ndarray | int:
        with self._lock:
            found = self._tables.get(number)
            if found is not None:
                self._tables.move_to_end(number)
                return found
        places = self.load(number)
        with self._lock:
            self._tables[number] = places
            while len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        return places


def _joined(places: np.ndarray, unit: int) -> Iterator[tuple[int, int, int]]:
    """Runs of pieces that are alike or lie one behind the other: (first, count, place of the first)."""
    import numpy as np

    before, after = places[:-1], places[1:]
    together = ((before < 0) & (before == after)) | ((before >= 0) & (after == before + unit))
    cuts = np.flatnonzero(~together) + 1
    begin = 0
    for cut in [*cuts.tolist(), places.size]:
        yield begin, cut - begin, int(places[begin])
        begin = cut
