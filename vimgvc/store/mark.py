"""Which slots of all packs are needed: one byte for each slot that the index knows.

Manifest trees are walked from their roots. A node whose slot is marked was walked before, so each node is
read once, however many commits share it, and nothing but the bytes of the slots grows with the repository.
Of an identifier that is stored in several places one place is marked: `shadows` finds the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.codec import segment
from vimgvc.model import geometry, manifest
from vimgvc.store import index, index_object, objects, runs

#: Nodes that are read together.
_GROUP = 256
_PACK, _SEGMENT, _LOW = np.uint64(32), np.uint64(16), np.uint64(0xFFFF)

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Sizes = npt.NDArray[np.uint32]
#: A node and the first window below it.
_Node = tuple[int, bytes]


class Layout:
    """Numbers all slots that an index knows: by pack, segment and slot.

    A pack that index objects describe in several ways is one pack here: `canonical` has its first number.
    """

    def __init__(self, found: index.Index) -> None:
        packs = list(found.packs())
        count = max([item.number for item in packs], default=-1) + 1
        first: dict[str, int] = {}
        self.canonical = np.zeros(count, np.int64)
        for item in packs:
            self.canonical[item.number] = first.setdefault(item.name, item.number)
        self.packs = [item for item in packs if first[item.name] == item.number]
        self.kinds = np.zeros(count, np.int64)
        self.kinds[[item.number for item in packs]] = [item.kind for item in packs]
        segments = np.zeros(count, np.int64)
        entries = 0
        for records in found.records():
            entries += len(records)
            pack, number, _ = self._columns(records[:, 4])
            np.maximum.at(segments, pack, number + 1)
        self._first_segment = np.concatenate(([0], np.cumsum(segments)))
        slots = np.zeros(self._first_segment[-1], np.int64)
        for records in found.records():
            pack, number, slot = self._columns(records[:, 4])
            np.maximum.at(slots, self._first_segment[pack] + number, slot + 1)
        self._first_slot = np.concatenate(([0], np.cumsum(slots)))
        self.total = int(self._first_slot[-1])
        # Each slot of a pack has an entry; many more of them than entries come from no writer, and cost memory.
        if self.total > 16 * entries + (1 << 20):
            raise errors.FormatError("index", "names places that cannot be")

    def bits(self, places: runs.Words) -> Numbers:
        """The numbers of packed places."""
        pack, number, slot = self._columns(places)
        bits: Numbers = self._first_slot[self._first_segment[pack] + number] + slot
        return bits

    def range(self, pack: int) -> slice:
        """The numbers of a pack's slots; `pack` is canonical."""
        first, last = self._first_segment[pack], self._first_segment[pack + 1]
        return slice(int(self._first_slot[first]), int(self._first_slot[last]))

    def segment_range(self, pack: int, number: int) -> slice:
        """The numbers of the slots of a segment, as far as the index knows them."""
        at = int(self._first_segment[pack]) + number
        if at >= self._first_segment[pack + 1]:
            return slice(0, 0)
        return slice(int(self._first_slot[at]), int(self._first_slot[at + 1]))

    def _columns(self, places: runs.Words) -> tuple[Numbers, Numbers, Numbers]:
        pack = self.canonical[(places >> _PACK).astype(np.int64)]
        return pack, (places >> _SEGMENT & _LOW).astype(np.int64), (places & _LOW).astype(np.int64)


