"""Reader to store: the hot loop of a commit.

Everything falls apart into windows. A window's bytes are hashed along the boundaries that the base
(the disk as the parent commit has it) had; when all is equal its leaf is used again. Otherwise it is
cut afresh, and what nobody has stored yet is compressed and sealed in segments of up to 1 MiB.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

from vimgvc import errors
from vimgvc.chunking import cut
from vimgvc.codec import sealing, segment
from vimgvc.disk import protocol
from vimgvc.model import geometry, manifest
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, tree, window, windows
from vimgvc.store import objects, pack, writer

SEGMENT_SIZE = 1 << 20
TREE_SEGMENT_SIZE = 128 << 10


class BaseDamagedError(errors.IntegrityError):
    """The base's manifest cannot be read: ingest again, with a new Writer and without a base."""


@dataclass(frozen=True, slots=True)
class Source:
    """A disk to be committed under `name`; `container` is what the commit says about its file."""

    name: str
    reader: protocol.Source
    container: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    seals: sealing.Sealing
    cutter: cut.Cutter
    level: int
    verify: bool
    threads: int


@dataclass(slots=True)
class Counters:
    """Bytes. `stored` counts sealed segments: what the packs grow by."""

    allocated: int = 0
    read: int = 0
    changed: int = 0
    new: int = 0
    stored: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    root: bytes
    counters: Counters


@dataclass(frozen=True, slots=True)
class _Item:
    """`sequence` counts up without gaps; `ranges` are (offset, length) of data inside the window.

    `same`: it is known to be what the base has.
    """

    sequence: int
    number: int
    ranges: list[tuple[int, int]]
    base: tuple[bytes, manifest.Leaf] | None
    same: bool = False


class _Accumulator:
    """Collects slots of one kind and hands them over as segments. Not thread-safe."""

    def __init__(self, kind: int, settings: Settings, out: writer.Writer, size: int) -> None:
        self._kind, self._out, self._size = kind, out, size
        capacity = size + pack.MAX_SLOT[kind]
        self._sealer = settings.seals.sealer(level=settings.level, verify=settings.verify, capacity=capacity)
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._fill = 0
        self._ids: list[bytes] = []
        self._lengths: list[int] = []
        self.stored = 0

    def add(self, data: memoryview | bytes, item_id: bytes) -> None:
        if self._fill and self._fill + len(data) > self._size:
            self.flush()
        end = self._fill + len(data)
        self._view[self._fill : end] = data
        self._fill = end
        self._ids.append(item_id)
        self._lengths.append(len(data))

    def flush(self) -> None:
        if not self._fill:
            return
        ids = b"".join(self._ids)
        shape, stored = self._sealer.seal(self._kind, self._buffer, self._fill, ids)
        self._out.add(shape, stored, ids, self._lengths)
        self.stored += len(stored)
        self._fill, self._ids, self._lengths = 0, [], []


class _Nodes:
    """Collects manifest nodes; asks in batches which of them are new. Thread-safe."""

    def __init__(self, settings: Settings, out: writer.Writer) -> None:
        self._node_id, self._out = settings.seals.node_id, out
        self._segment = _Accumulator(segment.TREE, settings, out, TREE_SEGMENT_SIZE)
        self._lock = threading.Lock()
        self._waiting: dict[bytes, bytes] = {}
        self._size = 0

    def put(self, node: bytes) -> bytes:
        """The identifier of `node`, which is stored by the end of `flush` at the latest."""
        node_id = self._node_id(node)
        with self._lock:
            if node_id not in self._waiting:
                self._waiting[node_id] = node
                self._size += len(node)
            if self._size >= TREE_SEGMENT_SIZE:
                self._add_new()
        return node_id

    def flush(self) -> int:
        """Returns the bytes stored for nodes so far."""
        with self._lock:
            self._add_new()
            self._segment.flush()
            return self._segment.stored

    def _add_new(self) -> None:
        ids = list(self._waiting)
        for at in self._out.claim(ids):
            self._segment.add(self._waiting[ids[at]], ids[at])
        self._waiting, self._size = {}, 0


