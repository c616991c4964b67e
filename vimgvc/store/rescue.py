"""What is left of damaged packs, moved into new ones.

A segment that opens and holds what its table says moves as it is; of one that holds something wrong the sound slots
are sealed again. Nothing is removed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing, segment
from vimgvc.model import geometry
from vimgvc.store import objects, pack, writer

_READ = 4 << 20
#: How the sealed copies of a table begin.
_TABLE_MAGIC = b"vimgvc" + aead.TABLE

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rescued:
    """Counts of segments: `saved` were moved (some perhaps in part), `elsewhere` other packs have, `lost` neither."""

    saved: int = 0
    elsewhere: int = 0
    lost: int = 0


def is_damage(error: errors.VimgvcError) -> bool:
    """Whether the stored bytes are wrong or the medium fails, rather than the way to them."""
    return isinstance(error, errors.IntegrityError) or (isinstance(error, errors.BackendError) and error.kind == "EIO")


def is_whole(backend: protocol.Backend, name: str) -> bool:
    """Whether a pack's bytes are those that it is named after; raises `BackendError` for a way that fails."""
    hasher, blob = blake3(), pack.blob_name(name)
    try:
        size = backend.size(blob)
        for start in range(0, size, _READ):
            hasher.update(backend.get(blob, start, min(_READ, size - start)))
    except (errors.IntegrityError, errors.BackendError) as error:
        if not is_damage(error):
            raise
        return False
    return hasher.hexdigest() == name


def find_table(
    backend: protocol.Backend, seals: sealing.Sealing, name: str, known: Iterable[tuple[int, int]]
) -> pack.Table | None:
    """The table of a damaged pack, if a copy of it is sound anywhere.

    `known`: what index objects say of the pack's size and the length of its sealed table; a pack that was cut off or
    has something behind it still has its table where it was. Raises `Unsupported`, and `BackendError` for anything
    but a bad medium.
    """
    blob = pack.blob_name(name)

    def read(offset: int, length: int) -> bytes:
        try:
            return backend.get(blob, offset, length)
        except (errors.IntegrityError, errors.BackendError) as error:
            if not is_damage(error):
                raise
            return bytes(length)

    size = backend.size(blob)
    for total, table_length in [*known, (size, None), *_found(read(0, size) if size <= pack.MAX_SIZE else b"")]:
        try:
            table, _ = pack.read_table(
                name, total, read, lambda data, where: seals.open(aead.TABLE, data, where), table_length=table_length
            )
        except errors.IntegrityError:
            continue
        return table
    return None


def _found(blob: bytes) -> Iterator[tuple[int, int]]:
    """(size of the pack, length of one copy), as they would be if tables began where they seem to."""
    second = blob.rfind(_TABLE_MAGIC)
    first = blob.rfind(_TABLE_MAGIC, 0, max(second, 0))
    if first >= 0:
        yield second + (second - first) + pack.TAIL_SIZE, second - first
    if second >= 0:
        yield len(blob), len(blob) - pack.TAIL_SIZE - second


class Rescue:
    """Hands what is left to `out`. `store.index` must not know the damaged packs any more. Not thread-safe."""

    def __init__(self, store: objects.Objects, out: writer.Writer, *, level: int = 3) -> None:
        self._store, self._out = store, out
        capacity = segment.MAX_PLAIN
        self._sealer = store.seals.sealer(level=level, verify=True, capacity=capacity)
        #: Identifiers of segments of sound packs; none where one is not sound.
        self._checked: dict[tuple[int, int], bytes] = {}

    def save(self, name: str, table: pack.Table) -> Rescued:
        """Everything of one pack that can be read and that no sound pack has."""
        saved = elsewhere = lost = 0
        for number in range(len(table.segments)):
            ids = table.slots(number)[0]
            if self._is_elsewhere(ids):
                elsewhere += 1
            elif self._save_segment(name, table, number):
                saved += 1
            else:
                lost += 1
        return Rescued(saved, elsewhere, lost)

    def _save_segment(self, name: str, table: pack.Table, number: int) -> bool:
        """Whether anything of it was saved."""
        ids, offsets, lengths = table.slots(number)
        offset, shape = table.shape(number)
        where = f"pack {name[:12]} segment {number}"
        try:
            stored = self._store.backend.get(pack.blob_name(name), offset, shape.stored_length)
            self._store.opener().authenticate(shape, stored, ids, where)
        except (errors.IntegrityError, errors.BackendError) as error:
            if not is_damage(error):
                raise
            return False
        try:
            plain = self._store.opener().open(shape, stored, ids, where)
        except errors.Unsupported:
            # Sound, but of a later version: that one can read it.
            self._out.add(shape, memoryview(stored), ids, lengths.tolist())
            return True
        except errors.IntegrityError:
            return False
        sound = self._sound_slots(table.kind, plain, ids, offsets.tolist(), lengths.tolist())
        if sound.all():
            self._out.add(shape, memoryview(stored), ids, lengths.tolist())
        elif sound.any():
            self._seal(table.kind, plain, ids, offsets, lengths, sound)
        return bool(sound.any())

    def _sound_slots(self, kind: int, plain: bytes, ids: bytes, offsets: list[int], lengths: list[int]) -> Flags:
        sound = np.zeros(len(offsets), np.bool_)
        view = memoryview(plain)
        for slot, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
            wanted = ids[slot * geometry.ID_SIZE : (slot + 1) * geometry.ID_SIZE]
            sound[slot] = self._store.seals.slot_id(kind, view[offset : offset + length]) == wanted
        return sound

    def _seal(  # noqa: PLR0917 the columns of a segment
        self, kind: int, plain: bytes, ids: bytes, offsets: npt.NDArray[np.int64], lengths: npt.NDArray[np.uint32],
        sound: Flags,
    ) -> None:  # fmt: skip
        chosen = np.flatnonzero(sound)
        parts = [plain[int(offsets[slot]) : int(offsets[slot]) + int(lengths[slot])] for slot in chosen]
        buffer = bytearray(b"".join(parts))
        kept = np.frombuffer(ids, np.uint8).reshape(-1, geometry.ID_SIZE)[chosen].tobytes()
        shape, stored = self._sealer.seal(kind, buffer, len(buffer), kept)
        self._out.add(shape, stored, kept, [len(part) for part in parts])

    def _is_elsewhere(self, ids: bytes) -> bool:
        """Whether sound packs have all these slots; reads them to know."""
        columns = np.frombuffer(ids, np.uint8).reshape(-1, geometry.ID_SIZE)
        places = self._store.index.lookup(columns)
        if not places.found.all():
            return False
        for at, (number, segment_number, slot) in enumerate(
            zip(places.pack.tolist(), places.segment.tolist(), places.slot.tolist(), strict=True)
        ):
            there = self._check(number, segment_number)
            if there[slot * geometry.ID_SIZE : (slot + 1) * geometry.ID_SIZE] != columns[at].tobytes():
                return False
        return True

    def _check(self, number: int, segment_number: int) -> bytes:
        """The identifiers of a segment, if it holds what they say."""
        key = (number, segment_number)
        if key not in self._checked:
            self._checked[key] = b""
            try:
                table, plain = self._store.read_segment(number, segment_number)
            except (*objects.UNREADABLE, errors.Unsupported):
                return b""
            ids, offsets, lengths = table.slots(segment_number)
            if self._sound_slots(table.kind, plain, ids, offsets.tolist(), lengths.tolist()).all():
                self._checked[key] = ids
        return self._checked[key]
