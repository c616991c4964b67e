"""The gates of vpc and vhdx: one field wrong at a time."""

from __future__ import annotations

import struct

import pytest

from tests import gate_images

_HUGE = (1 << 32) - 1
_LARGEST = (1 << 64) - 1


_VPC = {
    "cookie": ("checksum|cookie|type", {"cookie": b"conectiX"}),
    "checksum": ("footer's checksum", {"checksum": 0}),
    "version": ("VHD version", {"version": 0x20000}),
    "differencing": ("difference", {"kind": 4}),
    "type": ("disk type", {"kind": 5}),
    "fixed_in_front": ("disk type", {"kind": 2}),
    "saved": ("saved state", {"saved": 1}),
    "size": ("sectors", {"size": 0xFF000001 * 512}),
    "size_odd": ("size", {"size": (8 << 20) + 1}),
    "size_largest": ("size|sectors", {"size": _LARGEST}),
    "size_beyond_table": ("number of blocks", {"size": (8 << 20) + 512}),
    "loop": ("its offset", {"next": 0}),
    "in_footer": ("its offset", {"next": 256}),
    "header_beyond": ("its offset", {"next": _LARGEST}),
    "header_odd": ("offset", {"next": 1000}),
    "dynamic_cookie": ("header's cookie", {"dynamic_cookie": b"conectix"}),
    "dynamic_checksum": ("header's checksum", {"dynamic_checksum": 1}),
    "dynamic_version": ("header's version", {"dynamic_version": 0}),
    "block_zero": ("block size", {"dynamic_block": 0}),
    "block_odd": ("block size", {"dynamic_block": 3 << 20}),
    "block_huge": ("block size", {"dynamic_block": 1 << 31}),
    "entries_few": ("number of blocks", {"dynamic_count": 3}),
    "entries_many": ("number of blocks", {"dynamic_count": _HUGE}),
    "table_beyond": ("block table", {"dynamic_table": 1 << 62}),
    "table_odd": ("block table's offset", {"dynamic_table": 1537}),
    "table_cut": ("block table", {"dynamic_table": (2 << 20) + 3072, "dynamic_count": 1 << 18}),
    "parent_uuid": ("parent", {"dynamic_parent": b"p" * 16}),
    "parent_name": ("parent", {"dynamic_name": "/etc/shadow".encode("utf-16-be")}),
    "parent_locator": ("parent", {"dynamic_locator": b"W2ku"}),
    "block_beyond": ("behind the end", {"entries": (6, _HUGE, _HUGE, _HUGE)}),
    "block_far": ("behind the end", {"entries": (4, _HUGE - 1, _HUGE, _HUGE)}),
}


@pytest.mark.parametrize(("field", "fields"), _VPC.values(), ids=_VPC)
def test_i26_vpc(field: str, fields: dict[str, object]) -> None:
    """Row I26: neither checksum nor loop, block table or parent of a VHD passes if it is wrong."""
    gate_images.refused("vpc", gate_images.vpc(**fields), field)  # type: ignore[arg-type]


def test_i26_vpc_fixed() -> None:
    """A fixed VHD is what its footer says; a footer for more than the file holds is damage."""
    found = gate_images.check("vpc", gate_images.vpc_fixed())
    assert (found.size, found.container["subformat"]) == (1 << 20, "fixed")
    gate_images.refused("vpc", gate_images.vpc_fixed()[512:], "the file")
    gate_images.refused("vpc", gate_images.vpc_fixed(kind=3), "disk type")
    gate_images.refused("vpc", b"", "file's size")


@pytest.mark.parametrize(
    ("app", "geometry", "expected"),
    [
        (b"vpc ", (20, 4, 17), 20 * 4 * 17 * 512),
        (b"qemu", (20, 4, 17), 20 * 4 * 17 * 512),
        (b"qem2", (20, 4, 17), 8 << 20),
        (b"win ", (20, 4, 17), 8 << 20),
        (b"vbox", (20, 4, 17), 8 << 20),
        (b"vpc ", (65535, 16, 255), 8 << 20),
    ],
)
def test_vpc_sizes_are_those_of_the_maker(app: bytes, geometry: tuple[int, int, int], expected: int) -> None:
    """Two makers mean the geometry, the others the size; the driver is told which it is, so that both agree."""
    cylinders, heads, sectors = geometry
    found = gate_images.check("vpc", gate_images.vpc(app=app, cylinders=cylinders, heads=heads, sectors=sectors))
    assert found.size == expected
    assert found.options == {"force_size_calc": "current_size" if expected == 8 << 20 else "chs"}


def _header(sequence: int, **fields: object) -> bytes:
    return gate_images.vhdx_header(sequence, **fields)  # type: ignore[arg-type]


