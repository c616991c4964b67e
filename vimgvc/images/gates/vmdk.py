"""VMDK: what a file of that name is, and the layout of sparse extents; text is `vmdk_text`'s.

A foreign program gets only files that hold a whole disk themselves. What consists of several files is
put together by `images.vmdk`, which uses the layouts from here. Field tables: specs/foreign-formats.md, "vmdk".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from vimgvc.images.gates import judge, vmdk_text

_HEADER = struct.Struct("<4sII QQQQ I QQQ B 4s H")
_COWD = struct.Struct("<4sII III II III I")
_SESPARSE = struct.Struct("<26Q")
_VOLATILE = struct.Struct("<4Q")
_MARKER = struct.Struct("<QII")
_GRAIN_MARKER = struct.Struct("<QI")
_FOOTER_MARKER = 3
_NL_CHECK, _SPARE_DIRECTORY, _ZEROED, _COMPRESSED, _MARKERS = 1, 2, 4, 1 << 16, 1 << 17
_AT_END = (1 << 64) - 1
_DEFLATE = 1
_MAX_GRAIN = 2 << 20 >> 9  # sectors; every program writes 64 KiB
_MAX_DIRECTORY = 32 << 20  # entries, the driver's limit
_MAX_SECTORS = 1 << 46


@dataclass(frozen=True, slots=True)
class Layout:
    """A sparse extent: a directory of tables of grains. Sizes and offsets in bytes.

    `entry`: bytes of an entry of either kind; 8 means the seSparse encoding. `zeroed`: whether entry 1
    means a grain of zeros. `tables_at`, `grains_at`: what seSparse numbers count from.
    """

    kind: str
    size: int
    grain: int
    directory_at: int
    directory: int
    table: int
    entry: int = 4
    zeroed: bool = False
    compressed: bool = False
    tables_at: int = 0
    grains_at: int = 0


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    """A disk in one file, or a text that lists its files (facts without looking at these)."""
    magic = j.read(0, min(4, j.size), "the magic")
    if magic == b"COWD":
        raise j.part()
    if magic != b"KDMV":
        return _facts(vmdk_text.read(j))
    fields, layout = _hosted(j)
    text = _embedded(j, *fields)
    kind = "streamOptimized" if layout.compressed else "monolithicSparse"
    j.among("createType", text.create_type, [kind])
    if len(text.extents) != 1 or text.extents[0].kind != "SPARSE":
        raise j.refuse("the number of extents", len(text.extents), "one, of kind SPARSE")
    j.among("the extent's sectors", text.extents[0].sectors, [layout.size // 512])
    if tables:
        check_tables(j, layout)
    return judge.Facts("vmdk", layout.size, _container(text), unit=layout.grain)


def _facts(text: vmdk_text.Descriptor) -> judge.Facts:
    size = sum(item.sectors for item in text.extents) * 512
    files = tuple(item.name for item in text.extents if item.name is not None)
    return judge.Facts("vmdk", size, _container(text), files=files)


def _container(text: vmdk_text.Descriptor) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": "vmdk", "subformat": text.create_type}
    if text.adapter_type:
        facts["adapter_type"] = text.adapter_type
    if text.hwversion:
        facts["hwversion"] = text.hwversion
    return facts


def extent_layout(j: judge.Judge, kind: str) -> Layout:
    """The layout of one extent of a disk in several files; `kind` as its line in the descriptor says."""
    if kind == "SESPARSE":
        return _sesparse(j)
    magic = j.read(0, 4, "the magic")
    j.among("the magic", magic, [b"COWD"] if kind == "VMFSSPARSE" else [b"KDMV", b"COWD"])
    layout = _cowd(j) if magic == b"COWD" else _hosted(j)[1]
    if layout.compressed:
        raise j.unsupported("compressed extents of VMDK disks in several files")
    return layout


def _hosted(j: judge.Judge) -> tuple[tuple[int, int], Layout]:
    """Where the descriptor lies (sectors), and the layout."""
    head = _HEADER.unpack(j.read(0, _HEADER.size, "the header"))
    if head[9] == _AT_END:
        head = _footer(j, head)
    (magic, version, flags, sectors, grain, text_at, text_length, entries, spare, directory_at, data_at, _, newline,
     algorithm) = head  # fmt: skip
    j.among("the magic", magic, [b"KDMV"])
    if version not in (1, 2, 3):
        raise j.unsupported(f"VMDK version {version}")
    if flags & ~(_NL_CHECK | _SPARE_DIRECTORY | _ZEROED | _COMPRESSED | _MARKERS):
        raise j.unsupported(f"VMDK flags {flags:#x}")
    if flags & _NL_CHECK:
        j.among("the line ends of the header", newline, [b"\n \r\n"])
    j.among("the compression", algorithm, [0, _DEFLATE])
    compressed = algorithm == _DEFLATE
    j.among("the compression flags", bool(flags & _COMPRESSED), [compressed])
    if compressed and not flags & _MARKERS:
        raise j.unsupported("compressed VMDK images without markers")
    if not sectors and text_at:
        raise j.unsupported("VMDK headers without a disk")
    j.between("the capacity in sectors", sectors, 0, _MAX_SECTORS)
    j.power("the grain's sectors", grain, 1, _MAX_GRAIN)
    j.power("the entries of a table", entries, 1, 512)
    directory = j.between("the directory's entries", -(-sectors // (grain * entries)), 0, _MAX_DIRECTORY)
    j.between("the data's sector", data_at, 0, j.size // 512)
    for what, at in (
        ("the directory", directory_at),
        ("the spare directory", spare if flags & _SPARE_DIRECTORY else 0),
    ):
        j.inside(what, j.between(f"{what}'s sector", at, 0, 1 << 50) * 512, directory * 4)
    layout = Layout(
        "hosted", sectors * 512, grain * 512, directory_at * 512, directory, entries,
        zeroed=bool(flags & _ZEROED), compressed=compressed,
    )  # fmt: skip
    return (text_at, text_length), layout


def _footer(j: judge.Judge, head: tuple[Any, ...]) -> tuple[Any, ...]:
    """The header at the end of a stream, which counts; it may differ only in where the directories are."""
    j.multiple("the file's size", j.size, 512)
    data = j.read(j.size - 1536, 1536, "the footer")
    value, size, kind = _MARKER.unpack_from(data)
    j.among("the footer's marker", (size, kind), [(0, _FOOTER_MARKER)])
    del value
    j.among("the end of the stream", _MARKER.unpack_from(data, 1024), [(0, 0, 0)])
    foot = _HEADER.unpack_from(data, 512)
    for number, (ours, theirs) in enumerate(zip(head, foot, strict=True)):
        if number not in (8, 9, 10) and ours != theirs:
            raise j.refuse(f"field {number} of the footer", theirs, f"that of the header, {ours}")
    if foot[9] == _AT_END:
        raise j.refuse("the footer's directory", foot[9], "a sector of the file")
    return foot


def _embedded(j: judge.Judge, at: int, length: int) -> vmdk_text.Descriptor:
    if not at:
        raise j.part()
    # The driver looks there whatever the header says.
    j.among("the descriptor's sector", at, [1])
    j.between("the descriptor's sectors", length, 1, vmdk_text.MAX_LENGTH // 512)
    data = j.read(512, length * 512, "the descriptor")
    return vmdk_text.parse(j, vmdk_text.ended(j, data))


def _cowd(j: judge.Judge) -> Layout:
    (_, version, flags, sectors, grain, directory_at, directory, _, _, _, _, _) = _COWD.unpack(
        j.read(0, _COWD.size, "the header")
    )
    j.among("the version", version, [1])
    j.among("the flags", flags, [1, 3])
    j.power("the grain's sectors", grain, 1, _MAX_GRAIN)
    j.between("the directory's entries", directory, -(-sectors // (grain * 4096)), _MAX_DIRECTORY)
    j.inside("the directory", directory_at * 512, directory * 4)
    return Layout("vmfs", sectors * 512, grain * 512, directory_at * 512, directory, 4096)


def _sesparse(j: judge.Judge) -> Layout:
    head = j.read(0, 512, "the header")
    (magic, version, sectors, grain, table, flags, *reserved, volatile_at, _, _, _, _, _, directory_at, directory,
     tables_at, _, _, _, _, _, grains_at, _) = _SESPARSE.unpack_from(head)  # fmt: skip
    j.among("the magic", magic, [0xCAFEBABE])
    if version != 0x0000000200000001:
        raise j.unsupported(f"seSparse version {version:#x}")
    j.among("the grain's sectors", grain, [8])
    j.among("the sectors of a table", table, [64])
    for what, value in (("the flags", flags), ("a reserved field", max(reserved)), ("the padding", head[208:])):
        j.zeros(what, value)
    j.between("the capacity in sectors", sectors, 0, 64 << 31)
    j.between("the volatile header's sector", volatile_at, 1, j.size // 512)
    state = _VOLATILE.unpack_from(j.read(volatile_at * 512, 512, "the volatile header"))
    j.among("the volatile header's magic", state[0], [0xCAFECAFE])
    if state[3]:
        raise j.unsupported("seSparse extents whose journal must be replayed", hint="it was not closed properly")
    entries = table * 512 // 8
    count = -(-sectors // (grain * entries))
    j.between("the directory's sectors", directory, -(-(count * 8) // 512), _MAX_DIRECTORY * 8 // 512)
    for what, at in (("directory", directory_at), ("tables", tables_at), ("grains", grains_at)):
        j.between(f"the sector of the {what}", at, 1, 1 << 50)
    j.inside("the directory", directory_at * 512, count * 8)
    return Layout(
        "sesparse", sectors * 512, grain * 512, directory_at * 512, count, entries,
        entry=8, tables_at=tables_at * 512, grains_at=grains_at * 512,
    )  # fmt: skip


def check_tables(j: judge.Judge, layout: Layout) -> None:
    """Every table and grain of a hosted extent lies in the file; the last grain down to the disk's end."""
    last = layout.size % layout.grain or layout.grain
    need = _GRAIN_MARKER.size if layout.compressed else layout.grain
    length = layout.table * 4
    final = _last_grain(j, layout)
    highest = 0
    j.count(0)
    for first in j.table(layout.directory_at, layout.directory * 4, "the directory"):
        offsets = first.view("<u4").astype("<u8")
        offsets = offsets[offsets != 0] * 512
        if offsets.size and int(offsets.max()) > j.size - length:
            raise j.damaged(f"a table at {int(offsets.max())} lies behind the end of the file")
        for piece in j.tables(offsets, length, "a table"):
            entries = piece.view("<u4").astype("<u8")
            entries = entries[entries > (1 if layout.zeroed else 0)] * 512
            j.count(entries.size * layout.grain)
            beyond = entries[entries > j.size - need] if j.size >= need else entries
            short = beyond[(beyond != final) | (beyond + last > j.size)]
            if short.size:
                raise j.damaged(f"a grain at {int(short.max())} lies behind the end of the file")
            highest = max(highest, int(entries.max(initial=0)))
    if layout.compressed and highest:
        _, packed = _GRAIN_MARKER.unpack(j.read(highest, _GRAIN_MARKER.size, "a grain"))
        if highest + _GRAIN_MARKER.size + packed > j.size:
            raise j.damaged(f"a grain at {highest} goes on behind the end of the file")


def _last_grain(j: judge.Judge, layout: Layout) -> int:
    """Where the disk's last grain lies, of which some programs write only what the disk has; 0 if nowhere."""
    if not layout.directory or layout.compressed:
        return 0
    (table,) = struct.unpack("<I", j.read(layout.directory_at + (layout.directory - 1) * 4, 4, "the directory"))
    number = (layout.size - 1) // layout.grain % layout.table
    if not table or table * 512 + number * 4 + 4 > j.size:
        return 0
    (grain,) = struct.unpack("<I", j.read(table * 512 + number * 4, 4, "a table"))
    return int(grain) * 512
