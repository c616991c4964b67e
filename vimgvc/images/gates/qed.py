"""QED: header of 64 bytes, little-endian, two levels of tables of 8 bytes an entry.

Field table: specs/foreign-formats.md, "qed".
"""

from __future__ import annotations

import struct

from vimgvc.images.gates import judge

_HEADER = struct.Struct("<4sIII QQQ QQ II")
_BACKING, _NEED_CHECK, _RAW_BACKING = 1, 2, 4
_ZERO_CLUSTER = 1


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    (magic, cluster, table, header, features, _, _, l1_at, size, name_at, name_size) = _HEADER.unpack(
        j.read(0, _HEADER.size, "the header")
    )
    j.among("the magic", magic, [b"QED\0"])
    j.power("the cluster size", cluster, 4096, 64 << 20)
    # QEMU writes tables of one cluster too, and cannot open what it wrote.
    j.power("the table size in clusters", table, 2, 16)
    j.between("the header's size in clusters", header, 1, max(1, j.size // cluster))
    if features & ~(_BACKING | _NEED_CHECK | _RAW_BACKING):
        raise j.unsupported(f"QED features {features:#x}")
    if features & (_BACKING | _RAW_BACKING) or name_at or name_size:
        raise j.refers("it has a backing file")
    second = cluster * table
    entries = second // 8
    j.multiple("the disk's size", j.between("the disk's size", size, 0, entries * entries * cluster), 512)
    j.multiple("the first table's offset", j.between("its offset", l1_at, header * cluster, 1 << 62), cluster)
    j.inside("the first table", l1_at, second)
    if tables:
        _check_tables(j, l1_at, second, cluster)
    notes = ("it was not closed properly; its tables were checked",) if features & _NEED_CHECK else ()
    container = {"format": "qed", "cluster_size": cluster, "table_size": table}
    return judge.Facts("qed", size, container, notes, unit=cluster)


def _check_tables(j: judge.Judge, l1_at: int, second: int, cluster: int) -> None:
    j.count(0)
    for first in j.table(l1_at, second, "the first table"):
        offsets = first.view("<u8")
        offsets = offsets[offsets != 0]
        if offsets.size and int(offsets.max()) > j.size - second:
            raise j.damaged(f"a table at {int(offsets.max())} lies behind the end of the file")
        if (offsets % cluster).any():
            raise j.damaged("a table is not at the start of a cluster")
        for piece in j.tables(offsets, second, "a second table"):
            entries = piece.view("<u8")
            used = entries[entries > _ZERO_CLUSTER]
            j.count(used.size * cluster)
            if used.size and int(used.max()) + cluster > j.size:
                raise j.damaged(f"a cluster at {int(used.max())} lies behind the end of the file")
            if (used % cluster).any():
                raise j.damaged("a cluster is not at a multiple of its size")
