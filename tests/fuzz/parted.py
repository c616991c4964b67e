"""The tables of partitions that a guest wrote, as a target: seeds, the checksums mended, and what must hold."""

from __future__ import annotations

import functools
import struct
import zlib

from tests import partition_tables
from tests.fuzz import inputs
from tests.hostile import case
from vimgvc.images import partitions


@functools.cache
def _seeds() -> tuple[bytes, ...]:
    """Disks with both kinds of tables: GPT for both sizes of sectors, logical partitions, some that cannot be."""
    size = 256 << 10
    parts = [(1, 65536, 65536, "EFI system"), (3, 131072, 4096, "straße")]
    logical = bytearray(size)
    partition_tables.mbr(logical, 0, [(0x83, 64, 64), (0, 0, 0), (0x05, 128, 300)])
    partition_tables.mbr(logical, 128, [(0x83, 1, 50), (0x05, 64, 100)])
    partition_tables.mbr(logical, 192, [(0x07, 1, 30)])
    wrong = bytearray(size)
    partition_tables.mbr(wrong, 0, [(0x83, 1, 100), (0x83, 50, 100), (0x83, 400, 10_000), (0x83, 200, 0xFFFFFFFF)])
    disks = [*(partition_tables.gpt(size, parts, sector=sector) for sector in (512, 4096)), logical, wrong]
    return tuple(bytes(disk) for disk in disks)


def _mend_gpt(image: bytearray) -> None:
    for sector in (512, 4096):
        for at in (sector, len(image) // sector * sector - sector):
            if image[at : at + 8] != b"EFI PART":
                continue
            length, table, count, entry = (
                int(struct.unpack_from(form, image, at + place)[0])
                for place, form in ((12, "<I"), (72, "<Q"), (80, "<I"), (84, "<I"))
            )
            if table * sector + count * entry <= len(image):
                body = image[table * sector : table * sector + count * entry]
                case.put(image, at + 88, "<I", zlib.crc32(body))
            case.put(image, at + 16, "<I", 0)
            case.put(image, at + 16, "<I", zlib.crc32(image[at : at + min(length, sector)]))


def run(data: bytes) -> None:
    """Whatever is found lies inside the disk, in order and apart."""
    image = inputs.patched(_seeds(), data, _mend_gpt)
    found = partitions.read(inputs.Bytes(image)).partitions
    assert len(found) <= partitions.LIMIT
    end = 0
    for one in found:
        assert end <= one.start < one.start + one.length <= len(image)
        end = one.start + one.length
