"""A disk in memory: the verified fake of both contracts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from vimgvc import errors
from vimgvc.disk import extents


class MemoryDisk:
    """A Source and a Target of `size` bytes; born as one hole.

    Keeps the kind of every byte as it was written: `pwrite` makes DATA (zeros included), `zero`
    makes HOLE. `finished` tells whether `finish` was called. Reading works at any time.
    """

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(size)
        self._extents = [extents.Extent(0, size, extents.Kind.HOLE)] if size else []
        self._lock = threading.Lock()
        self._open = True
        self.finished = False

    @classmethod
    def of(cls, content: bytes, kinds: Iterable[extents.Extent] | None = None) -> MemoryDisk:
        """A finished disk with `content`; all DATA, or as the complete, merged cover `kinds` says."""
        disk = cls(len(content))
        disk._bytes[:] = content
        whole = [extents.Extent(0, len(content), extents.Kind.DATA)] if content else []
        disk._extents = whole if kinds is None else list(kinds)
        disk.finish()
        return disk

    @property
    def size(self) -> int:
        return len(self._bytes)

    @property
    def allocated_bytes(self) -> int:
        return sum(item.length for item in self._extents if item.kind is not extents.Kind.HOLE)

    @property
    def resumed(self) -> bool:
        return False

    def check_unchanged(self) -> None:
        """Nobody else has it."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        buffer[:] = memoryview(self._bytes)[offset : offset + buffer.nbytes]

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        with self._lock:
            return iter(list(extents.clip(self._extents, offset, length)))

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._check_open()
        extents.check_range(self.size, offset, data.nbytes)
        self._bytes[offset : offset + data.nbytes] = data
        self._mark(offset, data.nbytes, hole=False)

    def zero(self, offset: int, length: int) -> None:
        self._check_open()
        extents.check_range(self.size, offset, length)
        self._bytes[offset : offset + length] = bytes(length)
        self._mark(offset, length, hole=True)

    def finish(self) -> None:
        self._check_open()
        self._open = False
        self.finished = True

    def abort(self) -> None:
        self._open = False

    def close(self) -> None:
        self._open = False

    def content(self) -> bytes:
        return bytes(self._bytes)

    def _check_open(self) -> None:
        if not self._open:
            msg = "this disk is finished"
            raise errors.VimgvcError(msg)

    def _mark(self, offset: int, length: int, *, hole: bool) -> None:
        if not length:
            return
        new = extents.Extent(offset, length, extents.Kind.HOLE if hole else extents.Kind.DATA)
        with self._lock:
            self._extents = _replaced(self._extents, new, self.size)


def _replaced(items: list[extents.Extent], new: extents.Extent, size: int) -> list[extents.Extent]:
    """A merged cover of `size` bytes with the range of `new` being what `new` says."""
    before = extents.clip(items, 0, new.start)
    after = extents.clip(items, new.end, size - new.end)
    return list(extents.merge([*before, new, *after]))
