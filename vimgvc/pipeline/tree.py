"""Manifest trees: built from leaves that come in order, and read back by ranges of windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vimgvc.model import geometry, manifest
from vimgvc.store import objects

PutNode = Callable[[bytes], bytes]


class Builder:
    """Collects leaves by ascending window and writes each inner node once it is complete.

    Memory is one node a level, whatever the size of the disk.
    """

    def __init__(self, size: int, put_node: PutNode) -> None:
        self._size = size
        self._top = geometry.top_level(size)
        self._put = put_node
        self._open: list[tuple[int, dict[int, bytes]]] = [(0, {}) for _ in range(self._top)]
        self._single = geometry.ZERO_ID

    def add(self, window: int, leaf_id: bytes) -> None:
        """The leaf of `window`, which is not all zeros; windows never named are."""
        self._place(1, window, leaf_id)

    def finish(self) -> bytes:
        """Write what is open, and the root; returns the root's identifier."""
        for level in range(1, self._top + 1):
            self._close(level)
        return self._put(manifest.Root(self._size, self._single).encode())

    def _place(self, level: int, position: int, node_id: bytes) -> None:
        if level > self._top:
            self._single = node_id
            return
        parent, child = divmod(position, geometry.FANOUT)
        current, children = self._open[level - 1]
        if current != parent:
            self._close(level)
            children = {}
            self._open[level - 1] = (parent, children)
        children[child] = node_id

    def _close(self, level: int) -> None:
        position, children = self._open[level - 1]
        self._open[level - 1] = (position, {})
        if children:
            self._place(level + 1, position, self._put(manifest.Inner(level, children).encode()))


@dataclass(frozen=True, slots=True)
class Window:
    """A window that is not all zeros."""

    number: int
    leaf_id: bytes


class Tree:
    """A disk's manifest, read as it is needed. Errors are `IntegrityError`s.

    With `lost` what cannot be read below the root is left out, and its range told in bytes.
    """

    def __init__(self, store: objects.Objects, root_id: bytes, lost: Callable[[int, int], None] | None = None) -> None:
        self._store, self._lost = store, lost
        self.root = manifest.decode_root(store.nodes([root_id])[0])
        self.size = self.root.size

    def windows(self, first: int = 0, last: int | None = None) -> Iterator[Window]:
        """Windows in `[first, last)` that hold data, ascending."""
        last = geometry.windows(self.size) if last is None else last
        if self.root.top != geometry.ZERO_ID and first < last:
            yield from self._walk(self.root.level, 0, self.root.top, first, last)

    def groups(self, first: int = 0, last: int | None = None) -> Iterator[list[tuple[Window, manifest.Leaf]]]:
        """The same windows with their leaves, in groups that are read together."""
        group: list[Window] = []
        for window in self.windows(first, last):
            if group and window.number // geometry.FANOUT != group[0].number // geometry.FANOUT:
                yield self.leaves(group)
                group = []
            group.append(window)
        if group:
            yield self.leaves(group)

    def leaves(self, windows: list[Window]) -> list[tuple[Window, manifest.Leaf]]:
        try:
            nodes = self._store.nodes([window.leaf_id for window in windows])
            return [
                (window, manifest.decode_leaf(node, geometry.window_blocks(self.size, window.number)))
                for window, node in zip(windows, nodes, strict=True)
            ]
        except objects.UNREADABLE:
            if self._lost is None:
                raise
        if len(windows) > 1:
            return [item for window in windows for item in self.leaves([window])]
        self._lost(windows[0].number * geometry.WINDOW, geometry.WINDOW)
        return []

    def complete(self, group: list[tuple[Window, manifest.Leaf]]) -> list[tuple[Window, manifest.Leaf]]:
        """Those of `group` whose chunks are all in packs that are there."""
        ids = b"".join([leaf.ids for _, leaf in group])
        found = self._store.index.contains(np.frombuffer(ids, np.uint8).reshape(-1, geometry.ID_SIZE))
        if found.all():
            return group
        edges = np.cumsum([len(leaf.ids) // geometry.ID_SIZE for _, leaf in group])
        return [item for item, part in zip(group, np.split(found, edges[:-1]), strict=True) if part.all()]

    def inner(self, level: int, start: int, node_id: bytes) -> manifest.Inner:
        """The inner node of `level` whose first window is `start`."""
        node = self._store.nodes([node_id])[0]
        return manifest.decode_inner(node, level, geometry.windows(self.size) - start)

    def inners(self, level: int, nodes: Sequence[tuple[int, bytes]]) -> list[manifest.Inner]:
        """Inner nodes of `level`, (first window, identifier) each, read together."""
        windows = geometry.windows(self.size)
        found = self.nodes([node_id for _, node_id in nodes])
        return [
            manifest.decode_inner(node, level, windows - start) for (start, _), node in zip(nodes, found, strict=True)
        ]

    def nodes(self, ids: Sequence[bytes]) -> list[bytes]:
        """Nodes as they are stored, not decoded."""
        return self._store.nodes(ids)

    def _children(self, level: int, start: int, node_id: bytes) -> dict[int, bytes]:
        try:
            return self.inner(level, start, node_id).children
        except objects.UNREADABLE:
            if self._lost is None:
                raise
        self._lost(start * geometry.WINDOW, geometry.span(level) * geometry.WINDOW)
        return {}

    def _walk(self, level: int, start: int, node_id: bytes, first: int, last: int) -> Iterator[Window]:
        if level == 0:
            yield Window(start, node_id)
            return
        step = geometry.span(level - 1)
        for child, child_id in self._children(level, start, node_id).items():
            at = start + child * step
            if at < last and at + step > first:
                yield from self._walk(level - 1, at, child_id, first, last)
