"""Small images of foreign formats, made field by field; every keyword argument sets a field wrong."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from vimgvc import errors
from vimgvc.disk import memory
from vimgvc.images import gates

Patch = tuple[int, str, Any]


def patched(image: bytes, *patches: Patch) -> bytes:
    """`image` with values packed over it at offsets; a negative offset counts from the end."""
    data = bytearray(image)
    for offset, layout, value in patches:
        struct.pack_into(layout, data, offset % len(data), value)
    return bytes(data)


def put(length: int, *parts: tuple[int, bytes]) -> bytes:
    """Zeros of `length` bytes with parts written at their offsets."""
    data = bytearray(length)
    for offset, part in parts:
        data[offset : offset + len(part)] = part
    return bytes(data)


def check(fmt: str, image: bytes, *, tables: bool = True) -> gates.Facts:
    return gates.check(fmt, memory.MemoryDisk.of(image), "image", tables=tables)


def refused(fmt: str, image: bytes, field: str) -> None:
    """Fails unless the gate refuses `image` with an error of its kind that names the image and `field` (a regex)."""
    with pytest.raises((errors.UnsafeImage, errors.Unsupported, errors.ImageDamaged), match=field) as caught:
        check(fmt, image)
    assert "image" in caught.value.message
    assert caught.value.message.isascii()
    assert caught.value.exit_code in (20, 21, 23)


def vdi(blocks: int = 3, entries: tuple[int, ...] = (0, 0xFFFFFFFF, 1)) -> bytes:
    """3 MiB, of which the first and the last are there."""
    allocated = sum(entry < 0xFFFFFFFE for entry in entries)
    head = struct.pack(
        "<64sIIIII256sIIIIIIIQIIII",
        b"<<< test >>>\n", 0xBEDA107F, 0x10001, 0x190, 1, 0, b"", 512, 1024, 0, 0, 0, 512, 0,
        blocks << 20, 1 << 20, 0, blocks, allocated,
    )  # fmt: skip
    table = struct.pack(f"<{len(entries)}I", *entries)
    return put(1024 + (allocated << 20), (0, head), (512, table), (1024, b"guest"))


def _sum(data: bytes) -> int:
    return ~sum(data) & 0xFFFFFFFF


def vpc_footer(size: int, **fields: Any) -> bytes:
    """A footer; `checksum` replaces the right one."""
    values: dict[str, Any] = {
        "cookie": b"conectix", "features": 2, "version": 0x10000, "next": 512, "time": 0, "app": b"win ",
        "app_version": 0xA0000, "os": b"Wi2k", "original": size, "size": size, "cylinders": 20, "heads": 4,
        "sectors": 17, "kind": 3, "uuid": bytes(range(16)), "saved": 0,
    }  # fmt: skip
    checksum = fields.pop("checksum", None)
    assert fields.keys() <= values.keys()
    values |= fields
    names = list(values)
    first = struct.pack(">8sIIQI4sI4sQQHBBI", *[values[name] for name in names[:14]])
    rest = struct.pack(">16sB", values["uuid"], values["saved"]).ljust(512 - 68, b"\0")
    right = _sum(first + rest)
    return first + struct.pack(">I", right if checksum is None else checksum) + rest


def vpc(
    size: int = 8 << 20, entries: tuple[int, ...] = (4, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), **fields: Any
) -> bytes:
    """A dynamic disk with blocks of 2 MiB, of which the first is there. `dynamic_…` fields are of the second header."""
    values: dict[str, Any] = {
        "cookie": b"cxsparse", "next": (1 << 64) - 1, "table": 1536, "version": 0x10000, "count": 4, "block": 2 << 20,
        "checksum": None, "parent": bytes(16), "parent_time": 0, "reserved": 0, "name": b"", "locator": b"",
    }  # fmt: skip
    values |= {name.removeprefix("dynamic_"): fields.pop(name) for name in list(fields) if name.startswith("dynamic_")}
    first = struct.pack(
        ">8sQQIII", *[values[name] for name in ("cookie", "next", "table", "version", "count", "block")]
    )
    rest = struct.pack(">16sII512s", *[values[name] for name in ("parent", "parent_time", "reserved", "name")])
    locator: bytes = values["locator"]
    rest = (rest + locator).ljust(1024 - 40, b"\0")
    checksum = _sum(first + rest) if values["checksum"] is None else values["checksum"]
    footer = vpc_footer(size, **fields)
    table = struct.pack(f">{len(entries)}I", *entries).ljust(512, b"\xff")
    head = footer + first + struct.pack(">I", checksum) + rest + table
    return head + b"\xff" * 512 + bytes(2 << 20) + footer


def vpc_fixed(size: int = 1 << 20, **fields: Any) -> bytes:
    return bytes(size) + vpc_footer(size, **({"kind": 2, "next": (1 << 64) - 1} | fields))


def crc32c(data: bytes) -> int:
    """Bit by bit, so that it is not the program's own table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _sealed(data: bytes) -> bytes:
    return data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


def guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


BAT = guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
PARAMETERS = guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
PAGE_83 = guid("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL = guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL = guid("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT = guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")


def vhdx_header(sequence: int, log: bytes = bytes(16), *, log_at: int = 1 << 20, valid: bool = True) -> bytes:
    data = struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, sequence, b"f" * 16, b"d" * 16, log, 0, 1, 1 << 20, log_at)
    data = _sealed(data.ljust(4096, b"\0"))
    return data if valid else bytes(4) + data[4:]


def vhdx(
    size: int = 8 << 20,
    *,
    headers: tuple[bytes, bytes] | None = None,
    regions: tuple[tuple[bytes, int, int, int], ...] | None = None,
    region_count: int | None = None,
    region_crc: int | None = None,
    items: dict[bytes, bytes] | None = None,
    extra_items: tuple[tuple[bytes, int, int, int], ...] = (),
    item_count: int | None = None,
    bat: tuple[int, ...] = (6 | 4 << 20, 0, 0, 0),
    flags: int = 0,
    block: int = 2 << 20,
) -> bytes:
    """Header, log, metadata and block table of 1 MiB each, then one block that is there."""
    mib = 1 << 20
    if headers is None:
        headers = vhdx_header(1), vhdx_header(2)
    if regions is None:
        regions = ((BAT, 3 * mib, mib, 1), (METADATA, 2 * mib, mib, 1))
    table = b"".join(struct.pack("<16sQII", *item) for item in regions)
    count = len(regions) if region_count is None else region_count
    table = _sealed((struct.pack("<4sIII", b"regi", 0, count, 0) + table).ljust(65536, b"\0"))
    if region_crc is not None:
        table = table[:4] + struct.pack("<I", region_crc) + table[8:]
    values = {
        PARAMETERS: struct.pack("<II", block, flags), DISK_SIZE: struct.pack("<Q", size), PAGE_83: bytes(16),
        LOGICAL: struct.pack("<I", 512), PHYSICAL: struct.pack("<I", 4096),
    } | (items or {})  # fmt: skip
    entries, body = [], b""
    for kind, value in values.items():
        if value:
            entries.append(struct.pack("<16sIIII", kind, 65536 + len(body), len(value), 4, 0))
            body += value
    entries += [struct.pack("<16sIIII", *item, 0) for item in extra_items]
    number = len(entries) if item_count is None else item_count
    meta = struct.pack("<8sHH20s", b"metadata", 0, number, b"") + b"".join(entries)
    return put(
        6 * mib, (0, b"vhdxfile"), (65536, headers[0]), (131072, headers[1]), (196608, table), (262144, table),
        (2 * mib, meta), (2 * mib + 65536, body), (3 * mib, struct.pack(f"<{len(bat)}Q", *bat)), (4 * mib, b"guest"),
    )  # fmt: skip


def qcow(l1: tuple[int, ...] = (512,), l2: tuple[int, ...] = (4608, 0), length: int = 8704) -> bytes:
    """2 MiB in clusters of 4 KiB: one table of 512 entries, one cluster that is there."""
    head = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, 2 << 20, 12, 9, 0, 0, 48)
    return put(
        length,
        (0, head),
        (48, struct.pack(f">{len(l1)}Q", *l1)),
        (512, struct.pack(f">{len(l2)}Q", *l2)),
        (4608, b"guest"),
    )


def qed(l1: tuple[int, ...] = (12288,), l2: tuple[int, ...] = (20480, 1, 0)) -> bytes:
    """1 MiB in clusters of 4 KiB, tables of two clusters."""
    head = struct.pack("<4sIIIQQQQQII", b"QED\0", 4096, 2, 1, 0, 0, 0, 4096, 1 << 20, 0, 0)
    first, second = struct.pack(f"<{len(l1)}Q", *l1), struct.pack(f"<{len(l2)}Q", *l2)
    return put(24576, (0, head), (4096, first), (12288, second), (20480, b"guest"))


