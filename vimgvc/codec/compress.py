"""The one door to zstandard."""

from __future__ import annotations

import zstandard

from vimgvc import errors

RAW, ZSTD = 0, 1


def encoder(level: int) -> bytes:
    """What makes one encoding of the same bytes differ from another: library and level."""
    return f"zstd {zstandard.ZSTD_VERSION} {level}".encode()


class Compressor:
    """Compresses one segment after another; not to be shared between threads."""

    def __init__(self, level: int) -> None:
        self._zstd = zstandard.ZstdCompressor(level=level)

    def compress(self, data: memoryview) -> tuple[int, bytes | memoryview]:
        """(codec, bytes): the data as it is when a frame would not be smaller."""
        frame: bytes = self._zstd.compress(data)
        if len(frame) >= len(data):
            return RAW, data
        return ZSTD, frame


class Checker:
    """Tells whether frames of up to `capacity` plain bytes are what they were made of; for one thread."""

    def __init__(self, capacity: int) -> None:
        self._zstd = zstandard.ZstdDecompressor()
        self._view = memoryview(bytearray(capacity))

    def fits(self, codec: int, data: memoryview, buffer: bytearray, length: int) -> bool:
        """Whether `data` decompresses to the first `length` bytes of `buffer`."""
        if codec == ZSTD:
            try:
                with self._zstd.stream_reader(data, read_size=len(data)) as frame:
                    if frame.readinto(self._view[:length]) != length or frame.read(1):
                        return False
            except zstandard.ZstdError:
                return False
            data = self._view[:length]
        # startswith compares with memcmp; == between a memoryview and anything goes byte by byte.
        return len(data) == length and buffer.startswith(data)


class Decompressor:
    """Undoes `Compressor.compress`; not to be shared between threads."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()

    def decompress(self, codec: int, data: bytes, length: int, where: str) -> bytes:
        """Exactly `length` bytes, or `FormatError`; never allocates more than `length`."""
        if codec == RAW:
            if len(data) != length:
                raise errors.FormatError(where, "is not as long as its table says")
            return data
        if codec != ZSTD:
            raise errors.Unsupported(f"codec {codec} in {where}")
        try:
            # python-zstandard ignores max_output_size when the frame declares its own size: 2 KB can
            # become gigabytes. The declared size is compared with the authenticated one instead.
            if zstandard.frame_content_size(data) != length:
                raise errors.FormatError(where, "holds a frame of another size than its table says")
            plain: bytes = self._zstd.decompress(data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise errors.FormatError(where, "does not decompress") from error
        if len(plain) != length:
            raise errors.FormatError(where, "decompresses to another size than its table says")
        return plain

    def beginning(self, codec: int, data: bytes, length: int, wanted: int, where: str) -> bytes | bytearray:
        """The first `wanted` (> 0) of `length` bytes, or `FormatError`; what comes behind them is not decompressed."""
        if codec != ZSTD or wanted >= length:
            return self.decompress(codec, data, length, where)[:wanted]
        plain = bytearray(wanted)
        try:
            if zstandard.frame_content_size(data) != length:
                raise errors.FormatError(where, "holds a frame of another size than its table says")
            with self._zstd.stream_reader(data, read_size=len(data)) as frame:
                done = frame.readinto(plain)
        except zstandard.ZstdError as error:
            raise errors.FormatError(where, "does not decompress") from error
        if done != wanted:
            raise errors.FormatError(where, "decompresses to another size than its table says")
        return plain
