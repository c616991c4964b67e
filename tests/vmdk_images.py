"""VMDK files made field by field: descriptors, and sparse extents of all three kinds around a disk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

GRAIN = 8  # sectors: 4 KiB
TABLE = 512
AT_END = (1 << 64) - 1

LINES = 'RW {sectors} SPARSE "disk.vmdk"'


def text(
    create_type: str = "monolithicSparse", lines: Sequence[str] = (), sectors: int = 0, *, more: str = "", **fields: str
) -> bytes:
    """A descriptor; `lines` are its extents, `fields` replace `version`, `CID` and so on ("" leaves it out)."""
    values = {"version": "1", "CID": "12345678", "parentCID": "ffffffff", "createType": f'"{create_type}"'} | fields
    head = "".join(f"{name}={value}\n" for name, value in values.items() if value)
    body = "\n".join(lines or [LINES.format(sectors=sectors)])
    tail = 'ddb.adapterType = "lsilogic"\nddb.virtualHWVersion = "4"\n'
    return f"# Disk DescriptorFile\n{head}\n# Extent description\n{body}\n\n#DDB\n{tail}{more}".encode("latin-1")


def header(capacity: int, **fields: Any) -> bytes:
    values: dict[str, Any] = {
        "magic": b"KDMV", "version": 1, "flags": 1, "sectors": capacity, "grain": GRAIN, "text_at": 1,
        "text_length": 20, "entries": TABLE, "spare": 0, "directory": 21, "data": 128, "clean": 0,
        "newline": b"\n \r\n", "algorithm": 0,
    }  # fmt: skip
    assert fields.keys() <= values.keys()
    values |= fields
    return struct.pack("<4sIIQQQQIQQQB4sH", *values.values()).ljust(512, b"\0")


def _there(content: bytes, at: int, grain: int, holes: bytes | None) -> bool:
    """Whether a grain is stored: unless all of it is marked as a hole."""
    part = holes[at : at + grain] if holes is not None else b"\0"
    return not part or not all(part)


def hosted(
    content: bytes, descriptor: bytes | None = b"", holes: bytes | None = None, *, data: int = 128, **fields: Any
) -> bytes:
    """A hosted sparse extent of `content`; bytes that are 1 in `holes` need not be there. No descriptor: a part."""
    sectors, grain = len(content) // 512, GRAIN * 512
    if descriptor == b"":
        descriptor = text(sectors=sectors)
    count = -(-sectors // GRAIN)
    tables = -(-count // TABLE)
    assert 21 * 512 + tables * 4 + tables * TABLE * 4 <= data * 512
    first = 21 + -(-tables * 4 // 512)
    entries, body = [0] * (tables * TABLE), bytearray()
    for number in range(count):
        at = number * grain
        if _there(content, at, grain, holes):
            entries[number] = data + len(body) // 512
            body += content[at : at + grain].ljust(grain, b"\0")
    place = {"text_at": 1, "text_length": 20} if descriptor is not None else {"text_at": 0, "text_length": 0}
    image = bytearray(data * 512) + body
    image[:512] = header(sectors, **({**place, "data": data} | fields))
    image[512 : 512 + len(descriptor or b"")] = descriptor or b""
    struct.pack_into(f"<{tables}I", image, 21 * 512, *range(first, first + tables * 4, 4))
    struct.pack_into(f"<{len(entries)}I", image, first * 512, *entries)
    return bytes(image)


def stream(
    content: bytes, *, foot: dict[str, Any] | None = None, marker: tuple[int, int] = (0, 3), **fields: Any
) -> bytes:
    """A streamOptimized image: compressed grains of 64 KiB, tables behind them, a footer."""
    sectors, grain = len(content) // 512, 65536
    common = {"flags": 0x30001, "grain": 128, "algorithm": 1, "directory": AT_END, "version": 3} | fields
    descriptor = text("streamOptimized", sectors=sectors)
    image = bytearray(header(sectors, **common) + descriptor.ljust(20 * 512, b"\0")).ljust(128 * 512, b"\0")
    entries = [0] * TABLE
    for number, at in enumerate(range(0, len(content), grain)):
        packed = zlib.compress(content[at : at + grain])
        entries[number] = len(image) // 512
        image += _padded(struct.pack("<QI", at // 512, len(packed)) + packed)
    image += struct.pack("<QII", 4, 0, 1).ljust(512, b"\0") + struct.pack(f"<{TABLE}I", *entries)
    table = len(image) // 512 - 4
    image += struct.pack("<QII", 1, 0, 2).ljust(512, b"\0") + struct.pack("<I", table).ljust(512, b"\0")
    place = {"directory": len(image) // 512 - 1}
    image += struct.pack("<QII", 1, *marker).ljust(512, b"\0")
    return bytes(image + header(sectors, **{**common, **place, **(foot or {})}) + bytes(512))


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 512) * 512, b"\0")


def cowd(content: bytes, holes: bytes | None = None, **fields: Any) -> bytes:
    """The sparse extent of ESX hosts: grains of a sector, tables of 4096."""
    sectors = len(content) // 512
    tables = -(-sectors // 4096)
    values: dict[str, Any] = {
        "magic": b"COWD", "version": 1, "flags": 3, "sectors": sectors, "grain": 1, "directory": 4, "count": tables,
        "free": 0, "cylinders": 1, "heads": 1, "per_track": 1, "rest": 0,
    } | fields  # fmt: skip
    start = 4 + -(-tables * 4 // 512)
    data = start + tables * 32
    entries, body = [0] * (tables * 4096), bytearray()
    for number in range(sectors):
        at = number * 512
        if _there(content, at, 512, holes):
            entries[number] = data + len(body) // 512
            body += content[at : at + 512]
    image = bytearray(data * 512) + body
    struct.pack_into("<4sIIIIIIIIIII", image, 0, *values.values())
    struct.pack_into(f"<{tables}I", image, 2048, *range(start, data, 32))
    struct.pack_into(f"<{len(entries)}I", image, start * 512, *entries)
    return bytes(image)


def sesparse(content: bytes, holes: bytes | None = None, *, replay: int = 0, **fields: Any) -> bytes:
    """The sparse extent of newer ESX hosts: grains of 4 KiB, tables of 4096 entries of 8 bytes."""
    sectors = len(content) // 512
    count = -(-sectors // 8)
    tables = -(-count // 4096)
    at = {"volatile": 1, "directory": 8, "tables": 64, "grains": 64 + tables * 64}
    entries, body = [0] * (tables * 4096), bytearray()
    for number in range(count):
        if _there(content, number * 4096, 4096, holes):
            index = len(body) // 4096
            entries[number] = 3 << 60 | (index & 0xFFF) << 48 | index >> 12
            body += content[number * 4096 : number * 4096 + 4096].ljust(4096, b"\0")
        elif number % 2:
            entries[number] = (1 + number // 2 % 2) << 60
    values: dict[str, Any] = {
        "magic": 0xCAFEBABE, "version": 0x200000001, "sectors": sectors, "grain": 8, "table": 64, "flags": 0,
        "reserved1": 0, "reserved2": 0, "reserved3": 0, "reserved4": 0, "volatile": at["volatile"], "volatile_size": 1,
        "journal_header": 2, "journal_header_size": 2, "journal": 4, "journal_size": 4, "directory": at["directory"],
        "directory_size": -(-tables * 8 // 512) or 1, "tables": at["tables"], "tables_size": tables * 64, "free": 0,
        "free_size": 0, "backmap": 0, "backmap_size": 0, "grains": at["grains"], "grains_size": len(body) // 512,
    } | fields  # fmt: skip
    image = bytearray(at["grains"] * 512) + body
    struct.pack_into("<26Q", image, 0, *values.values())
    struct.pack_into("<4Q", image, 512, 0xCAFECAFE, 0, 0, replay)
    struct.pack_into(f"<{tables}Q", image, at["directory"] * 512, *[1 << 60 | number for number in range(tables)])
    struct.pack_into(f"<{len(entries)}Q", image, at["tables"] * 512, *entries)
    return bytes(image)
