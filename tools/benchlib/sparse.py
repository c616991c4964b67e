"""Sparse files: where their data is, warming them up, comparing them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

STEP = 1 << 20
BLOCK = 4096


def data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is not a hole, ascending."""
    size = os.fstat(descriptor).st_size
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(descriptor, offset, os.SEEK_HOLE)
        yield offset, end - offset
        offset = end


def data_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return sum(length for _start, length in data_extents(file.fileno()))


def warm(path: Path, *, holes: bool = False) -> None:
    """Have the data in the page cache, and the holes not, or also.

    Zeros that some tool read from a hole stay in the page cache like data. Whoever reads the holes first
    would pay for all who read them later, and nothing but such tools ever reads the holes of a disk.
    """
    buffer = memoryview(bytearray(STEP))
    with path.open("rb") as file:
        if holes:
            while file.readinto(buffer):
                pass
            return
        end = 0
        for start, length in data_extents(file.fileno()):
            if start > end:  # a length of 0 would mean all the rest
                os.posix_fadvise(file.fileno(), end, start - end, os.POSIX_FADV_DONTNEED)
            end = start + length
            for offset in range(start, start + length, STEP):
                os.preadv(file.fileno(), [buffer[: min(STEP, start + length - offset)]], offset)
        if end < path.stat().st_size:
            os.posix_fadvise(file.fileno(), end, 0, os.POSIX_FADV_DONTNEED)


def same(left: Path, right: Path) -> bool:
    """Whether both have the same size and bytes. Reads what is data in either of them."""
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        for descriptor in one.fileno(), other.fileno():
            for start, length in data_extents(descriptor):
                for offset in range(start, start + length, STEP):
                    count = min(STEP, start + length - offset)
                    if os.pread(one.fileno(), count, offset) != os.pread(other.fileno(), count, offset):
                        return False
    return True


def changed_bytes(before: Path, after: Path) -> int:
    """Bytes in blocks of 4 KiB of `after` that hold other data than in `before`."""
    changed = 0
    with before.open("rb") as old, after.open("rb") as new:
        for start, length in data_extents(new.fileno()):
            for offset in range(start, start + length, STEP):
                count = min(STEP, start + length - offset)
                here, there = os.pread(new.fileno(), count, offset), os.pread(old.fileno(), count, offset)
                if here != there:
                    changed += sum(
                        BLOCK for at in range(0, count, BLOCK) if here[at : at + BLOCK] != there[at : at + BLOCK]
                    )
    return changed
