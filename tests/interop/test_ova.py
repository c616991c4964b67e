"""OVA with disks that qemu made: read inside the archive, and written so that others read them."""

from __future__ import annotations

import pathlib
import subprocess
import tarfile

import numpy as np
import pytest

from tests import needs, ova_images, programs
from tests.suites import reader
from vimgvc.disk import extents
from vimgvc.images import ova, ova_disks, raw

pytestmark = pytest.mark.slow

_SIZE = (9 << 20) + 1536


def _disk(folder: pathlib.Path, seed: int) -> pathlib.Path:
    sample = reader.make_sample(_SIZE, seed)
    path = folder / f"{seed}.raw"
    path.write_bytes(sample.content)
    return path


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("vmdk", ["-o", "subformat=streamOptimized"]),
        ("vmdk", []),
        ("qcow2", ["-c"]),
        ("vpc", ["-o", "force_size=on"]),
        ("vpc", ["-o", "subformat=fixed,force_size=on"]),
        ("vdi", []),
        ("raw", []),
    ],
)
def test_disks_inside_read_like_their_source(fmt: str, options: list[str], seed: int, tmp_path: pathlib.Path) -> None:
    """Two disks of a format in one archive, read by turns and at random, are what they were made from."""
    needs.require_tool("qemu-nbd", "qemu-utils")
    sources = [_disk(tmp_path, seed), _disk(tmp_path, seed + 1)]
    images = {}
    for number, source in enumerate(sources):
        image = tmp_path / f"disk{number}.{fmt}"
        programs.qemu_img("convert", "-f", "raw", "-O", fmt, *options, source, image)
        images[image.name] = image.read_bytes()
    (tmp_path / "vm.ova").write_bytes(ova_images.ova(images, _SIZE))
    file = raw.RawReader(tmp_path / "vm.ova")
    opened = [ova_disks.open_disk(file, disk) for disk in ova.parse_ova(file, file.path).disks]
    contents = [source.read_bytes() for source in sources]
    for found, content in zip(opened, contents, strict=True):
        assert found.reader.size == len(content)
        assert found.container["format"] == fmt
        for item in found.reader.extents(0, len(content)):
            assert item.kind is extents.Kind.DATA or not any(content[item.start : item.end])
    for offset, length in reader.ranges(_SIZE, seed, 100):
        for found, content in zip(opened, contents, strict=True):
            assert reader.read(found.reader.pread_into, offset, length) == content[offset : offset + length]
    for found in opened:
        found.reader.check_unchanged()
        found.reader.close()
    file.check_unchanged()
    file.close()


def test_written_disks_are_read_by_qemu(seed: int, tmp_path: pathlib.Path) -> None:
    """A disk that was put into an archive, taken out by tar and read by qemu-img, is the disk."""
    source, image = _disk(tmp_path, seed), tmp_path / "stream.vmdk"
    programs.qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", source, image)
    built = ova.build("machine", [ova.Part(raw.RawReader(image), _SIZE)])
    room = np.empty(built.size, np.uint8)
    built.pread_into(0, room.data)
    built.close()
    path = tmp_path / "machine.ova"
    path.write_bytes(room.tobytes())
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    found = tmp_path / "out" / "machine-disk1.vmdk"
    programs.qemu_img("compare", "-q", "-f", "raw", "-F", "vmdk", source, found)
    sums = needs.require_tool("sha256sum", "coreutils")
    lines = (tmp_path / "out" / "machine.mf").read_text().splitlines()
    names = [line.partition("(")[2].partition(")")[0] for line in lines]
    checks = "".join(f"{line.rpartition(' ')[2]}  {name}\n" for line, name in zip(lines, names, strict=True))
    subprocess.run([sums, "-c", "--quiet"], input=checks, text=True, check=True, cwd=tmp_path / "out")
    assert names == ["machine.ovf", "machine-disk1.vmdk"]
