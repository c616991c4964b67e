"""Reading: from an identifier to its bytes, whichever pack holds it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vimgvc import errors
from vimgvc.codec import aead, sealing, segment
from vimgvc.model import geometry
from vimgvc.store import pack

if TYPE_CHECKING:
    from vimgvc.backends import protocol
    from vimgvc.store import index

#: What reading a stored object may raise; another copy of it may be sound.
UNREADABLE = (errors.IntegrityError, errors.NotFound, errors.BackendError)
_TABLES = 64
_TREE_SEGMENTS = 64


class Objects:
    """Thread-safe; keeps the tables of some packs and some decoded tree segments."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing, found: index.Index) -> None:
        self.backend = backend
        self.seals = seals
        self.index = found
        self._lock = threading.Lock()
        self._tables: OrderedDict[int, pack.Table] = OrderedDict()
        self._nodes: OrderedDict[tuple[int, int], dict[bytes, bytes]] = OrderedDict()
        self._local = threading.local()

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
        table = self.table(number)
        name = self.index.pack(number).name
        where = f"pack {name[:12]} segment {segment_number}"
        if segment_number >= len(table.segments):
            raise errors.IntegrityError(where, "does not exist in its pack")
        offset, shape = table.shape(segment_number)
        stored = self.backend.get(pack.blob_name(name), offset, shape.stored_length)
        return table, self.opener().open(shape, stored, table.slots(segment_number)[0], where)

    def chunk(self, chunk_id: bytes) -> bytes | None:
        """The bytes of a chunk from any pack that has it whole; None when there is none."""
        for place in self.index.lookup_all(chunk_id):
            try:
                table, plain = self.read_segment(place.pack, place.segment)
                _, offsets, lengths = table.slots(place.segment)
                data = plain[int(offsets[place.slot]) :][: int(lengths[place.slot])]
                self.seals.check_slot(segment.DATA, data, chunk_id, "chunk")
            except (*UNREADABLE, IndexError):
                continue
            return data
        return None

    def nodes(self, ids: Sequence[bytes]) -> list[bytes]:
        """The manifest nodes with these identifiers, in order; raises `IntegrityError` when one cannot be read."""
        if not ids:
            return []
        places = self.index.lookup(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, geometry.ID_SIZE))
        result = []
        for at, node_id in enumerate(ids):
            if not places.found[at]:
                raise errors.IntegrityError(f"manifest node {node_id.hex()[:12]}", "is missing")
            result.append(self._node(node_id, int(places.pack[at]), int(places.segment[at])))
        return result

    def _node(self, node_id: bytes, number: int, segment_number: int) -> bytes:
        try:
            return self._tree_segment(number, segment_number)[node_id]
        except (*UNREADABLE, KeyError) as first:
            for place in self.index.lookup_all(node_id):
                if (place.pack, place.segment) == (number, segment_number):
                    continue
                try:
                    return self._tree_segment(place.pack, place.segment)[node_id]
                except (*UNREADABLE, KeyError):
                    continue
            if isinstance(first, KeyError):
                raise errors.IntegrityError(
                    f"manifest node {node_id.hex()[:12]}", "is not where the index says"
                ) from first
            raise

    def _tree_segment(self, number: int, segment_number: int) -> dict[bytes, bytes]:
        key = (number, segment_number)
        with self._lock:
            if key in self._nodes:
                self._nodes.move_to_end(key)
                return self._nodes[key]
        table, plain = self.read_segment(number, segment_number)
        if table.kind != segment.TREE:
            raise errors.IntegrityError(f"pack {number}", "is not a pack of manifest nodes")
        nodes = {}
        ids, offsets, lengths = table.slots(segment_number)
        for slot, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
            node_id = ids[slot * 32 : slot * 32 + 32]
            data = plain[offset : offset + length]
            self.seals.check_slot(segment.TREE, data, node_id, f"manifest node {node_id.hex()[:12]}")
            nodes[node_id] = data
        with self._lock:
            self._nodes[key] = nodes
            if len(self._nodes) > _TREE_SEGMENTS:
                self._nodes.popitem(last=False)
        return nodes


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
