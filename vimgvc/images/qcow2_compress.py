"""Compressing clusters of qcow2 images, with what `qemu-img convert -c` uses (specs/qcow2.md §6).

The same bytes become the same bytes whenever the same libraries are used: what is measured in one pass
holds in the next one.
"""

from __future__ import annotations

import threading
import zlib

import numpy as np
import numpy.typing as npt
import zstandard

from vimgvc.images import qcow2_layout

# Raw deflate in a window of 4 KiB: what qcow2 says its readers need.
_WINDOW_BITS = -12
_MEMORY_LEVEL = 9
_ZSTD_LEVEL = 3
_SECTOR = 512


class Compressor:
    """Compresses clusters of one size; shared by threads."""

    def __init__(self, kind: str, cluster_size: int) -> None:
        """`kind`: `zlib` or `zstd`."""
        self._zstd = kind == "zstd"
        self._size = cluster_size
        self._offset_bits = qcow2_layout.compressed_bits(cluster_size.bit_length() - 1)
        self._own = threading.local()

    def compress(self, cluster: memoryview | bytearray) -> bytes | None:
        """One whole cluster, compressed; None when that is not smaller."""
        packed = self._pack_zstd(cluster) if self._zstd else _deflate(cluster)
        return packed if len(packed) < self._size else None

    def descriptor(self, offset: int, length: int) -> int:
        """The L2 entry of a cluster whose `length` compressed bytes lie at `offset` of the file."""
        assert offset < 1 << self._offset_bits
        sectors = (offset + length - 1) // _SECTOR - offset // _SECTOR
        return qcow2_layout.COMPRESSED | sectors << self._offset_bits | offset

    def descriptors(self, offsets: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """As `descriptor`, of many."""
        sectors = ((offsets + lengths - 1) // _SECTOR - offsets // _SECTOR).astype(np.uint64)
        flag = np.uint64(qcow2_layout.COMPRESSED)
        return flag | sectors << np.uint64(self._offset_bits) | offsets.astype(np.uint64)

    def _pack_zstd(self, cluster: memoryview | bytearray) -> bytes:
        zstd = getattr(self._own, "zstd", None)
        if zstd is None:
            zstd = self._own.zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        packed: bytes = zstd.compress(cluster)
        return packed


def _deflate(cluster: memoryview | bytearray) -> bytes:
    stream = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    return stream.compress(cluster) + stream.flush()
