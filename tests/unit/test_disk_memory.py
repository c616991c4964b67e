"""The disk in memory passes the suites that the real ones pass."""

from __future__ import annotations

import mmap
import pathlib

import numpy as np

from tests.suites import reader, writer
from vimgvc.disk import extents, memory, room


class TestMemoryReader(reader.ReaderSuite):
    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> memory.MemoryDisk:
        kinds = extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)
        return memory.MemoryDisk.of(sample.content, kinds)


class TestMemoryWriter(writer.WriterSuite):
    def create(self, folder: pathlib.Path, size: int) -> memory.MemoryDisk:
        self.disk = memory.MemoryDisk(size)
        return self.disk

    def result(self, folder: pathlib.Path) -> bytes | None:
        return self.disk.content() if self.disk.finished else None

    def allocated(self, folder: pathlib.Path) -> int | None:
        return self.disk.allocated_bytes


def test_room_begins_at_a_page() -> None:
    """Memory to read into is zeros, can be written, and begins at a page: elsewhere some processors copy slowly."""
    for size in (1, 4096, 4 << 20):
        view = room.pages(size)
        assert bytes(view) == bytes(size)
        view[:] = b"x" * size
        assert bytes(view) == b"x" * size
        assert np.frombuffer(view, np.uint8).ctypes.data % mmap.PAGESIZE == 0
