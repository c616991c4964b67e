"""The gate of vmdk: descriptors as text, embedded ones, headers and footers; one thing wrong at a time."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from tests import gate_images, vmdk_images
from vimgvc import errors

_HUGE = (1 << 32) - 1
_LARGEST = (1 << 64) - 1
_DISK = bytes(range(256)) * 256  # 64 KiB


def _flat(*lines: str, create_type: str = "monolithicFlat", more: str = "", **fields: str) -> bytes:
    return vmdk_images.text(create_type, lines or ('RW 128 FLAT "disk-flat.vmdk" 0',), 0, more=more, **fields)


@pytest.mark.parametrize(
    ("create_type", "lines", "sectors"),
    [
        ("monolithicFlat", ['RW 128 FLAT "disk-flat.vmdk" 0'], 128),
        ("monolithicFlat", ['RW 100 FLAT "disk-flat.vmdk" 28', "RW 28 ZERO"], 128),
        ("twoGbMaxExtentFlat", ['RW 4193792 FLAT "a-f001.vmdk" 0', 'RDONLY 5 FLAT "a-f002.vmdk" 0'], 4193797),
        ("twoGbMaxExtentSparse", ['RW 4192256 SPARSE "a b-s001.vmdk"', 'RW 1 SPARSE "\xe4\xe9-s002.vmdk"'], 4192257),
        ("vmfs", ['RW 16777216 VMFS "esx-flat.vmdk"'], 16777216),
        ("vmfsSparse", ['RW 128 VMFSSPARSE "esx-delta.vmdk"'], 128),
        ("seSparse", ['RW 128 SESPARSE "esx-sesparse.vmdk"'], 128),
    ],
)
def test_descriptors_that_programs_write(create_type: str, lines: list[str], sectors: int) -> None:
    """Every kind of descriptor passes, with LF or CR LF, and zeros at its end; its size is that of its extents."""
    text = vmdk_images.text(create_type, lines)
    for image in (text, text.replace(b"\n", b"\r\n"), text + b"\n", text + bytes(9000), text + b'\0"\n' + bytes(99)):
        found = gate_images.check("vmdk", image)
        assert found.size == sectors * 512
        assert found.container == {
            "format": "vmdk",
            "subformat": create_type,
            "adapter_type": "lsilogic",
            "hwversion": "4",
        }


_TEXT = {
    "path": ("name of an extent", _flat('RW 128 FLAT "/etc/shadow" 0')),
    "path_up": ("name of an extent", _flat('RW 128 FLAT "../shadow" 0')),
    "path_windows": ("name of an extent", _flat('RW 128 FLAT "C:\\shadow" 0')),
    "dots": ("name of an extent", _flat('RW 128 FLAT ".." 0')),
    "scheme": ("without a scheme", _flat('RW 128 FLAT "nbd:localhost:1" 0')),
    "json": ("without a scheme|name of an extent", _flat('RW 128 FLAT "json:{}" 0')),
    "control": ("name of an extent", _flat('RW 128 FLAT "a\x1bb" 0')),
    "name_long": ("an extent", _flat(f'RW 128 FLAT "{"x" * 256}" 0')),
    "name_none": ("an extent", _flat('RW 128 FLAT "" 0')),
    "name_open": ("an extent", _flat('RW 128 FLAT "disk 0')),
    "device": ("kind", _flat(r'RW 128 PHYSICALDRIVE "disk" 0')),
    "device_type": ("VMDK images of type", _flat(create_type="fullDevice")),
    "raw_device": ("VMDK images of type", _flat(create_type="vmfsRawDeviceMap")),
    "no_access": ("access", _flat('NOACCESS 128 FLAT "disk" 0')),
    "access": ("line of the descriptor", _flat('XX 128 FLAT "disk" 0')),
    "sectors_0": ("extent's sectors", _flat('RW 0 FLAT "disk" 0')),
    "sectors_negative": ("an extent", _flat('RW -1 FLAT "disk" 0')),
    "sectors_most": ("extent's sectors", _flat('RW 99999999999999 FLAT "disk" 0')),
    "sectors_overflow": ("an extent", _flat('RW 36893488147419103232 FLAT "disk" 0')),
    "kind_of_other_type": ("kind", _flat('RW 128 SPARSE "disk"')),
    "zero_named": ("an extent", _flat('RW 128 ZERO "disk"')),
    "sparse_start": ("start", vmdk_images.text("twoGbMaxExtentSparse", ['RW 128 SPARSE "disk" 5'])),
    "many": ("number of extents", _flat(*['RW 1 FLAT "d" 0'] * 513)),
    "none": ("number of extents", _flat("#")),
    "nul": ("NUL", _flat() + b'\0RW 128 FLAT "other" 0\n'),
    "long": ("descriptor's length", _flat() + b"#" * (1 << 20)),
    "line_long": ("line of the descriptor", _flat(more='x = "' + "y" * 2000 + '"\n')),
    "line_junk": ("line of the descriptor", _flat(more="what is this\n")),
    "line_cr": ("line of the descriptor", _flat(more='x = "a\rb"\n')),
    "parent": ("parent", _flat(parentCID="12345678")),
    "parent_none": ("parent", _flat(parentCID="")),
    "parent_twice": ("parentCID", _flat(more="parentCID=ffffffff\n")),
    "parent_name": ("parent", _flat(more='parentFileNameHint="base.vmdk"\n')),
    "parent_comment": ("parent", _flat(more='#parentFileNameHint="base.vmdk"\n')),
    "type_twice": ("createType", _flat(more='createType="vmfs"\n')),
    "type_none": ("VMDK images of type", _flat(createType="")),
    "version": ("version", _flat(version="4")),
    "cid": ("CID", _flat(CID="")),
}


@pytest.mark.parametrize(("field", "image"), _TEXT.values(), ids=_TEXT)
def test_i24_descriptors(field: str, image: bytes) -> None:
    """Row I24: a descriptor names files beside itself and nothing else, and has only lines that are understood."""
    gate_images.refused("vmdk", image, field)


def test_i24_many_extents_are_refused_at_once() -> None:
    """A million extents in 1 MiB of text are refused like 513: nothing is kept of them."""
    gate_images.refused("vmdk", _flat(*['RW 1 FLAT "d"'] * 60_000), "number of extents|descriptor's length|extent")


@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized"])
def test_whole_images_pass(kind: str) -> None:
    """A disk in one file passes, with its size, whatever stands behind the end of its text."""
    image = vmdk_images.hosted(_DISK) if kind == "monolithicSparse" else vmdk_images.stream(_DISK)
    for data in (image, image[:1000] + b"\0stale" + image[1006:]):
        found = gate_images.check("vmdk", data)
        assert (found.size, found.container["subformat"]) == (len(_DISK), kind)


def test_last_grain_may_end_with_the_disk() -> None:
    """Of the disk's last grain only what the disk has needs to be in the file; of others all."""
    image = vmdk_images.hosted(_DISK[:-512])
    assert gate_images.check("vmdk", image[:-512]).size == len(_DISK) - 512
    gate_images.refused("vmdk", image[:-1024], "behind the end")
    gate_images.refused("vmdk", vmdk_images.hosted(_DISK)[:-512], "behind the end")


