"""Segments: chunks compressed and sealed together (specs/formats.md §8)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from vimgvc import errors
from vimgvc.codec import aead, compress

DATA, TREE = 1, 2
MAX_PLAIN = 4 << 20
OVERHEAD = aead.NONCE_SIZE + aead.TAG_SIZE


@dataclass(frozen=True, slots=True)
class Shape:
    """What a pack's table says of a segment; all of it is authenticated with the segment."""

    kind: int
    codec: int
    plain_length: int
    stored_length: int

    def associated(self, repo: bytes, ids: bytes) -> bytes:
        head = struct.pack("<6scBBBH", b"vimgvc", b"S", 1, self.kind, self.codec, 0)
        sizes = struct.pack("<III", self.plain_length, self.stored_length, len(ids) // 32)
        return head + repo + sizes + ids


class Sealer:
    """Compresses, seals and reads back segments of up to `capacity` bytes, for one thread; buffers are reused.

    `nonce` returns 12 bytes that are new each time.

    `verify` opens every sealed segment again and compares it with what went in, because a
    compressor, a cipher or memory that fails would otherwise be noticed at the restore.
    """

    def __init__(
        self, key: bytes, repo: bytes, nonce: Callable[[], bytes], *, level: int, verify: bool, capacity: int
    ) -> None:
        self._key, self._repo, self._nonce = key, repo, nonce
        self._compressor = compress.Compressor(level)
        self._out = memoryview(bytearray(capacity + OVERHEAD))
        self._checker = compress.Checker(capacity) if verify else None
        self._frame = memoryview(bytearray(capacity if verify else 0))

    def seal(self, kind: int, buffer: bytearray, length: int, ids: bytes) -> tuple[Shape, memoryview]:
        """The segment of the first `length` bytes of `buffer`; the view returned is valid until the next call."""
        codec, data = self._compressor.compress(memoryview(buffer)[:length])
        stored = len(data) + OVERHEAD
        shape = Shape(kind, codec, length, stored)
        associated = shape.associated(self._repo, ids)
        nonce = self._nonce()
        out = self._out[:stored]
        out[: aead.NONCE_SIZE] = nonce
        key = blake3(associated, key=self._key).digest()
        aead.seal_into(key, nonce, data, associated, out[aead.NONCE_SIZE :])
        if self._checker is not None:
            frame = self._frame[: len(data)]
            aead.unseal_into(key, nonce, out[aead.NONCE_SIZE :], associated, out=frame, where="new segment")
            if not self._checker.fits(codec, frame, buffer, length):
                raise errors.IntegrityError("new segment", "differs from what was sealed", hint=_HARDWARE)
        return shape, out


_HARDWARE = "memory or processor of this machine may be faulty; nothing was recorded"


class Opener:
    """Opens segments for one thread."""

    def __init__(self, key: bytes, repo: bytes) -> None:
        self._key, self._repo = key, repo
        self._decompressor = compress.Decompressor()

    def open(self, shape: Shape, stored: bytes | memoryview, ids: bytes, where: str) -> bytes:
        """The plain bytes; the identifiers are authenticated, but the slots' contents not yet hashed."""
        data = self.authenticate(shape, stored, ids, where)
        return self._decompressor.decompress(shape.codec, data, shape.plain_length, where)

    def beginning(
        self, shape: Shape, stored: bytes | memoryview, ids: bytes, wanted: int, where: str
    ) -> bytes | bytearray:
        """The first `wanted` of the plain bytes, which takes as much less time. All that is stored is authenticated."""
        data = self.authenticate(shape, stored, ids, where)
        return self._decompressor.beginning(shape.codec, data, shape.plain_length, wanted, where)

    def authenticate(self, shape: Shape, stored: bytes | memoryview, ids: bytes, where: str) -> bytes:
        """The compressed bytes: these are the very ones that were sealed with these identifiers."""
        if len(stored) != shape.stored_length or len(stored) < OVERHEAD:
            raise errors.FormatError(where, "is not as long as its table says")
        associated = shape.associated(self._repo, ids)
        key = blake3(associated, key=self._key).digest()
        view = memoryview(stored)
        return aead.unseal(key, bytes(view[: aead.NONCE_SIZE]), view[aead.NONCE_SIZE :], associated, where)
