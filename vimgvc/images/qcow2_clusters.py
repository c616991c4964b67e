"""Compressed clusters of qcow2 images (specs/qcow2.md §2).

Each thread reads and decompresses for itself; zlib and zstd run without the interpreter's lock. What
comes out is bounded by the cluster, whatever the stream says.
"""

from __future__ import annotations

import collections
import threading
import zlib

import zstandard

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import qcow2_layout as layout

# QEMU writes raw deflate streams with a window of 4 KiB.
_WINDOW_BITS = -12
_CACHE_BYTES = 1 << 20
_CACHE_LEAST = 3
_STRIPES = 64
# What is fed at once when the size of a frame is unknown; it can become 16 blocks of 128 KiB.
_FEED = 64


class Clusters:
    """Reads compressed clusters of `file` by their descriptors. Shared by threads.

    A few decompressed clusters are kept, by their place: small reads and many references to one
    cluster cost one decompression.
    """

    def __init__(self, file: protocol.Reader, header: layout.Header, name: str) -> None:
        self._file = file
        self._size = header.cluster_size
        self._offset_bits = layout.compressed_bits(header.cluster_bits)
        self._unpack = _zstd if header.compression == layout.ZSTD else _zlib
        self._name = name
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._keep = max(_CACHE_LEAST, _CACHE_BYTES // self._size)
        # Threads that want the same cluster wait for the first of them.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def cluster(self, descriptor: int, guest: int) -> bytes:
        """The plain bytes of a cluster that the guest has at `guest`. Raises `ImageDamaged`."""
        found = self._cached(descriptor)
        if found is not None:
            return found
        with self._stripes[descriptor % _STRIPES]:
            found = self._cached(descriptor)
            if found is None:
                found = self._read(descriptor, guest)
                with self._lock:
                    self._cache[descriptor] = found
                    while len(self._cache) > self._keep:
                        self._cache.popitem(last=False)
        return found

    def _cached(self, descriptor: int) -> bytes | None:
        with self._lock:
            found = self._cache.get(descriptor)
            if found is not None:
                self._cache.move_to_end(descriptor)
        return found

    def _read(self, descriptor: int, guest: int) -> bytes:
        offset = descriptor & ((1 << self._offset_bits) - 1)
        stored = ((descriptor >> self._offset_bits) + 1) * 512 - offset % 512
        # The count is in sectors; of the last one a file need not have more than was used.
        here = min(stored, self._file.size - offset)
        if stored - here >= 512:
            raise self._damaged(guest, "its compressed data ends beyond the end of the file")
        view = memoryview(bytearray(here))
        self._file.pread_into(offset, view)
        try:
            plain = self._unpack(view, self._size)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._damaged(guest, "its compressed data does not decompress") from error
        if plain is None or len(plain) != self._size:
            raise self._damaged(guest, "its compressed data does not become a cluster")
        return plain

    def _damaged(self, guest: int, reason: str) -> errors.ImageDamaged:
        return errors.ImageDamaged(f"{self._name}, guest bytes {guest} to {guest + self._size - 1}", reason)


def _zlib(data: memoryview, size: int) -> bytes:
    """What a raw deflate stream becomes, up to one byte more than is allowed.

    Its end may be missing, as for QEMU: nothing is checked there.
    """
    return zlib.decompressobj(_WINDOW_BITS).decompress(data, size + 1)


def _zstd(data: memoryview, size: int) -> bytes | None:
    """What one frame or several become; None if none ends with the cluster."""
    zstd = zstandard.ZstdDecompressor()
    if zstandard.frame_content_size(data) == size:
        plain: bytes = zstd.decompress(data, max_output_size=size, allow_extra_data=True)
        return plain
    pieces, have, rest = [], 0, data.tobytes()
    while have < size and rest:
        frame = zstd.decompressobj()
        for at in range(0, len(rest), _FEED):
            piece = frame.decompress(rest[at : at + _FEED])
            pieces.append(piece)
            have += len(piece)
            if have > size:
                return None
            if frame.eof:
                rest = frame.unused_data + rest[at + _FEED :]
                break
        else:
            return None
    return b"".join(pieces)
