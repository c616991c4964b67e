"""Raw images and detection against what QEMU writes and reads."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from tests import programs
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import detect, raw, registry

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [64 << 20, (64 << 20) + 512, (1 << 20) + 1536])
def test_reading_what_qemu_wrote(size: int, seed: int, tmp_path: pathlib.Path) -> None:
    """Blocks written by qemu-io in shuffled order read back alike, and holes are where qemu-img sees them."""
    path, rng = tmp_path / "disk.raw", np.random.default_rng(seed)
    programs.qemu_img("create", "-q", "-f", "raw", path, str(size))
    commands = []
    for block in rng.permutation(size // 65536)[:40].tolist():
        length = int(rng.integers(1, 128)) * 512
        commands.append(f"write -q -P {block % 255 + 1} {block * 65536} {length}")
    commands += [f"write -q -z {size // 2 // 512 * 512} 4096", f"write -q -P 7 {size - 512} 512"]
    programs.qemu_io(path, "raw", *commands)
    expected = path.read_bytes()
    source = raw.RawReader(path)
    for offset, length in reader.ranges(size, seed, 200):
        assert reader.read(source.pread_into, offset, length) == expected[offset : offset + length]
    found = [
        extents.Extent(item["start"], item["length"], extents.Kind.DATA if item["data"] else extents.Kind.HOLE)
        for item in json.loads(programs.qemu_img("map", "-f", "raw", "--output=json", path))
    ]
    assert list(source.extents(0, size)) == list(extents.merge(found))
    source.close()


@pytest.mark.parametrize("size", [512, (8 << 20) + 512, 20 << 20])
def test_qemu_reads_what_was_written(size: int, seed: int, tmp_path: pathlib.Path) -> None:
    """A written target is, to qemu-img, the same disk."""
    sample = reader.make_sample(size, seed)
    (tmp_path / "expected.raw").write_bytes(sample.content)
    target = raw.RawWriter(tmp_path / "disk.raw", size, tag="t1")
    for item in sample.data():
        target.pwrite(item.start, memoryview(sample.content)[item.start : item.end])
    target.finish()
    programs.qemu_img("compare", "-f", "raw", "-F", "raw", tmp_path / "expected.raw", tmp_path / "disk.raw")
    assert (
        json.loads(programs.qemu_img("info", "-f", "raw", "--output=json", tmp_path / "disk.raw"))["virtual-size"]
        == size
    )


_CREATED = [
    ("raw", "raw", []),
    ("qcow2", "qcow2", ["-o", "compat=0.10"]),
    ("qcow2", "qcow2", ["-o", "compat=1.1"]),
    ("qcow", "qcow", []),
    ("qed", "qed", []),
    ("vdi", "vdi", []),
    ("vdi", "vdi", ["-o", "static=on"]),
    ("vhdx", "vhdx", []),
    ("vpc", "vpc", ["-o", "subformat=dynamic"]),
    ("vpc", "vpc", ["-o", "subformat=fixed"]),
    ("vmdk", "vmdk", ["-o", "subformat=monolithicSparse"]),
    ("vmdk", "vmdk", ["-o", "subformat=streamOptimized"]),
    ("vmdk", "vmdk", ["-o", "subformat=monolithicFlat"]),
    ("vmdk", "vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]),
    ("parallels", "parallels", []),
    ("luks", "luks", ["--object", "secret,id=s,data=secret", "-o", "key-secret=s,iter-time=10"]),
]


@pytest.mark.parametrize(("driver", "name", "options"), _CREATED)
def test_detecting_what_qemu_created(driver: str, name: str, options: list[str], tmp_path: pathlib.Path) -> None:
    """Every container that qemu-img can create is recognised; what is encrypted needs its passphrase."""
    path = tmp_path / "disk"
    programs.qemu_img("create", "-q", "-f", driver, *options, path, "8M")
    assert detect.detect(path) == name
    if name == "luks":
        with pytest.raises(errors.UnsafeImage, match="is encrypted"):
            registry.open_image(path)
        return
    opened = registry.open_image(path)
    opened.reader.close()
    assert opened.container["format"] == name
    told = json.loads(programs.qemu_img("info", "-f", driver, "--output=json", path))
    assert opened.reader.size == told["virtual-size"]  # a VHD is rounded up to its geometry


@pytest.mark.parametrize(("driver", "name"), sorted({(driver, name) for driver, name, _ in _CREATED if name != "luks"}))
def test_detecting_full_containers(driver: str, name: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Containers with a partitioned guest disk in them are no polyglots."""
    guest = bytearray(np.random.default_rng(seed).bytes(2 << 20))
    guest[510:512] = b"\x55\xaa"
    guest[0x8001:0x8006] = b"CD001"
    (tmp_path / "guest").write_bytes(guest)
    programs.qemu_img("convert", "-f", "raw", "-O", driver, tmp_path / "guest", tmp_path / "disk")
    assert detect.detect(tmp_path / "disk") == name