_HEADERS = {
    "version": ("VMDK version", {"version": 4}),
    "version_0": ("VMDK version", {"version": 0}),
    "flags": ("VMDK flags", {"flags": 0x101}),
    "newline": ("line ends", {"newline": b"\n\n\r\n"}),
    "grain_0": ("grain", {"grain": 0}),
    "grain_odd": ("grain", {"grain": 9}),
    "grain_most": ("grain", {"grain": _LARGEST}),
    "grain_large": ("grain", {"grain": 1 << 13}),
    "entries_0": ("entries of a table", {"entries": 0}),
    "entries_most": ("entries of a table", {"entries": _HUGE}),
    "capacity_0": ("without a disk", {"sectors": 0}),
    "capacity_most": ("capacity", {"sectors": _LARGEST}),
    "capacity_overflow": ("capacity", {"sectors": 1 << 55}),
    "capacity_directory": ("directory", {"sectors": 1 << 46}),
    "capacity_other": ("extent's sectors", {"sectors": 127}),
    "directory_beyond": ("directory", {"directory": 1 << 40}),
    "directory_overflow": ("directory", {"directory": _LARGEST - 1}),
    "spare_beyond": ("spare directory", {"flags": 3, "spare": 1 << 40}),
    "data_beyond": ("data's sector", {"data": 1 << 40}),
    "text_elsewhere": ("descriptor's sector", {"text_at": 2}),
    "text_long": ("descriptor's sectors", {"text_length": 1 << 40}),
    "text_none": ("descriptor's sectors", {"text_length": 0}),
    "compressed_flag": ("compression", {"flags": 0x30001}),
    "compressed": ("compression", {"algorithm": 1}),
    "algorithm": ("compression", {"algorithm": 2}),
    "end_without_footer": ("footer's marker", {"directory": _LARGEST}),
}


@pytest.mark.parametrize(("field", "fields"), _HEADERS.values(), ids=_HEADERS)
def test_i25_headers(field: str, fields: dict[str, Any]) -> None:
    """Row I25: grains, tables and capacity of a header fit each other, the file and the format."""
    head = vmdk_images.header(128, **fields)
    gate_images.refused("vmdk", head + vmdk_images.hosted(_DISK)[512:], field)


