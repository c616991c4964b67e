"""VPC, that is VHD (Virtual PC, Hyper-V, Azure): a footer of 512 bytes, big-endian, often a copy in front.

Field table: specs/foreign-formats.md, "vpc".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vimgvc.images.gates import judge

_FOOTER = struct.Struct(">8s II Q I 4s I 4s QQ HBB II 16s B")
_DYNAMIC = struct.Struct(">8s QQ IIII 16s II 512s")
_FIXED, _GROWING, _DIFFERENCE = 2, 3, 4
_MAX_SECTORS = 0xFF000000  # 2040 GiB, the format's own limit
_MAX_GEOMETRY = 65535 * 16 * 255
# Only these two mean the geometry; everybody else means the size that the footer says.
_BY_GEOMETRY = (b"vpc ", b"qemu")
_FREE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Footer:
    kind: int
    next: int
    size: int
    calc: str  # what the size is taken from, in QEMU's words


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    j.between("the file's size", j.size, 512, 1 << 62)
    head = j.read(0, 512, "the first sector")
    tail = j.read(j.size - 512, 512, "the footer")
    growing = head.startswith(b"conectix") and j.size > 512
    footer = _footer(j, head if growing else tail)
    if footer.kind == _DIFFERENCE:
        raise j.refers("it is a difference to another image")
    j.among("the disk type", footer.kind, [_GROWING] if growing else [_FIXED])
    notes: tuple[str, ...] = ()
    block = None
    if growing:
        block = _dynamic(j, footer, tables=tables)
        if tail != head:
            notes = ("its footer differs from the copy in front",)
    elif footer.size + 512 > j.size:
        raise j.damaged(f"the disk has {footer.size} bytes, the file {j.size}")
    container = {"format": "vpc", "subformat": "dynamic" if growing else "fixed"}
    return judge.Facts("vpc", footer.size, container, notes, {"force_size_calc": footer.calc}, unit=block)


def _footer(j: judge.Judge, data: bytes) -> _Footer:
    (cookie, _, version, after, _, app, _, _, _, size, cylinders, heads, sectors, kind, checksum, _, saved) = (
        _FOOTER.unpack_from(data)
    )
    j.among("the footer's cookie", cookie, [b"conectix"])
    j.among("the footer's checksum", checksum, [_checksum(data, 64)])
    if version >> 16 != 1:
        raise j.unsupported(f"VHD version {version >> 16}.{version & 0xFFFF}")
    if saved:
        raise j.unsupported("a VHD of a machine in saved state", hint="shut the machine down properly first")
    geometry = cylinders * heads * sectors
    calc = "chs" if app in _BY_GEOMETRY and geometry != _MAX_GEOMETRY else "current_size"
    j.multiple("the disk's size", size, 512)
    count = geometry if calc == "chs" else size // 512
    return _Footer(kind, after, j.between("the disk's sectors", count, 0, _MAX_SECTORS) * 512, calc)


def _dynamic(j: judge.Judge, footer: _Footer, *, tables: bool) -> int:
    """Returns the size of a block."""
    # Behind the copy of the footer and not across it: a header that overlaps it can be both at once.
    j.multiple("the dynamic header's offset", j.between("its offset", footer.next, 512, j.size), 512)
    data = j.read(footer.next, 1024, "the dynamic header")
    cookie, _, map_at, version, entries, block, checksum, parent, _, _, parent_name = _DYNAMIC.unpack_from(data)
    j.among("the dynamic header's cookie", cookie, [b"cxsparse"])
    j.among("the dynamic header's checksum", checksum, [_checksum(data, 36)])
    j.among("the dynamic header's version", version, [0x00010000])
    if any(parent) or any(parent_name) or any(data[576:768]):
        raise j.refers("it names a parent")
    j.power("the block size", block, 512, 256 << 20)
    j.between("the number of blocks", entries, -(-footer.size // block), _MAX_SECTORS * 512 // block)
    j.multiple("the block table's offset", map_at, 512)
    j.inside("the block table", map_at, entries * 4)
    if not tables:
        return int(block)
    room = -(-(block // 512) // (8 * 512)) * 512 + block  # the bitmap of a block is in front of it
    for piece in j.table(map_at, entries * 4, "the block table"):
        used = piece.view(">u4")
        used = used[used != _FREE]
        j.count(used.size * block)
        if used.size and int(used.max()) * 512 + room > j.size:
            raise j.damaged(f"a block at sector {int(used.max())} lies behind the end of the file")
    return int(block)


def _checksum(data: bytes, at: int) -> int:
    """The one's complement of the sum of all bytes but the four of the checksum itself."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF
