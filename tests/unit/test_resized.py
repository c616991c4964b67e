"""Disks seen with another size pass the suites of disks."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.suites import reader, writer
from vimgvc.disk import extents, memory, resized


class TestGrown(reader.ReaderSuite):
    hole_grid = 4096

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> resized.Grown:
        """The zeros at the end of the sample are left to `Grown`."""
        kinds = extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)
        *_, last = [extents.Extent(0, 0, extents.Kind.DATA), *sample.data()]
        inner = memory.MemoryDisk.of(sample.content[: last.end], extents.clip(list(kinds), 0, last.end))
        return resized.Grown(inner, len(sample.content))


class TestBack(reader.ReaderSuite):
    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> resized.Back:
        kinds = extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)
        return resized.Back(memory.MemoryDisk.of(sample.content, kinds))


class TestPart(writer.WriterSuite):
    def create(self, folder: pathlib.Path, size: int) -> resized.Part:
        self.whole = memory.MemoryDisk(size + 10_000)
        return resized.Part(self.whole, size)

    def result(self, folder: pathlib.Path) -> bytes | None:
        if not self.whole.finished:
            return None
        content = self.whole.content()
        assert content[-10_000:] == bytes(10_000)
        return content[:-10_000]

    def allocated(self, folder: pathlib.Path) -> int | None:
        return self.whole.allocated_bytes


def test_what_an_earlier_attempt_left_behind_the_disk_becomes_zeros() -> None:
    """The rest of a resumed target is zeroed, because nobody else will do that."""

    class Resumed(memory.MemoryDisk):
        @property
        def resumed(self) -> bool:
            return True

    whole = Resumed(10)
    whole.pwrite(0, memoryview(b"x" * 10))
    part = resized.Part(whole, 4)
    assert part.resumed
    assert whole.content() == b"xxxx" + bytes(6)


def test_no_range_behind_the_end_of_a_part() -> None:
    """The larger target is out of reach through its part."""
    part = resized.Part(memory.MemoryDisk(10), 4)
    with pytest.raises(ValueError, match="outside a disk of 4 bytes"):
        part.pwrite(3, memoryview(b"xx"))
    with pytest.raises(ValueError, match="outside a disk of 4 bytes"):
        part.zero(4, 1)


def test_what_was_written_is_read_though_the_target_tells_a_hole() -> None:
    """What was meant to be data is data, whatever a file system says before it has synced."""

    class Forgetful(memory.MemoryDisk):
        def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
            return iter([extents.Extent(offset, length, extents.Kind.HOLE)])

    target = Forgetful(10)
    meant = memory.MemoryDisk(10)
    for disk in (target, meant):
        disk.pwrite(2, memoryview(b"abc"))
    kinds = [(one.start, one.end, one.kind) for one in resized.Back(target, meant.extents).extents(1, 8)]
    data, hole = extents.Kind.DATA, extents.Kind.HOLE
    assert kinds == [(1, 2, hole), (2, 5, data), (5, 9, hole)]


class TestFront(reader.ReaderSuite):
    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> resized.Front:
        kinds = [*extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)]
        kinds.append(extents.Extent(len(sample.content), 777, extents.Kind.DATA))
        disk = memory.MemoryDisk.of(sample.content + b"x" * 777, extents.merge(kinds))
        return resized.Front(disk, len(sample.content))
