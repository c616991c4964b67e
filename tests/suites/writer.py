"""Conformance of a `disk.protocol.Target`.

Adopt it with a class in a test module:

    class TestMyWriter(writer.WriterSuite):
        def create(self, folder, size):   # a Target of that size, nothing written yet
        def result(self, folder):         # the finished disk's bytes, or None when there is none
        def allocated(self, folder):      # bytes of space that the finished disk takes, or None
"""

from __future__ import annotations

import abc
import concurrent.futures
import pathlib

import numpy as np
import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, protocol


class WriterSuite(abc.ABC):
    @abc.abstractmethod
    def create(self, folder: pathlib.Path, size: int) -> protocol.Target:
        """A fresh Target; `folder` is the test's own."""

    @abc.abstractmethod
    def result(self, folder: pathlib.Path) -> bytes | None:
        """What stands under the final name."""

    @abc.abstractmethod
    def allocated(self, folder: pathlib.Path) -> int | None:
        """Space that the result takes; None where that cannot be told."""

    @pytest.mark.parametrize("size", reader.SIZES)
    def test_shuffled_writes_arrive(self, size: int, seed: int, tmp_path: pathlib.Path) -> None:
        """Written in any order, in unaligned pieces, the result is the disk; what was not written is zeros."""
        sample = reader.make_sample(size, seed)
        target = self.create(tmp_path, size)
        assert target.size == size
        assert not target.resumed
        pieces = _pieces(sample, seed)
        for item in pieces:
            _apply(target, item, sample.content)
        target.finish()
        assert self.result(tmp_path) == sample.content

    def test_later_calls_win(self, seed: int, tmp_path: pathlib.Path) -> None:
        """Whatever was written or zeroed before, the last call decides, to the byte."""
        size = 1_000_003
        rng = np.random.default_rng(seed)
        expected = bytearray(size)
        target = self.create(tmp_path, size)
        for offset, length in reader.ranges(size, seed, 120):
            if rng.integers(3) == 0:
                target.zero(offset, length)
                expected[offset : offset + length] = bytes(length)
            else:
                data = rng.bytes(length)
                target.pwrite(offset, memoryview(data))
                expected[offset : offset + length] = data
            assert reader.read(target.pread_into, offset, length) == expected[offset : offset + length]
        target.finish()
        assert self.result(tmp_path) == bytes(expected)

    def test_threads_share_one_writer(self, seed: int, tmp_path: pathlib.Path) -> None:
        """Four threads write ranges that touch but do not overlap; nothing gets lost between them."""
        sample = reader.make_sample((4 << 20) + 12_345, seed)
        target = self.create(tmp_path, len(sample.content))
        pieces = _pieces(sample, seed)

        def work(number: int) -> None:
            for item in pieces[number::4]:
                _apply(target, item, sample.content)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work, number) for number in range(4)]:
                done.result()
        target.finish()
        assert self.result(tmp_path) == sample.content

    def test_extents_hide_no_data(self, seed: int, tmp_path: pathlib.Path) -> None:
        """What a Target does not call DATA reads as zeros, and its extents cover the disk."""
        sample = reader.make_sample(1_000_003, seed)
        target = self.create(tmp_path, len(sample.content))
        for item in _pieces(sample, seed):
            _apply(target, item, sample.content)
        position = 0
        for item in target.extents(0, target.size):
            assert item.start == position
            if item.kind is not extents.Kind.DATA:
                assert not any(sample.content[item.start : item.end])
            position = item.end
        assert position == target.size
        target.abort()

    def test_result_is_sparse(self, seed: int, tmp_path: pathlib.Path) -> None:
        """What was never written, and what was zeroed again, takes no space."""
        size = 32 << 20
        target = self.create(tmp_path, size)
        data = np.random.default_rng(seed).bytes(4 << 20)
        target.pwrite(5 << 20, memoryview(data))
        target.zero(0, size // 4)
        target.finish()
        expected = bytes(8 << 20) + data[3 << 20 :] + bytes(size - (9 << 20))
        assert self.result(tmp_path) == expected
        allocated = self.allocated(tmp_path)
        assert allocated is None or 1 << 20 <= allocated <= (1 << 20) + 65536

    @pytest.mark.parametrize("size", [0, 1, 4097])
    def test_outside_is_refused(self, size: int, seed: int, tmp_path: pathlib.Path) -> None:
        """A range that is not inside the disk is a ValueError, and nothing is written."""
        content = np.random.default_rng(seed).bytes(size)
        target = self.create(tmp_path, size)
        target.pwrite(0, memoryview(content))
        for offset, length in [(size, 1), (size + 1, 0), (-1, 1), (0, size + 1), (1 << 63, 1)]:
            with pytest.raises(ValueError, match="outside"):
                target.pwrite(offset, memoryview(b"x" * length))
            with pytest.raises(ValueError, match="outside"):
                target.zero(offset, length)
        target.finish()
        assert self.result(tmp_path) == content

    def test_abort_gives_no_result(self, seed: int, tmp_path: pathlib.Path) -> None:
        """After abort nothing has the final name, and aborting again does nothing."""
        target = self.create(tmp_path, 4097)
        target.pwrite(0, memoryview(np.random.default_rng(seed).bytes(4097)))
        target.abort()
        target.abort()
        assert self.result(tmp_path) is None

    def test_the_end_is_final(self, tmp_path: pathlib.Path) -> None:
        """After finish every change is refused, and abort does not take the result away."""
        target = self.create(tmp_path, 3)
        target.pwrite(0, memoryview(b"abc"))
        target.finish()
        with pytest.raises(errors.VimgvcError):
            target.pwrite(0, memoryview(b"x"))
        with pytest.raises(errors.VimgvcError):
            target.zero(0, 1)
        with pytest.raises(errors.VimgvcError):
            target.finish()
        target.abort()
        assert self.result(tmp_path) == b"abc"


def _pieces(sample: reader.Sample, seed: int) -> list[extents.Extent]:
    """The sample's data cut at odd places, and every second zero range, in shuffled order."""
    rng = np.random.default_rng(seed)
    pieces = []
    for number, item in enumerate(extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)):
        if item.kind is extents.Kind.HOLE:
            pieces += [item] if number % 4 < 2 else []
            continue
        position = item.start
        while position < item.end:
            length = min(item.end - position, int(2 ** rng.uniform(0, 17)))
            pieces.append(extents.Extent(position, length, extents.Kind.DATA))
            position += length
    return [pieces[number] for number in rng.permutation(len(pieces))]


def _apply(target: protocol.Target, item: extents.Extent, content: bytes) -> None:
    if item.kind is extents.Kind.HOLE:
        target.zero(item.start, item.length)
    else:
        target.pwrite(item.start, memoryview(content)[item.start : item.end])