class _Ingest:
    """One disk on its way into the store; shared by the workers."""

    def __init__(self, source: Source, settings: Settings, out: writer.Writer, monitor: Monitor) -> None:
        self.reader, self.settings, self.out, self.monitor = source.reader, settings, out, monitor
        self.size = source.reader.size
        self.counters = Counters()
        self._lock = threading.Lock()
        self._nodes = _Nodes(settings, out)
        self.put_node = self._nodes.put
        self._tree = tree.Builder(self.size, self.put_node)
        self._done: dict[int, tuple[int, bytes | None]] = {}
        self._next = 0

    def leaf_done(self, item: _Item, leaf_id: bytes | None) -> None:
        """Leaves come in any order; the tree takes them ascending."""
        with self._lock:
            self._done[item.sequence] = (item.number, leaf_id)
            while self._next in self._done:
                number, done_id = self._done.pop(self._next)
                self._next += 1
                if done_id is not None:
                    self._tree.add(number, done_id)

    def count(self, read: int, changed: int, new: int) -> None:
        with self._lock:
            self.counters.read += read
            self.counters.changed += changed
            self.counters.new += new

    def count_stored(self, stored: int) -> None:
        with self._lock:
            self.counters.stored += stored

    def finish(self) -> bytes:
        root = self._tree.finish()
        self.counters.stored += self._nodes.flush()
        return root


class _Worker:
    def __init__(self, job: _Ingest) -> None:
        self._job = job
        self._scanner = window.Scanner(job.settings.seals, job.settings.cutter)
        self._segment = _Accumulator(segment.DATA, job.settings, job.out, SEGMENT_SIZE)

    def work(self, item: _Item) -> None:
        job = self._job
        if item.same and item.base:
            job.leaf_done(item, item.base[0])
            return
        before = self._segment.stored
        blocks = geometry.window_blocks(job.size, item.number)
        base = item.base[1] if item.base else None
        read = windows.read(job.reader, item.number, item.ranges, self._scanner.view[: blocks * geometry.BLOCK])
        scan = self._scanner.scan(blocks, base) if item.ranges else window.Scan(None)
        new = self._store(scan, base)
        if scan.same and item.base:
            job.leaf_done(item, item.base[0])
        else:
            job.leaf_done(item, job.put_node(scan.leaf.encode()) if scan.leaf else None)
        job.count(read, window.changed_bytes(scan, base, blocks), new)
        job.monitor.advance(read, new=new, stored=self._segment.stored - before)

    def close(self) -> None:
        before = self._segment.stored
        self._segment.flush()
        self._job.monitor.advance(0, stored=self._segment.stored - before)
        self._job.count_stored(self._segment.stored)

    def _store(self, scan: window.Scan, base: manifest.Leaf | None) -> int:
        """Add what nobody has; returns its bytes."""
        known = set(base.chunk_ids()) if base and scan.chunks else ()
        unknown = [chunk for chunk in scan.chunks if chunk.id not in known]
        new = 0
        for at in self._job.out.claim([chunk.id for chunk in unknown]):
            chunk = unknown[at]
            self._segment.add(self._scanner.view[chunk.offset : chunk.offset + chunk.length], chunk.id)
            new += chunk.length
        return new


def ingest(
    source: Source,
    base: tree.Tree | None,
    settings: Settings,
    out: writer.Writer,
    monitor: Monitor,
    *,
    changed: Container[int] | None = None,
) -> Result:
    """Store a disk; `base` is a tree in the store, for comparing and reuse.

    `changed`: the numbers of the windows in which the disk may differ from the base; None: anywhere.
    """
    job = _Ingest(source, settings, out, monitor)
    job.counters.allocated = sum(length for _, length in windows.data(source.reader.extents(0, job.size)))
    monitor.start(f"committing {source.name}", job.counters.allocated)
    crew.run(_items(source.reader, base, changed), lambda: _Worker(job), settings.threads)
    return Result(job.finish(), job.counters)


def _items(reader: protocol.Reader, base: tree.Tree | None, changed: Container[int] | None) -> Iterator[_Item]:
    """Every window that has data now or had data in the base, ascending."""
    before = _base_leaves(base, geometry.windows(reader.size), reader.size) if base else iter(())
    now = windows.split(windows.data(reader.extents(0, reader.size)))
    for sequence, (number, ranges, old) in enumerate(windows.pair(now, before)):
        yield _Item(sequence, number, ranges or [], old, changed is not None and number not in changed)


def _base_leaves(base: tree.Tree, last: int, size: int) -> Iterator[tuple[int, tuple[bytes, manifest.Leaf]]]:
    """The base's leaves that lie in windows of the same length in the new disk, and whose chunks are there."""
    try:
        for group in base.groups(0, last):
            for place, leaf in base.complete(group):
                if geometry.window_blocks(base.size, place.number) == geometry.window_blocks(size, place.number):
                    yield place.number, (place.leaf_id, leaf)
    except objects.UNREADABLE as error:
        raise BaseDamagedError("manifest of the parent", str(error)) from error
