"""The small formats, from struct code of their own: QED, qcow, Parallels, cloop, Bochs, DMG, COW, LUKS.

Sources: QEMU's docs/interop/qed_spec.txt, docs/interop/parallels.txt and block/*.c of these formats.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from tests.hostile import case

K = 1024
GRAIN = 64 * K
SIZE = 4 * GRAIN
DATA = {0: case.noise(1, GRAIN), 2: case.text(2, GRAIN)}
CONTENT = b"".join(DATA.get(at, bytes(GRAIN)) for at in range(4))
_CAP = 64 << 40
_MAX = 2**64 - 1


def cases() -> list[case.Case]:
    return [*_qed_cases(), *_qcow_cases(), *_parallels_cases(), *_cow_cases(), *_read_only_cases(), *_luks_cases()]


def _case(
    name: str,
    code: int | set[int],
    data: bytes | bytearray,
    content: bytes = CONTENT,
    *,
    row: str = "I29",
    qemu: bool = True,
) -> case.Case:
    return case.case(row, name, code, case.write(content if code == case.OK else None, bytes(data)), foreign=qemu)


def qed(**fields: Any) -> bytearray:
    """Header, L1 and one L2 (of 2 clusters each), data."""
    values: dict[str, Any] = {
        "magic": b"QED\0",
        "cluster": GRAIN,
        "table": 2,
        "head": 1,
        "features": 0,
        "l1": GRAIN,
        "size": SIZE,
    }
    values |= fields
    data = bytearray(5 * GRAIN)
    order = ("magic", "cluster", "table", "head", "features")
    case.put(data, 0, "<4sIIIQQQQQ", *[values[name] for name in order], 0, 0, values["l1"], values["size"])
    case.put(data, 56, "<II", values.get("backing_offset", 0), values.get("backing_size", 0))
    data[64:72] = b"../canar"
    case.put(data, GRAIN, "<Q", 3 * GRAIN)
    for number, grain in DATA.items():
        case.put(data, 3 * GRAIN + number * 8, "<Q", len(data))
        data += grain
    return data


def _qed_cases() -> Iterator[case.Case]:
    yield _case("qed", case.OK, qed())
    named: dict[str, dict[str, Any]] = {
        "unknown-feature": {"features": 1 << 40},
        "cluster-0": {"cluster": 0},
        "cluster-odd": {"cluster": 65537},
        "cluster-max": {"cluster": 1 << 31},
        "table-0": {"table": 0},
        "table-17": {"table": 17},
        "table-max": {"table": 2**32 - 1},
        "l1-beyond": {"l1": 1 << 50},
        "l1-misaligned": {"l1": GRAIN + 8},
        "size-max": {"size": _MAX},
        "size-above-the-cap": {"size": _CAP + 512},
        "backing": {"features": 1, "backing_offset": 64, "backing_size": 8},
        "backing-raw": {"features": 5, "backing_offset": 64, "backing_size": 8},
        "backing-beyond": {"features": 1, "backing_offset": 1 << 31, "backing_size": 8},
    }
    for name, fields in named.items():
        yield _case(f"qed-{name}", {21, 23}, qed(**fields))
    entry = qed()
    case.put(entry, 3 * GRAIN + 8, "<Q", 1 << 50)
    yield _case("qed-data-beyond", {20, 21}, entry)
    table = qed()
    case.put(table, GRAIN, "<Q", 1 << 50)
    yield _case("qed-table-beyond", {20, 21}, table)
    yield _case("qed-cut", {20, 21}, qed()[:-512], row="I30")


def qcow(**fields: Any) -> bytearray:
    """Version 1: clusters of 4 KiB, L2 tables of 512 entries; the second half of the disk is compressed."""
    values: dict[str, Any] = {
        "version": 1,
        "backing_offset": 0,
        "backing_size": 0,
        "size": SIZE,
        "bits": 12,
        "l2_bits": 9,
    }
    values |= {"crypt": 0, "l1": 48} | fields
    data = bytearray(4096 + 4096)
    case.put(data, 0, ">4sIQI4xQBB2xIQ", b"QFI\xfb", *values.values())
    data[2048:2058] = b"../canary\0"
    case.put(data, 48, ">Q", 4096)
    for number, grain in DATA.items():
        for piece in range(16):
            cluster = grain[piece * 4096 : (piece + 1) * 4096]
            slot = 4096 + (number * 16 + piece) * 8
            if number == 2:
                squeezer = zlib.compressobj(6, zlib.DEFLATED, -12)
                cluster = squeezer.compress(cluster) + squeezer.flush()
                case.put(data, slot, ">Q", 1 << 63 | len(cluster) << 51 | len(data))
            else:
                case.put(data, slot, ">Q", len(data))
            data += cluster
    return bytearray(case.pad(bytes(data), 4096))


def _qcow_cases() -> Iterator[case.Case]:
    yield _case("qcow", case.OK, qcow())
    named: dict[str, dict[str, Any]] = {
        "cluster-bits-8": {"bits": 8},
        "cluster-bits-17": {"bits": 17},
        "cluster-bits-63": {"bits": 63},
        "l2-bits-0": {"l2_bits": 0},
        "l2-bits-14": {"l2_bits": 14},
        "size-0": {"size": 0},
        "size-1": {"size": 1},
        "size-max": {"size": _MAX},
        "size-above-the-cap": {"size": _CAP + 512},
        "crypt": {"crypt": 1},
        "crypt-9": {"crypt": 9},
        "l1-beyond": {"l1": 1 << 50},
        "backing": {"backing_offset": 2048, "backing_size": 9},
        "backing-too-long": {"backing_offset": 2048, "backing_size": 1024},
        "backing-beyond": {"backing_offset": 1 << 50, "backing_size": 9},
    }
    for name, fields in named.items():
        code = {0, 21, 23} if name == "size-0" else {21, 23}
        yield _case(f"qcow-{name}", code, qcow(**fields))
    entry = qcow()
    case.put(entry, 4096 + 30 * 8, ">Q", 1 << 50)
    yield _case("qcow-data-beyond", {20, 21}, entry)
    stream = qcow()
    at = struct.unpack_from(">Q", stream, 4096 + 32 * 8)[0] & (1 << 51) - 1
    stream[at : at + 30] = b"\xff" * 30
    yield _case("qcow-garbage", {20, 21}, stream)
    yield _case("qcow-cut", {20, 21}, qcow()[:-8192], row="I30")


def parallels(**fields: Any) -> bytearray:
    """Header, block table, blocks of 64 KiB from 64 KiB on; the extended form counts blocks, not sectors."""
    values: dict[str, Any] = {"magic": b"WithouFreSpacExt", "version": 2, "heads": 16, "cylinders": 1}
    values |= {"tracks": GRAIN // 512, "entries": 4, "sectors": SIZE // 512, "in_use": 0x312E3276}
    values |= {"data": GRAIN // 512, "flags": 0, "extension": 0} | fields
    data = bytearray(GRAIN)
    case.put(data, 0, "<16sIIIIIQIIIQ", *values.values())
    for number, grain in DATA.items():
        case.put(data, 64 + number * 4, "<I", len(data) // GRAIN)
        data += grain
    return data


def _parallels_cases() -> Iterator[case.Case]:
    yield _case("parallels", case.OK, parallels())
    named: dict[str, dict[str, Any]] = {
        "version": {"version": 3},
        "tracks-0": {"tracks": 0},
        "tracks-max": {"tracks": 2**32 - 1},
        "entries-max": {"entries": 2**32 - 1},
        "entries-too-few": {"entries": 3},
        "size-max": {"sectors": _MAX},
        "size-above-the-cap": {"sectors": _CAP // 512 + 1},
        "in-use": {"in_use": 0x746F6E59},
        "extension-beyond": {"extension": 1 << 50},
    }
    for name, fields in named.items():
        yield _case(f"parallels-{name}", {0, 21, 23} if name == "in-use" else {21, 23}, parallels(**fields))
    entry = parallels()
    case.put(entry, 64 + 4, "<I", 0x7FFFFFFF)
    yield _case("parallels-block-beyond", {20, 21}, entry)
    yield _case("parallels-cut", {20, 21}, parallels()[:-4096], row="I30")


def cow(version: int = 2, size: int = 200 * 512, sector: int = 512, backing: bytes = b"") -> bytearray:
    """QEMU's first format: header of 1056 bytes, a bit a sector, then the sectors where a disk has them."""
    data = bytearray(1056)
    case.put(data, 0, ">4sI1024sI4xQI", b"OOOM", version, backing, 0, size, sector)
    sectors = min(max(size, 0) // 512, 1000)
    bitmap = bytearray(-(-sectors // 8))
    start = -(-(len(data) + len(bitmap)) // 512) * 512
    body = bytearray()
    for at in range(sectors):
        if at % 7 < 3:
            bitmap[at // 8] |= 1 << at % 8
            body[at * 512 :] = bytes(at * 512 - len(body)) + case.noise(at, 512)
    return bytearray(case.pad(bytes(data + bitmap), start) + body) if body else data + bitmap


def cow_content(size: int = 200 * 512) -> bytes:
    return b"".join(case.noise(at, 512) if at % 7 < 3 else bytes(512) for at in range(size // 512))


def _cow_cases() -> Iterator[case.Case]:
    yield _case("cow", case.OK, cow(), cow_content(), qemu=False)
    for name, data in {
        "version": cow(version=1),
        "size-max": cow(size=_MAX),
        "size-above-the-cap": cow(size=_CAP + (1 << 20)),
        "sector-0": cow(sector=0),
        "sector-max": cow(sector=2**32 - 1),
        "backing": cow(backing=b"../canary"),
        "backing-passwd": cow(backing=b"/etc/passwd"),
    }.items():
        yield _case(f"cow-{name}", {21, 23}, data, qemu=False)
    yield _case("cow-bitmap-cut", {20, 21}, cow()[:1060], row="I30", qemu=False)
    yield _case("cow-cut", {20, 21}, cow()[:-512], row="I30", qemu=False)


def cloop(block: int = GRAIN, blocks: int = 4, offsets: list[int] | None = None) -> bytearray:
    """A shell script's first bytes, then offsets of zlib streams."""
    data = bytearray(128)
    data[:22] = b"#!/bin/sh\n#V2.0 Format"
    data[22:23] = b"\n"
    streams = [zlib.compress(DATA.get(at, bytes(GRAIN))) for at in range(4)]
    at = 136 + 8 * 5
    found = [at]
    for stream in streams:
        at += len(stream)
        found.append(at)
    data += struct.pack(">II", block, blocks) + struct.pack(f">{len(offsets or found)}Q", *(offsets or found))
    return data + b"".join(streams)


def bochs(**fields: Any) -> bytearray:
    """Growing disk: catalogue of 32-bit extent numbers; an extent is a bitmap sector and its sectors."""
    values: dict[str, Any] = {"catalog": 4, "bitmap": 1, "extent": GRAIN, "size": SIZE} | fields
    data = bytearray(512)
    case.put(data, 0, "<32s16s16sII", b"Bochs Virtual HD Image", b"Redolog", b"Growing", 0x20000, 512)
    case.put(data, 72, "<IIII", values["catalog"], values["bitmap"] * 512, values["extent"], 0)
    case.put(data, 88, "<Q", values["size"])
    entries = bytearray(b"\xff" * 4 * 4)
    for at, number in enumerate(DATA):
        case.put(entries, number * 4, "<I", at)
    data += entries
    for grain in DATA.values():
        data += b"\xff" * 16 + bytes(512 - 16) + grain
    return data


def dmg(
    *, chunks: list[tuple[int, int, int, int, int]] | None = None, plist: bytes | None = None, **koly: Any
) -> bytearray:
    """Zlib and raw chunks, the block table in an XML property list, a trailer."""
    squeezed = zlib.compress(DATA[0])
    data = bytearray(squeezed + DATA[2])
    per = GRAIN // 512
    table = chunks or [
        (0x80000005, 0, per, 0, len(squeezed)),
        (0, per, per, 0, 0),
        (1, 2 * per, per, len(squeezed), GRAIN),
        (2, 3 * per, per, 0, 0),
        (0xFFFFFFFF, 4 * per, 0, 0, 0),
    ]
    mish = bytearray(204)
    case.put(mish, 0, ">4sIQQQII", b"mish", 1, 0, 4 * per, 0, 0x208, 0)
    case.put(mish, 200, ">I", len(table))
    for kind, first, count, at, length in table:
        mish += struct.pack(">IIQQQQ", kind, 0, first, count, at, length)
    encoded = base64.b64encode(mish).decode()
    xml = (
        plist
        or (
            '<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict><key>resource-fork</key><dict>'
            f"<key>blkx</key><array><dict><key>Attributes</key><string>0x0050</string><key>Data</key><data>\n{encoded}\n"
            "</data><key>ID</key><string>0</string><key>Name</key><string>disk</string></dict></array></dict></dict></plist>\n"
        ).encode()
    )
    values: dict[str, Any] = {"xml_offset": len(data), "xml_length": len(xml), "sectors": 4 * per} | koly
    trailer = bytearray(512)
    case.put(trailer, 0, ">4sIIIQQQ", b"koly", 4, 512, 1, 0, 0, len(data))
    case.put(trailer, 0xD8, ">QQ", values["xml_offset"], values["xml_length"])
    case.put(trailer, 0x1EC, ">Q", values["sectors"])
    return data + xml + trailer


def _read_only_cases() -> Iterator[case.Case]:
    yield _case("cloop", case.OK, cloop())
    yield _case("bochs", case.OK, bochs())
    yield _case("dmg", case.OK, dmg())
    for name, data in {
        "block-0": cloop(block=0),
        "block-odd": cloop(block=513),
        "block-max": cloop(block=2**32 - 512),
        "blocks-max": cloop(blocks=2**32 - 1),
        "offsets-backwards": cloop(offsets=[500, 400, 300, 200, 100]),
        "offsets-beyond": cloop(offsets=[176, 1 << 60, (1 << 60) + 1, (1 << 60) + 2, (1 << 60) + 3]),
    }.items():
        yield _case(f"cloop-{name}", {20, 21}, data)
    growing: dict[str, dict[str, int]] = {
        "catalog-max": {"catalog": 2**32 - 1},
        "catalog-too-small": {"catalog": 3},
        "extent-0": {"extent": 0},
        "extent-max": {"extent": 1 << 31},
        "size-max": {"size": _MAX},
        "size-above-the-cap": {"size": _CAP + 512},
    }
    for name, fields in growing.items():
        yield _case(f"bochs-{name}", {21, 23}, bochs(**fields))
    per = GRAIN // 512
    for name, data in {
        "sectors-max": dmg(sectors=_MAX),
        "sectors-above-the-cap": dmg(sectors=_CAP // 512 + 1),
        "list-beyond": dmg(xml_offset=1 << 50),
        "list-of-4g": dmg(xml_length=2**32),
        "list-is-noise": dmg(plist=case.noise(1, 3000)),
        "list-with-entities": dmg(plist=_entities()),
        "chunk-of-4g": dmg(chunks=[(0x80000005, 0, 2**32, 0, 100)]),
        "chunk-beyond": dmg(chunks=[(1, 0, 4 * per, 1 << 50, SIZE)]),
        "chunk-unknown": dmg(chunks=[(0x80000042, 0, per, 0, 100)]),
    }.items():
        yield _case(f"dmg-{name}", {20, 21, 23}, data)
    yield _case("cloop-cut", {20, 21}, cloop()[:-100], row="I30")
    yield _case("bochs-cut", {20, 21}, bochs()[:-512], row="I30")


def _entities() -> bytes:
    """Ten entities, each ten times the one before."""
    lines = ['<!ENTITY e0 "lolololol">', *(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10}">' for at in range(1, 10))]
    return ('<?xml version="1.0"?><!DOCTYPE plist [' + "".join(lines) + "]><plist><dict>&e9;</dict></plist>").encode()


def _luks_cases() -> Iterator[case.Case]:
    head = bytearray(592)
    case.put(head, 0, ">6sH32s32s32sII", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 4096, 32)
    for slot in range(8):
        case.put(head, 208 + slot * 48, ">I", 0x0000DEAD)
    for name, data in {
        "without-a-secret": bytes(head) + bytes(4096 * 512),
        "version-2": bytes(head[:6]) + b"\0\2" + bytes(4096),
        "version-9": bytes(head[:6]) + b"\0\x09" + bytes(4096),
        "header-cut": bytes(head[:100]),
    }.items():
        yield _case(f"luks-{name}", {20, 21, 23}, data, row="I20")
