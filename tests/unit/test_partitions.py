"""Partition tables and file systems, by hand and damaged: what is told, and how little is read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from tests import partition_tables
from vimgvc.disk import extents
from vimgvc.disk import memory as disk_memory
from vimgvc.images import filesystems, partitions

_MIB = 1 << 20


def _layout(disk: bytes | bytearray) -> partitions.Layout:
    return partitions.read(disk_memory.MemoryDisk.of(bytes(disk)))


def _places(layout: partitions.Layout) -> list[tuple[int, int, int]]:
    return [(one.number, one.start, one.length) for one in layout.partitions]


_PARTS = [(1, _MIB, 2 * _MIB, "EFI system"), (3, 4 * _MIB, _MIB, "straße"), (2, 5 * _MIB, _MIB, "")]


@pytest.mark.parametrize(("sector", "entry"), [(512, 128), (512, 256), (4096, 128)])
def test_gpt(sector: int, entry: int) -> None:
    """Partitions come in the order of their places with their numbers and labels, for both sizes of sectors."""
    layout = _layout(partition_tables.gpt(8 * _MIB, _PARTS, sector=sector, entry=entry))
    assert layout.scheme == "gpt"
    assert _places(layout) == [part[:3] for part in _PARTS]
    assert [one.label for one in layout.partitions] == [part[3] for part in _PARTS]
    assert {one.type for one in layout.partitions} == {str(partition_tables.LINUX)}


def test_gpt_second_copy() -> None:
    """A first copy that fails a check sum is not believed: the second one counts; with both gone there is none."""
    sound = partition_tables.gpt(8 * _MIB, _PARTS)
    for at in (512 + 30, 1024 + 40):
        disk = bytearray(sound)
        disk[at] ^= 1
        assert _places(_layout(disk)) == [part[:3] for part in _PARTS]
        disk[len(disk) - 512 + 30] ^= 1
        assert _layout(disk) == partitions.Layout("mbr")


def test_mbr_with_logical_partitions() -> None:
    """Primary partitions have the numbers of their entries, logical ones count from 5, the extended one is none."""
    disk = bytearray(8 * _MIB)
    partition_tables.mbr(disk, 0, [(0x83, 2048, 2048), (0, 0, 0), (0x82, 4096, 2048), (0x05, 8192, 8192)])
    partition_tables.mbr(disk, 8192, [(0x83, 64, 1000), (0x05, 2048, 2048)])
    partition_tables.mbr(disk, 8192 + 2048, [(0x07, 64, 500)])
    layout = _layout(disk)
    assert layout.scheme == "mbr"
    assert _places(layout) == [
        (1, 2048 * 512, _MIB),
        (3, 4096 * 512, _MIB),
        (5, (8192 + 64) * 512, 512000),
        (6, (8192 + 2048 + 64) * 512, 256000),
    ]
    assert [one.type for one in layout.partitions] == ["83", "82", "83", "07"]


def test_chains_end() -> None:
    """A chain of extended partitions that leads back, to itself or on for ever is followed to a bounded length."""
    disk = bytearray(8 * _MIB)
    partition_tables.mbr(disk, 0, [(0x05, 1000, 15000)])
    for following in (0, 5):
        partition_tables.mbr(disk, 1000, [(0x83, 1, 1), (0x05, 5, 5)])
        partition_tables.mbr(disk, 1005, [(0x83, 1, 1), (0x05, following, 5)])
        assert [one.number for one in _layout(disk).partitions] == [5, 6]
    for at in range(2000):
        partition_tables.mbr(disk, 1000 + 2 * at, [(0x83, 1, 1), (0x05, 2 * at + 2, 2)])
    assert len(_layout(disk).partitions) == partitions.LIMIT


def test_outside_and_overlapping() -> None:
    """What does not lie inside the disk, or overlaps what comes before, is left out."""
    disk = bytearray(2 * _MIB)
    partition_tables.mbr(disk, 0, [(0x83, 100, 100), (0x83, 150, 100), (0x83, 4000, 97), (0x83, 4095, 1)])
    assert _places(_layout(disk)) == [(1, 51200, 51200), (4, 4095 * 512, 512)]


def test_boot_sectors_are_no_tables() -> None:
    """The signature alone makes no partition table: neither with code in the table's place nor without entries."""
    disk = bytearray(_MIB)
    disk[510:512] = b"\x55\xaa"
    assert _layout(disk) == partitions.Layout(None)
    disk[82:90] = b"FAT32   "
    disk[446:510] = b"Non-system disk ".ljust(64, b".")
    assert _layout(disk) == partitions.Layout(None, filesystem="vfat")
    for size in (0, 1, 511, 512, 513):
        assert _layout(bytes(size)) == partitions.Layout(None)


