"""DMG, that is UDIF (macOS): a trailer of 512 bytes, big-endian, that leads to tables of chunks.

The tables are in the resource fork, or base64 in a property list, which is searched for them without
reading its XML, as the driver does. Field table: specs/foreign-formats.md, "dmg".
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator

from vimgvc.images.gates import judge

_TRAILER = 512
_MAX_TABLES = 16 << 20
_MAX_CHUNK = 64 << 20
_MISH = 204  # bytes in front of the chunks of a table
_CHUNK = 40
_MAX_CHUNKS = _MAX_TABLES // _CHUNK
_ZERO, _RAW, _IGNORE = 0, 1, 2
_COMPRESSED = {0x80000005: "zlib", 0x80000006: "bzip2", 0x80000007: "lzfse"}
_COMMENT, _LAST = 0x7FFFFFFE, 0xFFFFFFFF
_DATA = re.compile(rb"<data>([^<]*)</data>")


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    j.between("the file's size", j.size, _TRAILER, 1 << 62)
    at = j.size - _TRAILER
    # The driver takes the first trailer that it finds in the last two sectors.
    start = max(0, j.size - 1024)
    j.among("the trailer's offset", start + j.read(start, j.size - start, "the end").find(b"koly"), [at])
    data = j.read(at, _TRAILER, "the trailer")
    version, length = struct.unpack_from(">II", data, 4)
    j.among("the version", version, [4])
    j.among("the trailer's length", length, [_TRAILER])
    (segment, segments) = struct.unpack_from(">II", data, 0x38)
    if segments > 1 or segment > 1:
        raise j.unsupported("DMG images in several files")
    fork, fork_length, resource, resource_length = struct.unpack_from(">QQQQ", data, 0x18)
    xml, xml_length = struct.unpack_from(">QQ", data, 0xD8)
    (sectors,) = struct.unpack_from(">Q", data, 0x1EC)
    for what, offset, size in (("data", fork, fork_length), ("resource", resource, resource_length)):
        if offset > at or size > at - offset:
            raise j.refuse(f"the {what} fork", f"{size} bytes at {offset}", f"what lies before {at}")
    if xml > at or xml_length > at - xml:
        raise j.refuse("the property list", f"{xml_length} bytes at {xml}", f"what lies before {at}")
    size = j.between("the disk's sectors", sectors, 0, judge.MAX_SIZE // 512) * 512
    used = set()
    if tables:
        found = _from_fork(j, resource, resource_length) if resource_length else _from_list(j, xml, xml_length)
        used = _check_chunks(j, found, fork, sectors)
    container = {"format": "dmg", **({"compression": "+".join(sorted(used))} if used else {})}
    return judge.Facts("dmg", size, container)


def _from_fork(j: judge.Judge, at: int, length: int) -> Iterator[bytes]:
    j.between("the resource fork's length", length, 16, _MAX_TABLES)
    fork = j.read(at, length, "the resource fork")
    start, _, size = struct.unpack_from(">III", fork)
    if not size or start + size > length:
        raise j.refuse("the resource data", f"{size} bytes at {start}", f"what lies inside the fork's {length} bytes")
    position, end = start, start + size
    while position < end:
        count = struct.unpack_from(">I", fork, position)[0] if end - position >= 4 else 0
        if not 0 < count <= end - position - 4:
            raise j.refuse("a resource's length", count, f"1 to {end - position - 4}")
        yield fork[position + 4 : position + 4 + count]
        # As the driver does it; resources whose length is not counted from behind the length field do not exist.
        position += 4 + count


def _from_list(j: judge.Judge, at: int, length: int) -> Iterator[bytes]:
    j.between("the property list's length", length, 1, _MAX_TABLES)
    text = j.read(at, length, "the property list")
    if text.count(b"<data>") != len(_DATA.findall(text)) or b"\0" in text:
        raise j.refuse("the property list", "malformed", "text with <data>base64</data>")
    for match in _DATA.finditer(text):
        try:
            yield base64.b64decode(b"".join(match[1].split()), validate=True)
        except binascii.Error as error:
            raise j.refuse("a table of chunks", "malformed", "base64") from error


def _check_chunks(j: judge.Judge, tables: Iterator[bytes], fork: int, sectors: int) -> set[str]:
    used: set[str] = set()
    count = 0
    for table in tables:
        # Others are of checksums and the like.
        if not table.startswith(b"mish") or len(table) < _MISH + _CHUNK:
            continue
        count += (len(table) - _MISH) // _CHUNK
        j.between("the number of chunks", count, 0, _MAX_CHUNKS)
        used |= _check_table(j, table, fork, sectors)
    if not count:
        raise j.refuse("the number of chunks", 0, f"1 to {_MAX_CHUNKS}")
    return used


def _check_table(j: judge.Judge, table: bytes, fork: int, sectors: int) -> set[str]:
    (first,) = struct.unpack_from(">Q", table, 8)
    (base,) = struct.unpack_from(">Q", table, 24)
    used = set()
    for position in range(_MISH, len(table) - _CHUNK + 1, _CHUNK):
        kind, _, sector, count, offset, length = struct.unpack_from(">IIQQQQ", table, position)
        if kind in (_COMMENT, _LAST):
            continue
        if kind not in (_ZERO, _RAW, _IGNORE, *_COMPRESSED):
            raise j.unsupported(f"DMG chunks of type {kind:#x}")
        if first + sector + count > sectors:
            raise j.refuse("a chunk's end", first + sector + count, f"up to the disk's {sectors} sectors")
        if kind in (_ZERO, _IGNORE):
            continue
        j.between("a chunk's sectors", count, 0, _MAX_CHUNK // 512)
        j.count(count * 512)
        j.between("a chunk's length", length, 0, _MAX_CHUNK)
        if kind == _RAW and length < count * 512:
            raise j.refuse("a chunk's length", length, f"{count * 512}")
        if fork + base + offset + length > j.size:
            raise j.damaged(f"a chunk at {fork + base + offset} lies behind the end of the file")
        if kind in _COMPRESSED:
            used.add(_COMPRESSED[kind])
    return used
