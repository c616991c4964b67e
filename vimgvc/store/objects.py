"""Reading: from an identifier to its bytes, whichever pack holds it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vimgvc import errors
from vimgvc.codec import aead, sealing, segment
from vimgvc.model import geometry
from vimgvc.store import pack

if TYPE_CHECKING:
    import numpy.typing as npt

    from vimgvc.backends import protocol
    from vimgvc.store import index

#: What reading a stored object may raise; another copy of it may be sound.
UNREADABLE = (errors.IntegrityError, errors.NotFound, errors.BackendError)
_TABLES = 64
_TREE_SEGMENTS = 64


class Objects:
    """Thread-safe; keeps the tables of some packs and some decoded tree segments.

    `reload`: the index as it is now; asked once, when a pack that it named is gone.
    """

    def __init__(
        self,
        backend: protocol.Backend,
        seals: sealing.Sealing,
        found: index.Index,
        reload: Callable[[], index.Index] | None = None,
    ) -> None:
        self.backend = backend
        self.seals = seals
        self.index = found
        self._reload, self._reloading = reload, threading.Lock()
        self._newer: Objects | None = None
        self._lock = threading.Lock()
        self._tables: OrderedDict[int, pack.Table] = OrderedDict()
        self._nodes: OrderedDict[tuple[int, int], _TreeSegment] = OrderedDict()
        self._local = threading.local()

    def newer(self, failure: BaseException | None) -> Objects | None:
        """Where to read what a pack held that is gone: a collection may have moved it meanwhile (K6)."""
        if self._reload is None or not isinstance(failure, errors.NotFound):
            return None
        with self._reloading:
            if self._newer is None:
                self._newer = Objects(self.backend, self.seals, self._reload())
            return self._newer

    def opener(self) -> segment.Opener:
        """This thread's opener."""
        opener: segment.Opener | None = getattr(self._local, "opener", None)
        if opener is None:
            opener = self._local.opener = self.seals.opener()
        return opener

    def table(self, number: int) -> pack.Table:
        """The table of the index's pack `number`; raises `IntegrityError`, `NotFound`."""
        with self._lock:
            if number in self._tables:
                self._tables.move_to_end(number)
                return self._tables[number]
        known = self.index.pack(number)
        table, _ = load_table(self.backend, self.seals, known.name, known.table_length)
        with self._lock:
            self._tables[number] = table
            if len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        return table

    def read_segment(self, number: int, segment_number: int) -> tuple[pack.Table, bytes]:
        """(table, plain bytes) of one segment; the slots' identifiers are not yet checked."""
        table, stored = self._stored(number, segment_number)
        _, shape = table.shape(segment_number)
        ids, _, _ = table.slots(segment_number)
        return table, self.opener().open(shape, stored, ids, self._where(number, segment_number))

    def read_slots(
        self, number: int, segment_number: int, last: int, read: memoryview | None = None
    ) -> tuple[pack.Table, bytes | bytearray]:
        """The same, but of the plain bytes only what slots up to `last` take: decompressing is what takes the time.

        `read`: the segment as it is stored, when that was read before.
        """
        stored: bytes | memoryview
        table, stored = self._stored(number, segment_number) if read is None else (self.table(number), read)
        where = self._where(number, segment_number)
        ids, offsets, lengths = table.slots(segment_number)
        if last >= len(lengths):
            raise errors.IntegrityError(where, f"has no slot {last}")
        wanted = int(offsets[last]) + int(lengths[last])
        return table, self.opener().beginning(table.shape(segment_number)[1], stored, ids, wanted, where)

    def read_run(self, number: int, first: int, last: int) -> dict[int, memoryview]:
        """Neighbouring segments of a pack as they are stored, in one call; without any when that cannot be read."""
        try:
            table = self.table(number)
            if last >= len(table.segments):
                return {}
            places = {at: table.shape(at) for at in range(first, last + 1)}
            start, (offset, shape) = places[first][0], places[last]
            blob = pack.blob_name(self.index.pack(number).name)
            view = memoryview(self.backend.get(blob, start, offset + shape.stored_length - start))
        except UNREADABLE:
            return {}  # whoever needs one of them tries again, and other copies
        return {at: view[offset - start :][: shape.stored_length] for at, (offset, shape) in places.items()}

    def _stored(self, number: int, segment_number: int) -> tuple[pack.Table, bytes]:
        table = self.table(number)
        if segment_number >= len(table.segments):
            raise errors.IntegrityError(self._where(number, segment_number), "does not exist in its pack")
        offset, shape = table.shape(segment_number)
        blob = pack.blob_name(self.index.pack(number).name)
        return table, self.backend.get(blob, offset, shape.stored_length)

    def _where(self, number: int, segment_number: int) -> str:
        return f"pack {self.index.pack(number).name[:12]} segment {segment_number}"

    def chunk(self, chunk_id: bytes) -> bytes | None:
        """The bytes of a chunk from any pack that has it whole; None when there is none."""
        gone: errors.NotFound | None = None
        for place in self.index.lookup_all(chunk_id):
            try:
                table, plain = self.read_segment(place.pack, place.segment)
                _, offsets, lengths = table.slots(place.segment)
                data = bytes(plain[int(offsets[place.slot]) :][: int(lengths[place.slot])])
                self.seals.check_slot(segment.DATA, data, chunk_id, "chunk")
            except (*UNREADABLE, IndexError) as error:
                gone = error if isinstance(error, errors.NotFound) else gone
                continue
            return data
        newer = self.newer(gone)
        return newer.chunk(chunk_id) if newer else None

    def nodes(self, ids: Sequence[bytes]) -> list[bytes]:
        """The manifest nodes with these identifiers, in order; raises `IntegrityError` when one cannot be read."""
        if not ids:
            return []
        places = self.index.lookup(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, geometry.ID_SIZE))
        ahead = self._read_ahead(places) if self.backend.capabilities.parallel > 1 else {}
        result = []
        where = zip(places.pack.tolist(), places.segment.tolist(), strict=True)
        last, kept = (-1, -1), None  # neighbours in a tree mostly lie together
        for node_id, found, key in zip(ids, places.found.tolist(), where, strict=True):
            if not found:
                raise errors.IntegrityError(f"manifest node {node_id.hex()[:12]}", "is missing")
            if key != last or kept is None:
                last, kept = key, ahead.get(key) or self._kept(key)
            result.append(self._node(node_id, *key, kept))
        return result

    def _read_ahead(self, places: index.Places) -> dict[tuple[int, int], _TreeSegment]:
        """The segments of all these places, several at a time; without those that cannot be read."""
        found = places.found
        keys = dict.fromkeys(zip(places.pack[found].tolist(), places.segment[found].tolist(), strict=True))
        if len(keys) < 2:
            return {}

        def read(key: tuple[int, int]) -> _TreeSegment | None:
            try:
                return self._tree_segment(*key)
            except UNREADABLE:
                return None  # whoever needs it tries again, and other copies

        from concurrent import futures  # which loads the logging module

        with futures.ThreadPoolExecutor(self.backend.capabilities.parallel, "vimgvc-nodes") as pool:
            done = list(pool.map(read, keys))
        return {key: segment_read for key, segment_read in zip(keys, done, strict=True) if segment_read is not None}

    def _node(self, node_id: bytes, number: int, segment_number: int, ahead: _TreeSegment | None) -> bytes:
        try:
            return (ahead or self._tree_segment(number, segment_number)).node(node_id)
        except (*UNREADABLE, KeyError) as first:
            for place in self.index.lookup_all(node_id):
                if (place.pack, place.segment) == (number, segment_number):
                    continue
                try:
                    return self._tree_segment(place.pack, place.segment).node(node_id)
                except (*UNREADABLE, KeyError):
                    continue
            if newer := self.newer(first):
                return newer.nodes([node_id])[0]
            if isinstance(first, KeyError):
                raise errors.IntegrityError(
                    f"manifest node {node_id.hex()[:12]}", "is not where the index says"
                ) from first
            raise

    def _kept(self, key: tuple[int, int]) -> _TreeSegment | None:
        with self._lock:
            if key in self._nodes:
                self._nodes.move_to_end(key)
            return self._nodes.get(key)

    def _tree_segment(self, number: int, segment_number: int) -> _TreeSegment:
        key = (number, segment_number)
        if (kept := self._kept(key)) is not None:
            return kept
        table, plain = self.read_segment(number, segment_number)
        if table.kind != segment.TREE:
            raise errors.IntegrityError(f"pack {number}", "is not a pack of manifest nodes")
        nodes = _TreeSegment(self.seals, plain, *table.slots(segment_number))
        with self._lock:
            self._nodes[key] = nodes
            if len(self._nodes) > _TREE_SEGMENTS:
                self._nodes.popitem(last=False)
        return nodes


