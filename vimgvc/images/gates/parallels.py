"""Parallels: header of 64 bytes, little-endian, and a table of 4 bytes a cluster.

Field table: specs/foreign-formats.md, "parallels".
"""

from __future__ import annotations

import struct

from vimgvc.images.gates import judge

_HEADER = struct.Struct("<16sIIIII QIIIQ")
_OLD, _NEW = b"WithoutFreeSpace", b"WithouFreSpacExt"
_IN_USE = 0x746F6E59


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    (magic, version, _, _, sectors, entries, count, in_use, data_at, _, extension) = _HEADER.unpack(
        j.read(0, _HEADER.size, "the header")
    )
    j.among("the magic", magic, [_OLD, _NEW])
    j.among("the version", version, [2])
    if magic == _OLD:
        count &= 0xFFFFFFFF  # the upper half is not part of the field in the old version
    elif extension:
        raise j.unsupported("Parallels format extensions")
    j.between("the sectors of a cluster", sectors, 1, 0x7FFFFFFF // 513)
    cluster = sectors * 512
    j.between("the disk's sectors", count, 0, judge.MAX_SIZE // 512)
    j.between("the number of clusters", entries, -(-count // sectors), 0x7FFFFFFF // 4)
    j.inside("the cluster table", 64, entries * 4)
    if data_at:
        j.between("the data's sector", data_at, -(-(64 + entries * 4) // 512), max(1 << 31, j.size // 512))
    if tables:
        _check_table(j, entries, 64 + entries * 4, 512 if magic == _OLD else cluster, cluster)
    notes = ("it was not closed properly",) if in_use == _IN_USE else ()
    container = {"format": "parallels", "cluster_size": cluster}
    return judge.Facts("parallels", count * 512, container, notes, unit=cluster)


def _check_table(j: judge.Judge, entries: int, end: int, unit: int, cluster: int) -> None:
    for piece in j.table(64, entries * 4, "the cluster table"):
        used = piece.view("<u4")
        used = used[used != 0]
        j.count(used.size * cluster)
        if used.size and int(used.max()) * unit + cluster > j.size:
            raise j.damaged(f"a cluster at {int(used.max()) * unit} lies behind the end of the file")
        if used.size and int(used.min()) * unit < end:
            raise j.damaged(f"a cluster at {int(used.min()) * unit} lies in the table")
