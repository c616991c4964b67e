"""Sources that are read on where they fail, because the user said so."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.images import lenient, registry

SIZE = 1_000_003


class BadDisk(memory.MemoryDisk):
    """Some sectors cannot be read; `kind` is what the system calls that."""

    bad: tuple[int, ...] = ()
    kind = "EIO"

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        super().pread_into(offset, buffer)
        if any(offset < at + 512 and at < offset + buffer.nbytes for at in self.bad):
            buffer[:] = b"\xee" * buffer.nbytes
            raise errors.BackendError("disk", self.kind, "unreadable")


def _bad_disk(content: bytes, bad: tuple[int, ...]) -> BadDisk:
    disk = BadDisk.of(content)
    assert isinstance(disk, BadDisk)
    disk.bad = bad
    return disk


class TestLenientSource(reader.ReaderSuite):
    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        kinds = list(extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA))
        inner = memory.MemoryDisk.of(sample.content, kinds)
        return lenient.LenientSource(inner, {}, skip_bad=True, allow_changing=True)


class TestAllData(reader.ReaderSuite):
    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        return lenient.AllData(memory.MemoryDisk.of(sample.content))


def test_i32_bad_sectors_read_as_zeros_and_are_listed(seed: int) -> None:
    """With `skip_bad` every other byte is right, whatever is read when, and the blocks given up are told."""
    rng = np.random.default_rng(seed)
    content = rng.bytes(SIZE)
    bad = tuple(sorted({int(at) for at in rng.integers(0, SIZE // 512, 20)} | {SIZE // 512}))
    disk = _bad_disk(content, tuple(at * 512 for at in bad))
    facts: dict[str, Any] = {"format": "raw"}
    source = lenient.LenientSource(disk, facts, skip_bad=True)
    expected = bytearray(content)
    blocks = sorted({at * 512 // lenient.GRID for at in bad})
    for block in blocks:
        start = block * lenient.GRID
        expected[start : start + lenient.GRID] = bytes(min(lenient.GRID, SIZE - start))
    aligned = [(start, min(65536, SIZE - start)) for start in range(0, SIZE, 65536)]
    for offset, length in aligned:
        assert reader.read(source.pread_into, offset, length) == expected[offset : offset + length]
    source.check_unchanged()
    told = [at for start, length in facts["unreadable"] for at in range(start, start + length, lenient.GRID)]
    assert told == [block * lenient.GRID for block in blocks]
    assert facts["unreadable_bytes"] == sum(length for _, length in facts["unreadable"])


def test_i32_without_leave_a_bad_sector_is_an_error() -> None:
    """Only what the user allowed is skipped: without `skip_bad`, and for other errors, reading fails."""
    disk = _bad_disk(bytes(65536), (4096,))
    with pytest.raises(errors.BackendError):
        lenient.LenientSource(disk, {}, allow_changing=True).pread_into(0, memoryview(bytearray(65536)))
    disk.kind = "EACCES"
    facts: dict[str, Any] = {}
    source = lenient.LenientSource(disk, facts, skip_bad=True)
    with pytest.raises(errors.BackendError):
        source.pread_into(0, memoryview(bytearray(65536)))
    source.check_unchanged()
    assert facts == {}


def test_i31_a_changing_source_is_accepted_only_with_leave(tmp_path: pathlib.Path) -> None:
    """A file that is written to while it is read fails the commit, or is recorded as such when that is allowed."""
    path = tmp_path / "disk.img"
    for allowed in (False, True):
        path.write_bytes(bytes(4096))
        opened = registry.open_image(path, registry.Access(allow_changing=allowed))
        path.write_bytes(b"x" * 4097)
        if allowed:
            opened.reader.check_unchanged()
        else:
            with pytest.raises(errors.VimgvcError, match="changed"):
                opened.reader.check_unchanged()
        assert opened.container.get("changed_while_read", False) is allowed
        opened.reader.close()


def test_i33_all_is_read_whatever_the_holes_say() -> None:
    """AllData reads what a source wrongly calls a hole."""
    lying = memory.MemoryDisk.of(b"x" * 8192, [extents.Extent(0, 8192, extents.Kind.HOLE)])
    assert [item.kind for item in lenient.AllData(lying).extents(0, 8192)] == [extents.Kind.DATA]
