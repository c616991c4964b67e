"""Conformance of a `disk.protocol.Reader`.

Adopt it with a class in a test module:

    class TestMyReader(reader.ReaderSuite):
        def open(self, sample, folder):   # a Reader over sample.content, closed by the suite
            ...

`sector`: sizes are multiples of this many bytes. `hole_grid`: holes that are aligned to this many
bytes are reported, so that nothing is read there (0: this Reader does not tell holes).
"""

from __future__ import annotations

import abc
import concurrent.futures
import itertools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from vimgvc.disk import extents, protocol

SIZES = [0, 1, 511, 512, 513, 4095, 4096, 4097, 65536, 1_000_003, (4 << 20) + 12_345]
_PIECE = 16384


@dataclass(frozen=True, slots=True)
class Sample:
    """A disk: its bytes, and which ranges were never written (merged, ascending)."""

    content: bytes
    holes: tuple[extents.Extent, ...]

    def data(self) -> list[extents.Extent]:
        """What lies between the holes."""
        kinds = extents.cover(self.holes, 0, len(self.content), extents.Kind.DATA)
        return [item for item in kinds if item.kind is extents.Kind.DATA]


def make_sample(size: int, seed: int) -> Sample:
    """Pieces of random bytes, of written zeros and of holes; pieces border at multiples of 16 KiB."""
    rng = np.random.default_rng(seed)
    content = bytearray(rng.bytes(size))
    holes = []
    for start in range(0, size, _PIECE):
        length = min(_PIECE, size - start)
        kind = rng.integers(4)
        if kind >= 2:
            content[start : start + length] = bytes(length)
        if kind == 3:
            holes.append(extents.Extent(start, length, extents.Kind.HOLE))
    return Sample(bytes(content), tuple(extents.merge(holes)))


def read(disk: Callable[[int, memoryview], None], offset: int, length: int) -> bytes:
    """What `disk` (a `pread_into`) has there; fails if a byte outside the buffer it was given changes."""
    room = bytearray(b"\xa5" * (length + 64))
    disk(offset, memoryview(room)[32 : 32 + length])
    assert room[:32] == room[32 + length :] == b"\xa5" * 32
    return bytes(room[32 : 32 + length])


def ranges(size: int, seed: int, count: int) -> list[tuple[int, int]]:
    """Unaligned (offset, length) pairs inside a disk: some tiny, some over many blocks, some at the edges."""
    rng = np.random.default_rng(seed)
    pairs = [(0, size), (size, 0), (max(0, size - 1), min(1, size))]
    for _ in range(count):
        offset = int(rng.integers(0, size + 1))
        pairs.append((offset, int(rng.integers(0, min(size - offset, int(2 ** rng.uniform(1, 21))) + 1))))
    return pairs


class ReaderSuite(abc.ABC):
    hole_grid = 0
    sector = 1

    @abc.abstractmethod
    def open(self, sample: Sample, folder: pathlib.Path) -> protocol.Reader:
        """A Reader over the sample; `folder` is empty and the test's own."""

    @pytest.mark.parametrize("size", SIZES)
    def test_random_reads_return_the_bytes(self, size: int, seed: int, tmp_path: pathlib.Path) -> None:
        """Any unaligned range, over any number of blocks, reads exactly as it was written."""
        size = -(-size // self.sector) * self.sector
        sample = make_sample(size, seed)
        reader = self.open(sample, tmp_path)
        assert reader.size == size
        for offset, length in ranges(size, seed, 200):
            assert read(reader.pread_into, offset, length) == sample.content[offset : offset + length]
        reader.close()

    @pytest.mark.parametrize("size", SIZES)
    def test_extents_cover_exactly(self, size: int, seed: int, tmp_path: pathlib.Path) -> None:
        """Extents cover any range completely, in order, merged; what is not DATA is zeros."""
        size = -(-size // self.sector) * self.sector
        sample = make_sample(size, seed)
        reader = self.open(sample, tmp_path)
        for offset, length in ranges(size, seed, 50):
            items = list(reader.extents(offset, length))
            position = offset
            for item in items:
                assert item.start == position
                assert item.length > 0
                if item.kind is not extents.Kind.DATA:
                    assert sample.content[item.start : item.end] == bytes(item.length)
                position = item.end
            assert position == offset + length
            assert all(a.kind is not b.kind for a, b in itertools.pairwise(items))
        reader.close()

    def test_holes_are_reported(self, seed: int, tmp_path: pathlib.Path) -> None:
        """What was never written is no DATA, down to the Reader's grid; one without a grid says all is DATA."""
        sample = make_sample(100 * _PIECE + 512, seed)
        reader = self.open(sample, tmp_path)
        data = [item for item in reader.extents(0, reader.size) if item.kind is extents.Kind.DATA]
        allowed = list(extents.align(sample.data(), self.hole_grid or reader.size, reader.size))
        for item in data:
            assert sum(part.length for part in extents.clip(allowed, item.start, item.length)) == item.length
        assert self.hole_grid or data == allowed
        reader.close()

    def test_threads_share_one_reader(self, seed: int, tmp_path: pathlib.Path) -> None:
        """Four threads read and list extents at once, each as if it were alone."""
        sample = make_sample((4 << 20) + 12_800, seed)
        reader = self.open(sample, tmp_path)
        alone = list(reader.extents(0, reader.size))

        def work(number: int) -> None:
            for offset, length in ranges(reader.size, seed + number, 60):
                assert read(reader.pread_into, offset, length) == sample.content[offset : offset + length]
                assert list(reader.extents(offset, length)) == list(extents.clip(alone, offset, length))

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work, number) for number in range(4)]:
                done.result()
        reader.close()

    @pytest.mark.parametrize("size", [0, 1, 4097])
    def test_outside_is_refused(self, size: int, seed: int, tmp_path: pathlib.Path) -> None:
        """A range that is not inside the disk is a ValueError, and the buffer stays as it was."""
        size = -(-size // self.sector) * self.sector
        reader = self.open(make_sample(size, seed), tmp_path)
        for offset, length in [(size, 1), (size + 1, 0), (-1, 1), (0, size + 1), (1 << 63, 1)]:
            buffer = bytearray(b"\xa5" * length)
            with pytest.raises(ValueError, match="outside"):
                reader.pread_into(offset, memoryview(buffer))
            assert buffer == b"\xa5" * length
            with pytest.raises(ValueError, match="outside"):
                list(reader.extents(offset, length))
        reader.close()

    def test_close_twice(self, seed: int, tmp_path: pathlib.Path) -> None:
        """Closing again does nothing."""
        reader = self.open(make_sample(4096, seed), tmp_path)
        reader.close()
        reader.close()
