"""VDI and VHD images from struct code of their own.

VirtualBox's VDICore.h; Microsoft's "Virtual Hard Disk Image Format Specification".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from tests.hostile import case

MIB = 1 << 20
SIZE = 4 * MIB
DATA = {0: case.noise(1, 100_000).ljust(MIB, b"\0"), 2: case.text(2, 100_000).rjust(MIB, b"\0")}
CONTENT = b"".join(DATA.get(at, bytes(MIB)) for at in range(4))

VDI = {
    "signature": (0x40, "<I"),
    "version": (0x44, "<I"),
    "header_size": (0x48, "<I"),
    "type": (0x4C, "<I"),
    "map": (0x154, "<I"),
    "data": (0x158, "<I"),
    "sector": (0x168, "<I"),
    "size": (0x170, "<Q"),
    "block": (0x178, "<I"),
    "extra": (0x17C, "<I"),
    "blocks": (0x180, "<I"),
    "allocated": (0x184, "<I"),
}


def cases() -> list[case.Case]:
    return [*_vdi_cases(), *_vpc_cases()]


def vdi(*, kind: int = 1, **fields: int) -> bytearray:
    """Header, block map at 512, data at 4096; kind 1 grows, 2 has every block."""
    data = bytearray(4096)
    data[:40] = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
    present = dict(DATA) if kind != 2 else {at: DATA.get(at, bytes(MIB)) for at in range(4)}
    values = {
        "signature": 0xBEDA107F,
        "version": 0x00010001,
        "header_size": 0x190,
        "type": kind,
        "map": 512,
        "data": 4096,
        "sector": 512,
        "size": SIZE,
        "block": MIB,
        "blocks": 4,
        "allocated": len(present),
        **fields,
    }
    for name, value in values.items():
        offset, form = VDI[name]
        case.put(data, offset, form, value)
    data[0x188:0x198] = bytes(range(1, 17))
    case.put(data, 512, "<4I", *[0xFFFFFFFF] * 4)
    for at, (number, block) in enumerate(present.items()):
        case.put(data, 512 + number * 4, "<I", at)
        data += block
    return data


def _case(row: str, name: str, code: int | set[int], data: bytes | bytearray, content: bytes = CONTENT) -> case.Case:
    return case.case(row, name, code, case.write(content if code == case.OK else None, bytes(data)), foreign=True)


def _vdi_cases() -> Iterator[case.Case]:
    yield _case("I28", "vdi", case.OK, vdi())
    yield _case("I28", "vdi-static", case.OK, vdi(kind=2))
    named: dict[str, dict[str, Any]] = {
        "difference": {"type": 4},
        "undo": {"type": 3},
        "type-0": {"type": 0},
        "version": {"version": 0x00020000},
        "blocks-max": {"blocks": 2**32 - 1},
        "blocks-overflow": {"blocks": 0x40000001},
        "blocks-too-few": {"blocks": 3},
        "block-size-0": {"block": 0},
        "block-size-odd": {"block": MIB - 1},
        "sector-size": {"sector": 4096},
        "size-max": {"size": 2**64 - 1},
        "size-above-the-cap": {"size": (64 << 40) + 512},
        "map-beyond": {"map": 0xFFFFFE00},
        "map-misaligned": {"map": 513},
        "data-beyond": {"data": 0xFFFFFE00},
        "data-misaligned": {"data": 4097},
        "extra": {"extra": 512},
    }
    for name, fields in named.items():
        yield _case("I28", f"vdi-{name}", {21, 23}, vdi(**fields))
    linked = vdi()
    case.put(linked, 0x1A8, "<I", 1)
    yield _case("I28", "vdi-parent", {21, 23}, linked)
    block = vdi()
    case.put(block, 512 + 4, "<I", 77)
    yield _case("I28", "vdi-block-beyond-the-count", {20, 21}, block)
    twice = vdi()
    case.put(twice, 512 + 4, "<I", 0)
    yield _case("I28", "vdi-block-twice", {0, 20, 21}, twice)
    yield _case("I30", "vdi-cut", {20, 21}, vdi()[:-4096])


def _checksum(data: bytes | bytearray) -> int:
    return ~sum(data) & 0xFFFFFFFF


def footer(kind: int = 3, size: int = SIZE, geometry: tuple[int, int, int] | None = None, **fields: int) -> bytearray:
    data = bytearray(512)
    cylinders, heads, sectors = geometry or (SIZE // 512 // 4 // 17, 4, 17)
    struct.pack_into(
        ">8sIIQI4sI4sQQHBBI",
        data,
        0,
        b"conectix",
        2,
        0x10000,
        512 if kind != 2 else 2**64 - 1,
        0,
        b"win ",
        0xA0000,
        b"Wi2k",
        size,
        size,
        cylinders,
        heads,
        sectors,
        kind,
    )
    data[68:84] = bytes(range(16))
    places = {"data_offset": (16, ">Q"), "features": (8, ">I"), "version": (12, ">I"), "size": (48, ">Q")}
    for name, value in fields.items():
        offset, form = places[name]
        case.put(data, offset, form, value)
    case.put(data, 64, ">I", _checksum(data))
    return data


def vpc(foot: bytes | None = None, **fields: Any) -> bytearray:
    """A growing disk: footer's copy, header at 512, block table at 1536, blocks behind their bitmaps, footer."""
    foot = bytes(footer()) if foot is None else foot
    head = bytearray(1024)
    case.put(head, 0, ">8sQQIII", b"cxsparse", 2**64 - 1, 1536, 0x10000, 2, 2 * MIB)
    places = {
        "magic": (0, ">8s"),
        "next": (8, ">Q"),
        "table": (16, ">Q"),
        "entries": (28, ">I"),
        "block": (32, ">I"),
        "parent": (64, ">16s"),
        "locator": (576, ">4sII4xQ"),
    }
    for name, value in fields.items():
        if name in places:
            offset, form = places[name]
            case.put(head, offset, form, value)
    case.put(head, 36, ">I", _checksum(head))
    data = bytearray(foot) + head + case.pad(struct.pack(">2I", 2048 // 512, 0xFFFFFFFF), 512)
    data[1536 : 1536 + 8] = struct.pack(">2I", 4, (2048 + 512 + 2 * MIB) // 512)
    for at in range(2):
        data += b"\xff" * 512 + CONTENT[at * 2 * MIB : (at + 1) * 2 * MIB]
    return data + foot


def _vpc_cases() -> Iterator[case.Case]:
    yield _case("I26", "vpc", case.OK, vpc())
    fixed = footer(2)
    yield _case("I26", "vpc-fixed", case.OK, CONTENT + bytes(fixed))
    named: dict[str, dict[str, Any]] = {
        "table-beyond": {"table": 1 << 50},
        "table-max": {"table": 2**64 - 512},
        "entries-max": {"entries": 2**32 - 1},
        "entries-too-few": {"entries": 1},
        "block-size-0": {"block": 0},
        "block-size-max": {"block": 2**32 - 1},
        "block-size-odd": {"block": 2 * MIB - 512},
        "header-magic": {"magic": b"cxsparsX"},
    }
    for name, fields in named.items():
        yield _case("I26", f"vpc-{name}", {21}, vpc(**fields))
    yield _case("I26", "vpc-header-is-the-footer", {21}, vpc(bytes(footer(data_offset=0))))
    yield _case("I26", "vpc-header-beyond", {21}, vpc(bytes(footer(data_offset=1 << 50))))
    yield _case("I26", "vpc-difference", {21, 23}, vpc(bytes(footer(4))))
    yield _case("I26", "vpc-parent-locator", {21, 23}, vpc(bytes(footer(4)), parent=bytes(range(16))))
    yield _case("I26", "vpc-type-9", {21, 23}, vpc(bytes(footer(9))))
    yield _case("I26", "vpc-size-above-the-cap", {21}, vpc(bytes(footer(size=(64 << 40) + 512))))
    yield _case("I26", "vpc-size-max", {21}, vpc(bytes(footer(size=2**64 - 1))))
    broken = vpc()
    case.put(broken, 64, ">I", 1)
    case.put(broken, len(broken) - 512 + 64, ">I", 1)
    yield _case("I26", "vpc-checksum", {21}, broken)
    header = vpc()
    case.put(header, 512 + 36, ">I", 1)
    yield _case("I26", "vpc-header-checksum", {21}, header)
    entry = vpc()
    case.put(entry, 1536 + 4, ">I", 0x7FFFFFFF)
    yield _case("I26", "vpc-block-beyond", {20, 21}, entry)
    yield _case("I26", "vpc-fixed-too-large", {20, 21}, CONTENT[: 2 * MIB] + bytes(fixed))
    yield _case("I30", "vpc-cut", {20, 21}, vpc()[:-MIB])
