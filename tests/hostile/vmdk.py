"""VMDK images from struct code of their own: the "Virtual Disk Format 5.0" document."""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tests.hostile import case

SECTOR = 512
GRAIN = 64 << 10
SIZE = 8 * GRAIN
DATA = {0: case.noise(1, GRAIN), 2: case.text(2, GRAIN), 7: case.noise(3, GRAIN)}
CONTENT = b"".join(DATA.get(at, bytes(GRAIN)) for at in range(8))

HEADER = {
    "magic": (0, "<4s"),
    "version": (4, "<I"),
    "flags": (8, "<I"),
    "capacity": (12, "<Q"),
    "grain": (20, "<Q"),
    "descriptor": (28, "<Q"),
    "descriptor_size": (36, "<Q"),
    "entries": (44, "<I"),
    "rgd": (48, "<Q"),
    "gd": (56, "<Q"),
    "overhead": (64, "<Q"),
    "compression": (77, "<H"),
}


def cases() -> list[case.Case]:
    return [*_sparse(), *_stream(), *_flat(), *_descriptors(), *_extents()]


def text(kind: str, extents: Sequence[str], *, parent: str = "ffffffff", more: str = "") -> bytes:
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=12345678",
        f"parentCID={parent}",
        f'createType="{kind}"',
        "",
        "# Extent description",
        *extents,
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        'ddb.virtualHWVersion = "4"',
        'ddb.geometry.cylinders = "1"',
        'ddb.geometry.heads = "16"',
        'ddb.geometry.sectors = "63"',
        'ddb.adapterType = "ide"',
    ]
    return ("\n".join(lines) + "\n" + more).encode()


