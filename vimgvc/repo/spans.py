"""Sets of parts of a disk, as ascending columns of bytes that neither overlap nor touch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vimgvc.pipeline import treediff

Column = npt.NDArray[np.int64]
_STEP = 1 << 16


@dataclass(frozen=True, slots=True)
class Spans:
    """Parts `[starts[i], ends[i])`."""

    starts: Column
    ends: Column

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def total(self) -> int:
        return int((self.ends - self.starts).sum())

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(start, length) of each; millions of them are not all made at once."""
        for at in range(0, len(self), _STEP):
            starts, ends = self.starts[at : at + _STEP], self.ends[at : at + _STEP]
            yield from zip(starts.tolist(), (ends - starts).tolist(), strict=True)

    def before(self, places: Column) -> Column:
        """How many bytes of the set lie before each of `places`."""
        if not len(self.starts):
            return np.zeros(len(places), np.int64)
        lengths = self.ends - self.starts
        done = np.cumsum(lengths) - lengths
        at = np.searchsorted(self.starts, places, "right") - 1
        within = np.minimum(places - self.starts[at], lengths[at])
        counted: Column = np.where(at < 0, 0, done[at] + within)
        return counted

    def within(self, start: int, end: int) -> int:
        """How many bytes of it lie in `[start, end)`."""
        first, last = self.before(np.array([start, end], np.int64)).tolist()
        return int(last - first)

    def cut(self, start: int, end: int) -> Spans:
        """What of it lies in `[start, end)`."""
        starts, ends = np.maximum(self.starts, start), np.minimum(self.ends, end)
        inside = starts < ends
        return Spans(starts[inside], ends[inside])

    def intersect(self, other: Spans) -> Spans:
        return self._combine(other, both=True)

    def subtract(self, other: Spans) -> Spans:
        return self._combine(other, both=False)

    def _combine(self, other: Spans, *, both: bool) -> Spans:
        """What is in this set and (not) in the other."""
        if not len(self) or not len(other):
            return self if not both else EMPTY
        edges = np.unique(np.concatenate([self.starts, self.ends, other.starts, other.ends]))
        starts, ends = edges[:-1], edges[1:]
        wanted = self._holds(starts) & (other._holds(starts) == both)
        return joined(starts[wanted], ends[wanted])

    def _holds(self, places: Column) -> npt.NDArray[np.bool_]:
        at = np.searchsorted(self.starts, places, "right") - 1
        return (at >= 0) & (places < self.ends[at])


EMPTY = Spans(np.zeros(0, np.int64), np.zeros(0, np.int64))


def whole(start: int, end: int) -> Spans:
    return Spans(np.array([start], np.int64), np.array([end], np.int64)) if start < end else EMPTY


def joined(starts: Column, ends: Column) -> Spans:
    """Of ascending parts that may touch."""
    if not len(starts):
        return EMPTY
    apart = starts[1:] != ends[:-1]
    return Spans(starts[np.append(True, apart)], ends[np.append(apart, True)])


def collect(groups: Iterable[treediff.Ranges]) -> tuple[Spans, int]:
    """All of some ranges whether data or zeros, and how many bytes of them are zeros."""
    starts, ends, zeros = [EMPTY.starts], [EMPTY.ends], 0
    for group in groups:
        zeros += int(group.lengths[~group.data].sum())
        part = joined(group.starts, group.starts + group.lengths)
        starts.append(part.starts)
        ends.append(part.ends)
    return joined(np.concatenate(starts), np.concatenate(ends)), zeros
