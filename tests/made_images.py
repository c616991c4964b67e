"""Containers read by nothing but the field tables of specs/foreign-formats.md: slow, whole, and trusting."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator

_MIB = 1 << 20

#: (offset on the disk, offset in the file, length) of every piece that is there.
Pieces = Iterator[tuple[int, int, int]]


def content(fmt: str, data: bytes) -> bytes:
    """The disk in a container that holds a whole one."""
    size, pieces = _FORMATS[fmt](data)
    disk = bytearray(size)
    for at, place, length in pieces:
        piece = data[place : place + min(length, size - at)]
        assert len(piece) == min(length, size - at), f"the file ends before its piece at {place} does"
        disk[at : at + len(piece)] = piece
    return bytes(disk)


def _one(form: str, data: bytes, at: int) -> int:
    return int(struct.unpack_from(form, data, at)[0])


def _table(form: str, data: bytes, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"{form[0]}{count}{form[1]}", data, at)


def _vdi(data: bytes) -> tuple[int, Pieces]:
    table, start, blocks = _one("<I", data, 340), _one("<I", data, 344), _one("<I", data, 384)
    entries = _table("<I", data, table, blocks)
    assert _one("<I", data, 388) == sum(entry < 0xFFFFFFFE for entry in entries)
    return _one("<Q", data, 368), (
        (number * _MIB, start + entry * _MIB, _MIB) for number, entry in enumerate(entries) if entry < 0xFFFFFFFE
    )


def _vpc(data: bytes) -> tuple[int, Pieces]:
    foot = data[-512:]
    assert foot.startswith(b"conectix")
    assert _one(">I", foot, 64) == ~(sum(foot) - sum(foot[64:68])) & 0xFFFFFFFF
    size = _one(">Q", foot, 48)
    if _one(">I", foot, 60) == 2:
        assert len(data) == size + 512
        return size, iter([(0, 0, size)])
    assert data.startswith(foot)
    head = _one(">Q", foot, 16)
    block, count = _one(">I", data, head + 32), _one(">I", data, head + 28)
    entries = _table(">I", data, _one(">Q", data, head + 16), count)
    there = [(number, entry * 512) for number, entry in enumerate(entries) if entry != 0xFFFFFFFF]
    assert all(data[place : place + 512] == b"\xff" * 512 for _, place in there)
    return size, ((number * block, place + 512, block) for number, place in there)


def _vhdx(data: bytes) -> tuple[int, Pieces]:
    regions = {}
    for number in range(_one("<I", data, (192 << 10) + 8)):
        kind, at, _ = struct.unpack_from("<16sQI", data, (192 << 10) + 16 + number * 32)
        regions[uuid.UUID(bytes_le=kind)] = at
    table = regions[uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")]
    metadata = regions[uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")]
    items = {}
    for number in range(_one("<H", data, metadata + 10)):
        kind, at = struct.unpack_from("<16sI", data, metadata + 32 + number * 32)
        items[uuid.UUID(bytes_le=kind)] = metadata + at
    block = _one("<I", data, items[uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")])
    size = _one("<Q", data, items[uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")])
    ratio = (512 << 23) // block

    def pieces() -> Pieces:
        for number in range(-(-size // block)):
            entry = _one("<Q", data, table + (number + number // ratio) * 8)
            if entry & 7 == 6:
                yield number * block, entry >> 20 << 20, block

    return size, pieces()


def _parallels(data: bytes) -> tuple[int, Pieces]:
    cluster, count, sectors = _one("<I", data, 28) * 512, _one("<I", data, 32), _one("<Q", data, 36)
    entries = _table("<I", data, 64, count)
    return sectors * 512, (
        (number * cluster, entry * cluster, cluster) for number, entry in enumerate(entries) if entry
    )


def _two_levels(form: str, data: bytes, tables: tuple[int, ...], cluster: int, per_table: int) -> Pieces:
    for number, table in enumerate(tables):
        for inside, entry in enumerate(_table(form, data, table, per_table) if table else ()):
            if entry:
                yield (number * per_table + inside) * cluster, entry, cluster


def _qed(data: bytes) -> tuple[int, Pieces]:
    cluster, size = _one("<I", data, 4), _one("<Q", data, 48)
    per_table = cluster * _one("<I", data, 8) // 8
    tables = _table("<Q", data, _one("<Q", data, 40), per_table)
    return size, _two_levels("<Q", data, tables, cluster, per_table)


def _qcow(data: bytes) -> tuple[int, Pieces]:
    size, cluster, per_table = _one(">Q", data, 24), 1 << data[32], 1 << data[33]
    tables = _table(">Q", data, _one(">Q", data, 40), -(-size // (cluster * per_table)))
    return size, _two_levels(">Q", data, tables, cluster, per_table)


def _vmdk(data: bytes) -> tuple[int, Pieces]:
    size, grain, per_table = _one("<Q", data, 12) * 512, _one("<Q", data, 20) * 512, _one("<I", data, 44)
    found = []
    for directory in (_one("<Q", data, 48) * 512, _one("<Q", data, 56) * 512):
        entries: list[int] = []
        for table in _table("<I", data, directory, -(-size // (grain * per_table))):
            entries += _table("<I", data, table * 512, per_table)
        found.append(entries)
    assert found[0] == found[1]
    return size, ((number * grain, entry * 512, grain) for number, entry in enumerate(found[0]) if entry)


_FORMATS: dict[str, Callable[[bytes], tuple[int, Pieces]]] = {
    "parallels": _parallels,
    "qcow": _qcow,
    "qed": _qed,
    "vdi": _vdi,
    "vhdx": _vhdx,
    "vmdk": _vmdk,
    "vpc": _vpc,
}
