"""The gates against files that qemu-img makes: what it writes passes, and what the gate says is what qemu says."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tests import gate_images, programs, vmdk_images
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import chain, gates, pieces, raw, vmdk

pytestmark = pytest.mark.slow

_SIZE = (37 << 20) + 3 * 512

#: Format, options, what the facts must hold.
CASES: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("vdi", {}, {"static": False}),
    ("vdi", {"static": "on"}, {"static": True}),
    ("vpc", {}, {"subformat": "dynamic"}),
    ("vpc", {"force_size": "on"}, {"subformat": "dynamic"}),
    ("vpc", {"subformat": "fixed"}, {"subformat": "fixed"}),
    ("vpc", {"subformat": "fixed", "force_size": "on"}, {"subformat": "fixed"}),
    ("vhdx", {}, {"subformat": "dynamic", "block_size": 8 << 20}),
    ("vhdx", {"block_size": "1M"}, {"subformat": "dynamic", "block_size": 1 << 20}),
    ("vhdx", {"block_size": "256M", "log_size": "4M"}, {"block_size": 256 << 20}),
    ("vhdx", {"subformat": "fixed", "block_state_zero": "off"}, {"subformat": "fixed"}),
    ("qcow", {}, {"cluster_size": 4096}),
    ("qed", {}, {"cluster_size": 65536, "table_size": 4}),
    ("qed", {"cluster_size": "4k", "table_size": "2"}, {"cluster_size": 4096, "table_size": 2}),
    ("qed", {"cluster_size": "1M", "table_size": "16"}, {"cluster_size": 1 << 20, "table_size": 16}),
    ("parallels", {}, {"cluster_size": 1 << 20}),
    ("parallels", {"cluster_size": "64k"}, {"cluster_size": 65536}),
    ("vmdk", {}, {"subformat": "monolithicSparse", "adapter_type": "ide", "hwversion": "4"}),
    ("vmdk", {"adapter_type": "lsilogic", "hwversion": "7"}, {"adapter_type": "lsilogic", "hwversion": "7"}),
    ("vmdk", {"zeroed_grain": "on"}, {"subformat": "monolithicSparse"}),
    ("vmdk", {"compat6": "on"}, {"subformat": "monolithicSparse", "hwversion": "6"}),
    ("vmdk", {"subformat": "monolithicFlat"}, {"subformat": "monolithicFlat"}),
    ("vmdk", {"subformat": "twoGbMaxExtentSparse"}, {"subformat": "twoGbMaxExtentSparse"}),
    ("vmdk", {"subformat": "twoGbMaxExtentFlat"}, {"subformat": "twoGbMaxExtentFlat"}),
    ("vmdk", {"subformat": "streamOptimized"}, {"subformat": "streamOptimized"}),
]
_IDS = ["-".join([fmt, *(f"{name}={value}" for name, value in options.items())]) for fmt, options, _ in CASES]


def _options(options: dict[str, str]) -> list[str]:
    return ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []


def _check(path: pathlib.Path, fmt: str) -> gates.Facts:
    source = raw.RawReader(path)
    try:
        return gates.check(fmt, source, str(path))
    finally:
        source.close()


def _virtual_size(path: pathlib.Path, fmt: str) -> int:
    size: int = json.loads(programs.qemu_img("info", "-f", fmt, "--output=json", path))["virtual-size"]
    return size


def _fill(path: pathlib.Path, fmt: str, size: int, seed: int) -> None:
    """Write pieces in shuffled order, some of zeros, one at the very end."""
    rng = np.random.default_rng(seed)
    commands = []
    for block in rng.permutation(size // 65536)[:60].tolist():
        length = int(rng.integers(1, 200)) * 512
        length = min(length, size - block * 65536)
        commands += ["-c", f"write -q -P {block % 255 + 1} {block * 65536} {length}"]
    commands += ["-c", f"write -q -z {size // 2 // 512 * 512} 65536", "-c", f"write -q -P 7 {size - 512} 512"]
    programs.qemu("qemu-io", "-f", fmt, *commands, path)


@pytest.mark.parametrize(("fmt", "options", "facts"), CASES, ids=_IDS)
@pytest.mark.parametrize("size", [_SIZE, 512, 0])
def test_what_qemu_creates_passes(
    fmt: str, options: dict[str, str], facts: dict[str, Any], size: int, tmp_path: pathlib.Path
) -> None:
    """Every format and option, empty or small or odd: the gate agrees on the size and knows the options."""
    path = tmp_path / "disk"
    try:
        programs.qemu_img("create", "-q", "-f", fmt, *_options(options), path, str(size))
        expected = _virtual_size(path, fmt)
    except programs.Failed:
        assert not size  # of some formats and options there are no empty disks, or none that can be opened
        return
    if fmt == "vmdk" and not size:
        with pytest.raises((errors.Unsupported, errors.UnsafeImage)):
            _check(path, fmt)
        return
    found = _check(path, fmt)
    assert found.size == expected
    assert {name: found.container.get(name) for name in facts} == facts


@pytest.mark.parametrize(("fmt", "options", "facts"), CASES, ids=_IDS)
def test_written_images_pass_and_cut_ones_do_not(
    fmt: str, options: dict[str, str], facts: dict[str, Any], seed: int, tmp_path: pathlib.Path
) -> None:
    """An image that was written to in shuffled order passes; without its last parts it is refused, never read short."""
    path = tmp_path / "disk"
    if options.get("subformat") == "streamOptimized":  # can only be written in order
        plain = tmp_path / "plain"
        programs.qemu_img("create", "-q", "-f", "raw", plain, str(_SIZE))
        _fill(plain, "raw", _SIZE, seed)
        programs.qemu_img("convert", "-f", "raw", "-O", fmt, *_options(options), plain, path)
    else:
        programs.qemu_img("create", "-q", "-f", fmt, *_options(options), path, str(_SIZE))
        _fill(path, fmt, _virtual_size(path, fmt), seed)
    found = _check(path, fmt)
    assert found.size == _virtual_size(path, fmt)
    assert {name: found.container.get(name) for name in facts} == facts
    if fmt == "vmdk" and path.read_bytes()[:4] != b"KDMV":
        return
    length = path.stat().st_size
    rng = np.random.default_rng(seed)
    # Nothing is missed of a footer, of room behind the last block, and of that block behind the end of the disk.
    room = {"vpc": 512, "vhdx": 1 << 20, "parallels": 130 << 20, "vmdk": 65536}.get(fmt, 0)
    room += int(found.container.get("block_size", 0))
    source = raw.RawReader(path)
    for cut in [*rng.integers(0, max(1, length - room), 10).tolist(), max(0, length - room - 1)]:
        with pytest.raises((errors.UnsafeImage, errors.Unsupported, errors.ImageDamaged)):
            gates.check(fmt, pieces.SliceReader(source, 0, cut), str(path))
    source.close()


def test_luks_passes(tmp_path: pathlib.Path) -> None:
    """An encrypted image passes with the size of the disk inside."""
    path = tmp_path / "disk"
    options = "key-secret=s,iter-time=10,cipher-alg=serpent-128"
    secret = "secret,id=s,data=word"
    programs.qemu_img("create", "-q", "-f", "luks", "--object", secret, "-o", options, path, str(_SIZE))
    found = _check(path, "luks")
    assert found.size == _virtual_size(path, "luks") == _SIZE
    assert found.container["cipher"] == "serpent"


@pytest.mark.parametrize("fmt", ["vdi", "vpc", "vhdx", "qcow", "qed", "parallels", "cloop", "bochs", "dmg"])
def test_images_of_the_unit_tests_are_images(fmt: str, tmp_path: pathlib.Path) -> None:
    """The images that unit tests pack by hand are ones that qemu reads, and it finds the same size."""
    make, size, _ = gate_images.GOOD[fmt]
    path = tmp_path / "disk"
    path.write_bytes(make())
    if fmt == "dmg" and "dmg" not in programs.qemu_img("--help").partition("Supported formats:")[2].split():
        pytest.skip("qemu-img was built without dmg; it is in: apt-get install qemu-block-extra")
    assert _virtual_size(path, fmt) == size


def _open(path: pathlib.Path) -> protocol.Source:
    file = raw.RawReader(path)
    return vmdk.open_text(file, chain.open_below) if vmdk.is_text(file) else vmdk.open_sparse(file, str(path))


@pytest.mark.parametrize(
    ("subformat", "zeroed"),
    [
        ("monolithicSparse", "on"),
        ("monolithicSparse", "off"),
        ("monolithicFlat", ""),
        ("twoGbMaxExtentSparse", "on"),
        ("twoGbMaxExtentSparse", "off"),
        ("twoGbMaxExtentFlat", ""),
    ],
)
def test_vmdk_reads_as_qemu_reads(subformat: str, zeroed: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Disks over the border of 2 GiB, in one file or several: 1,000 random reads equal to qemu-img's raw copy."""
    size = (2 << 30) + (5 << 20) + 512
    path, copy = tmp_path / "disk.vmdk", tmp_path / "disk.raw"
    options = {"subformat": subformat} | ({"zeroed_grain": zeroed} if zeroed else {})
    programs.qemu_img("create", "-q", "-f", "vmdk", *_options(options), path, str(size))
    _fill(path, "vmdk", 64 << 20, seed)
    commands = [("-c", f"write -q -P {n} {(2 << 30) + n * 98_304 - 327_680} 66048") for n in range(1, 30)]
    commands += [("-c", f"write -q -P 9 {size - 1024} 1024"), ("-c", f"write -q -z {3 << 20} 1M")]
    programs.qemu("qemu-io", "-f", "vmdk", *[word for pair in commands for word in pair], path)
    programs.qemu_img("convert", "-f", "vmdk", "-O", "raw", path, copy)
    _equal(_open(path), copy, seed)


