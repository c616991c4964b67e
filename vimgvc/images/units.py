"""Large sets of small numbers: which clusters of an image are allocated, and where each one's turn comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: Numbers handled at once; a multiple of _STRIDE.
BLOCK = 1 << 20

# Numbers between two remembered ranks: 64 bytes of bits are counted for a rank in between.
_STRIDE = 512
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


class Builder:
    """Takes runs in ascending order (they may touch or overlap) and becomes a `UnitSet`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._bits = np.zeros(-(-count // _STRIDE) * _STRIDE // 8, np.uint8)  # not touched: takes no memory
        self._block = 0
        self._open = np.zeros(BLOCK, np.bool_)
        self._dirty = False

    def add(self, first: int, end: int) -> None:
        """Numbers `first` up to, not including, `end`; nothing when that is empty."""
        while first < end:
            block = first // BLOCK
            if block != self._block:
                self._flush()
                self._block = block
            base = block * BLOCK
            self._open[first - base : end - base] = True
            self._dirty = True
            first = base + BLOCK

    def done(self) -> UnitSet:
        self._flush()
        return UnitSet(self._count, self._bits)

    def _flush(self) -> None:
        if self._dirty:
            packed = np.packbits(self._open, bitorder="little")
            at = self._block * BLOCK // 8
            room = self._bits[at : at + packed.size]
            room |= packed[: room.size]
            self._open[:] = False
            self._dirty = False


class UnitSet:
    """A set of numbers below `count`: one bit each, and a rank in constant time. Immutable."""

    def __init__(self, count: int, bits: npt.NDArray[np.uint8]) -> None:
        """`bits`: number n is bit n % 8 (1 << ...) of byte n // 8; padded with zeros to 64 bytes."""
        self.count = count
        self._bits = bits
        sums = np.zeros(bits.size * 8 // _STRIDE + 1, np.int64)
        for at, piece in _filled(bits):
            part = _ONES[piece].reshape(-1, _STRIDE // 8).sum(axis=1, dtype=np.int64)
            start = at * 8 // _STRIDE
            sums[start + 1 : start + 1 + part.size] = part
        self._ranks = np.cumsum(sums)
        self.total = int(self._ranks[-1])

    def __contains__(self, number: int) -> bool:
        return bool(self._bits[number >> 3] >> (number & 7) & 1)

    def rank(self, number: int) -> int:
        """How many members are below `number` (at most `count`)."""
        group, rest = divmod(number, _STRIDE)
        if not rest:
            return int(self._ranks[group])
        start = group * _STRIDE // 8
        word = int.from_bytes(self._bits[start : start + _STRIDE // 8].tobytes(), "little")
        return int(self._ranks[group]) + (word & (1 << rest) - 1).bit_count()

    def has_all(self, first: int, end: int) -> bool:
        """Whether every number from `first` up to `end` is a member."""
        return self.rank(end) - self.rank(first) == end - first

    def has_any(self, first: int, end: int) -> bool:
        """Whether one of the numbers from `first` up to `end` (at most `count`) is a member."""
        return self.rank(end) > self.rank(first)

    def mask(self, first: int, end: int) -> npt.NDArray[np.bool_]:
        """Membership of `first` up to, not including, `end`; what is beyond `count` is no member."""
        low = first // 8
        bits = np.unpackbits(self._bits[low : -(-end // 8)], bitorder="little")[first - low * 8 : end - low * 8]
        if bits.size < end - first:
            bits = np.concatenate([bits, np.zeros(end - first - bits.size, np.uint8)])
        return bits.astype(np.bool_)

    def words(self, first: int, end: int) -> npt.NDArray[np.uint32]:
        """Membership by 32s: word w has number 32 w + i as bit i; words `first` up to `end`, zero beyond `count`."""
        words = self._bits[first * 4 : end * 4].view("<u4")
        return np.concatenate([words, np.zeros(end - first - words.size, np.uint32)])

    def runs(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The members in a range as runs (first, end), joined, in order."""
        stop = self.count if end is None else end
        last = None
        for start in range(first // BLOCK * BLOCK, stop, BLOCK):
            for run in self._block_runs(max(start, first), min(start + BLOCK, stop)):
                if last is not None and last[1] == run[0]:
                    last = (last[0], run[1])
                    continue
                if last is not None:
                    yield last
                last = run
        if last is not None:
            yield last

    def grouped(self, size: int) -> UnitSet:
        """The groups of `size` neighbours (a power of two) that have a member."""
        groups = -(-self.count // size)
        result = np.zeros(-(-groups // _STRIDE) * _STRIDE // 8, np.uint8)
        step = max(BLOCK // size, 1) * 8  # groups at once, whole bytes of the result
        for start in range(0, groups, step):
            end = min(start + step, groups)
            if self.rank(min(end * size, self.count)) == self.rank(start * size):
                continue
            mask = self.mask(start * size, end * size).reshape(-1, size).any(axis=1)
            packed = np.packbits(mask, bitorder="little")
            result[start // 8 : start // 8 + packed.size] = packed
        return UnitSet(groups, result)

    def __or__(self, other: UnitSet) -> UnitSet:
        assert self.count == other.count
        return UnitSet(self.count, self._bits | other._bits)

    def fingerprint(self) -> bytes:
        """The same for the same set; 8 bytes."""
        state = hashlib.blake2b(digest_size=8)
        for at, piece in _filled(self._bits):
            state.update(at.to_bytes(8, "little"))
            state.update(piece.data)
        return state.digest()

    def _block_runs(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        found = self.rank(end) - self.rank(first)
        if not found:
            return
        if found == end - first:
            yield first, end
            return
        steps = np.diff(self.mask(first, end).astype(np.int8), prepend=0, append=0)
        starts, ends = np.flatnonzero(steps == 1) + first, np.flatnonzero(steps == -1) + first
        yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _filled(bits: npt.NDArray[np.uint8]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """The pieces that have a bit, and where they begin: of large disks most have none."""
    for at in range(0, bits.size, BLOCK):
        piece = bits[at : at + BLOCK]
        if piece.view(np.uint64).any():
            yield at, piece
