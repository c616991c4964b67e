"""What a hostile or benign image is: how it is made, how the user opens it, and what must come of it."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: What lies beside every image, and may never be read.
CANARY = b"canary: nobody named this file\n" * 40

OK = 0
DAMAGED = 20
REFUSED = 21
UNSUPPORTED = 23

#: The image's name in its folder unless a case says otherwise; the suffix says nothing.
IMAGE = "disk.image"

_BLOCK = 65536

#: Makes the files in a folder and returns the disk's content; None when there is none to be had.
Make = Callable[[pathlib.Path], bytes | None]


@dataclass(frozen=True, slots=True)
class Case:
    """One image. `row` of the catalogue, `codes` with which `commit` may end (0: it holds the content).

    `options`: of the command line, `{folder}` is the case's folder. `named`: patterns of other files in
    the folder that these options allow to be opened. `foreign`: needs qemu to be read.
    """

    name: str
    row: str
    make: Make
    codes: frozenset[int]
    image: str = IMAGE
    options: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    foreign: bool = False

    @property
    def benign(self) -> bool:
        return self.codes == {OK}


def case(row: str, name: str, code: int | set[int], make: Make, **details: object) -> Case:
    codes = frozenset([code] if isinstance(code, int) else code)
    return Case(f"{row.lower()}-{name}", row, make, codes, **details)  # type: ignore[arg-type]


def noise(seed: int, length: int) -> bytes:
    """Bytes that neither compress nor repeat."""
    return np.random.default_rng(seed).bytes(length)


def text(seed: int, length: int) -> bytes:
    """Bytes that compress."""
    return (b"line %d of a file that compresses well\n" % seed * (length // 20 + 1))[:length]


def put(data: bytearray, offset: int, form: str, *values: int | bytes) -> None:
    struct.pack_into(form, data, offset, *values)


def pad(data: bytes, grid: int) -> bytes:
    return data + bytes(-len(data) % grid)


def write(content: bytes | None, data: bytes, *more: tuple[str, bytes], image: str = IMAGE) -> Make:
    """Writes `data` as the image and `more` beside it; sparse, here and there."""
    files = [(name, len(other), _pieces(other)) for name, other in ((image, data), *more)]

    def make(folder: pathlib.Path) -> bytes | None:
        for name, length, pieces in files:
            with (folder / name).open("wb") as file:
                file.truncate(length)
                for offset, piece in pieces:
                    file.seek(offset)
                    file.write(piece)
        return content

    return make


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    blocks = ((at, data[at : at + _BLOCK]) for at in range(0, len(data), _BLOCK))
    return [(at, block) for at, block in blocks if block.strip(b"\0")]
