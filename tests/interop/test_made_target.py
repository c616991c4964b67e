"""Containers that are written here, as QEMU sees them: the same disk, sound, of the kind that it makes, and usable."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tests import depth, goal, programs
from tests.suites import reader
from tests.unit import test_made_target as units
from vimgvc.disk import extents, memory
from vimgvc.images import made_target

pytestmark = pytest.mark.slow

_SIZE = (37 << 20) + 3 * 512
_TIB = 1 << 40
LAYOUTS: list[tuple[str, dict[str, str]]] = [
    *units.LAYOUTS,
    ("vhdx", {}),
    ("vhdx", {"block_size": "256M"}),
    ("qed", {"cluster_size": "1M", "table_size": "16"}),
    ("vmdk", {"adapter_type": "lsilogic", "hwversion": "7", "toolsversion": "10"}),
    ("vmdk", {"compat6": "on"}),
]
#: Formats that `qemu-img check` knows.
_CHECKED = ("parallels", "qed", "vdi", "vhdx", "vmdk")
layouts = pytest.mark.parametrize("layout", depth.of_run(LAYOUTS, 10), ids=str)


Pieces = list[tuple[int, bytes]]


def _pieces(disk: memory.MemoryDisk) -> Pieces:
    """What is data on a disk, with its offsets."""
    data = [item for item in disk.extents(0, disk.size) if item.kind is extents.Kind.DATA]
    return [(item.start, reader.read(disk.pread_into, item.start, item.length)) for item in data]


def _written(path: pathlib.Path, size: int, pieces: Pieces, layout: tuple[str, dict[str, str]]) -> None:
    planned = [extents.Extent(offset, len(data), extents.Kind.DATA) for offset, data in pieces]
    target = made_target.build(path, size, *layout, planned, tag="t1")
    for offset, data in reversed(pieces):
        target.pwrite(offset, memoryview(data))
    target.finish()


def _raw(path: pathlib.Path, size: int, pieces: Pieces) -> pathlib.Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def _check(path: pathlib.Path, fmt: str) -> None:
    if fmt in _CHECKED:
        found = json.loads(programs.qemu_img("check", "-f", fmt, "--output=json", path))
        assert [found.get(key, 0) for key in ("check-errors", "corruptions", "leaks")] == [0, 0, 0]


def _facts(path: pathlib.Path, fmt: str) -> dict[str, Any]:
    """What `qemu-img info` says, but for what belongs to one file."""
    told = json.loads(programs.qemu_img("info", "--output=json", "-f", fmt, path))
    specific = told.get("format-specific", {}).get("data", {})
    facts = {name: value for name, value in specific.items() if name not in ("cid", "parent-cid", "extents")}
    return {"size": told["virtual-size"], "cluster": told.get("cluster-size"), "dirty": told.get("dirty-flag"), **facts}


def _theirs(source: pathlib.Path, path: pathlib.Path, layout: tuple[str, dict[str, str]]) -> pathlib.Path:
    fmt, options = layout[0], dict(layout[1])
    if fmt == "vpc":
        options["force_size"] = "on"
    spelled = ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
    programs.qemu_img("convert", "-f", "raw", "-O", fmt, *spelled, source, path)
    return path


@layouts
def test_images_are_those_that_qemu_makes(
    layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path
) -> None:
    """Content and facts are those of `qemu-img convert`, check finds nothing, and no more space is taken."""
    fmt, pieces = layout[0], _pieces(goal.disk(_SIZE, seed))
    ours, plain = tmp_path / "ours", _raw(tmp_path / "plain", _SIZE, pieces)
    _written(ours, _SIZE, pieces, layout)
    theirs = _theirs(plain, tmp_path / "theirs", layout)
    programs.qemu_img("compare", "-f", fmt, "-F", "raw", ours, plain)
    assert _facts(ours, fmt) == _facts(theirs, fmt)
    _check(ours, fmt)
    # Tables of a MiB and less, and of vhdx nothing where QEMU leaves room for a block.
    assert ours.stat().st_blocks * 512 <= theirs.stat().st_blocks * 512 + (2 << 20)


@layouts
def test_images_are_usable(layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path) -> None:
    """A machine can go on writing to it, where there is data and where there is none; it stays sound."""
    fmt, pieces = layout[0], _pieces(goal.disk(_SIZE, seed))
    ours, plain = tmp_path / "ours", _raw(tmp_path / "plain", _SIZE, pieces)
    _written(ours, _SIZE, pieces, layout)
    rng = np.random.default_rng(seed)
    commands = []
    for _ in range(30):
        offset = int(rng.integers(0, _SIZE // 512 - 2000)) * 512
        length = int(rng.integers(1, 2000)) * 512
        commands.append(f"write -q -P {int(rng.integers(1, 255))} {offset} {length}")
    programs.qemu_io(ours, fmt, *commands)
    programs.qemu_io(plain, "raw", *commands)
    programs.qemu_img("compare", "-f", fmt, "-F", "raw", ours, plain)
    _check(ours, fmt)


@pytest.mark.parametrize("size", [512, 65536, 1 << 20, (2 << 20) - 512, (8 << 20) + 512, 300 << 20])
@pytest.mark.parametrize("layout", units.LAYOUTS, ids=str)
def test_sizes(layout: tuple[str, dict[str, str]], size: int, seed: int, tmp_path: pathlib.Path) -> None:
    """The last piece may be a part of one, the only one, or missing."""
    last, plain = [(size - 512, np.random.default_rng(seed).bytes(512))], tmp_path / "plain"
    for name, pieces in (("ours", last), ("empty", [])):
        _written(tmp_path / name, size, pieces, layout)
        programs.qemu_img("compare", "-f", layout[0], "-F", "raw", tmp_path / name, _raw(plain, size, pieces))
        _check(tmp_path / name, layout[0])


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (("vdi", {}), 3 * _TIB),
        (("vpc", {}), 2040 << 30),
        (("vhdx", {}), 64 * _TIB),
        (("vmdk", {}), 3 * _TIB),
        (("qed", {}), 3 * _TIB),
        (("qcow", {}), _TIB),
        (("parallels", {}), 3 * _TIB),
    ],
    ids=str,
)
def test_large_disks(layout: tuple[str, dict[str, str]], size: int, tmp_path: pathlib.Path) -> None:
    """Of terabytes with little data everything lies where it should, and takes no space."""
    places = [0, size // 3 // 4096 * 4096, size // 2 - 4096, size - 4096]
    planned = [extents.Extent(place, 4096, extents.Kind.DATA) for place in places]
    target = made_target.build(tmp_path / "a", size, *layout, planned, tag="t1")
    for number, place in enumerate(places):
        target.pwrite(place, memoryview(bytes([65 + number]) * 4096))
    target.finish()
    checks = [f"read -q -P {65 + number} {place} 4096" for number, place in enumerate(places)]
    programs.qemu_io(tmp_path / "a", layout[0], *checks, f"read -q -P 0 {size // 3 + 8192} 65536")
    assert (tmp_path / "a").stat().st_blocks * 512 < 64 << 20
