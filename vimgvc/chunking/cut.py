"""Content-defined chunk boundaries on block edges (specs/formats.md §6).

Guest file systems move data in blocks, so boundaries only ever fall on block edges, and a sample of
each block decides: one strided multiply-sum a window instead of a rolling hash over every byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from vimgvc.model import geometry

_WORDS = 32
_STRIDE = geometry.BLOCK // 8 // _WORDS

Run = tuple[int, bool]


class Cutter:
    """`runs` of windows for one repository; has no state between calls, so threads may share it."""

    def __init__(self, key: bytes, average: int) -> None:
        words = np.frombuffer(blake3(b"cut 1", key=key).digest(8 * (_WORDS + 2)), "<u8")
        self._add = words[0]
        self._multipliers = words[1 : _WORDS + 1] | np.uint64(1)
        self._offset = int(words[_WORDS + 1]) % _STRIDE
        blocks = average // geometry.BLOCK
        self._threshold = np.uint64(2**64 - 2**64 // blocks)
        self._maximum = 4 * blocks

    def runs(self, window: npt.NDArray[np.uint64]) -> list[Run]:
        """Runs of a window given as (blocks, 512): (number of blocks, all zeros) in order."""
        sums = window[:, self._offset :: _STRIDE] @ self._multipliers
        sums += self._add
        zero = sums == self._add
        candidates = np.flatnonzero(zero)
        if len(candidates):
            zero[candidates] = ~window[candidates].any(axis=1)
        ends = (sums >= self._threshold) & ~zero
        ends[:-1] |= zero[:-1] != zero[1:]
        ends[-1] = True
        return self._runs(np.flatnonzero(ends).tolist(), zero)

    def _runs(self, last_blocks: list[int], zero: npt.NDArray[np.bool_]) -> list[Run]:
        runs: list[Run] = []
        start = 0
        for last in last_blocks:
            end = last + 1
            if zero[last]:
                runs.append((end - start, True))
            else:
                while end - start > self._maximum:
                    runs.append((self._maximum, False))
                    start += self._maximum
                runs.append((end - start, False))
            start = end
        return runs
