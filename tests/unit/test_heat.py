"""Where changes lie, drawn: cells, letters on a terminal, and pictures that others can read."""

from __future__ import annotations

import pathlib
import struct
import zlib

import numpy as np
import pytest

from vimgvc import errors
from vimgvc.cli import disk_map, text
from vimgvc.commands import diff, heat, letters, png
from vimgvc.repo import spans

_MIB = 1 << 20


def _disk(size: int, *ranges: tuple[int, int], parts: tuple[diff.Part, ...] = ()) -> diff.DiskDiff:
    starts, lengths = np.array(ranges, np.int64).reshape(-1, 2).T
    return diff.DiskDiff("vm", size, size, spans.joined(starts, starts + lengths), 0, parts)


def _decode(content: bytes) -> np.ndarray:
    """The pixels of a PNG as (height, width, 3), after every rule of its form was checked."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, []
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        body = content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [chunks[0][0], chunks[-1]] == [b"IHDR", (b"IEND", b"")]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, colour, rest) == (8, 2, [0, 0, 0])
    lines = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    rows = np.frombuffer(lines, np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_png(seed: int) -> None:
    """What is written is a PNG of the same pixels, whatever its remarks say."""
    pixels = np.random.default_rng(seed).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    assert (_decode(png.encode(pixels, {"Title": "a \u202e \udcff ß", "Software": ""})) == pixels).all()


def test_cells(seed: int) -> None:
    """Every changed byte is in one cell; no cell is more than full; there are no more than were asked for."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        size = int(rng.integers(1, 3000)) * 4096 - int(rng.integers(4096))
        blocks = np.flatnonzero(rng.random(-(-size // 4096)) < 0.1) * 4096
        disk = _disk(size, *((int(at), min(4096, size - int(at))) for at in blocks))
        most = int(rng.integers(1, 300))
        told = heat.grid(disk, most)
        assert len(told.shares) <= most
        assert (told.shares <= 1).all()
        lengths = np.diff(np.append(np.arange(0, size, told.cell), size))
        assert round(float((told.shares * lengths).sum())) == disk.changed_bytes


def test_map() -> None:
    """A little is told from nothing and almost all from all; partitions stand where they begin."""
    parts = (diff.Part("vda1", 2 * _MIB, _MIB, None, "", 0), diff.Part("vda2", 2 * _MIB + 4096, _MIB, None, "", 0))
    disk = _disk(4 * _MIB, (0, 65536), (65536, 61440), (131072, 4096), (200704, 32768), parts=parts)
    told = heat.grid(disk, 64)
    drawn = list(disk_map.lines(told, disk.parts, 32, text.Style(), "utf-8"))
    assert drawn[1:] == [f"        0 B █▓░▒{'·' * 28}", f"    2.0 MiB {'·' * 32} vda1 vda2"]
    plain = list(disk_map.lines(told, disk.parts, 32, text.Style(), "ascii"))
    assert plain[1] == f"        0 B #x-+{'.' * 28}"
    assert all(line.isascii() for line in plain)
    coloured = list(disk_map.lines(told, disk.parts, 32, text.Style(True), "utf-8"))
    assert coloured[1].count("\x1b[0m") == 5


@pytest.mark.parametrize("width", [0, 20, 80, 132, 1000])
def test_map_fits(width: int) -> None:
    """The map of a large disk has 16 rows at most, and fits the terminal that has room for the least one."""
    columns, most = disk_map.cells(width)
    drawn = list(disk_map.lines(heat.grid(_disk(1 << 43), most), (), columns, text.Style(), "utf-8"))
    assert len(drawn) <= 17
    assert max(len(line) for line in drawn[1:]) <= max(width, 48)


def test_pictures_show_where(tmp_path: pathlib.Path) -> None:
    """A picture has the changed colour exactly where something changed, for disks of any size."""
    for size in (0, 1, 4096, 100 * _MIB, 1 << 42):
        half = size // 2 // 4096 * 4096
        disk = _disk(size, *([(half, size - half)] if size > half else []))
        pixels = _decode(heat.picture(diff.Diff((disk, disk), ()), "a title that is long " * 20))
        assert pixels.shape[1] == 1048
        red = (pixels == (226, 48, 36)).all(axis=2)
        assert red[60:].any() == bool(size)
    heat.save(str(tmp_path / "a.png"), heat.picture(diff.Diff((), ()), ""))
    heat.save(str(tmp_path / "a.png"), png.encode(np.zeros((1, 1, 3), np.uint8), {}))
    assert _decode((tmp_path / "a.png").read_bytes()).shape == (1, 1, 3)
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]


def test_other_files_are_not_replaced(tmp_path: pathlib.Path) -> None:
    """Only a picture is written over by a picture; a failure leaves nothing behind."""
    path = tmp_path / "vm.img"
    path.write_bytes(b"disk")
    with pytest.raises(errors.UsageError):
        heat.save(str(path), png.MAGIC)
    assert path.read_bytes() == b"disk"
    with pytest.raises(errors.BackendError):
        heat.save(str(tmp_path / "no" / "a.png"), png.MAGIC)
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(errors.UsageError):
        heat.save(str(tmp_path / "dir.png"), png.MAGIC)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["dir.png", "vm.img"]


def test_letters_stay_inside() -> None:
    """Text that is too long ends at the edge, and unknown letters are drawn as question marks."""
    canvas = np.zeros((20, 100, 3), np.uint8)
    assert letters.write(canvas, 0, 0, "i" * 1000, (1, 1, 1)) <= 100
    one, other = (np.zeros((20, 100, 3), np.uint8) for _ in range(2))
    letters.write(one, 0, 0, "a?b", (9, 9, 9))
    letters.write(other, 0, 0, "a\u20acb", (9, 9, 9))
    assert (one == other).all()
    assert one.any()
