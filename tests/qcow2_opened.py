"""Opening qcow2 images that tests have made, in memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory
from vimgvc.images import qcow2


class Recorded(memory.MemoryDisk):
    """A disk in memory that remembers what was read of it."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reads: list[tuple[int, int]] = []

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, buffer.nbytes))
        super().pread_into(offset, buffer)


def recorded(content: bytes) -> Recorded:
    disk = Recorded(len(content))
    disk.pwrite(0, memoryview(content))
    return disk


def open_image(image: bytes, **options: Any) -> qcow2.Qcow2Reader:
    return qcow2.Qcow2Reader(recorded(image), "vm.qcow2", **options)


def read(disk: qcow2.Qcow2Reader, offset: int, length: int) -> bytes:
    return reader.read(disk.pread_into, offset, length)


def check_damaged(disk: qcow2.Qcow2Reader, start: int, end: int, match: str) -> None:
    """Reading the guest bytes raises, naming them; listing extents does not, and calls them data."""
    with pytest.raises(errors.ImageDamaged, match=match) as caught:
        read(disk, start, end - start)
    assert caught.value.where == f"vm.qcow2, guest bytes {start} to {end - 1}"
    assert [item.kind for item in disk.extents(start, end - start)] == [extents.Kind.DATA]
