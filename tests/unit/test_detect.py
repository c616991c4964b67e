"""What a file is by its content, and when that is refused."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import memory
from vimgvc.images import detect, registry

_SIZE = 1 << 20


def _disk(*parts: tuple[int, bytes], size: int = _SIZE) -> bytes:
    """Zeros with `parts` written at their offsets; a negative offset counts from the end."""
    content = bytearray(size)
    for offset, data in parts:
        at = offset % size
        content[at : at + len(data)] = data
    return bytes(content)


_BOOT = (510, b"\x55\xaa")
_ISO = (0x8001, b"CD001\x01")
_GPT = (512, b"EFI PART")

CONTAINERS = {
    "qcow2": [
        _disk((0, b"QFI\xfb\0\0\0\x02")),
        _disk((0, b"QFI\xfb\0\0\0\x03")),
        _disk((0, b"QFI\xfb\xff\xff\xff\xff")),
    ],
    "qcow": [_disk((0, b"QFI\xfb\0\0\0\x01"))],
    "vmdk": [
        _disk((0, b"KDMV\x01\0\0\0")),
        _disk((0, b"COWD\x01\0\0\0")),
        b"# Disk DescriptorFile\nversion=1\n",
        b"\n# disk descriptorfile\r\nversion=1\r\n",
        b"# something else\n\nversion=3\nCID=fffffffe\n",
    ],
    "vdi": [_disk((0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"), (64, b"\x7f\x10\xda\xbe"))],
    "vhdx": [_disk((0, b"vhdxfile"))],
    "vpc": [_disk((0, b"conectix"), (-512, b"conectix")), _disk(_BOOT, (-512, b"conectix"))],
    "qed": [_disk((0, b"QED\0"))],
    "parallels": [_disk((0, b"WithoutFreeSpace")), _disk((0, b"WithouFreSpacExt"))],
    "luks": [_disk((0, b"LUKS\xba\xbe\0\x01")), _disk((0, b"LUKS\xba\xbe\0\x02"))],
    "dmg": [_disk((-512, b"koly\0\0\0\x04"))],
    "bochs": [_disk((0, b"Bochs Virtual HD Image\0"))],
    "cloop": [_disk((0, b"#!/bin/sh\n#V2.0 Format\n"))],
    "cow": [_disk((0, b"OOOM\0\0\0\x02"))],
    "ova": [_disk((0, b"machine.ovf"), (257, b"ustar\x0000")), _disk((0, b"a b.OVF"), (257, b"ustar  \0"))],
}

RAW = [
    b"",
    b"x",
    bytes(511),
    _disk(_BOOT),
    _disk(_BOOT, _GPT),
    _disk(_ISO),
    _disk(_BOOT, _ISO),
    b"#!/bin/sh\necho version=1\n",
    b"version=4\n",
    _disk((0, b"QFI")),
    _disk((1, b"QFI\xfb\0\0\0\x03")),
    _disk((512, b"QFI\xfb\0\0\0\x03")),
    _disk((-511, b"conectix")),
    _disk((0, b"notes.txt"), (257, b"ustar\x0000")),
]

POLYGLOTS = {
    "qcow2 and ISO 9660": _disk((0, b"QFI\xfb\0\0\0\x03"), _ISO),
    "qcow2 and a boot sector": _disk((0, b"QFI\xfb\0\0\0\x03"), _BOOT),
    "qcow2 and VHD": _disk((0, b"QFI\xfb\0\0\0\x03"), (-512, b"conectix")),
    "VMDK and VDI": _disk((0, b"KDMV\x01\0\0\0"), (64, b"\x7f\x10\xda\xbe")),
    "VHD and DMG around an ISO 9660": _disk(_ISO, (-512, b"koly")),
}

_EACH = [
    pytest.param(name, content, id=f"{name}{n}") for name, all_ in CONTAINERS.items() for n, content in enumerate(all_)
]


@pytest.mark.parametrize(("name", "content"), _EACH)
def test_containers_are_recognised(name: str, content: bytes) -> None:
    """Every known container is told from its first 64 KiB and last 512 bytes."""
    assert detect.detect_reader(memory.MemoryDisk.of(content), "disk") == name


@pytest.mark.parametrize("content", RAW)
def test_everything_else_is_raw(content: bytes) -> None:
    """Empty, tiny and partitioned disks, optical discs, and magic numbers in the wrong place are raw."""
    assert detect.detect_reader(memory.MemoryDisk.of(content), "disk") == "raw"


def test_random_disks_are_raw(seed: int) -> None:
    """Disks of random bytes and of any small size are raw."""
    rng = np.random.default_rng(seed)
    for size in range(1200):
        assert detect.detect_reader(memory.MemoryDisk.of(rng.bytes(size)), "disk") == "raw"


@pytest.mark.parametrize("content", POLYGLOTS.values(), ids=POLYGLOTS)
@pytest.mark.parametrize("name", ["disk", "disk.raw", "disk.qcow2"])
def test_i22_polyglots_are_refused(content: bytes, name: str, tmp_path: pathlib.Path) -> None:
    """What could be two things is refused until the user says which, whatever its name."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.UnsafeImage):
        detect.detect(tmp_path / name)
    with pytest.raises(errors.UnsafeImage):
        registry.open_image(tmp_path / name)
    opened = registry.open_image(tmp_path / name, registry.Access("raw"))
    source, facts = opened.reader, opened.container
    assert facts == {"format": "raw"}
    source.close()


