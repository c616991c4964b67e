"""What a disk outside has otherwise than a manifest says, by its hashes: no stored data is read, nor a hole."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vimgvc.codec import sealing
from vimgvc.disk import protocol, room
from vimgvc.model import geometry, manifest
from vimgvc.monitor import Monitor
from vimgvc.pipeline import leaves, ordered, tree, treediff, window, windows

_SAME, _ZERO, _DATA = 0, 1, 2
_Item = tuple[int, windows.Ranges | None, manifest.Leaf | None]


def changed_ranges(
    reader: protocol.Reader, base: tree.Tree | None, seals: sealing.Sealing, monitor: Monitor, threads: int
) -> Iterator[treediff.Ranges]:
    """What `reader` has otherwise than the disk of `base`, as `treediff.changed_ranges` tells it of two manifests.

    A chunk of `base` that is not there any more counts as a whole: as zeros the blocks that are zeros
    now. Where `base` has zeros, or is None, blocks count. Memory is a window a thread. Raises what `reader`
    raises, and `IntegrityError` where the manifest is damaged.
    """
    monitor.start("comparing", sum(length for _, length in windows.data(reader.extents(0, reader.size))))
    work = _Comparison(reader, seals, monitor)
    last = geometry.windows(reader.size)
    groups = base.groups(0, last) if base else iter(())
    stored = ((place.number, leaf) for group in groups for place, leaf in group)
    data = windows.split(windows.data(reader.extents(0, reader.size)))
    found = ordered.ordered(windows.pair(data, stored), work.difference, threads)
    return (item for item in found if item is not None)


class _Comparison:
    def __init__(self, reader: protocol.Reader, seals: sealing.Sealing, monitor: Monitor) -> None:
        self._reader, self._chunk_id, self._monitor = reader, seals.chunk_id, monitor
        self._local = threading.local()

    def difference(self, item: _Item) -> treediff.Ranges | None:
        number, ranges, leaf = item
        if ranges is None:
            kinds = np.zeros(geometry.BLOCKS_PER_WINDOW, np.int8)
            for offset, length, _ in window.chunks(leaf):
                kinds[_blocks(offset, length)] = _ZERO
        else:
            kinds = self._kinds(number, ranges, leaf)
        return _ranges(kinds, number * geometry.WINDOW, self._reader.size) if kinds.any() else None

    def _kinds(self, number: int, ranges: windows.Ranges, leaf: manifest.Leaf | None) -> npt.NDArray[np.int8]:
        view = self._buffer()
        self._monitor.advance(windows.read(self._reader, number, ranges, view))
        words = np.frombuffer(view, np.uint64).reshape(geometry.BLOCKS_PER_WINDOW, -1)
        full = np.zeros(geometry.BLOCKS_PER_WINDOW, bool)
        for offset, length in ranges:  # a hole is zeros without a look
            touched = _blocks(offset, length)
            full[touched] = words[touched].any(axis=1)
        kinds = np.where(full, _DATA, _SAME).astype(np.int8)
        for offset, length, chunk_id in window.chunks(leaf):
            place = _blocks(offset, length)
            if full[place].any() and self._chunk_id(view[offset : offset + length]) == chunk_id:
                kinds[place] = _SAME
            else:
                kinds[place] = np.where(full[place], _DATA, _ZERO)
        return kinds

    def _buffer(self) -> memoryview:
        """This thread's room for a window."""
        view: memoryview | None = getattr(self._local, "view", None)
        if view is None:
            view = self._local.view = room.pages(geometry.WINDOW)
        return view


def _blocks(offset: int, length: int) -> slice:
    return slice(offset // geometry.BLOCK, -(-(offset + length) // geometry.BLOCK))


def _ranges(kinds: npt.NDArray[np.int8], start: int, size: int) -> treediff.Ranges:
    firsts, ends = leaves.runs(kinds)
    named = kinds[firsts] != _SAME
    firsts, ends = firsts[named], ends[named]
    starts = start + firsts * geometry.BLOCK
    lengths = np.minimum((ends - firsts) * geometry.BLOCK, size - starts)
    inside = lengths > 0
    return treediff.Ranges(starts[inside], lengths[inside], (kinds[firsts] == _DATA)[inside])
