"""QCOW version 1: header of 48 bytes, big-endian, two levels of tables of 8 bytes an entry.

Field table: specs/foreign-formats.md, "qcow".
"""

from __future__ import annotations

import struct

from vimgvc.images.gates import judge

_HEADER = struct.Struct(">4sI QII Q BBH I Q")
_COMPRESSED = 1 << 63
_MAX_TABLE = 256 << 20


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    (magic, version, backing_at, backing_size, _, size, cluster_bits, l2_bits, _, crypt, l1_at) = _HEADER.unpack(
        j.read(0, _HEADER.size, "the header")
    )
    j.among("the magic", magic, [b"QFI\xfb"])
    j.among("the version", version, [1])
    if backing_at or backing_size:
        raise j.refers("it has a backing file")
    if crypt:
        raise j.unsupported("encrypted qcow images", hint="decrypt it with 'qemu-img convert'")
    j.between("cluster_bits", cluster_bits, 9, 16)
    j.between("l2_bits", l2_bits, 6, 13)
    j.multiple("the disk's size", j.between("the disk's size", size, 0, judge.MAX_SIZE), 512)
    shift = cluster_bits + l2_bits
    length = -(-size // (1 << shift)) * 8
    j.between("the first table's length", length, 0, _MAX_TABLE)
    j.between("the first table's offset", l1_at, _HEADER.size, 1 << 62)
    j.inside("the first table", l1_at, length)
    if tables:
        _check_tables(j, l1_at, length, 1 << cluster_bits, 8 << l2_bits)
    container = {"format": "qcow", "cluster_size": 1 << cluster_bits}
    return judge.Facts("qcow", size, container, unit=1 << cluster_bits)


def _check_tables(j: judge.Judge, l1_at: int, length: int, cluster: int, second: int) -> None:
    bits = cluster.bit_length() - 1
    j.count(0)
    for first in j.table(l1_at, length, "the first table"):
        offsets = first.view(">u8").astype("<u8")
        offsets = offsets[offsets != 0]
        if offsets.size and int(offsets.max()) > j.size - second:
            raise j.damaged(f"a table at {int(offsets.max())} lies behind the end of the file")
        for piece in j.tables(offsets, second, "a second table"):
            entries = piece.view(">u8").astype("<u8")
            j.count(int((entries != 0).sum()) * cluster)
            plain = entries[(entries != 0) & (entries < _COMPRESSED)]
            if plain.size and int(plain.max()) + cluster > j.size:
                raise j.damaged(f"a cluster at {int(plain.max())} lies behind the end of the file")
            packed = entries[entries >= _COMPRESSED]
            # offset in the low bits, length in `cluster_bits` above it
            low = packed & ((1 << 63 - bits) - 1)
            ends = low + ((packed >> (63 - bits)) & (cluster - 1))
            if ends.size and int(ends.max()) > j.size:
                raise j.damaged(f"a compressed cluster ends at {int(ends.max())}, behind the end of the file")
