"""A file that is being written, seen as a source: for looking at it before it gets its name."""

from __future__ import annotations

from collections.abc import Iterator

from vimgvc.disk import extents
from vimgvc.images import raw


class Written:
    """Reads what a RawWriter has written so far. The writer stays its owner's: closing this does nothing."""

    def __init__(self, file: raw.RawWriter) -> None:
        self._file = file
        self.path = file.path

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def allocated_bytes(self) -> int:
        return self._file.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._file.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """One DATA extent: holes are only told of what was synced."""
        extents.check_range(self.size, offset, length)
        return iter([extents.Extent(offset, length, extents.Kind.DATA)] if length else [])

    def check_unchanged(self) -> None:
        """Nobody else writes to it."""

    def close(self) -> None:
        """The writer is its owner's."""
