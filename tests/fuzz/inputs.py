"""What fuzzers make, as images.

An input of a format is the number of one of its seed images (a byte) and patches of it: place (4 bytes,
from the start or, when the highest bit is set, from the end), length (a byte), that many bytes. Checksums
that would end every try at once are mended afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from vimgvc.disk import extents


class Bytes:
    """A file in memory as a Source."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.allocated_bytes, self.path = data, len(data), len(data), "image"

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        buffer[:] = self.data[offset : offset + buffer.nbytes]

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        return iter([extents.Extent(offset, length, extents.Kind.DATA)] if length else [])

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        pass


def patched(bases: Sequence[bytes], data: bytes, mend: Callable[[bytearray], None] | None = None) -> bytes:
    """The image that an input stands for."""
    image = bytearray(bases[data[0] % len(bases)]) if data else bytearray(bases[0])
    at = 1
    while at + 5 <= len(data) and image:
        place, length = struct.unpack_from("<IB", data, at)
        part = data[at + 5 : at + 5 + length]
        start = (len(image) - 1 - place % 1024) if place >> 31 else place % len(image)
        image[start : start + len(part)] = part[: len(image) - start]
        at += 5 + length
    if mend is not None:
        mend(image)
    return bytes(image)
