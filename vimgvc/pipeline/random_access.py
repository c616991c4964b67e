"""A stored disk read anywhere, and where its data lies.

Opened segments and decoded windows are kept, both bounded, and shared by all threads. A chunk is
hashed when it is first used; no byte of one that does not fit is returned.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from vimgvc import errors
from vimgvc.codec import segment
from vimgvc.disk import extents
from vimgvc.model import geometry
from vimgvc.pipeline import materialize, tree
from vimgvc.store import objects

#: Plain bytes of opened segments, and decoded windows, that are kept.
CACHE = 64 << 20
_CACHE_PER_THREAD = 8 << 20
_WINDOWS = 256
_FAMILIES = 64
_ZEROS = memoryview(bytes(geometry.WINDOW))

#: Pack, segment, slot.
Place = tuple[int, int, int]
K = TypeVar("K")
V = TypeVar("V")


def data_extents(source: tree.Tree, offset: int, length: int) -> Iterator[extents.Extent]:
    """Cover a range of a disk with DATA and HOLE as its manifest says, reading nothing else."""
    extents.check_range(source.size, offset, length)
    return extents.cover(_data(source, offset, length), offset, length, extents.Kind.HOLE)


def _data(source: tree.Tree, offset: int, length: int) -> Iterator[extents.Extent]:
    if not length:
        return
    first, last = offset // geometry.WINDOW, geometry.windows(offset + length)
    for group in source.groups(first, last):
        for place, leaf in group:
            # Merged before they become objects: a full disk of 1 TiB has 16 million chunks.
            at = start = place.number * geometry.WINDOW
            for blocks, zero in leaf.runs:
                if zero:
                    if at > start:
                        yield extents.Extent(start, at - start, extents.Kind.DATA)
                    start = at + blocks * geometry.BLOCK
                at += blocks * geometry.BLOCK
            if at > start:
                yield extents.Extent(start, at - start, extents.Kind.DATA)


class _Slot(Generic[V]):
    __slots__ = ("lock", "size", "value")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: V | None = None
        self.size = 0


class Cache(Generic[K, V]):
    """The values last used, of `capacity` in all by what `measure` says. Thread-safe.

    What several threads want at once is loaded by one of them; what could not be loaded is not kept.
    """

    def __init__(self, capacity: int, measure: Callable[[V], int]) -> None:
        self._capacity, self._measure = capacity, measure
        self._lock = threading.Lock()
        self._slots: OrderedDict[K, _Slot[V]] = OrderedDict()
        self._size = 0

    def __contains__(self, key: K) -> bool:
        """Whether it is there or on its way."""
        with self._lock:
            return key in self._slots

    def get(self, key: K, load: Callable[[K], V], meanwhile: Callable[[], None] | None = None) -> V:
        """The value of `key`; while another thread loads it, `meanwhile` may do something useful."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot()
            else:
                self._slots.move_to_end(key)
            if slot.value is not None:
                return slot.value
        if meanwhile is not None and slot.lock.locked():
            meanwhile()
        with slot.lock:
            if slot.value is not None:
                return slot.value
            try:
                value = load(key)
            except BaseException:
                self._forget(key, slot)
                raise
            self._keep(key, slot, value)
            return value

    def clear(self) -> None:
        with self._lock:
            self._slots.clear()
            self._size = 0

    def _keep(self, key: K, slot: _Slot[V], value: V) -> None:
        with self._lock:
            slot.value = value
            if self._slots.get(key) is not slot:  # pushed out while it was loaded
                return
            slot.size = self._measure(value)
            self._size += slot.size
            while self._size > self._capacity:
                _, old = self._slots.popitem(last=False)
                self._size -= old.size

    def _forget(self, key: K, slot: _Slot[V]) -> None:
        with self._lock:
            if self._slots.get(key) is slot:
                del self._slots[key]


class _Opened:
    """A segment's plain bytes, and which of its slots were found right."""

    def __init__(self, store: objects.Objects, number: int, segment_number: int) -> None:
        table, plain = store.read_segment(number, segment_number)
        self._view = memoryview(plain)
        self._ids, starts, lengths = table.slots(segment_number)
        self._starts, self._lengths = starts.tolist(), lengths.tolist()
        self._right = bytearray(len(self._lengths))
        self._check = store.seals.check_slot

    def __len__(self) -> int:
        return len(self._view)

    def chunk(self, slot: int, chunk_id: bytes, length: int) -> memoryview:
        """The bytes of a slot; raises `IntegrityError` unless they are those of `chunk_id`."""
        if slot >= len(self._lengths) or self._ids[32 * slot : 32 * slot + 32] != chunk_id:
            raise errors.IntegrityError("chunk", "is not where the index says")
        if self._lengths[slot] != length:
            raise errors.IntegrityError("chunk", "is not as long as the manifest says")
        start = self._starts[slot]
        data = self._view[start : start + length]
        if not self._right[slot]:
            self._check(segment.DATA, data, chunk_id, "chunk")
            self._right[slot] = 1
        return data


@dataclass(frozen=True, slots=True)
class _Window:
    """The chunks of one window: bytes inside the window, and where the index has them."""

    ids: bytes
    starts: list[int]
    ends: list[int]
    places: list[Place | None]


_EMPTY = _Window(b"", [], [], [])


class _Moved(Exception):
    """A pack is gone; `store` knows what is there now."""

    def __init__(self, store: objects.Objects) -> None:
        super().__init__()
        self.store = store


