"""Disks to write through qemu, and what tests do with the result."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable, Iterator

import numpy as np

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.images import foreign_target


def disk(size: int, seed: int) -> memory.MemoryDisk:
    """A disk whose holes and zeros begin and end anywhere, also within sectors."""
    rng = np.random.default_rng(seed)
    made = memory.MemoryDisk(size)
    for _ in range(60 if size > 4096 else 1):
        offset = int(rng.integers(0, size))
        made.pwrite(offset, memoryview(rng.bytes(min(size - offset, int(2 ** rng.uniform(0, 18))))))
        offset = int(rng.integers(0, size))
        made.zero(offset, min(size - offset, int(2 ** rng.uniform(0, 18))))
    return made


def content(disk: protocol.Reader) -> bytes:
    return reader.read(disk.pread_into, 0, disk.size)


def comparing(disk: protocol.Reader) -> foreign_target.Check:
    """A check as the caller's: equal, and zeros behind the end."""
    expected = content(disk)

    def check(found: protocol.Source) -> None:
        got = content(found)
        if got[: len(expected)] != expected or any(got[len(expected) :]):
            raise errors.IntegrityError("the result", "differs from the disk")

    return check


def names(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class Hooked:
    """A disk that does something before it is read for the first time."""

    def __init__(self, inner: protocol.Reader, hook: Callable[[], None]) -> None:
        self._inner, self._hook, self._lock = inner, hook, threading.Lock()
        self._done = False

    @property
    def size(self) -> int:
        return self._inner.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            if not self._done:
                self._done = True
                self._hook()
        self._inner.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._inner.extents(offset, length)

    def close(self) -> None:
        self._inner.close()
