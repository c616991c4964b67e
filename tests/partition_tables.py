"""Partition tables for tests: GPT and MBR with extended partitions, written field by field."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence

LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def gpt(
    size: int, parts: Sequence[tuple[int, int, int, str]], *, sector: int = 512, count: int = 128, entry: int = 128
) -> bytearray:
    """A disk with (number, first byte, bytes, label) as partitions, both copies of the table and a protective MBR."""
    disk = bytearray(size)
    disk[510:512] = b"\x55\xaa"
    disk[446:462] = struct.pack("<B3xB3xII", 0, 0xEE, 1, size // sector - 1)
    body = bytearray(count * entry)
    for number, start, length, label in parts:
        fields = struct.pack(
            "<16s16sQQQ", LINUX.bytes_le, bytes(16), start // sector, (start + length) // sector - 1, 0
        )
        at = (number - 1) * entry
        body[at : at + 56] = fields
        body[at + 56 : at + 56 + 2 * len(label)] = label.encode("utf-16-le")
    sectors = -(-len(body) // sector)
    last = size // sector - 1
    for own, other, table in ((1, last, 2), (last, 1, last - sectors)):
        disk[table * sector : table * sector + len(body)] = body
        disk[own * sector : own * sector + 92] = header((own, other, table), count, entry, zlib.crc32(body))
    return disk


def header(places: tuple[int, int, int], count: int, entry: int, crc: int) -> bytes:
    """A GPT header with its own check sum; `places` are those of itself, the other copy and the table."""
    own, other, table = places
    fields = (own, other, 34, other, bytes(16), table, count, entry, crc)
    head = struct.pack("<8sIII4xQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, *fields)
    return head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]


def mbr(disk: bytearray, sector: int, entries: Sequence[tuple[int, int, int]]) -> None:
    """Write a table of (type, first sector, sectors) into a sector of `disk`."""
    at = sector * 512
    disk[at + 510 : at + 512] = b"\x55\xaa"
    for number, (kind, first, length) in enumerate(entries):
        place = at + 446 + 16 * number
        disk[place : place + 16] = struct.pack("<B3xB3xII", 0x80 if kind else 0, kind, first, length)
