"""The contracts of a disk to read from and a disk to write to.

Failures are `VimgvcError`s. A range outside the disk is the caller's mistake: `ValueError`, and
nothing is read or written. Buffers are contiguous, one-dimensional views of bytes (format B).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vimgvc.disk import extents


class Reader(Protocol):
    """A disk of `size` bytes that does not change while it is read.

    Positionless: one Reader is shared by all threads.
    """

    @property
    def size(self) -> int: ...

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` exactly with the bytes at `offset`, or raise. Never short.

        After a failure the content of `buffer` is undefined.
        """

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """Cover `[offset, offset + length)` completely, in order, merged, without overlap.

        HOLE and ZERO extents read as zeros and need not be read; they differ in whether the
        source had space allocated.
        """

    def close(self) -> None:
        """Release what is held; further calls do nothing. No method may be running."""


class Source(Reader, Protocol):
    """A Reader over something that others could still change."""

    @property
    def allocated_bytes(self) -> int:
        """Space that the disk takes where it lies; at most `size`."""

    def check_unchanged(self) -> None:
        """Raise when what was read may be a mixture of states; asked before a commit is published."""


class Writer(Protocol):
    """A disk of `size` bytes to fill. Unwritten ranges read as zeros after `finish`.

    `pwrite` and `zero` are positionless and called from several threads; ranges written at the
    same time do not overlap. After `finish` or `abort` nothing may be written.
    """

    @property
    def size(self) -> int: ...

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`, or raise. The caller may reuse the buffer afterwards."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, freeing its space where the target can."""

    def finish(self) -> None:
        """Make the result durable and give it its final name. Raises instead of half finishing."""

    def abort(self) -> None:
        """Stop without the final name; what was written may be kept for a resumption.

        Does nothing after `finish` or `abort`; never raises, so that it does not hide what went wrong.
        """


class Target(Writer, Protocol):
    """A Writer whose present content can be compared before it is written over."""

    @property
    def resumed(self) -> bool:
        """Whether an interrupted earlier attempt left content behind.

        Then unwritten ranges keep that content instead of reading as zeros: every range is to be
        compared, written or zeroed.
        """

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        """As `Reader.pread_into`."""

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """As `Reader.extents`."""