_FOOTERS = {
    "at_end_twice": ("footer's directory", {"foot": {"directory": _LARGEST}}),
    "capacity": ("field 3 of the footer", {"foot": {"sectors": 256}}),
    "grain": ("field 4 of the footer", {"foot": {"grain": 64}}),
    "flags": ("field 2 of the footer", {"foot": {"flags": 0x30005}}),
    "descriptor": ("field 5 of the footer", {"foot": {"text_at": 3}}),
    "marker": ("footer's marker", {"marker": (0, 2)}),
    "marker_size": ("footer's marker", {"marker": (512, 3)}),
    "directory": ("directory", {"foot": {"directory": 1 << 40}}),
    "no_markers": ("markers", {"flags": 0x10001}),
}


@pytest.mark.parametrize(("field", "fields"), _FOOTERS.values(), ids=_FOOTERS)
def test_i25_footers(field: str, fields: dict[str, Any]) -> None:
    """Row I25: a footer is the header again, and says at last where the directory is."""
    gate_images.refused("vmdk", vmdk_images.stream(_DISK, **fields), field)


_EMBEDDED = {
    "type": ("createType", vmdk_images.text("streamOptimized", sectors=128)),
    "flat": ("VMDK|createType|kind", vmdk_images.text("monolithicFlat", ['RW 128 FLAT "shadow" 0'])),
    "two": ("number of extents", vmdk_images.text(lines=['RW 64 SPARSE "a"', 'RW 64 SPARSE "b"'])),
    "sectors": ("extent's sectors", vmdk_images.text(sectors=64)),
    "parent": ("parent", vmdk_images.text(sectors=128, parentCID="01234567")),
    "parent_name": ("parent", vmdk_images.text(sectors=128, more='parentFileNameHint="x"\n')),
    "nothing": ("one part of a disk", b"#"),
}


@pytest.mark.parametrize(("field", "text"), _EMBEDDED.values(), ids=_EMBEDDED)
def test_i24_embedded_descriptors(field: str, text: bytes) -> None:
    """Row I24: the text inside a sparse image describes this image and no other."""
    gate_images.refused("vmdk", vmdk_images.hosted(_DISK, text), field)


def test_parts_are_not_disks() -> None:
    """An extent of a disk in several files is refused, with the advice to open its descriptor."""
    gate_images.refused("vmdk", vmdk_images.hosted(_DISK, None), "part of a disk")
    gate_images.refused("vmdk", vmdk_images.cowd(_DISK), "part of a disk")


@pytest.mark.parametrize(
    ("at", "value"),
    [(21 * 512, 1 << 31), (21 * 512, 255), (22 * 512, 256), (22 * 512, _HUGE), (22 * 512 + 15 * 4, 256 - 7)],
)
def test_tables_stay_in_the_file(at: int, value: int) -> None:
    """Neither a table nor a grain may lie, or end, behind the end of the file."""
    image = gate_images.patched(vmdk_images.hosted(_DISK), (at, "<I", value))
    gate_images.refused("vmdk", image, "behind the end")


def test_zeroed_grains_lie_nowhere() -> None:
    """With the flag for it, entry 1 means zeros; without, it is sector 1, inside the file."""
    image = gate_images.patched(vmdk_images.hosted(_DISK, flags=5, version=2), (22 * 512, "<I", 1))
    assert gate_images.check("vmdk", image).size == len(_DISK)


@pytest.mark.parametrize("kind", ["hosted", "stream"])
def test_i30_truncations(kind: str, seed: int) -> None:
    """Cut anywhere, an image is refused."""
    image = vmdk_images.hosted(_DISK) if kind == "hosted" else vmdk_images.stream(_DISK)
    rng = np.random.default_rng(seed)
    for cut in {*range(0, min(len(image), 65536), 512), *rng.integers(0, len(image), 100).tolist(), len(image) - 1}:
        with pytest.raises((errors.UnsafeImage, errors.Unsupported, errors.ImageDamaged)):
            gate_images.check("vmdk", image[:cut])


@pytest.mark.parametrize("kind", ["hosted", "stream", "text"])
def test_damage_gives_typed_errors_only(kind: str, seed: int) -> None:
    """Whatever bytes change, the gate passes the image or raises an error of ours."""
    image = {"hosted": vmdk_images.hosted(_DISK), "stream": vmdk_images.stream(_DISK), "text": _flat()}[kind]
    rng = np.random.default_rng(seed)
    places = [at for at in range(min(len(image), 12_000)) if image[at]]
    for _ in range(500):
        data = bytearray(image)
        for at in rng.choice(places, 2).tolist():
            data[at] = int(rng.integers(256))
        try:
            gate_images.check("vmdk", bytes(data))
        except (errors.UnsafeImage, errors.Unsupported, errors.ImageDamaged):
            continue


def test_spare_directory_is_read_by_drivers() -> None:
    """A spare directory lies in the file like the other; when the flag is not set, its field means nothing."""
    image = vmdk_images.hosted(_DISK, spare=1 << 40)
    assert gate_images.check("vmdk", image).size == len(_DISK)
    assert struct.unpack_from("<I", image, 8) == (1,)
