"""Disks in several VMDK files, their sparse extents, and what readers make of damaged tables."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from tests import vmdk_images
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.images import pieces, raw, vmdk

_CUT = 1 << 20


def _holes(sample: reader.Sample) -> bytes:
    marks = bytearray(len(sample.content))
    for item in sample.holes:
        marks[item.start : item.end] = b"\1" * item.length
    return bytes(marks)


def _beside(roots: Sequence[str], folder: str, name: bytes, owner: str) -> raw.RawReader:
    assert [folder] == list(roots)
    assert os.path.dirname(owner) == folder
    return raw.RawReader(os.path.join(folder, os.fsdecode(name)))


def _disk(folder: pathlib.Path, create_type: str, lines: list[str], files: dict[str, bytes]) -> protocol.Source:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = folder / "disk.vmdk"
    path.write_bytes(vmdk_images.text(create_type, lines))
    return vmdk.open_text(raw.RawReader(path), _beside)


class TestHosted(reader.ReaderSuite):
    """The sparse extents of VMware Workstation, and whole monolithicSparse images."""

    sector = 512
    hole_grid = vmdk_images.GRAIN * 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        image = vmdk_images.hosted(sample.content, None, _holes(sample))
        return vmdk.open_sparse(memory.MemoryDisk.of(image), "image")


class TestCowd(reader.ReaderSuite):
    """Extents of ESX, whose grain is a sector."""

    sector = 512
    hole_grid = 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        image = vmdk_images.cowd(sample.content, _holes(sample))
        return vmdk.open_sparse(memory.MemoryDisk.of(image), "image", "VMFSSPARSE")


class TestSesparse(reader.ReaderSuite):
    """Extents of newer ESX, whose entries are wide and encoded."""

    sector = 512
    hole_grid = 4096

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        image = vmdk_images.sesparse(sample.content, _holes(sample))
        return vmdk.open_sparse(memory.MemoryDisk.of(image), "image", "SESPARSE")


class TestSplit(reader.ReaderSuite):
    """A disk of several extents: sparse and flat ones are read as one disk."""

    sector = 512
    hole_grid = vmdk_images.GRAIN * 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        size, marks = len(sample.content), _holes(sample)
        lines, files = [], {}
        for start in range(0, size, _CUT):
            name, end = f"disk-s{start // _CUT + 1:03}.vmdk", min(size, start + _CUT)
            files[name] = vmdk_images.hosted(sample.content[start:end], None, marks[start:end])
            lines.append(f'RW {(end - start) // 512} SPARSE "{name}"')
        if not lines:
            pytest.skip("a disk in several files has at least one sector")
        return _disk(folder, "twoGbMaxExtentSparse", lines, files)


def test_flat_extents_and_zeros(seed: int, tmp_path: pathlib.Path) -> None:
    """Flat extents begin where their line says, and ZERO extents are holes that no file has."""
    data = np.random.default_rng(seed).bytes(64 << 10)
    lines = ['RW 100 FLAT "one" 3', "RW 7 ZERO", 'RW 20 FLAT "one" 0', 'RW 8 FLAT "two" 0']
    disk = _disk(tmp_path, "monolithicFlat", lines, {"one": data, "two": data[:4096]})
    expected = data[1536 : 1536 + 51200] + bytes(3584) + data[:10240] + data[:4096]
    assert disk.size == len(expected)
    for offset, length in reader.ranges(disk.size, seed, 300):
        assert reader.read(disk.pread_into, offset, length) == expected[offset : offset + length]
    assert extents.Extent(51200, 3584, extents.Kind.HOLE) in list(disk.extents(0, disk.size))
    disk.check_unchanged()
    assert disk.allocated_bytes <= disk.size
    disk.close()
    disk.close()


def test_changes_of_any_file_are_noticed(tmp_path: pathlib.Path) -> None:
    """Whichever of its files changes while a disk is read, the descriptor included, the disk has changed."""
    for name in ("one", "disk.vmdk"):
        disk = _disk(tmp_path, "monolithicFlat", ['RW 8 FLAT "one" 0'], {"one": bytes(4096)})
        disk.check_unchanged()
        os.utime(tmp_path / name, (1, 1))
        with pytest.raises(errors.VimgvcError):
            disk.check_unchanged()
        disk.close()


@pytest.mark.parametrize("case", ["flat", "sparse_size", "cowd", "missing", "compressed"])
def test_i24_extents_are_what_their_line_says(case: str, tmp_path: pathlib.Path) -> None:
    """An extent that is missing, shorter, of another size or of another kind is an error, and no file stays open."""
    line, create_type = 'RW 8 SPARSE "one"', "twoGbMaxExtentSparse"
    data = vmdk_images.hosted(bytes(4096), None)
    wanted: type[errors.VimgvcError] = errors.UnsafeImage
    if case == "flat":
        line, create_type, data, wanted = 'RW 9 FLAT "one" 0', "monolithicFlat", bytes(4608), errors.ImageDamaged
        data = data[:-1]
    elif case == "sparse_size":
        line = 'RW 9 SPARSE "one"'
    elif case == "cowd":
        line, create_type = 'RW 8 VMFSSPARSE "one"', "vmfsSparse"
    elif case == "missing":
        line, wanted = 'RW 8 SPARSE "two"', errors.NotFound
    else:
        data, wanted = vmdk_images.stream(bytes(4096)), errors.Unsupported
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(wanted):
        _disk(tmp_path, create_type, [line], {"one": data})
    # The descriptor's file is its opener's.
    assert len(os.listdir("/proc/self/fd")) <= before + 1


_SESPARSE = [
    {"magic": 1}, {"version": 1}, {"grain": 16}, {"table": 0}, {"flags": 1}, {"reserved3": 1},
    {"sectors": (1 << 64) - 1}, {"volatile": 0}, {"volatile": 1 << 40}, {"directory": 1 << 40},
    {"directory_size": 0}, {"tables": (1 << 64) - 1}, {"grains": 0}, {"replay": 1},
]  # fmt: skip


@pytest.mark.parametrize("fields", _SESPARSE, ids=lambda fields: "_".join(f"{n}_{v}" for n, v in fields.items()))
def test_i25_sesparse_headers(fields: dict[str, int]) -> None:
    """A seSparse header with a field that is not as ESX writes it, or a journal to replay, is refused."""
    image = vmdk_images.sesparse(bytes(range(256)) * 64, None, **fields)
    with pytest.raises((errors.UnsafeImage, errors.Unsupported)):
        vmdk.open_sparse(memory.MemoryDisk.of(image), "image", "SESPARSE")


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"flags": 0},
        {"grain": 0},
        {"grain": 3},
        {"count": 0},
        {"count": 1 << 31},
        {"directory": 1 << 30},
    ],
)
def test_i25_cowd_headers(fields: dict[str, int]) -> None:
    """A COWD header whose fields do not fit each other or the file is refused."""
    image = vmdk_images.cowd(bytes(range(256)) * 64, None, **fields)
    with pytest.raises(errors.UnsafeImage):
        vmdk.open_sparse(memory.MemoryDisk.of(image), "image", "VMFSSPARSE")


@pytest.mark.parametrize(
    ("kind", "at", "layout", "value"),
    [
        ("VMFSSPARSE", 2048, "<I", 1 << 30),  # a table behind the end
        ("VMFSSPARSE", 2560, "<I", 1 << 30),  # a grain behind the end
        ("VMFSSPARSE", 2560, "<I", 37 + 32),  # one that ends there
        ("SESPARSE", 4096, "<Q", 1 << 60 | 1 << 20),
        ("SESPARSE", 4096, "<Q", 1),
        ("SESPARSE", 64 * 512, "<Q", 1),
        ("SESPARSE", 64 * 512, "<Q", 4 << 60),
        ("SESPARSE", 64 * 512, "<Q", 3 << 60 | (1 << 60) - 1),
        ("SESPARSE", 64 * 512, "<Q", 3 << 60 | 4 << 48),
    ],
)
def test_damaged_tables_are_errors_where_they_lead(kind: str, at: int, layout: str, value: int) -> None:
    """An entry that makes no sense is an error when that range is read; never zeros."""
    content = bytes(range(1, 129)) * 128
    image = bytearray((vmdk_images.cowd if kind == "VMFSSPARSE" else vmdk_images.sesparse)(content))
    struct.pack_into(layout, image, at, value)
    disk = vmdk.open_sparse(memory.MemoryDisk.of(bytes(image)), "image", kind)
    with pytest.raises(errors.ImageDamaged, match="guest offset 0"):
        disk.pread_into(0, memoryview(bytearray(512)))


def test_sesparse_zero_grains() -> None:
    """Grains that are unmapped or zero are told apart from those that were never there."""
    content = bytes(4096 * 8)
    disk = vmdk.open_sparse(
        memory.MemoryDisk.of(vmdk_images.sesparse(content, b"\1" * len(content))), "image", "SESPARSE"
    )
    kinds = [item.kind for item in disk.extents(0, disk.size)]
    assert kinds == [extents.Kind.HOLE, extents.Kind.ZERO] * 4


def test_pieces_must_lie_in_their_source() -> None:
    """A piece or slice that its source does not have is the caller's mistake."""
    source = memory.MemoryDisk.of(bytes(100))
    for offset, length in [(0, 101), (100, 1), (-1, 1)]:
        with pytest.raises(ValueError, match="outside"):
            pieces.PiecesReader([pieces.Piece(length, source, offset)])
        with pytest.raises(ValueError, match="outside"):
            pieces.SliceReader(source, offset, length)


class TestSlice(reader.ReaderSuite):
    """A part of a larger file."""

    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        kinds = extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)
        moved = [extents.Extent(item.start + 1000, item.length, item.kind) for item in kinds]
        around = [extents.Extent(0, 1000, extents.Kind.DATA), *moved]
        around.append(extents.Extent(1000 + len(sample.content), 77, extents.Kind.DATA))
        disk = memory.MemoryDisk.of(b"x" * 1000 + sample.content + b"y" * 77, extents.merge(around))
        return pieces.SliceReader(disk, 1000, len(sample.content))
