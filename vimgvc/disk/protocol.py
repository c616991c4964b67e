"""The contracts of a disk to read from and a disk to write to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vimgvc.disk import extents


class Reader(Protocol):
    """A disk of `size` bytes that does not change while it is read.

    Positionless: one Reader is shared by all threads. Failures are `VimgvcError`s.
    """

    @property
    def size(self) -> int: ...

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` exactly with the bytes at `offset`, or raise. Never short."""

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """Cover `[offset, offset + length)` completely, in order, merged, without overlap.

        HOLE and ZERO extents read as zeros and need not be read; they differ in whether the
        source had space allocated.
        """

    def close(self) -> None: ...


class Writer(Protocol):
    """A disk of `size` bytes to fill. Unwritten ranges read as zeros after `finish`."""

    @property
    def size(self) -> int: ...

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`, or raise."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, freeing its space where the target can."""

    def finish(self) -> None:
        """Make the result durable and give it its final name. Raises instead of half finishing."""

    def abort(self) -> None:
        """Stop without the final name; what was written may be kept for a resumption."""
