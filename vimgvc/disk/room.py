"""Memory that disks are read into."""

from __future__ import annotations

import mmap


def pages(size: int) -> memoryview:
    """`size` (> 0) zeros to be written to, which begin at a page.

    A large `bytearray` begins 16 bytes behind one. Processors by AMD (Zen 3, with `rep movsb`) copy from the page
    cache to such a place at a fifth of the speed: 2.9 GB/s instead of 13 on one core.
    """
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
