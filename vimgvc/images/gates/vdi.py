"""VDI (VirtualBox): header of 512 bytes, little-endian, and a map of 4 bytes a block.

Field table: specs/foreign-formats.md, "vdi".
"""

from __future__ import annotations

import struct

from vimgvc.images.gates import judge

_HEADER = struct.Struct("<64s IIIII 256s II IIII I Q IIII 16s16s16s16s")
_SIGNATURE = 0xBEDA107F
_FREE = 0xFFFFFFFE  # this and the next: not allocated, and discarded
_BLOCK = 1 << 20


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    (
        _, signature, version, header_size, kind, flags, _, map_at, data_at, _, _, _, sector,
        _, size, block, extra, blocks, allocated, _, _, link, parent,
    ) = _HEADER.unpack(j.read(0, _HEADER.size, "the header"))  # fmt: skip
    j.among("the signature", signature, [_SIGNATURE])
    if version != 0x00010001:
        raise j.unsupported(f"VDI version {version >> 16}.{version & 0xFFFF}")
    j.between("the header's size", header_size, 0x180, 0x1000)
    if kind in (3, 4) or any(parent) or any(link):
        raise j.refers("it is a difference to another image")
    j.among("the image type", kind, [1, 2])
    j.among("the sector size", sector, [512])
    j.among("the block size", block, [_BLOCK])
    j.among("the extra space of a block", extra, [0])
    j.multiple("the map's offset", j.between("the map's offset", map_at, 512, j.size), 512)
    j.multiple("the data's offset", data_at, 512)
    j.between("the number of blocks", blocks, size // block + bool(size % block), judge.MAX_SIZE // block)
    j.between("the number of allocated blocks", allocated, 0, blocks)
    j.inside("the block map", map_at, blocks * 4)
    j.between("the data's offset", data_at, map_at + blocks * 4, max(j.size, map_at + blocks * 4 + 511))
    if tables:
        _check_map(j, map_at, blocks, data_at, allocated)
    container = {"format": "vdi", "static": kind == 2, **({"flags": flags} if flags else {})}
    return judge.Facts("vdi", size, container, unit=_BLOCK)


def _check_map(j: judge.Judge, map_at: int, blocks: int, data_at: int, allocated: int) -> None:
    first = 0
    for piece in j.table(map_at, blocks * 4, "the block map"):
        entries = piece.view("<u4")
        used = entries[entries < _FREE]
        j.count(used.size * _BLOCK)
        if used.size:
            highest = int(used.max())
            if highest >= allocated:
                raise j.damaged(f"a block of the map from {first} on is number {highest} of {allocated}")
            if data_at + (highest + 1) * _BLOCK > j.size:
                raise j.damaged(f"block {highest} lies behind the end of the file")
        first += entries.size
