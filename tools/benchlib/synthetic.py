"""Disks made of numbers: the same bytes on every machine for the same seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchlib import machine

GIB = 1 << 30
PAGE = 8192
ROW, ROWS, TEXT_IN_ROW = 128, 63, 112
BATCH = 1024  # pages made at once
RANDOM_SHARE = 0.4  # of the runs of a scattered disk; the others are pages of rows

Bytes = npt.NDArray[np.uint8]


def text(rng: np.random.Generator, size: int) -> Bytes:
    """`size` bytes of words from a vocabulary of 4096, as names and log lines have them."""
    letters = np.frombuffer(b"etaoinshrdlucmfw", dtype=np.uint8)
    words = [letters[rng.integers(0, 16, rng.integers(2, 10))].tobytes() for _ in range(4096)]
    picked = rng.integers(0, 4096, size // 3)
    return np.frombuffer(b" ".join(words[number] for number in picked)[:size], dtype=np.uint8)


class Pages:
    """Pages of 8 KiB as a database has them: a header and rows of numbers and words, about 3:1 for zstd."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._words = text(rng, 8 << 20)

    def make(self, numbers: npt.NDArray[np.uint64]) -> Bytes:
        """One page for each page number, concatenated."""
        count = len(numbers)
        pages = np.zeros((count, PAGE), dtype=np.uint8)
        header = np.stack([numbers, self._draw(count), self._draw(count)], axis=1)
        pages[:, :24] = header.view(np.uint8)
        rows = np.empty((count * ROWS, ROW), dtype=np.uint8)
        keys = np.repeat(numbers, ROWS) * np.uint64(ROWS) + np.tile(np.arange(ROWS, dtype=np.uint64), count)
        rows[:, :8] = keys[:, None].view(np.uint8)
        rows[:, 8:16] = self._draw(count * ROWS)[:, None].view(np.uint8)
        starts = self._rng.integers(0, len(self._words) - TEXT_IN_ROW, count * ROWS)
        rows[:, 16:] = self._words[starts[:, None] + np.arange(TEXT_IN_ROW)]
        pages[:, 24 : 24 + ROW * ROWS] = rows.reshape(count, ROW * ROWS)
        return pages.reshape(-1)

    def stream(self, size: int, first: int = 0) -> Iterator[Bytes]:
        """`size` bytes of pages numbered from `first`, in pieces."""
        for start in range(0, size // PAGE, BATCH):
            yield self.make(np.arange(start, min(start + BATCH, size // PAGE), dtype=np.uint64) + np.uint64(first))

    def _draw(self, count: int) -> npt.NDArray[np.uint64]:
        return self._rng.integers(0, 1 << 63, count, dtype=np.uint64)


def scattered(path: Path, *, size: int, data: int, seed: int, packed: bool = False) -> None:
    """`data` bytes in runs of 64 KiB to 8 MiB all over a disk of `size` bytes; `packed`: without the holes."""
    rng = np.random.default_rng(seed)
    pages = Pages(rng)
    lengths: list[int] = []
    while (left := data - sum(lengths)) > 0:
        lengths.append(min(left, int(2 ** rng.uniform(16, 23)) // PAGE * PAGE))
    gaps = rng.dirichlet(np.ones(len(lengths))) * (size - data)
    offset = done = 0
    with path.open("wb") as file:
        os.ftruncate(file.fileno(), data if packed else size)
        for length, gap in zip(lengths, gaps, strict=True):
            if not packed:
                offset += int(gap) // PAGE * PAGE
            noise = rng.random() < RANDOM_SHARE
            pieces = [np.frombuffer(rng.bytes(length), dtype=np.uint8)] if noise else pages.stream(length, done // PAGE)
            for piece in pieces:
                os.pwrite(file.fileno(), piece.data, offset)
                offset += len(piece)
            done += length


# The database's files: 16 of 64 MiB, each followed by a gap, behind 64 MiB that the guest never wrote.
FILES, FILE_SIZE, STRIDE = 16, 64 << 20, 240 << 20


def database(path: Path, *, seed: int) -> None:
    """A disk of 4 GiB with 1 GiB of pages."""
    rng = np.random.default_rng(seed)
    pages = Pages(rng)
    with path.open("wb") as file:
        os.ftruncate(file.fileno(), 4 * GIB)
        for number in range(FILES):
            offset = FILE_SIZE + number * STRIDE
            for piece in pages.stream(FILE_SIZE, number * FILE_SIZE // PAGE):
                os.pwrite(file.fileno(), piece.data, offset)
                offset += len(piece)


def rewrite_pages(before: Path, path: Path, *, share: float, seed: int) -> None:
    """A copy of a `database` disk in which that share of the pages, anywhere, was written anew."""
    copy_sparse(before, path)
    rng = np.random.default_rng(seed)
    total = FILES * FILE_SIZE // PAGE
    chosen = np.sort(rng.choice(total, int(total * share), replace=False)).astype(np.uint64)
    fresh = Pages(rng).make(chosen).reshape(-1, PAGE)
    with path.open("r+b") as file:
        for page, content in zip(chosen.tolist(), fresh, strict=True):
            number, within = divmod(page * PAGE, FILE_SIZE)
            os.pwrite(file.fileno(), content.data, FILE_SIZE + number * STRIDE + within)


def copy_sparse(before: Path, path: Path) -> None:
    """A copy with the same holes."""
    machine.run(["cp", "--sparse=always", "--reflink=auto", before, path])
