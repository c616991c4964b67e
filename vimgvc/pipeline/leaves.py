"""Many leaves at once, as columns: what Python would do for each run, numpy does for all of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vimgvc.model import geometry, manifest

_HEADER = struct.Struct("<BBH")
_LEAF = 1
_ZERO_RUN = 0x8000
_WORDS = geometry.ID_SIZE // 8


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of some windows, ascending.

    `starts` are in blocks from the first block of the first window, as if the windows lay side by
    side; `ids` has 4 words of 8 bytes a chunk.
    """

    starts: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint64]

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        return self.starts + self.blocks

    def covered(self, windows: int) -> npt.NDArray[np.bool_]:
        """Of each block of so many windows, whether a chunk is there."""
        return filled(self.starts, self.ends, windows * geometry.BLOCKS_PER_WINDOW)


def filled(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Of `count` places those that lie in one of the ranges, which do not overlap."""
    steps = np.zeros(count + 1, np.int8)
    steps[starts] += 1
    steps[ends] -= 1
    inside: npt.NDArray[np.int8] = np.cumsum(steps[:-1], dtype=np.int8)
    return inside.astype(bool)


def runs(kinds: npt.NDArray[np.int8], edge: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(firsts, ends) of the runs of one kind; with `edge` also parted at every multiple of it."""
    breaks = kinds[1:] != kinds[:-1]
    if edge:
        breaks[edge - 1 :: edge] = True
    inner = np.flatnonzero(breaks) + 1
    return np.concatenate([[0], inner]), np.concatenate([inner, [len(kinds)]])


def same(mine: Chunks, theirs: Chunks) -> npt.NDArray[np.bool_]:
    """Of each chunk of `mine`, whether `theirs` has the same chunk in the same place."""
    if not len(theirs.starts):
        return np.zeros(len(mine.starts), bool)
    at = np.minimum(np.searchsorted(theirs.starts, mine.starts), len(theirs.starts) - 1)
    equal: npt.NDArray[np.bool_] = (theirs.ids[at] == mine.ids).all(axis=1)
    equal &= (theirs.starts[at] == mine.starts) & (theirs.blocks[at] == mine.blocks)
    return equal


def decode(nodes: Sequence[bytes], positions: Sequence[int], blocks: Sequence[int]) -> Chunks:
    """The chunks of leaves that lie in the windows `positions` (ascending) and have so many `blocks`.

    Accepts exactly what `manifest.decode_leaf` accepts, and raises what it raises.
    """
    whole = np.frombuffer(b"".join(nodes), np.uint8)
    sizes = np.array([len(node) for node in nodes], np.int64)
    counts = np.array([_count(node) for node in nodes], np.int64)
    if not (counts > 0).all() or (sizes < _HEADER.size + 2 * counts).any():
        raise _refusal(nodes, blocks)
    firsts = np.cumsum(sizes) - sizes
    at = _spread(firsts + _HEADER.size, counts, 2)
    fields = whole[at].astype(np.int64) | whole[at + 1].astype(np.int64) << 8
    zero, runs = fields >= _ZERO_RUN, fields & ~_ZERO_RUN
    owner = np.repeat(np.arange(len(nodes)), counts)
    chunks = np.bincount(owner[~zero], minlength=len(nodes))
    heads = np.cumsum(counts) - counts
    covers = np.add.reduceat(runs, heads) == np.array(blocks, np.int64)
    touching = zero[1:] & zero[:-1] & (owner[1:] == owner[:-1])
    complete = sizes == _HEADER.size + 2 * counts + geometry.ID_SIZE * chunks
    if not (covers.all() and complete.all() and (chunks > 0).all() and (runs > 0).all()) or touching.any():
        raise _refusal(nodes, blocks)
    ends = np.cumsum(runs)
    inside = ends - runs - np.repeat(ends[heads] - runs[heads], counts)
    starts = inside + np.repeat(np.array(positions, np.int64) * geometry.BLOCKS_PER_WINDOW, counts)
    ids = _ids(nodes, counts)
    return Chunks(starts[~zero], runs[~zero], ids)


def _count(node: bytes) -> int:
    """How many runs a leaf says to have; 0 for what is no leaf."""
    if len(node) < _HEADER.size:
        return 0
    kind, reserved, count = _HEADER.unpack_from(node)
    return 0 if kind != _LEAF or reserved else count


def _spread(firsts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.int64]:
    """`firsts[i] + k * step` for every i and k < counts[i]."""
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(firsts, counts) + within * step


def _ids(nodes: Sequence[bytes], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    parts = [node[_HEADER.size + 2 * count :] for node, count in zip(nodes, counts.tolist(), strict=True)]
    return np.frombuffer(b"".join(parts), np.uint64).reshape(-1, _WORDS)


def _refusal(nodes: Sequence[bytes], blocks: Sequence[int]) -> Exception:
    """What is wrong, in the words of the decoder that looks at one leaf; raised here when it is."""
    for node, count in zip(nodes, blocks, strict=True):
        manifest.decode_leaf(node, count)
    return AssertionError("the two decoders of leaves disagree")
