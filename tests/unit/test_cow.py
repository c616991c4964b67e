"""The old `cow` format: reading it, and headers that are refused."""

from __future__ import annotations

import pathlib
import struct

import numpy as np
import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.images import cow


def _image(
    content: bytes,
    holes: bytes | None = None,
    *,
    wide: bool = True,
    magic: bytes = b"OOOM",
    version: int = 2,
    backing: bytes = b"",
    size: int | None = None,
    sector: int = 512,
) -> bytes:
    """A file as QEMU wrote it on a 64-bit machine, or on a 32-bit one; sectors of ones in `holes` are not there."""
    head = struct.pack(">4sI1024si", magic, version, backing, 0) + bytes(4 if wide else 0)
    head += struct.pack(">QI", len(content) if size is None else size, sector) + bytes(4 if wide else 0)
    assert len(head) == (1056 if wide else 1048)
    sectors = np.arange(0, len(content), 512)
    marks = [holes is None or not all(holes[at : at + 512]) for at in sectors]
    bitmap = np.packbits(np.array(marks, dtype=bool), bitorder="little").tobytes()
    start = len(head) + len(bitmap)
    data = bytearray(start + (-start % 512 if content else 0)) + content
    data[: len(head)] = head
    data[len(head) : start] = bitmap
    for at, there in zip(sectors.tolist(), marks, strict=True):
        if not there:  # whatever lies there is not the disk's
            data[start + -start % 512 + at : start + -start % 512 + at + 512] = b"\xee" * 512
    return bytes(data)


def _open(image: bytes) -> cow.CowReader:
    return cow.CowReader(memory.MemoryDisk.of(image), "image")


def _marks(sample: reader.Sample) -> bytes:
    marks = bytearray(len(sample.content))
    for item in sample.holes:
        marks[item.start : item.end] = b"\1" * item.length
    return bytes(marks)


class TestWide(reader.ReaderSuite):
    """Headers of 64-bit machines."""

    sector = 512
    hole_grid = 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        return _open(_image(sample.content, _marks(sample)))


class TestNarrow(reader.ReaderSuite):
    """Headers of 32-bit machines, where the same C structure has no padding."""

    sector = 512
    hole_grid = 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        return _open(_image(sample.content, _marks(sample), wide=False))


def test_bitmaps_of_several_pieces() -> None:
    """A bitmap longer than what is read at once is one bitmap: 9 GiB of disk, two sectors of it there."""
    size = 9 << 30
    head = _image(b"", size=size)[:1056]
    bitmap = bytearray(size // 4096)
    first, second = (4 << 30) - 512, 4 << 30
    for at in (first, second, size - 512):
        bitmap[at // 4096] |= 1 << at // 512 % 8
    disk = _Sparse.of(head + bytes(bitmap))
    found = [item for item in cow.CowReader(disk, "image").extents(0, size) if item.kind is extents.Kind.DATA]
    assert found == [
        extents.Extent(first, 1024, extents.Kind.DATA),
        extents.Extent(size - 512, 512, extents.Kind.DATA),
    ]
    assert reader.read(cow.CowReader(disk, "image").pread_into, first - 512, 1024) == bytes(512) + b"s" * 512


class _Sparse(memory.MemoryDisk):
    """What was given, then letters up to 10 GiB."""

    @property
    def size(self) -> int:
        return 10 << 30

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.content()[offset : offset + buffer.nbytes].ljust(buffer.nbytes, b"s")


_BAD = {
    "empty": (errors.UnsafeImage, b""),
    "short": (errors.UnsafeImage, _image(bytes(512))[:1040]),
    "magic": (errors.UnsafeImage, _image(bytes(512), magic=b"MOOO")),
    "version": (errors.Unsupported, _image(bytes(512), version=3)),
    "backing": (errors.UnsafeImage, _image(bytes(512), backing=b"/etc/shadow")),
    "backing_later": (errors.UnsafeImage, _image(bytes(512), backing=b"\0/etc/shadow")),
    "sector": (errors.UnsafeImage, _image(bytes(512), sector=4096)),
    "size_odd": (errors.UnsafeImage, _image(bytes(512), size=513)),
    "size_most": (errors.UnsafeImage, _image(bytes(512), size=(1 << 64) - 512)),
    "size_bitmap": (errors.UnsafeImage, _image(bytes(512), size=1 << 33)),
}


@pytest.mark.parametrize(("wanted", "image"), _BAD.values(), ids=_BAD)
def test_i29_cow_headers(wanted: type[errors.VimgvcError], image: bytes) -> None:
    """A header with a backing file, or with sizes that do not fit, is refused."""
    with pytest.raises(wanted):
        _open(image)


def test_ambiguous_headers_are_refused() -> None:
    """A file that is a disk by either layout of the header is refused: nothing tells which one it is."""
    image = bytearray(_image(bytes(512), wide=False))
    struct.pack_into(">I", image, 1048, 512)  # the bitmap, and the other layout's sector size
    assert _open(bytes(image)).size == 512
    with pytest.raises(errors.UnsafeImage, match="both"):
        cow.CowReader(_Sparse.of(bytes(image)), "image")


def test_i30_truncation_is_damage() -> None:
    """Where the file ends before the disk, reading is an error; in front of it, and in holes behind it, it works."""
    content = bytes(range(256)) * 16
    marks = b"\0" * 3072 + b"\1" * 512 + b"\0" * 512
    disk = _open(_image(content, marks)[:-512])
    assert reader.read(disk.pread_into, 0, 3584) == content[:3072] + bytes(512)
    with pytest.raises(errors.ImageDamaged, match="3584"):
        disk.pread_into(0, memoryview(bytearray(4096)))
