"""VHDX images from struct code of their own: Microsoft's [MS-VHDX]."""

from __future__ import annotations

import functools
import struct
import uuid
from collections.abc import Iterator
from typing import Any

from tests.hostile import case

MIB = 1 << 20
SIZE = 4 * MIB
DATA = {0: case.noise(1, 100_000).ljust(MIB, b"\0"), 2: case.text(2, 100_000).rjust(MIB, b"\0")}
CONTENT = b"".join(DATA.get(at, bytes(MIB)) for at in range(4))

_BAT = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08").bytes_le
_META = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
_PARAMETERS = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
_SIZE = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
_PAGE83 = uuid.UUID("BECA12AB-B2E6-4523-93EF-C309E000C746").bytes_le
_LOGICAL = uuid.UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F").bytes_le
_PHYSICAL = uuid.UUID("CDA348C7-445D-4471-9CC9-E9885251C556").bytes_le
_PARENT = uuid.UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C").bytes_le


@functools.lru_cache(maxsize=64)
def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_row(at) for at in range(256)]


def _sealed(data: bytearray) -> bytes:
    """With its checksum in bytes 4 to 7."""
    data[4:8] = bytes(4)
    case.put(data, 4, "<I", crc32c(bytes(data)))
    return bytes(data)


def vhdx(
    *,
    log: bytes = bytes(16),
    regions: int = 2,
    bat_length: int = MIB,
    bat_at: int = 3 * MIB,
    meta_at: int = 2 * MIB,
    versions: tuple[int, int] = (1, 1),
    sequences: tuple[int, int] = (1, 2),
    seal_headers: bool = True,
    seal_regions: bool = True,
    **meta: Any,
) -> bytearray:
    """Identifier, two headers, two region tables, log at 1 MiB, metadata at 2, block table at 3, blocks from 4 on."""
    data = bytearray(4 * MIB)
    data[:8] = b"vhdxfile"
    table = bytearray(65536)
    case.put(table, 0, "<4sII4x", b"regi", 0, regions)
    case.put(table, 16, "<16sQII", _BAT, bat_at, bat_length, 1)
    case.put(table, 48, "<16sQII", _META, meta_at, MIB, 1)
    for at in range(2):
        head = bytearray(4096)
        guid = bytes(range(16))
        case.put(head, 0, "<4sIQ16s16s16sHHIQ", b"head", 0, sequences[at], guid, guid, log, 0, versions[at], MIB, MIB)
        data[(1 + at) * 65536 : (1 + at) * 65536 + 4096] = _sealed(head) if seal_headers else head
        data[(3 + at) * 65536 : (4 + at) * 65536] = _sealed(table) if seal_regions else table
    data[2 * MIB : 3 * MIB] = _metadata(**meta)
    for number, block in DATA.items():
        case.put(data, 3 * MIB + number * 8, "<Q", len(data) // MIB << 20 | 6)
        data += block
    return data


def _metadata(
    *,
    block: int = MIB,
    size: int = SIZE,
    flags: int = 0,
    logical: int = 512,
    physical: int = 512,
    count: int | None = None,
    item_offset: int = 65536,
    item_length: int = 8,
    unknown: bool = False,
    parent: bool = False,
) -> bytes:
    items = [
        (_PARAMETERS, struct.pack("<II", block, flags), 4),
        (_SIZE, struct.pack("<Q", size), 6),
        (_PAGE83, bytes(range(16)), 6),
        (_LOGICAL, struct.pack("<I", logical), 6),
        (_PHYSICAL, struct.pack("<I", physical), 6),
    ]
    if unknown:
        items.append((bytes(range(16)), b"what", 4))
    if parent:
        items.append((_PARENT, bytes(64), 4))
    table = bytearray(MIB)
    case.put(table, 0, "<8s2xH20x", b"metadata", len(items) if count is None else count)
    at = item_offset
    for number, (guid, value, kind) in enumerate(items):
        length = item_length if number == 0 else len(value)
        case.put(table, 32 + number * 32, "<16sIII4x", guid, at & 0xFFFFFFFF, length, kind)
        if at + len(value) <= MIB:
            table[at : at + len(value)] = value
        at += 64
    return bytes(table)


def _case(row: str, name: str, code: int | set[int], data: bytes | bytearray) -> case.Case:
    content = CONTENT if code == case.OK else None
    return case.case(row, name, code, case.write(content, bytes(data)), foreign=True)


def cases() -> list[case.Case]:
    return list(_cases())


def _cases() -> Iterator[case.Case]:
    yield _case("I27", "vhdx", case.OK, vhdx())
    one = vhdx()
    one[2 * 65536 : 2 * 65536 + 4] = bytes(4)
    yield _case("I27", "vhdx-one-header", case.OK, one)
    named: dict[str, dict[str, Any]] = {
        "log-not-empty": {"log": bytes(range(1, 17))},
        "regions-2048": {"regions": 2048},
        "regions-max": {"regions": 2**32 - 1},
        "regions-none": {"regions": 0},
        "table-of-4g": {"bat_length": 2**32 - MIB},
        "table-beyond": {"bat_at": 1 << 50},
        "table-over-metadata": {"bat_at": 2 * MIB},
        "table-over-header": {"bat_at": 0},
        "metadata-beyond": {"meta_at": 1 << 50},
        "version-2": {"versions": (2, 2)},
        "headers-unsealed": {"seal_headers": False},
        "regions-unsealed": {"seal_regions": False},
        "two-headers-of-one-age": {"sequences": (2, 2)},
        "block-size-0": {"block": 0},
        "block-size-odd": {"block": MIB + 512},
        "block-size-512m": {"block": 512 * MIB},
        "size-0": {"size": 0},
        "size-max": {"size": 2**64 - 1},
        "size-above-the-cap": {"size": (64 << 40) + 512},
        "size-for-a-larger-table": {"size": 1 << 40},
        "sector-size": {"logical": 1000},
        "parent": {"flags": 2},
        "parent-locator": {"flags": 2, "parent": True},
        "items-2048": {"count": 2048},
        "items-max": {"count": 65535},
        "item-too-long": {"item_length": 65 << 10},
        "item-of-4g": {"item_length": 2**32 - 1},
        "item-beyond": {"item_offset": MIB},
        "item-in-the-table": {"item_offset": 32},
        "item-unknown-and-required": {"unknown": True},
    }
    for name, fields in named.items():
        yield _case("I27", f"vhdx-{name}", {0, 21} if name == "two-headers-of-one-age" else {21, 23}, vhdx(**fields))
    beyond = vhdx()
    case.put(beyond, 3 * MIB + 8, "<Q", 1 << 60 | 6)
    yield _case("I27", "vhdx-block-beyond", {20, 21}, beyond)
    state = vhdx()
    case.put(state, 3 * MIB + 8, "<Q", 5 << 20 | 7)
    yield _case("I27", "vhdx-block-of-the-parent", {20, 21}, state)
    yield _case("I30", "vhdx-cut", {20, 21}, vhdx()[: -(MIB // 2)])
