"""What `info` tells of images, and how little it reads for that."""

from __future__ import annotations

import pathlib

import pytest

from tests import gate_images, qcow2_image, vmdk_images
from vimgvc import errors
from vimgvc.commands import images, info

_FEW = 16 << 20


def _read_so_far() -> int:
    """Bytes that this process has read through system calls."""
    words = pathlib.Path("/proc/self/io").read_text().split()
    return int(words[words.index("rchar:") + 1])


def _look(path: pathlib.Path, content: bytes, declared: str | None = None) -> info.Info:
    path.write_bytes(content)
    before = _read_so_far()
    found = info.run(str(path), images.access(declared))
    assert _read_so_far() - before < _FEW
    return found


def test_data_in_this_file_is_counted(tmp_path: pathlib.Path) -> None:
    """Data counts in bytes of the guest, packed or not; zeros and what is the backing file's do not."""
    image = qcow2_image.Image(10 << 20, backing=b"/etc/shadow")
    image.data(3, b"x")
    image.packed(7, b"y")
    image.zero(9)
    found = _look(tmp_path / "vm.qcow2", image.build())
    assert found.virtual_size == 10 << 20
    assert found.data_bytes == 2 << 16
    assert (found.backing_file, found.backing_format) == ("/etc/shadow", None)
    assert found.container["compressed"]


def test_large_tables_are_not_read(tmp_path: pathlib.Path) -> None:
    """With more than 8 MiB of tables it is not known how much data there is; everything else is."""
    image = qcow2_image.Image(1 << 40, bits=16)
    for table in range(130):
        image.zero(table * 8192)
    found = _look(tmp_path / "vm.qcow2", image.build())
    assert found.data_bytes is None
    assert found.virtual_size == 1 << 40


def test_i13_a_list_of_snapshots_that_is_too_long(tmp_path: pathlib.Path) -> None:
    """Snapshots that need more than 4 MiB to be listed are a warning, not a long wait."""
    image = qcow2_image.Image(1 << 20, snapshots=65536)
    entry = qcow2_image.snapshot(0, 0, size=None, name=b"n" * 900)
    image.snapshots_offset = image.add(entry * 65536)
    found = _look(tmp_path / "vm.qcow2", image.build())
    assert found.snapshots == ()
    assert [warning for warning in found.warnings if "internal snapshots are not shown" in warning]


def test_an_image_marked_corrupt_is_still_shown(tmp_path: pathlib.Path) -> None:
    """A look does no harm: what `commit` refuses without --force-read is told as a warning."""
    image = qcow2_image.Image(1 << 20, incompatible=qcow2_image.CORRUPT)
    found = _look(tmp_path / "vm.qcow2", image.build())
    assert any("corrupt" in warning for warning in found.warnings)


def test_a_name_of_bytes_that_are_no_text(tmp_path: pathlib.Path) -> None:
    """A backing file's name is told byte for byte."""
    image = qcow2_image.Image(1 << 20, backing=b"caf\xe9\x1b[2J")
    assert _look(tmp_path / "vm.qcow2", image.build()).backing_file == "caf\udce9\x1b[2J"


def test_i21_a_raw_disk_with_the_header_of_another_format(tmp_path: pathlib.Path) -> None:
    """Declared raw it is raw, with a warning; undeclared it is refused."""
    content = qcow2_image.Image(1 << 20).build()
    found = _look(tmp_path / "vm.img", content, "raw")
    assert (found.format, found.virtual_size) == ("raw", len(content))
    assert ["qcow2" in warning for warning in found.warnings] == [True]
    with pytest.raises(errors.UnsafeImage):
        _look(tmp_path / "vm.img", content)


def test_a_scattered_disk_has_unknown_data(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting stops where a file is in too many pieces."""
    monkeypatch.setattr(info, "_EXTENTS", 3)
    path = tmp_path / "vm.img"
    with path.open("wb") as file:
        for number in range(4):
            file.seek(number << 20)
            file.write(b"x" * 4096)
    assert info.run(str(path), images.access(None)).data_bytes is None


#: Of `gate_images.GOOD`: bytes of the guest that the tables say are there, and by what they are allocated.
_HELD = {
    "vdi": (2 << 20, 1 << 20),
    "vpc": (2 << 20, 2 << 20),
    "vhdx": (2 << 20, 2 << 20),
    "qcow": (4096, 4096),
    "qed": (4096, 4096),
    "parallels": (16384, 8192),
    "luks": (None, None),
    "dmg": (2048, None),
    "cloop": (131072, 65536),
    "bochs": (65536, 65536),
}


@pytest.mark.parametrize("fmt", gate_images.GOOD)
def test_what_foreign_tables_hold(fmt: str, tmp_path: pathlib.Path) -> None:
    """Of every format it is told what is allocated, and by what; of an encrypted disk nobody can tell."""
    found = _look(tmp_path / "vm", gate_images.GOOD[fmt][0](), fmt)
    assert (found.data_bytes, found.cluster_size) == _HELD[fmt]


def test_damaged_tables_are_a_warning(tmp_path: pathlib.Path) -> None:
    """An image whose tables lead out of the file is described, with a warning, though nobody would read it."""
    found = _look(tmp_path / "vm", gate_images.vdi()[:-512], "vdi")
    assert (found.virtual_size, found.data_bytes) == (3 << 20, None)
    assert ["lies behind the end" in warning for warning in found.warnings] == [True]


def test_large_foreign_tables_are_not_read(tmp_path: pathlib.Path) -> None:
    """With more than 8 MiB of tables it is not known how much data there is; everything else is."""
    blocks = 2_200_064
    image = gate_images.patched(gate_images.vdi(blocks, (0xFFFFFFFF,) * blocks), (344, "<I", 512 + 4 * blocks))
    found = _look(tmp_path / "vm", image, "vdi")
    assert (found.virtual_size, found.data_bytes) == (blocks << 20, None)


def test_files_of_a_disk_in_several(tmp_path: pathlib.Path) -> None:
    """The names of a disk's files are told; nobody looks whether there are such files."""
    content = vmdk_images.text("twoGbMaxExtentFlat", ['RW 2048 FLAT "vm-f001.vmdk" 0', 'RW 2048 FLAT "vm-f002.vmdk" 0'])
    found = _look(tmp_path / "vm.vmdk", content)
    assert (found.files, found.data_bytes) == (("vm-f001.vmdk", "vm-f002.vmdk"), None)


def test_holes_of_a_plain_disk_in_a_container(tmp_path: pathlib.Path) -> None:
    """A fixed VHD is a raw disk with a footer: what it holds is what the file system has of that disk."""
    content = gate_images.vpc_fixed()
    (tmp_path / "vm").write_bytes(b"")
    with (tmp_path / "vm").open("r+b") as file:
        file.write(bytes(range(1, 256)) * 16)
        file.truncate(len(content) - 512)
        file.seek(0, 2)
        file.write(content[-512:])
    found = info.run(str(tmp_path / "vm"), images.access("vpc"))
    assert found.virtual_size == 1 << 20
    assert found.data_bytes == 4096