class Marker:
    """`live` has a flag for each slot of `layout`. Not thread-safe.

    Copies in the packs `avoid` (names) are marked only where there is no other.
    """

    def __init__(self, store: objects.Objects, avoid: Collection[str] = ()) -> None:
        self.store = store
        self._avoid = [item.number for item in store.index.packs() if item.name in avoid]
        self.layout = Layout(store.index)
        self.live = np.zeros(self.layout.total, np.bool_)
        self._verified: dict[tuple[int, int], bool] = {}

    def add_tree(self, root_id: bytes, *, whole: bool = True, data: bool = True) -> None:
        """A disk's manifest with all that it leads to; raises `IntegrityError` for whatever is not there.

        With `whole` false what is not there, or cannot be read, is left out; with `data` false chunks that are not
        there are.
        """
        if not self.claim([root_id], segment.TREE, whole=whole)[0]:
            return
        for blob in self._nodes([root_id], whole=whole).values():
            root = manifest.decode_root(blob)
            if root.top != geometry.ZERO_ID:
                self._walk(root.size, root.level, [(0, root.top)], whole=whole, data=data)

    def _walk(self, size: int, level: int, nodes: Sequence[_Node], *, whole: bool, data: bool) -> None:
        for start in range(0, len(nodes), _GROUP):
            group = nodes[start : start + _GROUP]
            new = self.claim([node_id for _, node_id in group], segment.TREE, whole=whole)
            group = [item for item, is_new in zip(group, new.tolist(), strict=True) if is_new]
            found = self._nodes([node_id for _, node_id in group], whole=whole)
            group = [item for item in group if item[1] in found]
            blobs = [found[node_id] for _, node_id in group]
            if level:
                self._walk(size, level - 1, list(_children(size, level, group, blobs)), whole=whole, data=data)
            else:
                leaves = [
                    manifest.decode_leaf(blob, geometry.window_blocks(size, window))
                    for (window, _), blob in zip(group, blobs, strict=True)
                ]
                self.claim([leaf.ids for leaf in leaves], segment.DATA, whole=whole and data)

    def _nodes(self, ids: Sequence[bytes], *, whole: bool) -> dict[bytes, bytes]:
        try:
            return dict(zip(ids, self.store.nodes(ids), strict=True))
        except (errors.IntegrityError, errors.NotFound):
            if whole:
                raise
        found = {}
        for node_id in ids:
            with contextlib.suppress(errors.IntegrityError, errors.NotFound):
                found[node_id] = self.store.nodes([node_id])[0]
        return found

    def claim(self, ids: Sequence[bytes], kind: int, *, whole: bool = True) -> Flags:
        """Mark the places of identifiers, given in any pieces; which of them were not marked before."""
        wanted = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, geometry.ID_SIZE)
        places = self._lookup(wanted)
        there = np.flatnonzero(places.found)
        what = "manifest node" if kind == segment.TREE else "chunk"
        if whole and len(there) < len(wanted):
            missing = wanted[int(np.argmin(places.found))].tobytes().hex()
            raise errors.IntegrityError(f"{what} {missing[:12]}", "is missing")
        if (self.layout.kinds[places.pack[there]] != kind).any():
            raise errors.IntegrityError(what, "is in a pack of another kind")
        bits = self.layout.bits(_packed(places)[there])
        again = np.ones(len(bits), np.bool_)
        again[np.unique(bits, return_index=True)[1]] = False
        flags: Flags = np.zeros(len(wanted), np.bool_)
        flags[there] = ~self.live[bits] & ~again
        self.live[bits] = True
        return flags

    def needed(self) -> set[str]:
        """The names of the packs of which something is marked."""
        return {item.name for item in self.layout.packs if self.live[self.layout.range(item.number)].any()}

    def _lookup(self, ids: index_object.Ids) -> index.Places:
        if not self._avoid:
            return self.store.index.lookup(ids)
        with self.store.index.without(self._avoid):
            places = self.store.index.lookup(ids)
        if places.found.all():
            return places
        others = self.store.index.lookup(ids)
        return index.Places(
            others.found,
            np.where(places.found, places.pack, others.pack),
            np.where(places.found, places.segment, others.segment),
            np.where(places.found, places.slot, others.slot),
        )

    # -- what is stored twice --------------------------------------------------------------------

    def shadows(self, numbers: Collection[int]) -> int:
        """Mark what the packs `numbers` hold of marked identifiers whose marked copy cannot be read.

        Without those packs each marked identifier can then still be read, as far as it can be now. Returns how
        many slots that were. Reads the marked copy of whatever the packs hold a second time, nothing else.
        """
        chosen = np.zeros(len(self.layout.canonical), np.bool_)
        chosen[list(numbers)] = True
        rescued = 0
        for records in self.store.index.records():
            pack = self.layout.canonical[(records[:, 4] >> _PACK).astype(np.int64)]
            here = self.layout.bits(records[:, 4])
            wanted = np.flatnonzero(chosen[pack] & ~self.live[here])
            if not wanted.size:
                continue
            ids = np.ascontiguousarray(records[wanted, :4]).view(np.uint8)
            places = self._lookup(ids)
            bits = self.layout.bits(np.where(places.found, _packed(places), records[wanted, 4]))
            for at in np.flatnonzero(self.live[bits]).tolist():
                place = index.Place(int(places.pack[at]), int(places.segment[at]), int(places.slot[at]))
                if not self._is_sound(place, ids[at].tobytes()):
                    self.live[here[wanted[at]]] = True
                    rescued += 1
        return rescued

    def _is_sound(self, place: index.Place, item: bytes) -> bool:
        key = (place.pack, place.segment)
        if key not in self._verified:
            self._verified[key] = self._read_all(*key)
        if not self._verified[key]:
            return False
        ids = self.store.table(place.pack).slots(place.segment)[0]
        return ids[32 * place.slot : 32 * place.slot + 32] == item

    def _read_all(self, pack: int, number: int) -> bool:
        """Whether a segment opens and each of its slots is what its identifier says."""
        try:
            table, plain = self.store.read_segment(pack, number)
            check_slots(self.store, table.kind, plain, table.slots(number))
        except objects.UNREADABLE:
            return False
        return True


def check_slots(store: objects.Objects, kind: int, plain: bytes, slots: tuple[bytes, Numbers, Sizes]) -> None:
    """Raises `IntegrityError` unless each slot of a plain segment is what its identifier says."""
    ids, offsets, lengths = slots
    for slot, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
        data = plain[offset : offset + length]
        store.seals.check_slot(kind, data, ids[32 * slot : 32 * slot + 32], "stored segment")


def _packed(places: index.Places) -> runs.Words:
    packed: runs.Words = places.pack.astype(np.uint64) << _PACK
    packed |= places.segment.astype(np.uint64) << _SEGMENT
    packed |= places.slot.astype(np.uint64)
    return packed


def _children(size: int, level: int, group: Sequence[_Node], blobs: Sequence[bytes]) -> Iterator[_Node]:
    step = geometry.span(level - 1)
    for (start, _), blob in zip(group, blobs, strict=True):
        node = manifest.decode_inner(blob, level, geometry.windows(size) - start)
        for child, child_id in node.children.items():
            yield start + child * step, child_id
