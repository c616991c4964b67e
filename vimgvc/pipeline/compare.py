"""Whether a disk is what a manifest says, by its hashes: no stored data is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from vimgvc import errors
from vimgvc.codec import sealing
from vimgvc.disk import protocol, room
from vimgvc.model import geometry, manifest
from vimgvc.monitor import Monitor
from vimgvc.pipeline import ordered, tree, windows

_HINT = "what was written is not what was read: check the disk and the memory of this machine"
_Item = tuple[int, windows.Ranges | None, manifest.Leaf | None]


class _Comparison:
    def __init__(self, source: tree.Tree, seals: sealing.Sealing, reader: protocol.Reader, monitor: Monitor) -> None:
        self._source, self._chunk_id, self._reader, self._monitor = source, seals.chunk_id, reader, monitor
        self._local = threading.local()

    def items(self) -> Iterator[_Item]:
        """Every window that either side has data in."""
        leaves = ((place.number, leaf) for group in self._source.groups() for place, leaf in group)
        data = windows.data(self._reader.extents(0, self._reader.size))
        return windows.pair(windows.split(data), leaves)

    def difference(self, item: _Item) -> tuple[int, int] | None:
        """(offset, length) of the first run of a window that is not what it should be."""
        number, ranges, leaf = item
        view: memoryview | None = getattr(self._local, "view", None)
        if view is None:
            view = self._local.view = room.pages(geometry.WINDOW)
        done = windows.read(self._reader, number, ranges or [], view)
        self._monitor.advance(done)
        at, start = 0, number * geometry.WINDOW
        ids = iter(leaf.chunk_ids() if leaf else ())
        for blocks, zero in leaf.runs if leaf else ():
            end = at + blocks * geometry.BLOCK
            if not (_is_zero(view[at:end]) if zero else self._chunk_id(view[at:end]) == next(ids)):
                return start + at, end - at
            at = end
        return None if _is_zero(view[at:]) else (start + at, geometry.WINDOW - at)


def _is_zero(view: memoryview) -> bool:
    return not np.frombuffer(view, np.uint64).any()


def compare(source: tree.Tree, seals: sealing.Sealing, reader: protocol.Reader, monitor: Monitor, threads: int) -> None:
    """Raise `IntegrityError` naming the first range in which `reader` is not the disk of `source`.

    What `reader` says to be zeros is not read. What it has beyond the end must be zeros.
    """
    if reader.size < source.size:
        raise errors.IntegrityError("the disk", f"has {reader.size} bytes and not {source.size}", hint=_HINT)
    monitor.start("comparing", sum(length for _, length in windows.data(reader.extents(0, reader.size))))
    work = _Comparison(source, seals, reader, monitor)
    for found in ordered.ordered(work.items(), work.difference, threads):
        if found is not None:
            offset, length = found[0], min(found[1], reader.size - found[0])
            raise errors.IntegrityError(f"{length} bytes at {offset}", "are not what was committed", hint=_HINT)
