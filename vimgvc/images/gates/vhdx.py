"""VHDX (Hyper-V): two headers, two region tables, a metadata region, a block table; little-endian.

The last word is [MS-VHDX]. Field table: specs/foreign-formats.md, "vhdx".
"""

from __future__ import annotations

import itertools
import struct
import uuid
from dataclasses import dataclass

from vimgvc.images.gates import judge

_HEADERS = (64 << 10, 128 << 10)
_REGIONS = 192 << 10
_HEADER = struct.Struct("<4sIQ 16s16s16s HHIQ")
_REGION = struct.Struct("<16sQII")
_ITEM = struct.Struct("<16sIIII")
_MAX_REGIONS = 2047
_MIB = 1 << 20
_MAX_SIZE = 64 << 40

BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
PAGE_83 = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
LOGICAL = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
PHYSICAL = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
#: Length of each item that must be there.
_ITEMS = {PARAMETERS: 8, DISK_SIZE: 8, PAGE_83: 16, LOGICAL: 4, PHYSICAL: 4}

_LEAVE_ALLOCATED, _HAS_PARENT = 1, 2
_FULLY_PRESENT = 6
_KNOWN_STATES = (0, 1, 2, 3, _FULLY_PRESENT)


@dataclass(frozen=True, slots=True)
class _Head:
    sequence: int
    log: bytes
    log_at: int
    log_length: int


@dataclass(frozen=True, slots=True)
class _Disk:
    size: int
    block: int
    sector: int
    fixed: bool

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block)


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    j.among("the identifier", j.read(0, 8, "the identifier"), [b"vhdxfile"])
    head = _current(j)
    if any(head.log):
        raise j.unsupported(
            "VHDX images whose log must be replayed",
            hint="it was not closed properly: let Hyper-V, or 'qemu-img check -r all', replay it on a copy",
        )
    regions = _regions(j, head)
    disk = _metadata(j, *regions[METADATA])
    bat_at, bat_length = regions[BAT]
    entries = _entries(disk)
    j.between("the block table's length", bat_length, entries * 8, 1 << 32)
    if tables:
        _check_bat(j, disk, bat_at, entries * 8)
    container = {
        "format": "vhdx",
        "subformat": "fixed" if disk.fixed else "dynamic",
        "block_size": disk.block,
        "sector_size": disk.sector,
    }
    return judge.Facts("vhdx", disk.size, container, unit=disk.block)


def _current(j: judge.Judge) -> _Head:
    """The header in force: the valid one, of two valid ones the later."""
    found = [head for at in _HEADERS if (head := _header(j.read(at, 4096, "a header")))]
    if not found:
        raise j.refuse("the number of valid headers", 0, "1 or 2")
    found.sort(key=lambda head: head.sequence)
    # disk2vhd writes the same header twice
    if len(found) == 2 and found[0].sequence == found[1].sequence and found[0] != found[1]:
        raise j.refuse("the sequence number of both headers", found[0].sequence, "a different one in each")
    return found[-1]


def _header(data: bytes) -> _Head | None:
    (signature, crc, sequence, _, _, log, log_version, version, log_length, log_at) = _HEADER.unpack_from(data)
    if signature != b"head" or version != 1 or crc != crc32c(data):
        return None
    del log_version  # says nothing while there is no log to replay
    return _Head(sequence, log, log_at, log_length)


def _regions(j: judge.Judge, head: _Head) -> dict[bytes, tuple[int, int]]:
    """Offset and length of the two regions that matter."""
    # The driver reads the first table only, so its copy cannot stand in for it.
    data = j.read(_REGIONS, 64 << 10, "the region table")
    signature, checksum, count = struct.unpack_from("<4sII", data)
    j.among("the region table's signature", signature, [b"regi"])
    j.among("the region table's checksum", checksum, [crc32c(data)])
    j.between("the number of regions", count, 2, _MAX_REGIONS)
    found: dict[bytes, tuple[int, int]] = {}
    taken = [(0, _MIB), (head.log_at, head.log_at + head.log_length)]
    for number in range(count):
        kind, offset, length, flags = _REGION.unpack_from(data, 16 + number * _REGION.size)
        j.multiple("a region's offset", j.between("a region's offset", offset, _MIB, j.size), _MIB)
        j.multiple("a region's length", length, _MIB)
        j.inside("a region", offset, length)
        if kind in found:
            raise j.refuse("the number of regions of one kind", 2, "1")
        if kind not in (BAT, METADATA) and flags & 1:
            raise j.unsupported(f"the VHDX region {uuid.UUID(bytes_le=kind)}")
        taken.append((offset, offset + length))
        found[kind] = (offset, length)
    _check_overlap(j, taken)
    for kind in (BAT, METADATA):
        if kind not in found:
            raise j.refuse("the number of regions of one kind", 0, "1")
    return found