def parallels(entries: tuple[int, ...] = (1, 0, 2)) -> bytes:
    """24 KiB in clusters of 8 KiB, in the new version, where the table counts clusters."""
    head = struct.pack("<16sIIIIIQIIIQ", b"WithouFreSpacExt", 2, 16, 1, 16, len(entries), 48, 0, 16, 0, 0)
    return put(24576, (0, head), (64, struct.pack(f"<{len(entries)}I", *entries)), (8192, b"guest"))


def luks(slots: tuple[tuple[int, int, int, int], ...] = ((0x00AC71F3, 1000, 8, 4000),)) -> bytes:
    """Keys of 32 bytes; a slot is (state, iterations, sector, stripes)."""
    head = struct.pack(
        ">6sH32s32s32sII20s32sI40s",
        b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 4096, 32, b"", b"", 1000, b"uuid",
    )  # fmt: skip
    slots += ((0x0000DEAD, 0, 0, 4000),) * (8 - len(slots))
    return put(
        (2 << 20) + 65536, (0, head + b"".join(struct.pack(">II32sII", a, b, b"", c, d) for a, b, c, d in slots))
    )


def mish(*chunks: tuple[int, int, int, int, int], first: int = 0) -> bytes:
    """A table of chunks: (type, sector, sectors, offset, length) each."""
    head = struct.pack(">4sIQQQ", b"mish", 1, first, 0, 0).ljust(204, b"\0")
    return head + b"".join(struct.pack(">IIQQQQ", kind, 0, *rest) for kind, *rest in chunks)


CHUNKS = ((1, 0, 4, 0, 2048), (0, 4, 4, 0, 0), (0xFFFFFFFF, 8, 0, 0, 0))


def dmg(table: bytes = mish(*CHUNKS), sectors: int = 8, *, fork: bool = False) -> bytes:
    """8 sectors: 4 as they are, 4 of zeros; the table in the property list, or in the resource fork."""
    text = b"<plist><data>\n" + base64.encodebytes(table) + b"</data></plist>"
    resource = struct.pack(">III4x", 16, 0, len(table) + 4) + struct.pack(">I", len(table)) + table
    info = resource if fork else text
    place = (2048, len(info))
    trailer = put(
        512, (0, struct.pack(">4sII", b"koly", 4, 512)), (0x18, struct.pack(">QQ", 0, 2048)),
        (0x28 if fork else 0xD8, struct.pack(">QQ", *place)), (0x38, struct.pack(">II", 1, 1)),
        (0x1EC, struct.pack(">Q", sectors)),
    )  # fmt: skip
    return bytes(b"guest".ljust(2048, b"\0")) + info + trailer


def cloop(offsets: tuple[int, ...] = (160, 1000, 2000), block: int = 65536) -> bytes:
    head = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop".ljust(128, b"\0")
    table = struct.pack(f">II{len(offsets)}Q", block, len(offsets) - 1, *offsets)
    return put(2000, (0, head + table))


def bochs(entries: tuple[int, ...] = (0, 0xFFFFFFFF), version: int = 0x20000) -> bytes:
    """Two extents of 64 KiB, the first is there."""
    head = struct.pack("<32s16s16sIIIII", b"Bochs Virtual HD Image", b"Redolog", b"Growing", version, 512,
                       len(entries), 512, 65536)  # fmt: skip
    head += struct.pack("<IQ" if version == 0x20000 else "<Q", *([0] * (version == 0x20000)), 131072)
    return put(512 + 8 + 512 + 65536, (0, head), (512, struct.pack(f"<{len(entries)}I", *entries)))


#: Every format: a good image, its size, and what its facts hold besides the format.
GOOD: dict[str, tuple[Callable[[], bytes], int, dict[str, Any]]] = {
    "vdi": (vdi, 3 << 20, {"static": False}),
    "vpc": (vpc, 8 << 20, {"subformat": "dynamic"}),
    "vhdx": (vhdx, 8 << 20, {"subformat": "dynamic", "block_size": 2 << 20, "sector_size": 512}),
    "qcow": (qcow, 2 << 20, {"cluster_size": 4096}),
    "qed": (qed, 1 << 20, {"cluster_size": 4096, "table_size": 2}),
    "parallels": (parallels, 24576, {"cluster_size": 8192}),
    "luks": (luks, 65536, {"cipher": "aes", "cipher_mode": "xts-plain64", "hash": "sha256", "key_bytes": 32}),
    "dmg": (dmg, 4096, {}),
    "cloop": (cloop, 131072, {"block_size": 65536}),
    "bochs": (bochs, 131072, {}),
}