class _TreeSegment:
    """The nodes of an opened segment, each checked when it is first asked for."""

    def __init__(
        self,
        seals: sealing.Sealing,
        plain: bytes,
        ids: bytes,
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.uint32],
    ) -> None:
        self._seals, self._plain = seals, plain
        names = [ids[at : at + geometry.ID_SIZE] for at in range(0, len(ids), geometry.ID_SIZE)]
        self._places = dict(zip(names, zip(offsets.tolist(), lengths.tolist(), strict=True), strict=True))
        self._checked: set[bytes] = set()

    def node(self, node_id: bytes) -> bytes:
        """Raises `KeyError` where there is none of that name, `IntegrityError` where it holds something else."""
        offset, length = self._places[node_id]
        found = self._plain[offset : offset + length]
        if node_id not in self._checked:
            self._seals.check_slot(segment.TREE, found, node_id, f"manifest node {node_id.hex()[:12]}")
            self._checked.add(node_id)
        return found


def load_table(
    backend: protocol.Backend, seals: sealing.Sealing, name: str, table_length: int | None = None
) -> tuple[pack.Table, int]:
    """(table, length of a sealed copy) of the stored pack `name`; raises `IntegrityError`, `NotFound`."""
    blob = pack.blob_name(name)
    return pack.read_table(
        name,
        backend.size(blob),
        lambda offset, length: backend.get(blob, offset, length),
        lambda data, where: seals.open(aead.TABLE, data, where),
        table_length=table_length,
    )


def pack_sizes(items: Iterable[protocol.Item]) -> dict[str, int]:
    """Name → size of the packs among the listed blobs of `packs`."""
    sizes = {}
    for item in items:
        name = item.name.rpartition("/")[2]
        if len(name) == 2 * geometry.ID_SIZE and item.name == pack.blob_name(name):
            sizes[name] = item.size
    return sizes
