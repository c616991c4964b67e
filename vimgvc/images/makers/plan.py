"""Where everything lies in a container of pieces and tables that is to be written, from its disk's extents alone.

A container has a head with its tables, then its pieces in the order of the disk, each with the same gap
in front of it, then perhaps a foot. What a format adds is its `Maker`. Spec: specs/foreign-formats.md §5.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import units

#: Formats count in sectors.
SECTOR = 512
#: Entries of a table made at once.
STEP = 1 << 17

Places = npt.NDArray[np.int64]
#: Entries of a table, from the places (> 0) of their pieces.
Encode = Callable[[Places], npt.NDArray[np.unsignedinteger]]


class Maker(abc.ABC):
    """How a disk of `size` bytes, whole sectors, lies in a container with these `options`, as qemu-img names them.

    `unit`: bytes of a piece. `gap`: bytes in front of each. `everything`: every piece has its place, also
    those without data. Raises `UsageError` for a disk that the format cannot hold.
    """

    fmt: ClassVar[str]
    gap: ClassVar[int] = 0
    everything = False

    def __init__(self, size: int, options: Mapping[str, str], unit: int) -> None:
        self.size, self.options, self.unit = size, options, unit
        self.count = -(-size // unit)

    @abc.abstractmethod
    def data_offset(self, there: units.UnitSet) -> int:
        """Where the first of the pieces `there` begins, with its gap."""

    def file_size(self, data_end: int) -> int:
        """Where the file ends if the pieces end at `data_end`."""
        return data_end

    @abc.abstractmethod
    def around(self, plan: Plan, name: str) -> Iterator[tuple[int, bytes]]:
        """Everything but the data, as (offset, bytes); zeros may be left out. The file will be called `name`."""

    @abc.abstractmethod
    def opened(self, file: protocol.Source, name: str, plan: Plan) -> protocol.Source:
        """The disk in a file that was written so, found by its tables."""

    def at_most(self, what: str, value: int, limit: int) -> None:
        """Raise `UsageError` unless the format can count so far."""
        if value > limit:
            raise errors.UsageError(
                f"{self.fmt} cannot hold this disk: {what} would be {value}, and {limit} is the most",
                hint="choose another format, or larger clusters where it has them",
            )


class Plan:
    """The layout of a container for a disk of `size` bytes with `data` (ascending; only DATA matters).

    `data_bytes`: how much that is.
    """

    def __init__(self, size: int, maker: Maker, data: Iterable[extents.Extent]) -> None:
        self.size, self.maker, self.unit = size, maker, maker.unit
        #: Pieces with a place.
        self.there, self.data_bytes = self._collect(data)
        self.data_offset = maker.data_offset(self.there)
        self.stride = maker.gap + maker.unit
        self.data_end = self.data_offset + self.there.total * self.stride
        self.file_size = maker.file_size(self.data_end)

    def _collect(self, data: Iterable[extents.Extent]) -> tuple[units.UnitSet, int]:
        found, total = units.Builder(self.maker.count), 0
        if self.maker.everything:
            found.add(0, self.maker.count)
        for item in data:
            if item.kind is extents.Kind.DATA:
                extents.check_range(self.size, item.start, item.length)
                total += item.length
                if not self.maker.everything:
                    found.add(item.start // self.unit, -(-item.end // self.unit))
        return found.done(), total

    def place(self, rank: int) -> int:
        """Where the piece that `rank` others with a place come before begins."""
        return self.data_offset + rank * self.stride + self.maker.gap

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(offset on the disk, length, place in the file or -1) of a range, in order, each contiguous in the file."""
        end = offset + length
        if not length:
            return
        done = offset
        for first, stop in self.there.runs(offset // self.unit, -(-end // self.unit)):
            start = max(offset, first * self.unit)
            if start > done:
                yield done, start - done, -1
            for low, high in [(first, stop)] if not self.maker.gap else ((at, at + 1) for at in range(first, stop)):
                start, done = max(offset, low * self.unit), min(end, high * self.unit)
                yield start, done - start, self.place(self.there.rank(low)) + start - low * self.unit
        if end > done:
            yield done, end - done, -1

    def entries(self, first: int, end: int, dtype: str, encode: Encode, absent: int = 0) -> bytes:
        """What a table says of the pieces `first` up to `end`: `absent` of those without a place."""
        there = self.there.mask(first, end)
        found = np.full(end - first, absent, dtype)
        ranks = self.there.rank(min(first, self.there.count)) + np.arange(int(there.sum()), dtype=np.int64)
        found[there] = encode(self.data_offset + ranks * self.stride + self.maker.gap)
        return found.tobytes()

    def table(self, at: int, count: int, dtype: str, encode: Encode, absent: int = 0) -> Iterator[tuple[int, bytes]]:
        """A table of `count` entries at `at`, in portions; those of zeros are left out."""
        width = np.dtype(dtype).itemsize
        for first in range(0, count, STEP):
            end = min(first + STEP, count)
            if absent or self.there.has_any(first, end):
                yield at + first * width, self.entries(first, end, dtype, encode, absent)

    def fingerprint(self) -> str:
        """16 hex digits, the same for the same layout and options."""
        maker = self.maker
        said = repr((maker.fmt, sorted(maker.options.items()), self.size, self.data_offset, self.stride))
        return hashlib.blake2b(said.encode() + self.there.fingerprint(), digest_size=8).hexdigest()


def padded(data: bytes, grid: int = SECTOR) -> bytes:
    return data + bytes(-len(data) % grid)


def rounded(length: int, grid: int = SECTOR) -> int:
    """The next multiple of `grid` that is not below `length`."""
    return -(-length // grid) * grid