class StoredReader:
    """A `disk.protocol.Reader` over a disk of a commit.

    A range with a chunk that is damaged in all its places cannot be read (`IntegrityError`); every
    other range can. `threads` is how many will read at the same time: more need a larger cache.
    """

    def __init__(self, store: objects.Objects, source: tree.Tree, threads: int) -> None:
        self._store, self._tree, self._threads = store, source, threads
        #: Reads everything from where it is now, once a pack is gone.
        self._newer: StoredReader | None = None
        self._segments: Cache[tuple[int, int], _Opened] = Cache(max(CACHE, threads * _CACHE_PER_THREAD), len)
        self._windows: Cache[int, _Window] = Cache(_WINDOWS, lambda _: 1)
        self._families: Cache[int, dict[int, tree.Window]] = Cache(_FAMILIES, lambda _: 1)

    @property
    def size(self) -> int:
        return self._tree.size

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return data_extents(self._tree, offset, length)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        at = 0
        while at < buffer.nbytes:
            number, start = divmod(offset + at, geometry.WINDOW)
            length = min(buffer.nbytes - at, geometry.WINDOW - start)
            self._read(number, start, buffer[at : at + length])
            at += length

    def _read(self, number: int, start: int, view: memoryview) -> None:
        if self._newer is None:
            try:
                self._read_window(number, start, view)
                return
            except _Moved as moved:
                # Others may come here as well; each of these readers is right.
                self._newer = StoredReader(moved.store, self._tree, self._threads)
        self._newer._read_window(number, start, view)  # noqa: SLF001

    def close(self) -> None:
        self._segments.clear()
        self._windows.clear()
        self._families.clear()

    def _read_window(self, number: int, start: int, view: memoryview) -> None:
        """Fill `view` with what lies `start` bytes inside a window."""
        window = self._windows.get(number, self._load_window)
        position, end = start, start + len(view)
        chunk = bisect.bisect_right(window.ends, start)
        while chunk < len(window.ends) and window.starts[chunk] < end:
            first = window.starts[chunk]
            if first > position:
                view[position - start : first - start] = _ZEROS[: first - position]
                position = first
            stop = min(window.ends[chunk], end)
            data = self._chunk(number, window, chunk)
            view[position - start : stop - start] = data[position - first : stop - first]
            position, chunk = stop, chunk + 1
        view[position - start :] = _ZEROS[: end - position]

    def _chunk(self, number: int, window: _Window, chunk: int) -> memoryview:
        """The bytes of a chunk from the first of its places that is sound."""
        chunk_id = window.ids[32 * chunk : 32 * chunk + 32]
        length = window.ends[chunk] - window.starts[chunk]
        problem: errors.VimgvcError | None = None
        moved: _Moved | None = None
        for place in self._places(chunk_id, window.places[chunk]):
            try:
                opened = self._segments.get(place[:2], self._open, lambda: self._open_next(number, window, chunk))
                return opened.chunk(place[2], chunk_id, length)
            except objects.UNREADABLE as error:
                problem = problem or error
                if newer := self._store.newer(error):
                    moved = _Moved(newer)
        if moved is not None:
            raise moved
        if isinstance(problem, errors.BackendError):
            raise problem
        name = materialize.chunk_name(chunk_id, number * geometry.WINDOW + window.starts[chunk])
        raise errors.IntegrityError(name, "is damaged" if problem else "is missing") from problem

    def _places(self, chunk_id: bytes, known: Place | None) -> Iterator[Place]:
        if known is not None:
            yield known
        yield from (place for place in self._store.index.lookup_all(chunk_id) if place != known)

    def _open(self, key: tuple[int, int]) -> _Opened:
        return _Opened(self._store, *key)

    def _open_next(self, number: int, window: _Window, chunk: int) -> None:
        """Open the next segment that reading on will need: threads that read side by side want the same ones."""
        with contextlib.suppress(*objects.UNREADABLE):
            following = window.places[chunk + 1 :]
            if (number + 1) * geometry.WINDOW < self.size:
                following = following + self._windows.get(number + 1, self._load_window).places
            for place in following:
                if place is not None and place[:2] not in self._segments:
                    self._segments.get(place[:2], self._open)
                    return

    def _load_family(self, family: int) -> dict[int, tree.Window]:
        """The windows with data below one inner node, by number."""
        first = family * geometry.FANOUT
        last = min(first + geometry.FANOUT, geometry.windows(self.size))
        return {window.number: window for window in self._tree.windows(first, last)}

    def _load_window(self, number: int) -> _Window:
        here = self._families.get(number // geometry.FANOUT, self._load_family).get(number)
        if here is None:
            return _EMPTY
        [(_, leaf)] = self._tree.leaves([here])
        runs = np.array(leaf.runs, np.int64)
        ends = np.cumsum(runs[:, 0]) * geometry.BLOCK
        chunks = runs[:, 1] == 0
        starts = ends - runs[:, 0] * geometry.BLOCK
        found = self._store.index.lookup(np.frombuffer(leaf.ids, np.uint8).reshape(-1, geometry.ID_SIZE))
        columns = zip(found.pack.tolist(), found.segment.tolist(), found.slot.tolist(), strict=True)
        places = [place if there else None for place, there in zip(columns, found.found.tolist(), strict=True)]
        return _Window(leaf.ids, starts[chunks].tolist(), ends[chunks].tolist(), places)
