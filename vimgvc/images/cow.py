"""`cow`, the format of User-mode Linux that QEMU read until version 2.1: read-only, on our own.

A header, a bitmap with a bit for each sector (lowest bit first), and from the next multiple of 512 on
the disk, of which those sectors count whose bit is set. The header is a C structure as the compiler
laid it out, big-endian: magic `OOOM` (4), version (4), backing file (1024), its time (4), on 64-bit
machines 4 of padding, size (8), sector size (4), on 64-bit machines 4 of padding.
Spec: specs/foreign-formats.md, "cow".
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vimgvc import errors
from vimgvc.disk import extents, protocol

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"OOOM"
_HEADER = struct.Struct(">4sI1024si")
_WIDE, _NARROW = struct.Struct(">4xQI4x"), struct.Struct(">QI")
_LONGEST = _HEADER.size + _WIDE.size
_SECTOR = 512
_MAX_SIZE = 16 << 40  # a bitmap of 4 GiB, which is read in pieces
_STEP = 1 << 20  # bytes of bitmap at once: 4 GiB of disk


class CowReader:
    """The disk in an open `cow` file, as a Source; closing it closes the file.

    Raises `UnsafeImage` (a header that makes no sense, or a backing file) or `ImageDamaged` (the file
    ends before what its bitmap says is there).
    """

    def __init__(self, file: protocol.Source, name: str) -> None:
        self._file = file
        self._name = name
        self._size, self._bitmap = _parse(file, name)
        self._data = -(-(self._bitmap + _bitmap_length(self._size)) // _SECTOR) * _SECTOR
        self._lock = threading.Lock()
        self._piece: tuple[int, np.ndarray] | None = None

    @property
    def size(self) -> int:
        return self._size

    @property
    def allocated_bytes(self) -> int:
        return min(self._size, self._file.allocated_bytes)

    def facts(self) -> dict[str, Any]:
        return {"format": "cow"}

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        for start, length, there in self._runs(offset, buffer.nbytes):
            part = buffer[start - offset : start - offset + length]
            if not there:
                part[:] = bytes(length)
            elif self._data + start + length > self._file.size:
                reason = f"guest bytes {start} to {start + length} lie behind the end of the file"
                raise errors.ImageDamaged(self._name, reason)
            else:
                self._file.pread_into(self._data + start, part)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        kinds = (extents.Kind.HOLE, extents.Kind.DATA)
        return extents.merge(
            extents.Extent(start, count, kinds[there]) for start, count, there in self._runs(offset, length)
        )

    def check_unchanged(self) -> None:
        self._file.check_unchanged()

    def close(self) -> None:
        self._file.close()

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, whether it is there), in order, neighbours differing within a piece of bitmap."""
        import numpy as np

        end = offset + length
        while offset < end:
            number, within = divmod(offset // _SECTOR, _STEP * 8)
            first = number * _STEP * 8  # the piece's first sector
            last = min(first + _STEP * 8, -(-end // _SECTOR))
            data = self._bits(number)[within // 8 : -(-(last - first) // 8)]
            bits = np.unpackbits(data, bitorder="little")[within % 8 : within % 8 + last - first - within]
            cuts = np.flatnonzero(np.diff(bits)) + 1
            there = bool(bits[0])
            for cut in [*cuts.tolist(), bits.size]:
                stop = min(end, (first + within + cut) * _SECTOR)
                yield offset, stop - offset, there
                offset, there = stop, not there

    def _bits(self, number: int) -> np.ndarray:
        """Piece `number` of the bitmap (uint8); the last one used is kept."""
        import numpy as np

        with self._lock:
            if self._piece is not None and self._piece[0] == number:
                return self._piece[1]
        start = number * _STEP
        data = np.empty(min(_STEP, _bitmap_length(self._size) - start), np.uint8)
        self._file.pread_into(self._bitmap + start, data.data)
        with self._lock:
            self._piece = number, data
        return data


def _parse(file: protocol.Source, name: str) -> tuple[int, int]:
    """The disk's size, and the header's."""
    if file.size < _HEADER.size + _NARROW.size:
        raise errors.UnsafeImage(f"{name}: has {file.size} bytes, which is less than a cow header")
    head = bytearray(min(file.size, _LONGEST))
    file.pread_into(0, memoryview(head))
    magic, version, backing, _ = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise errors.UnsafeImage(f"{name}: the magic is {bytes(magic)!a}, allowed is {MAGIC!a}")
    if version != 2:
        raise errors.Unsupported(f"cow version {version} ({name})", hint="only version 2 has ever been QEMU's")
    if any(backing):
        raise errors.UnsafeImage(
            f"{name}: it has a backing file, and other files are never opened because an image names them",
            hint="merge the chain into one image with the tool that made it",
        )
    found = [item for rest in (_WIDE, _NARROW) if (item := _size_of(rest, bytes(head), file.size))]
    if len(found) != 1:
        which = "the headers of 32-bit and of 64-bit machines both fit" if found else "its size and sector size"
        raise errors.UnsafeImage(
            f"{name}: {which}, allowed are sectors of 512 bytes, a size of up to {_MAX_SIZE} in whole sectors, and "
            f"its bitmap inside the file's {file.size} bytes"
        )
    return found[0]


def _size_of(rest: struct.Struct, head: bytes, length: int) -> tuple[int, int] | None:
    """Size of the disk and of the header, if what follows the common fields is `rest`."""
    bitmap = _HEADER.size + rest.size
    if len(head) < bitmap:
        return None
    size, sector = rest.unpack_from(head, _HEADER.size)
    if sector != _SECTOR or size % _SECTOR or size > _MAX_SIZE or bitmap + _bitmap_length(size) > length:
        return None
    # An empty disk is its header alone. (The other layout's small disks look empty in this one.)
    if not size and length != bitmap:
        return None
    return size, bitmap


def _bitmap_length(size: int) -> int:
    return -(-size // (8 * _SECTOR))
