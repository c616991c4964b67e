"""Bochs growing images: header of 512 bytes, little-endian, a catalog of 4 bytes an extent, bitmaps.

Field table: specs/foreign-formats.md, "bochs".
"""

from __future__ import annotations

import struct

from vimgvc.images.gates import judge

_HEADER = struct.Struct("<32s16s16sII III")
_FREE = 0xFFFFFFFF


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    head = j.read(0, 512, "the header")
    magic, kind, subtype, version, header, entries, bitmap, extent = _HEADER.unpack_from(head)
    j.among("the magic", magic.rstrip(b"\0"), [b"Bochs Virtual HD Image"])
    j.among("the type", kind.rstrip(b"\0"), [b"Redolog"])
    if subtype.rstrip(b"\0") in (b"Undoable", b"Volatile"):
        raise j.refers("it is a difference to another image")
    j.among("the subtype", subtype.rstrip(b"\0"), [b"Growing"])
    j.among("the version", version, [0x00010000, 0x00020000])
    (size,) = struct.unpack_from("<Q", head, 84 if version == 0x00010000 else 88)
    j.among("the header's size", header, [512])
    j.between("the number of extents", entries, 0, 0x100000)
    j.power("the extent's size", extent, 512, 0x800000)
    j.between("the bitmap's size", bitmap, -(-extent // (512 * 8)), 0x800000)
    j.multiple("the disk's size", j.between("the disk's size", size, 0, entries * extent), 512)
    j.inside("the catalog", header, entries * 4)
    if tables:
        room = (-(-bitmap // 512) + extent // 512) * 512
        for piece in j.table(header, entries * 4, "the catalog"):
            used = piece.view("<u4")
            used = used[used != _FREE]
            j.count(used.size * extent)
            if used.size and header + entries * 4 + (int(used.max()) + 1) * room > j.size:
                raise j.damaged(f"extent {int(used.max())} lies behind the end of the file")
    return judge.Facts("bochs", size, {"format": "bochs"}, unit=extent)
