"""The disk in memory passes the suites that the real ones pass."""

from __future__ import annotations

import pathlib

from tests.suites import reader, writer
from vimgvc.disk import extents, memory


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