def _check_overlap(j: judge.Judge, ranges: list[tuple[int, int]]) -> None:
    ranges = sorted(item for item in ranges if item[0] < item[1])
    for (_, end), (start, _) in itertools.pairwise(ranges):
        if start < end:
            raise j.refuse("a region's offset", start, f"behind the region before it, which ends at {end}")


def _metadata(j: judge.Judge, at: int, length: int) -> _Disk:
    table = j.read(at, 64 << 10, "the metadata table")
    signature, _, count = struct.unpack_from("<8sHH", table)
    j.among("the metadata's signature", signature, [b"metadata"])
    j.between("the number of metadata items", count, len(_ITEMS), _MAX_REGIONS)
    items: dict[bytes, bytes] = {}
    for number in range(count):
        kind, offset, size, flags, _ = _ITEM.unpack_from(table, 32 + number * _ITEM.size)
        if kind == _PARENT:
            raise j.refers("it names a parent")
        if kind not in _ITEMS:
            if flags & 4:
                raise j.unsupported(f"the VHDX metadata {uuid.UUID(bytes_le=kind)}")
            continue
        if kind in items:
            raise j.refuse("the number of metadata items of one kind", 2, "1")
        j.among("a metadata item's length", size, [_ITEMS[kind]])
        j.between("a metadata item's offset", offset, 64 << 10, length - size)
        items[kind] = j.read(at + offset, size, "a metadata item")
    missing = _ITEMS.keys() - items.keys()
    if missing:
        raise j.refuse("the number of metadata items of one kind", 0, "1")
    return _disk(j, items)


def _disk(j: judge.Judge, items: dict[bytes, bytes]) -> _Disk:
    block, flags = struct.unpack("<II", items[PARAMETERS])
    (size,) = struct.unpack("<Q", items[DISK_SIZE])
    (sector,) = struct.unpack("<I", items[LOGICAL])
    (physical,) = struct.unpack("<I", items[PHYSICAL])
    if flags & _HAS_PARENT:
        raise j.refers("it is a difference to another image")
    j.power("the block size", block, _MIB, 256 * _MIB)
    j.among("the logical sector size", sector, [512, 4096])
    j.among("the physical sector size", physical, [512, 4096])
    j.multiple("the disk's size", j.between("the disk's size", size, 0, _MAX_SIZE), sector)
    return _Disk(size, block, sector, fixed=bool(flags & _LEAVE_ALLOCATED))


def _ratio(disk: _Disk) -> int:
    """Blocks between two entries that are of sector bitmaps."""
    return (disk.sector << 23) // disk.block


def _entries(disk: _Disk) -> int:
    return disk.blocks + max(0, disk.blocks - 1) // _ratio(disk)


def _check_bat(j: judge.Judge, disk: _Disk, at: int, length: int) -> None:
    import numpy as np

    period = _ratio(disk) + 1
    last = length // 8 - 1
    known = np.isin(np.arange(8), _KNOWN_STATES)
    first = 0
    for piece in j.table(at, length, "the block table"):
        entries = piece.view("<u8")
        states = (entries & 7).astype(np.uint8)
        # Every so many entries there is one of a sector bitmap, which only differences use.
        odd = np.flatnonzero(~known[states])
        if ((first + odd) % period != period - 1).any():
            raise j.damaged("the state of a block is unknown, or that of a difference to another image")
        there = np.flatnonzero(states == _FULLY_PRESENT)
        there = there[(first + there) % period != period - 1]
        j.count(there.size * disk.block)
        # The offset counts MiB and lies in the upper 44 bits.
        starts = (entries[there] >> 20).astype(np.int64)
        needed = np.full(there.size, disk.block)
        needed[first + there == last] = disk.size - (disk.blocks - 1) * disk.block
        beyond = (starts > j.size >> 20) | ((starts << 20) + needed > j.size)
        if beyond.any():
            raise j.damaged(f"a block at {int(starts[beyond].max()) << 20} lies behind the end of the file")
        if (starts == 0).any():
            raise j.damaged("a block lies in the header")
        first += entries.size


def crc32c(data: bytes) -> int:
    """CRC-32C of `data` with the four bytes of the checksum, from byte 4 on, taken as zeros."""
    crc = 0xFFFFFFFF
    for byte in data[:4] + bytes(4) + data[8:]:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = tuple(_crc_entry(value) for value in range(256))
