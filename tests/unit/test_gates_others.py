"""The gates of vdi, vpc, vhdx, qcow, qed, parallels, luks, dmg, cloop and bochs: one field wrong at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from tests import gate_images
from vimgvc import errors
from vimgvc.disk import extents, memory
from vimgvc.images import gates

_HUGE = (1 << 32) - 1
_LARGEST = (1 << 64) - 1


@pytest.mark.parametrize("fmt", gate_images.GOOD)
def test_good_images_pass(fmt: str) -> None:
    """An image without a defect passes with its size and facts, whether tables are looked at or not."""
    make, size, facts = gate_images.GOOD[fmt]
    for tables in (True, False):
        found = gate_images.check(fmt, make(), tables=tables)
        assert (found.format, found.size) == (fmt, size)
        assert {name: found.container[name] for name in facts} == facts
        assert found.container["format"] == fmt


@pytest.mark.parametrize("fmt", gate_images.GOOD)
def test_i30_every_truncation_is_refused(fmt: str, seed: int) -> None:
    """Cut anywhere inside what its tables use, an image is refused: nothing would be read as zeros behind the end."""
    image = gate_images.GOOD[fmt][0]()
    # Behind the last block of vpc there is a copy of the footer; of luks no table tells where the end was.
    used = len(image) - (512 if fmt == "vpc" else 0)
    rng = np.random.default_rng(seed)
    cuts = {*range(0, min(used, 65536), 512), *rng.integers(0, used, 100).tolist(), used - 1}
    if fmt == "luks":
        cuts = {cut for cut in cuts if cut < 2 << 20}
    for cut in sorted(cuts):
        with pytest.raises((errors.UnsafeImage, errors.Unsupported, errors.ImageDamaged)):
            gate_images.check(fmt, image[:cut])


@pytest.mark.parametrize("fmt", gate_images.GOOD)
def test_i35_damage_gives_typed_errors_only(fmt: str, seed: int) -> None:
    """Whatever bytes change, a gate lets pass or raises an error of ours, and reads nothing out of bounds."""
    image = gate_images.GOOD[fmt][0]()
    rng = np.random.default_rng(seed)
    places = [at for at in range(len(image)) if image[at]][:3000] or [0]
    for _ in range(60 if fmt == "vhdx" else 300):
        data = bytearray(image)
        for at in rng.choice(places, 3).tolist():
            data[at] = int(rng.integers(256))
        try:
            gate_images.check(fmt, bytes(data))
        except (errors.UnsafeImage, errors.Unsupported, errors.ImageDamaged):
            continue


_VDI = {
    "signature": ("signature", (64, "<I", 0)),
    "version": ("VDI version", (68, "<I", 0x20000)),
    "differencing": ("difference", (76, "<I", 4)),
    "undo": ("difference", (76, "<I", 3)),
    "type": ("image type", (76, "<I", 9)),
    "map_offset": ("map's offset", (340, "<I", 513)),
    "map_beyond": ("map's offset", (340, "<I", 1 << 31)),
    "data_in_map": ("data's offset", (344, "<I", 512)),
    "sector": ("sector size", (360, "<I", 4096)),
    "block_zero": ("block size", (376, "<I", 0)),
    "block_huge": ("block size", (376, "<I", 1 << 31)),
    "extra": ("extra space", (380, "<I", 512)),
    "blocks_few": ("number of blocks", (384, "<I", 2)),
    "blocks_overflow": ("block map", (384, "<I", 1 << 30 | 3)),
    "blocks_most": ("block map", (384, "<I", _HUGE)),
    "allocated": ("allocated blocks", (388, "<I", 4)),
    "size": ("number of blocks", (368, "<Q", _LARGEST)),
    "link": ("difference", (424, "<I", 1)),
    "parent": ("difference", (440, "<I", 1)),
    "block_beyond": ("number 2 of 2", (512, "<I", 2)),
    "block_not_last": ("number 4294967293", (520, "<I", 0xFFFFFFFD)),
}


@pytest.mark.parametrize(("field", "patch"), _VDI.values(), ids=_VDI)
def test_i28_vdi(field: str, patch: gate_images.Patch) -> None:
    """Row I28: no field of a VDI header is believed that does not fit the others, the file or the format."""
    gate_images.refused("vdi", gate_images.patched(gate_images.vdi(), patch), field)


_OTHERS = {
    "qcow_magic": ("qcow", "magic", (0, ">I", 0)),
    "qcow_version": ("qcow", "version", (4, ">I", 2)),
    "qcow_backing": ("qcow", "backing", (8, ">Q", 100)),
    "qcow_backing_size": ("qcow", "backing", (16, ">I", 1)),
    "qcow_size_odd": ("qcow", "size", (24, ">Q", 511)),
    "qcow_size_largest": ("qcow", "size", (24, ">Q", _LARGEST)),
    "qcow_size_table": ("qcow", "first table", (24, ">Q", 1 << 50)),
    "qcow_cluster_bits_0": ("qcow", "cluster_bits", (32, ">B", 0)),
    "qcow_cluster_bits_17": ("qcow", "cluster_bits", (32, ">B", 17)),
    "qcow_l2_bits": ("qcow", "l2_bits", (33, ">B", 14)),
    "qcow_l2_bits_small": ("qcow", "l2_bits", (33, ">B", 5)),
    "qcow_crypt": ("qcow", "encrypted", (36, ">I", 1)),
    "qcow_l1_beyond": ("qcow", "first table", (40, ">Q", 1 << 40)),
    "qcow_l1_overflow": ("qcow", "first table", (40, ">Q", _LARGEST)),
    "qcow_l1_header": ("qcow", "first table", (40, ">Q", 8)),
    "qcow_l2_beyond": ("qcow", "behind the end", (48, ">Q", 8192)),
    "qcow_l2_overflow": ("qcow", "behind the end", (48, ">Q", _LARGEST)),
    "qcow_cluster_beyond": ("qcow", "behind the end", (512, ">Q", 4609)),
    "qcow_compressed_beyond": ("qcow", "compressed cluster", (512, ">Q", 1 << 63 | 100 << 51 | 8700)),
    "qed_magic": ("qed", "magic", (0, "<I", 0)),
    "qed_cluster_0": ("qed", "cluster size", (4, "<I", 0)),
    "qed_cluster_odd": ("qed", "cluster size", (4, "<I", 5000)),
    "qed_cluster_huge": ("qed", "cluster size", (4, "<I", 1 << 31)),
    "qed_table_0": ("qed", "table size", (8, "<I", 0)),
    "qed_table_1": ("qed", "table size", (8, "<I", 1)),
    "qed_table_32": ("qed", "table size", (8, "<I", 32)),
    "qed_header_0": ("qed", "header's size", (12, "<I", 0)),
    "qed_header_most": ("qed", "header's size", (12, "<I", _HUGE)),
    "qed_feature": ("qed", "features", (16, "<Q", 8)),
    "qed_backing": ("qed", "backing", (16, "<Q", 1)),
    "qed_backing_raw": ("qed", "backing", (16, "<Q", 4)),
    "qed_backing_name": ("qed", "backing", (56, "<I", 64)),
    "qed_l1_odd": ("qed", "offset", (40, "<Q", 4097)),
    "qed_l1_header": ("qed", "offset", (40, "<Q", 0)),
    "qed_l1_beyond": ("qed", "first table", (40, "<Q", 1 << 40)),
    "qed_size_odd": ("qed", "size", (48, "<Q", 1000)),
    "qed_size_most": ("qed", "size", (48, "<Q", 1 << 62)),
    "qed_l2_beyond": ("qed", "behind the end", (4096, "<Q", 24576 - 4096)),
    "qed_l2_odd": ("qed", "start of a cluster", (4096, "<Q", 12289)),
    "qed_cluster_beyond": ("qed", "behind the end", (12288, "<Q", 24576)),
    "qed_cluster_not_aligned": ("qed", "multiple", (12288, "<Q", 4097)),
    "parallels_magic": ("parallels", "magic", (0, "<Q", 0)),
    "parallels_version": ("parallels", "version", (16, "<I", 1)),
    "parallels_cluster_0": ("parallels", "sectors of a cluster", (28, "<I", 0)),
    "parallels_cluster_most": ("parallels", "sectors of a cluster", (28, "<I", _HUGE)),
    "parallels_entries_few": ("parallels", "number of clusters", (32, "<I", 2)),
    "parallels_entries_most": ("parallels", "number of clusters", (32, "<I", _HUGE)),
    "parallels_entries_beyond": ("parallels", "cluster table", (32, "<I", 100_000)),
    "parallels_size": ("parallels", "sectors", (36, "<Q", _LARGEST)),
    "parallels_extension": ("parallels", "extensions", (56, "<Q", 1)),
    "parallels_data": ("parallels", "data's sector", (48, "<I", 0x8FFFFFFF)),
    "parallels_beyond": ("parallels", "behind the end", (64, "<I", 3)),
    "luks_magic": ("luks", "magic", (0, "<I", 0)),
    "luks_cipher_tail": ("luks", "name of the cipher", (12, "1s", b"x")),
    "luks_version": ("luks", "LUKS version 2", (6, ">H", 2)),
    "luks_cipher": ("luks", "cipher", (8, "4s", b"null")),
    "luks_cipher_binary": ("luks", "cipher", (8, "4s", b"a\xffs\0")),
    "luks_mode": ("luks", "mode", (40, "4s", b"foo-")),
    "luks_hash": ("luks", "hash", (72, "4s", b"crc3")),
    "luks_payload_0": ("luks", "without their disk", (104, ">I", 0)),
    "luks_payload_beyond": ("luks", "disk's sector", (104, ">I", _HUGE)),
    "luks_key_0": ("luks", "key's length", (108, ">I", 0)),
    "luks_key_most": ("luks", "key's length", (108, ">I", _HUGE)),
    "luks_iterations": ("luks", "iterations", (164, ">I", _HUGE)),
    "luks_slot_state": ("luks", "key slot 0's state", (208, ">I", 1)),
    "luks_slot_none": ("luks", "no key slot", (208, ">I", 0xDEAD)),
    "luks_slot_iterations": ("luks", "key slot 0's iterations", (212, ">I", _HUGE)),
    "luks_slot_stripes": ("luks", "stripes", (252, ">I", 0)),
    "luks_slot_place": ("luks", "sector", (248, ">I", _HUGE)),
    "luks_slot_in_disk": ("luks", "sector", (248, ">I", 4000)),
    "dmg_magic": ("dmg", "trailer's offset", (-512, ">I", 0)),
    "dmg_magic_twice": ("dmg", "trailer's offset", (-1000, "4s", b"koly")),
    "dmg_version": ("dmg", "version", (-508, ">I", 3)),
    "dmg_length": ("dmg", "length", (-504, ">I", 511)),
    "dmg_segments": ("dmg", "several files", (-512 + 0x3C, ">I", 2)),
    "dmg_data": ("dmg", "data fork", (-512 + 0x18, ">Q", _LARGEST)),
    "dmg_resource": ("dmg", "resource fork", (-512 + 0x28, ">Q", _LARGEST)),
    "dmg_resource_length": ("dmg", "resource fork", (-512 + 0x30, ">Q", _LARGEST)),
    "dmg_list": ("dmg", "property list", (-512 + 0xD8, ">Q", 1 << 63)),
    "dmg_list_length": ("dmg", "property list", (-512 + 0xE0, ">Q", 1 << 40)),
    "dmg_list_none": ("dmg", "property list", (-512 + 0xE0, ">Q", 0)),
    "dmg_sectors": ("dmg", "disk's sectors", (-512 + 0x1EC, ">Q", _LARGEST)),
    "dmg_sectors_few": ("dmg", "chunk's end", (-512 + 0x1EC, ">Q", 7)),
    "cloop_magic": ("cloop", "magic", (11, "<I", 0)),
    "cloop_block_0": ("cloop", "block size", (128, ">I", 0)),
    "cloop_block_odd": ("cloop", "block size", (128, ">I", 1000)),
    "cloop_block_most": ("cloop", "block size", (128, ">I", _HUGE & ~511)),
    "cloop_blocks_most": ("cloop", "number of blocks", (132, ">I", _HUGE)),
    "cloop_blocks_beyond": ("cloop", "table of blocks", (132, ">I", 10_000)),
    "cloop_offset_beyond": ("cloop", "behind the end", (152, ">Q", 2001)),
    "cloop_offset_largest": ("cloop", "behind the end", (136, ">Q", _LARGEST)),
    "cloop_order": ("cloop", "in order", (144, ">Q", 159)),
    "cloop_in_table": ("cloop", "in order", (136, ">Q", 100)),
    "bochs_magic": ("bochs", "magic", (0, "<I", 0)),
    "bochs_type": ("bochs", "type", (32, "<I", 0)),
    "bochs_undoable": ("bochs", "difference", (48, "16s", b"Undoable")),
    "bochs_volatile": ("bochs", "difference", (48, "16s", b"Volatile")),
    "bochs_subtype": ("bochs", "subtype", (48, "16s", b"Other")),
    "bochs_version": ("bochs", "version", (64, "<I", 3)),
    "bochs_header": ("bochs", "header's size", (68, "<I", _HUGE)),
    "bochs_catalog_most": ("bochs", "number of extents", (72, "<I", _HUGE)),
    "bochs_catalog_beyond": ("bochs", "catalog", (72, "<I", 0x100000)),
    "bochs_bitmap_0": ("bochs", "bitmap's size", (76, "<I", 0)),
    "bochs_extent_0": ("bochs", "extent's size", (80, "<I", 0)),
    "bochs_extent_odd": ("bochs", "extent's size", (80, "<I", 65537)),
    "bochs_extent_most": ("bochs", "extent's size", (80, "<I", 1 << 31)),
    "bochs_size": ("bochs", "size", (88, "<Q", 131072 + 512)),
    "bochs_size_largest": ("bochs", "size", (88, "<Q", _LARGEST)),
    "bochs_extent_beyond": ("bochs", "behind the end", (512, "<I", 1)),
    "bochs_extent_far": ("bochs", "behind the end", (516, "<I", 0xFFFFFFFE)),
}  # fmt: skip


#: Defects of tables, not of headers.
_IN_TABLES = {name for name, case in _OTHERS.items() if case[1] in ("behind the end", "in order", "compressed cluster")}
_IN_TABLES |= {"qed_l2_odd", "qed_cluster_not_aligned", "dmg_list_none", "dmg_sectors_few"}


@pytest.mark.parametrize(("fmt", "field", "patch"), _OTHERS.values(), ids=_OTHERS)
def test_i29_others(fmt: str, field: str, patch: gate_images.Patch) -> None:
    """Row I29: formats that only old programs write pass a gate as strict as the others, or not at all."""
    gate_images.refused(fmt, gate_images.patched(gate_images.GOOD[fmt][0](), patch), field)


@pytest.mark.parametrize("name", [name for name in _OTHERS if name not in _IN_TABLES])
def test_headers_alone_are_enough_to_refuse(name: str) -> None:
    """Whatever is wrong in a header is refused when tables are not looked at, as for telling what an image is."""
    fmt, _, patch = _OTHERS[name]
    with pytest.raises((errors.UnsafeImage, errors.Unsupported)):
        gate_images.check(fmt, gate_images.patched(gate_images.GOOD[fmt][0](), patch), tables=False)


def test_i29_formats_without_a_gate() -> None:
    """What is on no list is unsupported, also if a driver of that name exists."""
    for fmt in ("vvfat", "nbd", "blkdebug", "raw", "qcow2", "", "VDI"):
        with pytest.raises(errors.Unsupported):
            gate_images.check(fmt, bytes(1 << 20))


def test_notes_of_unclosed_images() -> None:
    """Images that were not closed properly, but have sound tables, pass with a note."""
    image = gate_images.patched(gate_images.qed(), (16, "<Q", 2))
    assert gate_images.check("qed", image).notes
    image = gate_images.patched(gate_images.parallels(), (44, "<I", 0x746F6E59))
    assert gate_images.check("parallels", image).notes


def test_parallels_versions() -> None:
    """In the old version the table counts sectors, and the upper half of the size is noise."""
    image = gate_images.patched(gate_images.parallels((16, 0, 32)), (0, "16s", b"WithoutFreeSpace"), (40, "<I", 0xABCD))
    assert gate_images.check("parallels", image).size == 24576
    gate_images.refused("parallels", gate_images.patched(image, (72, "<I", 33)), "behind the end")
    gate_images.refused("parallels", gate_images.patched(image, (64, "<I", 0x80000000)), "behind the end")


def test_luks_slots_do_not_overlap() -> None:
    """Two slots may not share sectors, in whatever order they come."""
    first, second = (0x00AC71F3, 1000, 8, 4000), (0x00AC71F3, 1000, 258, 4000)
    assert gate_images.check("luks", gate_images.luks((second, first))).size == 65536
    gate_images.refused("luks", gate_images.luks((second, (*first[:2], 9, 4000))), "key slot")


_CHUNKS = {
    "unknown": ("chunks of type", ((0x80000004, 0, 8, 0, 2048),)),
    "sectors_overflow": ("chunk's end", ((1, _LARGEST, 8, 0, 2048),)),
    "count": ("chunk's end", ((0, 0, 9, 0, 0),)),
    "offset": ("behind the end", ((1, 0, 8, 1 << 40, 4096),)),
    "offset_overflow": ("behind the end", ((0x80000005, 0, 8, _LARGEST, 10),)),
    "length": ("chunk's length", ((0x80000005, 0, 8, 0, (64 << 20) + 1),)),
    "short_raw": ("chunk's length", ((1, 0, 8, 0, 2048),)),
    "sectors": ("chunk's sectors", ((0x80000005, 0, 131_073, 0, 10),)),
    "none": ("number of chunks", ()),
}


@pytest.mark.parametrize(("field", "chunks"), _CHUNKS.values(), ids=_CHUNKS)
def test_i29_dmg_chunks(field: str, chunks: tuple[tuple[int, int, int, int, int], ...]) -> None:
    """Chunks lie in the disk and in the file and are of a type that can be read, in either kind of table."""
    sectors = 131_073 if field == "chunk's sectors" else 8
    gate_images.refused("dmg", gate_images.dmg(gate_images.mish(*chunks), sectors), field)
    gate_images.refused("dmg", gate_images.dmg(gate_images.mish(*chunks), sectors, fork=True), field)


@pytest.mark.parametrize(
    ("field", "patch"),
    [
        ("resource fork's length", (-512 + 0x30, ">Q", 8)),
        ("resource data", (2048, ">I", 1 << 31)),
        ("resource data", (2056, ">I", 0)),
        ("resource's length", (2064, ">I", 0)),
        ("resource's length", (2064, ">I", _HUGE)),
    ],
)
def test_i29_dmg_resource_forks(field: str, patch: gate_images.Patch) -> None:
    """Resources lie in the resource data, and this in the fork; a length of zero would never end."""
    gate_images.refused("dmg", gate_images.patched(gate_images.dmg(fork=True), patch), field)


def test_dmg_tables() -> None:
    """Both kinds of table are read; compressions are told; a table that is no base64 or has no end is refused."""
    assert gate_images.check("dmg", gate_images.dmg(fork=True)).size == 4096
    packed = gate_images.mish((0x80000005, 0, 4, 0, 9), (0x80000006, 4, 4, 9, 9))
    assert gate_images.check("dmg", gate_images.dmg(packed)).container["compression"] == "bzip2+zlib"
    image = gate_images.dmg()
    gate_images.refused("dmg", image.replace(b"<data>\n", b"<data>!"), "table of chunks")
    gate_images.refused("dmg", image.replace(b"</data>", b"<xdata>"), "property list")


def test_cloop_blocks_are_little_longer_than_a_block() -> None:
    """A compressed block that is longer than compression can make it is refused, so no driver makes room for it."""
    image = gate_images.patched(gate_images.cloop(), (128, ">I", 512)) + bytes(20_000)
    gate_images.refused("cloop", gate_images.patched(image, (152, ">Q", 20_000)), "compressed block's length")


class _Holes(memory.MemoryDisk):
    """A file of 32 TiB whose first MiB alone is there."""

    @property
    def size(self) -> int:
        return 1 << 45

    @property
    def allocated_bytes(self) -> int:
        return 1 << 20

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        there = [extents.Extent(0, 1 << 20, extents.Kind.DATA)]
        return extents.cover(there, offset, length, extents.Kind.HOLE)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        assert offset < 1 << 20, "a hole is read"
        data = self.content()[offset : offset + buffer.nbytes]
        buffer[:] = data.ljust(buffer.nbytes, b"\0")


def _scattered(count: int, step: int, start: int = 1 << 30) -> gates.Facts:
    """What the gate says of a qcow image whose tables of 64 KiB lie `step` bytes apart."""
    head = gate_images.patched(gate_images.qcow()[:48], (24, ">Q", count << 29), (32, ">B", 16), (33, ">B", 13))
    tables = struct.pack(f">{count}Q", *range(start, start + count * step, step))
    return gates.check("qcow", _Holes.of((head + tables).ljust(1 << 20, b"\0")), "image")


def test_i35_tables_cost_no_more_than_the_file_has() -> None:
    """Tables that overlap, or lie scattered in holes, are refused before it takes minutes to look at them."""
    assert _scattered(60_000, 65536).size == 60_000 << 29
    assert _scattered(10_000, 131_072).size == 10_000 << 29
    for count, step, start in ((60_000, 131_072, 1 << 30), (2000, 8, 524_288)):
        with pytest.raises(errors.UnsafeImage, match="tables"):
            _scattered(count, step, start)