@pytest.mark.parametrize("kind", ["VMFSSPARSE", "SESPARSE", "VMFS"])
def test_esx_extents_read_as_qemu_reads(kind: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Extents of ESX hosts, packed by hand: we and qemu read the same disk in them."""
    sample = reader.make_sample(3 << 20, seed)
    marks = bytearray(len(sample.content))
    for item in sample.holes:
        marks[item.start : item.end] = b"\1" * item.length
    data, create_type = {
        "VMFSSPARSE": (vmdk_images.cowd(sample.content, bytes(marks)), "vmfsSparse"),
        "SESPARSE": (vmdk_images.sesparse(sample.content, bytes(marks)), "seSparse"),
        "VMFS": (sample.content, "vmfs"),
    }[kind]
    (tmp_path / "part.vmdk").write_bytes(data)
    path, copy = tmp_path / "disk.vmdk", tmp_path / "disk.raw"
    path.write_bytes(vmdk_images.text(create_type, [f'RW {len(sample.content) // 512} {kind} "part.vmdk"']))
    programs.qemu_img("convert", "-f", "vmdk", "-O", "raw", path, copy)
    assert copy.read_bytes() == sample.content
    _equal(_open(path), copy, seed)


def _equal(disk: protocol.Source, copy: pathlib.Path, seed: int) -> None:
    written = raw.RawReader(copy)
    assert disk.size == written.size
    for item in disk.extents(0, disk.size):
        if item.kind is not extents.Kind.DATA:
            for part in written.extents(item.start, item.length):
                assert part.kind is not extents.Kind.DATA or not any(
                    reader.read(written.pread_into, part.start, part.length)
                )
    spots = reader.ranges(disk.size, seed, 400)[1:]
    spots += [
        (start, length) for start, length in reader.ranges(70 << 20, seed + 1, 600)[1:] if start + length < disk.size
    ]
    for offset, length in spots:
        assert reader.read(disk.pread_into, offset, length) == reader.read(written.pread_into, offset, length)
    written.close()
    disk.close()