def _at(offset: int, content: bytes, size: int = 512 << 10) -> bytes:
    return bytes(offset) + content + bytes(size - offset - len(content))


def _ext(compat: int, incompat: int, ro_compat: int) -> bytes:
    return b"\x53\xef" + bytes(34) + struct.pack("<III", compat, incompat, ro_compat)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (None, bytes(_MIB)),
        ("ext2", _at(1024 + 56, _ext(0x38, 0x2, 0x3))),
        ("ext3", _at(1024 + 56, _ext(0x3C, 0x6, 0x3))),
        ("ext4", _at(1024 + 56, _ext(0x3C, 0x2C2, 0x46B))),
        ("ext4", _at(1024 + 56, _ext(0x3C, 0x2, 0x8))),
        ("xfs", _at(0, b"XFSB")),
        ("btrfs", _at(0x10040, b"_BHRfS_M")),
        ("ntfs", _at(3, b"NTFS    ")),
        ("vfat", _at(54, b"FAT16   " + bytes(448) + b"\x55\xaa")),
        ("swap", _at(4086, b"SWAPSPACE2")),
        ("swap", _at(65526, b"SWAPSPACE2")),
        ("lvm", _at(512, b"LABELONE" + bytes(16) + b"LVM2 001")),
        ("luks", _at(0, b"LUKS\xba\xbe\0\2")),
        ("zfs", _at((128 << 10) + 5 * 1024, b"\x0c\xb1\xba\0\0\0\0\0")),
        ("iso9660", _at(32769, b"CD001")),
    ],
)
def test_file_systems(name: str | None, content: bytes) -> None:
    """A file system is known by its magic, on the whole disk or in a partition, and not when it is cut off."""
    assert _layout(content).filesystem == name
    disk = partition_tables.gpt(4 * _MIB, [(2, _MIB, len(content), "")])
    disk[_MIB : _MIB + len(content)] = content
    assert [one.filesystem for one in _layout(disk).partitions] == [name]
    assert filesystems.detect(disk_memory.MemoryDisk.of(content), 0, 3) is None


class Counting(disk_memory.MemoryDisk):
    """A disk that counts the bytes that are read of it."""

    read = 0

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self.read += len(buffer)
        super().pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return iter([extents.Extent(offset, length, extents.Kind.DATA)] if length else [])


def test_whatever_a_guest_wrote(seed: int) -> None:
    """Damaged tables are read within bounds: nothing is raised, a few MiB are read, what is told lies inside."""
    rng = np.random.default_rng(seed)
    size = 2 * _MIB
    ones = partition_tables.gpt(size, [(one, 65536 + 8192 * one, 8192, "p") for one in range(1, 129)])
    twos = bytearray(size)
    partition_tables.mbr(twos, 0, [(0x83, 1, 9), (0x05, 100, 1000), (0x0F, 100, 3000), (0x85, 100, 3000)])
    for at in range(300):
        partition_tables.mbr(twos, 100 + at, [(0x83, 0, 1), (0x05, at + 1, 1)])
    for number in range(200):
        disk = Counting(size)
        content = bytearray(ones if number % 2 else twos)
        for _ in range(int(rng.integers(0, 30))):
            content[int(rng.choice([446, 512, 1024, 51200]) + rng.integers(128))] = int(rng.choice([0, 1, 5, 128, 255]))
        if number % 3 == 0:
            fields = [int(rng.choice([0, 1, 2, 127, 2**16, 2**31, 2**63])) for _ in range(3)]
            head = partition_tables.header((1, 2, fields[0]), fields[1] & 0xFFFFFFFF, fields[2] & 0xFFFFFFFF, 0)
            content[512:604] = head
        disk.pwrite(0, memoryview(content))
        layout = partitions.read(disk)
        assert disk.read < 40 * _MIB
        end = 0
        for one in layout.partitions:
            assert end <= one.start < one.start + one.length <= size
            end = one.start + one.length
