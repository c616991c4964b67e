"""Where on a disk changes lie, as a grid of cells: for the terminal, and as a picture."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.commands import diff, letters, png

_LEAST = 4096
_COLUMNS, _ROWS, _DOT = 256, 128, 4
_MARGIN, _LINE = 12, 20
_PAPER, _INK = (24, 26, 32), (216, 220, 228)
#: Unchanged: in no partition, in one, in the next one.
_CALM = ((44, 47, 56), (58, 70, 92), (70, 86, 80))
#: Changed: a little, half, all of it.
_WARM = ((120, 92, 40), (244, 176, 44), (226, 48, 36))

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Grid:
    """`cell` bytes of the disk each, in reading order; of each the share that changed, 0 to 1."""

    cell: int
    shares: npt.NDArray[np.float64]


def grid(disk: diff.DiskDiff, most: int) -> Grid:
    """At most `most` cells, each of a power of two bytes."""
    size = max(disk.size or 0, 1)
    cell = _LEAST
    while -(-size // cell) > most:
        cell *= 2
    edges = np.append(np.arange(0, size, cell), size)
    changed = np.diff(disk.changed.before(edges))
    return Grid(cell, changed / np.diff(edges))


def picture(found: diff.Diff, title: str) -> bytes:
    """A PNG of all disks, one below the other, with their partitions."""
    parts = [_head(title), *(_disk(disk) for disk in found.disks if disk.size is not None)]
    height = sum(len(part) for part in parts) + _MARGIN * (len(parts) + 1)
    canvas = _filled(height, _COLUMNS * _DOT + 2 * _MARGIN, _PAPER)
    at = _MARGIN
    for part in parts:
        canvas[at : at + len(part), _MARGIN:-_MARGIN] = part
        at += len(part) + _MARGIN
    return png.encode(canvas, {"Title": title, "Software": "vimgvc"})


def check(path: str) -> None:
    """Raises what `save` would, as far as it can be known before there is a picture."""
    target = pathlib.Path(path)
    try:
        if os.path.lexists(path) and not _is_picture(target):
            raise errors.UsageError(f"{path}: exists and is no PNG picture", hint="name another file")
        room = _room(target)
        room.touch(exist_ok=False)
        room.unlink()
    except OSError as error:
        raise errors.from_os_error(error, path) from error


def _room(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.{os.getpid()}") if target.name else target


def save(path: str, content: bytes) -> None:
    """Write a picture; an older picture is replaced, anything else is not. Raises `UsageError`, `BackendError`."""
    target = pathlib.Path(path)
    room = _room(target)
    try:
        if os.path.lexists(path) and not _is_picture(target):
            raise errors.UsageError(f"{path}: exists and is no PNG picture", hint="name another file")
        try:
            with room.open("xb") as stream:
                stream.write(content)
            room.replace(target)
        finally:
            with contextlib.suppress(OSError):
                room.unlink()
    except OSError as error:
        raise errors.from_os_error(error, path) from error


def _is_picture(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(png.MAGIC)) == png.MAGIC


def _filled(height: int, width: int, colour: Sequence[int]) -> Pixels:
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = colour
    return canvas


def _head(title: str) -> Pixels:
    """The title, and what the colours mean."""
    canvas = _filled(2 * _LINE, _COLUMNS * _DOT, _PAPER)
    letters.write(canvas, 0, 0, title, _INK)
    at = 0
    scale = [(f"{share:.0%}", _warm(np.array([share]))[0]) for share in (0.01, 0.25, 0.5, 0.75, 1.0)]
    for name, colour in [("unchanged", _CALM[0]), ("in a partition", _CALM[1]), *scale]:
        canvas[_LINE : _LINE + 14, at : at + 14] = colour
        at = letters.write(canvas, at + 20, _LINE, name, _INK) + 20
    return canvas


def _disk(disk: diff.DiskDiff) -> Pixels:
    told = grid(disk, _COLUMNS * _ROWS)
    count = len(told.shares)
    rows = -(-count // _COLUMNS)
    starts = np.arange(count) * told.cell
    cells = np.empty((count, 3), np.uint8)
    cells[:] = _CALM[0]
    for number, part in enumerate(disk.parts):
        inside = (starts + told.cell > part.start) & (starts < part.start + part.length)
        cells[inside] = _CALM[1 + number % 2]
    changed = told.shares > 0
    cells[changed] = _warm(told.shares[changed])
    area = _filled(rows * _COLUMNS, 1, _PAPER)[:, 0]
    area[:count] = cells
    dots = area.reshape(rows, _COLUMNS, 3).repeat(_DOT, axis=0).repeat(_DOT, axis=1)
    lines = _lines(disk, told.cell)
    head = _filled(len(lines) * _LINE, _COLUMNS * _DOT, _PAPER)
    for number, line in enumerate(lines):
        letters.write(head, 0, number * _LINE, line, _INK)
    return np.concatenate([head, dots])


def _lines(disk: diff.DiskDiff, cell: int) -> list[str]:
    first = f"{disk.name}  {_size(disk.size or 0)}, {_size(disk.changed_bytes)} changed; a dot is {_size(cell)}"
    parts = [f"{part.name} {part.filesystem or ''} {_size(part.changed_bytes)}" for part in disk.parts]
    return [first, *(["   ".join(parts)] if parts else [])]


def _warm(shares: npt.NDArray[np.float64]) -> Pixels:
    places = [0.0, 0.5, 1.0]
    columns = [np.interp(shares, places, [colour[at] for colour in _WARM]) for at in range(3)]
    return np.stack(columns, axis=-1).astype(np.uint8)


def _size(count: int) -> str:
    """As `cli.text.size` has it."""
    unit = min(6, max(0, (count.bit_length() - 1) // 10))
    value = count / 1024**unit
    digits = 0 if not unit or value >= 100 else 1
    return f"{value:.{digits}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')[unit]}"
