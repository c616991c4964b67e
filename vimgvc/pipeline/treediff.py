"""What of a disk differs from another one, by their manifests: equal subtrees are never read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vimgvc.disk import extents
from vimgvc.model import geometry
from vimgvc.pipeline import leaves, tree

_SAME, _ZERO, _DATA = 0, 1, 2
#: Leaves of either side that are read together; with full windows some 5 MiB.
_GROUP = 1024
#: The first window of a subtree, and its identifiers in the two disks.
_Pair = tuple[int, bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Parts of a disk in bytes, ascending; `data` says of each whether it holds data or zeros."""

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    data: npt.NDArray[np.bool_]


def changed(source: tree.Tree, base: tree.Tree) -> Iterator[extents.Extent]:
    """What `source` has otherwise than `base`: ascending, merged, by whole chunks and zero blocks.

    DATA differs and holds data; ZERO holds zeros where `base` has data. What is not named reads the
    same in both, where `base` reads as zeros beyond its end.
    """
    return extents.merge(_extents(changed_ranges(source, base)))


def changed_ranges(
    source: tree.Tree, base: tree.Tree | None, first: int = 0, last: int | None = None
) -> Iterator[Ranges]:
    """The same of the windows `[first, last)` as columns, not merged across the edges of windows.

    Without `base` everything that is not zeros is changed.
    """
    last = geometry.windows(source.size) if last is None else min(last, geometry.windows(source.size))
    pairs = _Walk(source, base, first, last).pairs()
    while group := list(itertools.islice(pairs, _GROUP)):
        numbers = np.array([number for number, _, _ in group], np.int64)
        mine = _chunks(source, [(number, leaf_id) for number, leaf_id, _ in group])
        theirs = _chunks(base, [(number, leaf_id) for number, _, leaf_id in group])
        yield _difference(numbers, source.size, mine, theirs)


def _extents(groups: Iterator[Ranges]) -> Iterator[extents.Extent]:
    for group in groups:
        columns = zip(group.starts.tolist(), group.lengths.tolist(), group.data.tolist(), strict=True)
        for start, length, data in columns:
            yield extents.Extent(start, length, extents.Kind.DATA if data else extents.Kind.ZERO)


class _Walk:
    def __init__(self, source: tree.Tree, base: tree.Tree | None, first: int, last: int) -> None:
        self._source, self._base, self._first, self._last = source, base, first, last
        #: Above it, one of the trees has no nodes.
        self._common = min(source.root.level, level_of(base))

    def pairs(self) -> Iterator[_Pair]:
        """The windows that differ, ascending."""
        top = max(self._source.root.level, level_of(self._base))
        return self._walk(top, self._wanted(top, [(0, top_of(self._source), top_of(self._base))]))

    def _walk(self, level: int, pairs: Sequence[_Pair]) -> Iterator[_Pair]:
        """`pairs` are siblings of `level`, whose nodes are read together."""
        if level == 0:
            yield from pairs
            return
        ours = children(self._source, level, [(start, mine) for start, mine, _ in pairs])
        others = children(self._base, level, [(start, theirs) for start, _, theirs in pairs])
        step = geometry.span(level - 1)
        for (start, _, _), mine, theirs in zip(pairs, ours, others, strict=True):
            below = [
                (start + child * step, mine.get(child), theirs.get(child))
                for child in sorted(mine.keys() | theirs.keys())
            ]
            yield from self._walk(level - 1, self._wanted(level - 1, below))

    def _wanted(self, level: int, pairs: Sequence[_Pair]) -> list[_Pair]:
        reach = geometry.span(level)
        return [
            pair
            for pair in pairs
            if pair[0] < self._last and pair[0] + reach > self._first and self._differs(level, pair)
        ]

    def _differs(self, level: int, pair: _Pair) -> bool:
        _, mine, theirs = pair
        return mine != theirs or (mine is not None and level > self._common)


def level_of(source: tree.Tree | None) -> int:
    return source.root.level if source else 0


def top_of(source: tree.Tree | None) -> bytes | None:
    return None if source is None or source.root.top == geometry.ZERO_ID else source.root.top


def children(source: tree.Tree | None, level: int, nodes: Sequence[tuple[int, bytes | None]]) -> list[dict[int, bytes]]:
    """Also above the top of a tree, as if the disk were larger."""
    if source is None or level > source.root.level:
        return [{} if node_id is None else {0: node_id} for _, node_id in nodes]
    there = [(start, node_id) for start, node_id in nodes if node_id is not None]
    found = {start: inner.children for (start, _), inner in zip(there, source.inners(level, there), strict=True)}
    return [found.get(start, {}) for start, _ in nodes]


def _chunks(source: tree.Tree | None, wanted: Sequence[tuple[int, bytes | None]]) -> leaves.Chunks:
    """Of the windows that are there; their positions are those in `wanted`."""
    there = [(at, number, leaf_id) for at, (number, leaf_id) in enumerate(wanted) if leaf_id is not None]
    if source is None or not there:
        empty = np.zeros(0, np.int64)
        return leaves.Chunks(empty, empty, np.zeros((0, 4), np.uint64))
    nodes = source.nodes([leaf_id for _, _, leaf_id in there])
    blocks = [geometry.window_blocks(source.size, number) for _, number, _ in there]
    return leaves.decode(nodes, [at for at, _, _ in there], blocks)


def _difference(numbers: npt.NDArray[np.int64], size: int, mine: leaves.Chunks, theirs: leaves.Chunks) -> Ranges:
    changed = ~leaves.same(mine, theirs)
    count = len(numbers) * geometry.BLOCKS_PER_WINDOW
    kinds = np.where(theirs.covered(len(numbers)) & ~mine.covered(len(numbers)), _ZERO, _SAME).astype(np.int8)
    kinds[leaves.filled(mine.starts[changed], mine.ends[changed], count)] = _DATA
    firsts, ends = leaves.runs(kinds, geometry.BLOCKS_PER_WINDOW)
    named = kinds[firsts] != _SAME
    firsts, ends = firsts[named], ends[named]
    where, inside = np.divmod(firsts, geometry.BLOCKS_PER_WINDOW)
    starts = numbers[where] * geometry.WINDOW + inside * geometry.BLOCK
    lengths = np.minimum((ends - firsts) * geometry.BLOCK, size - starts)
    inside_disk = lengths > 0
    return Ranges(starts[inside_disk], lengths[inside_disk], (kinds[firsts] == _DATA)[inside_disk])
