"""Which slots the trees of commits need, beside what a tree that is there already leads to.

Trees are walked side by side with the tree of an earlier state: equal nodes at one place are not looked into, so the
cost follows what changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vimgvc.codec import segment
from vimgvc.model import geometry, manifest
from vimgvc.pipeline import tree, treediff
from vimgvc.store import index, mark, objects

#: Nodes that are read together.
_GROUP = 256
#: A disk to compare with: its root, and where it can be read.
Base = tuple[objects.Objects, bytes]
#: The first window of a subtree, its identifier, and what the earlier state has there.
_Pair = tuple[int, bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Chunks:
    """What is wanted beside manifest nodes: none; or all, but for those that are in `there` only."""

    wanted: bool = True
    there: index.Index | None = None


ALL = Chunks()


def add(marker: mark.Marker, root_id: bytes, base: Base | None, chunks: Chunks = ALL) -> None:
    """Mark in `marker` what the disk `root_id` needs and the disk `base` does not lead to.

    A base that cannot be read is none. Raises `IntegrityError` for what is not in the marker's store.
    """
    if not marker.claim([root_id], segment.TREE)[0]:
        return
    source = tree.Tree(marker.store, root_id)
    before = _tree(base)
    top = treediff.top_of(source)
    if top is None:
        return
    theirs = treediff.top_of(before)
    try:
        _Walk(marker, source, before, chunks).walk(source.root.level, [(0, top, theirs)] if top != theirs else [])
    except _BaseUnreadableError:
        _Walk(marker, source, None, chunks, again=True).walk(source.root.level, [(0, top, None)])


class _BaseUnreadableError(Exception):
    pass


def _tree(base: Base | None) -> tree.Tree | None:
    try:
        return tree.Tree(*base) if base else None
    except objects.UNREADABLE:
        return None


@dataclass(frozen=True, slots=True)
class _Walk:
    """With `again` nodes that are marked already are walked all the same."""

    marker: mark.Marker
    source: tree.Tree
    base: tree.Tree | None
    chunks: Chunks
    again: bool = False

    def walk(self, level: int, pairs: Sequence[_Pair]) -> None:
        for start in range(0, len(pairs), _GROUP):
            group = pairs[start : start + _GROUP]
            new = self.marker.claim([mine for _, mine, _ in group], segment.TREE)
            group = [pair for pair, is_new in zip(group, new.tolist(), strict=True) if is_new or self.again]
            if level:
                self.walk(level - 1, self._below(level, group))
            elif self.chunks.wanted:
                self._leaves(group)

    def _below(self, level: int, group: Sequence[_Pair]) -> list[_Pair]:
        ours = treediff.children(self.source, level, [(start, mine) for start, mine, _ in group])
        others = self._others(level, [(start, theirs) for start, _, theirs in group])
        step = geometry.span(level - 1)
        return [
            (start + child * step, mine[child], theirs.get(child))
            for (start, _, _), mine, theirs in zip(group, ours, others, strict=True)
            for child in sorted(mine)
            if mine[child] != theirs.get(child)
        ]

    def _others(self, level: int, nodes: Sequence[tuple[int, bytes | None]]) -> list[dict[int, bytes]]:
        try:
            return treediff.children(self.base, level, nodes)
        except objects.UNREADABLE as error:
            raise _BaseUnreadableError from error

    def _leaves(self, group: Sequence[_Pair]) -> None:
        """Claim the chunks of these windows that the earlier state of the same window has not."""
        ours = _chunks(self.source, [(window, mine) for window, mine, _ in group])
        before = [(window, theirs) for window, _, theirs in group if theirs is not None]
        try:
            theirs = dict(zip([window for window, _ in before], _chunks(self.base, before), strict=True))
        except objects.UNREADABLE as error:
            raise _BaseUnreadableError from error
        new: list[bytes] = []
        for (window, _, _), chunks in zip(group, ours, strict=True):
            known = theirs.get(window)
            new += chunks if known is None else [chunk for chunk in chunks if chunk not in known]
        self.marker.claim(self._here(new), segment.DATA)

    def _here(self, chunks: list[bytes]) -> list[bytes]:
        """Without those that only the other side has."""
        if self.chunks.there is None or not chunks:
            return chunks
        ids = np.frombuffer(b"".join(chunks), np.uint8).reshape(-1, geometry.ID_SIZE)
        wanted = self.marker.store.index.contains(ids) | ~self.chunks.there.contains(ids)
        return [chunk for chunk, is_wanted in zip(chunks, wanted.tolist(), strict=True) if is_wanted]


def _chunks(source: tree.Tree | None, windows: Sequence[tuple[int, bytes]]) -> list[dict[bytes, None]]:
    """The identifiers of the chunks of each of these windows, (number, leaf)."""
    if source is None or not windows:
        return []
    blobs = source.nodes([leaf_id for _, leaf_id in windows])
    leaves = [
        manifest.decode_leaf(blob, geometry.window_blocks(source.size, window))
        for (window, _), blob in zip(windows, blobs, strict=True)
    ]
    return [dict.fromkeys(leaf.chunk_ids()) for leaf in leaves]