_MIB = 1 << 20
_B, _M = (gate_images.BAT, 3 * _MIB, _MIB, 1), (gate_images.METADATA, 2 * _MIB, _MIB, 1)
_VHDX = {
    "no_header": ("valid headers", {"headers": (_header(1, valid=False), _header(2, valid=False))}),
    "same_sequence": ("sequence number", {"headers": (_header(2), _header(2, log=b"x" * 16))}),
    "dirty": ("log must be replayed", {"headers": (_header(1), _header(2, log=b"x" * 16))}),
    "dirty_first": ("log must be replayed", {"headers": (_header(3, log=b"x" * 16), _header(2))}),
    "region_count": ("number of regions", {"region_count": 2048}),
    "region_most": ("number of regions", {"region_count": _HUGE}),
    "region_crc": ("table's checksum", {"region_crc": 0}),
    "region_twice": ("regions of one kind", {"regions": (_B, _M, (gate_images.BAT, 5 * _MIB, _MIB, 1))}),
    "region_unknown": ("VHDX region", {"regions": (_B, _M, (b"u" * 16, 5 * _MIB, _MIB, 1))}),
    "region_missing": ("regions of one kind", {"regions": (_B, (b"u" * 16, 5 * _MIB, _MIB, 0))}),
    "region_overlap": ("region's offset", {"regions": (_B, (gate_images.METADATA, 3 * _MIB, _MIB, 1))}),
    "region_on_log": ("region's offset", {"regions": (_B, (gate_images.METADATA, _MIB, _MIB, 1))}),
    "region_in_header": ("region's offset", {"regions": (_B, (gate_images.METADATA, 0, _MIB, 1))}),
    "region_beyond": ("region's offset", {"regions": (_B, (gate_images.METADATA, 1 << 62, _MIB, 1))}),
    "region_long": ("region", {"regions": ((gate_images.BAT, 3 * _MIB, 0xFFF00000, 1), _M)}),
    "region_odd": ("region's length", {"regions": ((gate_images.BAT, 3 * _MIB, _MIB // 2, 1), _M)}),
    "sector_physical": ("physical sector", {"items": {gate_images.PHYSICAL: bytes(4)}}),
    "item_count": ("metadata items", {"item_count": 2048}),
    "item_long": ("item's length", {"items": {gate_images.DISK_SIZE: bytes(65537)}}),
    "item_missing": ("items of one kind", {"items": {gate_images.PAGE_83: b""},
                                           "extra_items": ((b"u" * 16, 0, 0, 0),)}),
    "item_twice": ("items of one kind", {"extra_items": ((gate_images.DISK_SIZE, 65536, 8, 4),)}),
    "item_unknown": ("VHDX metadata", {"extra_items": ((b"u" * 16, 65536, 8, 4),)}),
    "item_beyond": ("item's offset", {"items": {gate_images.DISK_SIZE: b""},
                                      "extra_items": ((gate_images.DISK_SIZE, _HUGE, 8, 4),)}),
    "parent": ("parent", {"extra_items": ((gate_images.PARENT, 65536, 8, 4),)}),
    "has_parent": ("difference", {"flags": 2}),
    "block_small": ("block size", {"block": 512 << 10}),
    "block_odd": ("block size", {"block": 3 << 20}),
    "block_huge": ("block size", {"block": 512 << 20}),
    "sector": ("logical sector", {"items": {gate_images.LOGICAL: struct.pack("<I", 0)}}),
    "size_odd": ("disk's size", {"size": (8 << 20) + 1}),
    "size_overflow": ("disk's size", {"size": _LARGEST & ~511}),
    "bat_short": ("block table's length", {"size": 64 << 40}),
    "block_partial": ("state of a block", {"bat": (7 | 4 << 20, 0, 0, 0)}),
    "block_beyond": ("behind the end", {"bat": (6 | 5 << 20, 0, 0, 0)}),
    "block_far": ("behind the end", {"bat": (0, 0, 0, 6 | ((1 << 44) - 1) << 20)}),
    "block_in_header": ("in the header", {"bat": (6, 0, 0, 0)}),
}  # fmt: skip


@pytest.mark.parametrize(("field", "fields"), _VHDX.values(), ids=_VHDX)
def test_i27_vhdx(field: str, fields: dict[str, object]) -> None:
    """Row I27: dirty logs, parents, and counts or regions that do not fit are refused."""
    gate_images.refused("vhdx", gate_images.vhdx(**fields), field)  # type: ignore[arg-type]


def test_i27_vhdx_header_in_force() -> None:
    """One valid header is enough, the later of two counts, and two identical ones are one."""
    for headers in [
        (_header(1), _header(9, valid=False)),
        (_header(9, log=b"x" * 16, valid=False), _header(1)),
        (_header(1, log=b"x" * 16), _header(2)),
        (_header(2), _header(2)),
    ]:
        assert gate_images.check("vhdx", gate_images.vhdx(headers=headers)).size == 8 << 20


def test_vhdx_identifier() -> None:
    """A file that does not begin like one is none, whatever follows; nor is metadata that does not."""
    gate_images.refused("vhdx", gate_images.patched(gate_images.vhdx(), (0, "<I", 0)), "identifier")
    gate_images.refused("vhdx", gate_images.patched(gate_images.vhdx(), (2 << 20, "<I", 0)), "metadata's signature")


def test_vhdx_last_block_ends_with_the_disk() -> None:
    """Of the last block the file need only hold what the disk has; of the others all."""
    size = (6 << 20) + 512
    assert gate_images.check("vhdx", gate_images.vhdx(size, bat=(0, 0, 0, 6 | 5 << 20))).size == size
    gate_images.refused("vhdx", gate_images.vhdx(size, bat=(0, 0, 6 | 5 << 20, 0)), "behind the end")
    gate_images.refused("vhdx", gate_images.vhdx(size, bat=(0, 0, 0, 6 | 6 << 20)), "behind the end")


def test_vhdx_fixed_and_states() -> None:
    """The flag makes it fixed; blocks that are absent, undefined, zero or unmapped lie nowhere."""
    found = gate_images.check(
        "vhdx", gate_images.vhdx(flags=1, bat=(0 | 1 << 40, 1 | 1 << 40, 2 | 1 << 40, 3 | 1 << 40))
    )
    assert found.container["subformat"] == "fixed"
