"""The partitions of a disk, by its GPT or MBR (specs/images.md §6).

Only for telling people where on a disk something lies. A guest wrote these tables: whatever they
say, a bounded amount is read, and a partition that does not lie inside the disk is left out.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from vimgvc.disk import protocol
from vimgvc.images import filesystems

#: Partitions that are looked at; more are left out.
LIMIT = 128
_SECTORS = (512, 4096)
_MBR = struct.Struct("<B3xB3xII")
_MBR_TABLE, _MBR_ENTRIES = 446, 4
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
#: Signature, revision, header size, its CRC, own place, other place, first and last usable, disk,
#: entries: place, count, size, CRC (UEFI 2.10, §5.3.2).
_GPT = struct.Struct("<8sIII4xQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_GPT_TABLE = 1 << 20


@dataclass(frozen=True, slots=True)
class Partition:
    """`number` as Linux counts; `type` is a GUID or two hexadecimal digits; bytes."""

    number: int
    start: int
    length: int
    type: str
    label: str = ""
    filesystem: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found: `scheme` is "gpt", "mbr" or None, and then `filesystem` what fills the whole disk."""

    scheme: str | None
    partitions: tuple[Partition, ...] = ()
    filesystem: str | None = None


def read(reader: protocol.Reader) -> Layout:
    """The partitions of a disk in the order of their places, without those that overlap an earlier one.

    Raises what `reader` raises.
    """
    scheme, found = "gpt", _gpt(reader)
    if found is None:
        scheme, found = "mbr", _mbr(reader)
    if found is None:
        return Layout(None, filesystem=filesystems.detect(reader, 0, reader.size) if reader.size else None)
    kept = _apart(found, reader.size)
    return Layout(
        scheme,
        tuple(
            Partition(
                one.number,
                one.start,
                one.length,
                one.type,
                one.label,
                filesystems.detect(reader, one.start, one.length),
            )
            for one in kept
        ),
    )


def _apart(found: list[Partition], size: int) -> list[Partition]:
    kept: list[Partition] = []
    for one in sorted(found, key=lambda item: (item.start, item.number)):
        after = kept[-1].start + kept[-1].length if kept else 0
        if after <= one.start < one.start + one.length <= size:
            kept.append(one)
    return kept[:LIMIT]


def _gpt(reader: protocol.Reader) -> list[Partition] | None:
    """From the first header that is sound, of either sector size; the other copy is at the end of the disk."""
    for sector in _SECTORS:
        for place in (1, reader.size // sector - 1):
            found = _gpt_at(reader, sector, place)
            if found is not None:
                return found
    return None


def _gpt_at(reader: protocol.Reader, sector: int, place: int) -> list[Partition] | None:
    head = _read(reader, place * sector, sector) if place > 0 else None
    if head is None or head[:8] != b"EFI PART":
        return None
    _, _, length, crc, own, _, _, _, _, table, count, entry, table_crc = _GPT.unpack_from(head)
    if not _GPT.size <= length <= sector or own != place:
        return None
    if zlib.crc32(head[:16] + bytes(4) + head[20:length]) != crc:
        return None
    if entry < _GPT_ENTRY.size or not 0 < count * entry <= _GPT_TABLE:
        return None
    body = _read(reader, table * sector, count * entry)
    if body is None or zlib.crc32(body) != table_crc:
        return None
    return list(_gpt_entries(body, entry, sector))


def _gpt_entries(body: bytes, entry: int, sector: int) -> Iterator[Partition]:
    for number, at in enumerate(range(0, len(body), entry), 1):
        kind, _, first, last, _, name = _GPT_ENTRY.unpack_from(body, at)
        if any(kind) and first <= last:
            label = name.decode("utf-16-le", "replace").partition("\0")[0]
            guid = str(uuid.UUID(bytes_le=kind))
            yield Partition(number, first * sector, (last + 1 - first) * sector, guid, label)


def _mbr(reader: protocol.Reader) -> list[Partition] | None:
    entries = _mbr_entries(reader, 0)
    if entries is None or not any(length for _, _, length in entries):
        return None
    found: list[Partition] = []
    for number, (kind, first, length) in enumerate(entries, 1):
        if kind in _EXTENDED and length:
            found += _logical(reader, first, 5 + sum(one.number > _MBR_ENTRIES for one in found))
        elif kind not in (0, _PROTECTIVE) and length:
            found.append(_mbr_partition(number, kind, first, length))
    return found


def _mbr_entries(reader: protocol.Reader, sector: int) -> list[tuple[int, int, int]] | None:
    """(type, first sector, sectors) of a table; None where there is none: boot sectors have the same signature."""
    data = _read(reader, sector * 512, 512)
    if data is None or data[510:] != b"\x55\xaa":
        return None
    raw = [_MBR.unpack_from(data, _MBR_TABLE + 16 * number) for number in range(_MBR_ENTRIES)]
    if any(active not in (0, 0x80) for active, _, _, _ in raw):
        return None
    return [(kind, first, length) for _, kind, first, length in raw]


def _logical(reader: protocol.Reader, base: int, number: int) -> Iterator[Partition]:
    """The chain of tables inside an extended partition: each has a partition, and where the next one is.

    Places of the next are ahead, so a chain ends; and it is followed no further than the limit.
    """
    here = base
    for at in range(number, number + LIMIT):
        entries = _mbr_entries(reader, here)
        if entries is None:
            return
        (kind, first, length), (next_kind, next_first, _) = entries[:2]
        if kind and length:
            yield _mbr_partition(at, kind, here + first, length)
        if next_kind not in _EXTENDED or base + next_first <= here:
            return
        here = base + next_first


def _mbr_partition(number: int, kind: int, first: int, length: int) -> Partition:
    return Partition(number, first * 512, length * 512, f"{kind:02x}")


def _read(reader: protocol.Reader, start: int, length: int) -> bytes | None:
    """None where that is not inside the disk."""
    if start + length > reader.size:
        return None
    data = bytearray(length)
    reader.pread_into(start, memoryview(data))
    return bytes(data)