@pytest.mark.parametrize(("name", "content"), _EACH)
def test_i21_declared_raw_is_raw(name: str, content: bytes, tmp_path: pathlib.Path) -> None:
    """A guest may write any header into its raw disk: declared raw, it is read byte for byte."""
    path = tmp_path / f"disk.{name}"
    path.write_bytes(content)
    opened = registry.open_image(path, registry.Access("raw"))
    source, facts = opened.reader, opened.container
    assert facts == {"format": "raw"}
    assert reader.read(source.pread_into, 0, source.size) == content
    source.close()


@pytest.mark.parametrize(("name", "content"), _EACH)
@pytest.mark.parametrize("declare", [False, True])
def test_containers_are_not_stored_by_mistake(name: str, content: bytes, declare: bool, tmp_path: pathlib.Path) -> None:
    """What looks like a container is read as that, declared or not, never as a raw disk."""
    path = tmp_path / "disk"
    path.write_bytes(content)
    assert detect.check_declared(path, name if declare else None) == name


@pytest.mark.parametrize("suffix", ["raw", "img", "IMG", "iso"])
def test_i23_raw_name_container_content(suffix: str, tmp_path: pathlib.Path) -> None:
    """A file named like a raw disk that looks like a container is refused until declared."""
    path = tmp_path / f"disk.{suffix}"
    path.write_bytes(CONTAINERS["qcow2"][0])
    with pytest.raises(errors.UnsafeImage):
        detect.check_declared(path, None)
    assert detect.check_declared(path, "raw") == "raw"


@pytest.mark.parametrize("suffix", ["qcow2", "vmdk", "VDI", "vhd", "vhdx"])
@pytest.mark.parametrize("content", [b"", bytes(4096), _disk(_BOOT)])
def test_i30_container_name_other_content(suffix: str, content: bytes, tmp_path: pathlib.Path) -> None:
    """A file named like a container that does not begin like one may be damaged: refused until declared raw."""
    path = tmp_path / f"disk.{suffix}"
    path.write_bytes(content)
    with pytest.raises(errors.UnsafeImage):
        detect.check_declared(path, None)
    assert detect.check_declared(path, "raw") == "raw"


@pytest.mark.parametrize(("name", "content"), _EACH)
def test_i22_declared_is_not_detected(name: str, content: bytes, tmp_path: pathlib.Path) -> None:
    """A declared container must be that container: neither raw content nor another container passes."""
    path = tmp_path / "disk"
    for wrong in (bytes(4096), CONTAINERS["qed" if name != "qed" else "vdi"][0]):
        path.write_bytes(wrong)
        with pytest.raises(errors.UnsafeImage):
            detect.check_declared(path, name)


def test_unknown_format_is_a_usage_error(tmp_path: pathlib.Path) -> None:
    """A format that does not exist is the user's slip, not the image's fault."""
    (tmp_path / "disk").write_bytes(b"x")
    with pytest.raises(errors.UsageError):
        detect.check_declared(tmp_path / "disk", "qcow3")


@pytest.mark.parametrize(("alias", "name"), [("vhd", "vpc"), ("qcow1", "qcow")])
def test_common_names_are_understood(alias: str, name: str, tmp_path: pathlib.Path) -> None:
    """What users call a format means the same as its name."""
    (tmp_path / "disk").write_bytes(CONTAINERS[name][0])
    assert detect.check_declared(tmp_path / "disk", alias) == name


@pytest.mark.parametrize("call", [registry.open_image, detect.detect, lambda path: detect.check_declared(path, None)])
def test_refusal_leaks_no_descriptor(call: Callable[[pathlib.Path], object], tmp_path: pathlib.Path) -> None:
    """A refused image is closed again."""
    path = tmp_path / "disk.img"
    path.write_bytes(POLYGLOTS["VMDK and VDI"])
    before = sorted(link.name for link in pathlib.Path("/proc/self/fd").iterdir())
    with pytest.raises(errors.UnsafeImage):
        call(path)
    assert sorted(link.name for link in pathlib.Path("/proc/self/fd").iterdir()) == before