def sparse(embedded: bytes | None = None, **fields: Any) -> bytearray:
    """monolithicSparse: header, descriptor at sector 1, grain directories, tables, grains from 128 KiB on."""
    if embedded is None:
        embedded = text("monolithicSparse", [f'RW {SIZE // SECTOR} SPARSE "{case.IMAGE}"'])
    data = bytearray(128 << 10)
    values: dict[str, int | bytes] = {
        "magic": b"KDMV",
        "version": 1,
        "flags": 3,
        "capacity": SIZE // SECTOR,
        "grain": GRAIN // SECTOR,
        "descriptor": 1,
        "descriptor_size": 20,
        "entries": 512,
        "rgd": 21,
        "gd": 26,
        "overhead": 256,
        **fields,
    }
    for name, value in values.items():
        offset, form = HEADER[name]
        case.put(data, offset, form, value)
    data[73:77] = b"\n \r\n"
    data[SECTOR : SECTOR + len(embedded)] = embedded
    for directory in (21, 26):
        case.put(data, directory * SECTOR, "<I", directory + 1)
    for number, grain in DATA.items():
        for directory in (21, 26):
            case.put(data, (directory + 1) * SECTOR + number * 4, "<I", len(data) // SECTOR)
        data += grain
    return data


def stream(*, footer: dict[str, int | bytes] | None = None) -> bytearray:
    """streamOptimized: compressed grains behind markers, the directory at the end, found by the footer."""
    head = bytearray(SECTOR)
    values: dict[str, int | bytes] = {
        "magic": b"KDMV",
        "version": 3,
        "flags": 0x30001,
        "capacity": SIZE // SECTOR,
        "grain": GRAIN // SECTOR,
        "descriptor": 1,
        "descriptor_size": 20,
        "entries": 512,
        "rgd": 0,
        "gd": 2**64 - 1,
        "overhead": 128,
        "compression": 1,
    }

    def fill(place: bytearray, more: dict[str, int | bytes]) -> bytes:
        for name, value in {**values, **more}.items():
            offset, form = HEADER[name]
            case.put(place, offset, form, value)
        place[73:77] = b"\n \r\n"
        return bytes(place)

    data = bytearray(fill(head, {}))
    data += case.pad(text("streamOptimized", [f'RW {SIZE // SECTOR} SPARSE "{case.IMAGE}"']), SECTOR)
    data += bytes(128 * SECTOR - len(data))
    table = bytearray(512 * 4)
    for number, grain in DATA.items():
        case.put(table, number * 4, "<I", len(data) // SECTOR)
        squeezed = zlib.compress(grain)
        data += case.pad(struct.pack("<QI", number * GRAIN // SECTOR, len(squeezed)) + squeezed, SECTOR)
    data += _marker(4, 1)
    at = len(data) // SECTOR
    data += table
    data += _marker(1, 2)
    directory = len(data) // SECTOR
    data += case.pad(struct.pack("<I", at), SECTOR)
    data += _marker(1, 3)
    data += fill(bytearray(SECTOR), {"gd": directory, **(footer or {})})
    data += bytes(SECTOR)
    return data


def _marker(sectors: int, kind: int) -> bytes:
    return case.pad(struct.pack("<QII", sectors, 0, kind), SECTOR)


def _case(
    row: str,
    name: str,
    code: int | set[int],
    data: bytes | bytearray,
    *more: tuple[str, bytes],
    named: tuple[str, ...] = (),
) -> case.Case:
    content = CONTENT if code == case.OK else None
    return case.case(row, f"vmdk-{name}", code, case.write(content, bytes(data), *more), named=named, foreign=True)


def _sparse() -> Iterator[case.Case]:
    yield _case("I25", "sparse", case.OK, sparse())
    huge = 2**64 - 1
    named: dict[str, dict[str, Any]] = {
        "grain-0": {"grain": 0},
        "grain-odd": {"grain": 100},
        "grain-max": {"grain": huge},
        "entries-0": {"entries": 0},
        "entries-max": {"entries": 2**32 - 1},
        "entries-odd": {"entries": 500},
        "capacity-max": {"capacity": huge},
        "capacity-above-the-cap": {"capacity": (64 << 40) // SECTOR + 1},
        "version-0": {"version": 0},
        "version-9": {"version": 9},
        "directory-beyond": {"gd": 1 << 40},
        "directory-max": {"gd": huge - 1},
        "descriptor-beyond": {"descriptor": 1 << 50},
        "descriptor-of-20-mib": {"descriptor_size": (20 << 20) // SECTOR},
        "compression-unknown": {"compression": 7, "flags": 0x10003},
        "zeroed-grains-unknown-flag": {"flags": 3 | 1 << 30},
    }
    for name, fields in named.items():
        yield _case("I25", name, {21, 23}, sparse(**fields))
    table = sparse()
    case.put(table, 27 * SECTOR, "<I", 0xFFFFFF00)
    yield _case("I16", "grain-beyond", case.DAMAGED, table)
    directory = sparse()
    for at in (21, 26):
        case.put(directory, at * SECTOR, "<I", 0xFFFFFF00)
    yield _case("I16", "table-beyond", {20, 21}, directory)
    yield _case("I30", "sparse-cut", case.DAMAGED, sparse()[:-GRAIN])


def _stream() -> Iterator[case.Case]:
    yield _case("I25", "stream", case.OK, stream())
    yield _case("I25", "footer-capacity", {21}, stream(footer={"capacity": 1 << 30}))
    yield _case("I25", "footer-grain", {21}, stream(footer={"grain": 8}))
    yield _case("I25", "footer-directory-at-the-end-again", {21}, stream(footer={"gd": 2**64 - 1}))
    yield _case("I25", "footer-magic", {21}, stream(footer={"magic": b"KDMW"}))
    yield _case("I30", "stream-cut", {20, 21}, stream()[: -2 * SECTOR])
    bad = stream()
    bad[128 * SECTOR + 12 : 128 * SECTOR + 400] = case.noise(1, 388)
    yield _case("I18", "stream-garbage", case.DAMAGED, bad)


def _flat() -> Iterator[case.Case]:
    whole = text("monolithicFlat", [f'RW {SIZE // SECTOR} FLAT "disk-flat.vmdk" 0'])
    yield _case("I24", "flat", case.OK, whole, ("disk-flat.vmdk", CONTENT), named=("disk-flat.vmdk",))
    half = SIZE // SECTOR // 2
    two = text("twoGbMaxExtentFlat", [f'RW {half} FLAT "a.vmdk" 0', f'RW {half} FLAT "b.vmdk" 0'])
    parts = (("a.vmdk", CONTENT[: SIZE // 2]), ("b.vmdk", CONTENT[SIZE // 2 :]))
    yield _case("I24", "two-flat", case.OK, two, *parts, named=("a.vmdk", "b.vmdk"))
    split = text("twoGbMaxExtentSparse", [f'RW {SIZE // SECTOR} SPARSE "a.vmdk"'])
    yield _case(
        "I24",
        "split-sparse",
        case.OK,
        split,
        ("a.vmdk", bytes(sparse(b"", descriptor=0, descriptor_size=0))),
        named=("a.vmdk",),
    )
    crlf = whole.replace(b"\n", b"\r\n")
    yield _case("I24", "flat-crlf", case.OK, crlf, ("disk-flat.vmdk", CONTENT), named=("disk-flat.vmdk",))
    yield _case("I24", "flat-too-short", {20, 21}, whole, ("disk-flat.vmdk", CONTENT[:-1]), named=("disk-flat.vmdk",))
    yield _case("I24", "flat-missing", {1, 21}, whole)


def _descriptors() -> Iterator[case.Case]:
    def flat(line: str, *, more: str = "", parent: str = "ffffffff") -> bytes:
        return text("monolithicFlat", [line], more=more, parent=parent)

    sectors = SIZE // SECTOR
    beside = ("disk-flat.vmdk", CONTENT)
    may = ("disk-flat.vmdk",)
    good = f'RW {sectors} FLAT "disk-flat.vmdk" 0'
    yield _case("I24", "extent-shadow", {21}, flat(f'RW {sectors} FLAT "/etc/shadow" 0'))
    yield _case("I24", "extent-read-only-passwd", {21}, flat(f'RDONLY {sectors} FLAT "/etc/passwd" 0'))
    yield _case("I24", "extent-dot-dot", {21}, flat(f'RW {sectors} FLAT "../canary" 0'))
    yield _case("I24", "extent-device", {21}, flat(f'RW {sectors} VMFSRAW "/dev/vda"'))
    yield _case("I24", "extent-device-flat", {21}, flat(f'RW {sectors} FLAT "/dev/zero" 0'))
    yield _case("I24", "extent-json", {21}, flat(f'RW {sectors} FLAT "json:{{}}" 0'))
    yield _case("I24", "extent-nbd", {21}, flat(f'RW {sectors} FLAT "nbd://127.0.0.1:10809" 0'))
    yield _case(
        "I24", "extent-itself", {21}, text("twoGbMaxExtentSparse", [f'RW {sectors} SPARSE "{case.IMAGE}"']), named=may
    )
    yield _case(
        "I24",
        "extent-offset-max",
        {20, 21},
        flat(f'RW {sectors} FLAT "disk-flat.vmdk" 99999999999999999999'),
        beside,
        named=may,
    )
    yield _case(
        "I24",
        "extent-sectors-max",
        {20, 21},
        flat('RW 99999999999999999999 FLAT "disk-flat.vmdk" 0'),
        beside,
        named=may,
    )
    yield _case("I24", "extent-sectors-negative", {20, 21}, flat('RW -1 FLAT "disk-flat.vmdk" 0'), beside, named=may)
    yield _case("I24", "no-extents", {21}, text("monolithicFlat", []))
    many = text("twoGbMaxExtentFlat", [f'RW 1 FLAT "{at}.vmdk" 0' for at in range(1_000_000)])
    yield _case("I24", "a-million-extents", {21}, many)
    yield _case("I24", "of-20-mib", {21}, flat(good, more="# " + "x" * (20 << 20) + "\n"), beside)
    yield _case("I24", "nul", {21}, flat(good, more="\0" + good), beside, named=may)
    yield _case("I24", "not-ascii", {1, 21}, flat(good.replace("disk-flat", "d\N{LATIN SMALL LETTER E WITH ACUTE}")))
    yield _case("I24", "type-unknown", {21, 23}, text("vmfsSparse9", [good]), beside, named=may)
    yield _case("I24", "type-twice", {21}, flat(good, more='createType="monolithicSparse"\n'), beside, named=may)
    yield _case(
        "I24",
        "parent",
        {21, 23},
        flat(good, parent="aabbccdd", more='parentFileNameHint="../canary"\n'),
        beside,
        named=may,
    )


def _extents() -> Iterator[case.Case]:
    """What an embedded descriptor says is not to be believed either."""
    sectors = SIZE // SECTOR
    for name, line in {
        "embedded-shadow": f'RW {sectors} FLAT "/etc/shadow" 0',
        "embedded-two": f'RW {sectors} SPARSE "{case.IMAGE}"\nRW {sectors} FLAT "../canary" 0',
    }.items():
        yield _case("I24", name, {21}, sparse(text("monolithicSparse", [line])))
    parent = text(
        "monolithicSparse",
        [f'RW {sectors} SPARSE "{case.IMAGE}"'],
        parent="aabbccdd",
        more='parentFileNameHint="/etc/passwd"\n',
    )
    yield _case("I24", "embedded-parent", {21, 23}, sparse(parent))

    def link(folder: pathlib.Path) -> None:
        (folder / "canary").write_bytes(CONTENT)
        (folder / "disk-flat.vmdk").symlink_to("canary")
        (folder / case.IMAGE).write_bytes(text("monolithicFlat", [f'RW {sectors} FLAT "disk-flat.vmdk" 0']))

    yield case.case("I24", "vmdk-extent-is-a-symlink", {21}, link, foreign=True)
