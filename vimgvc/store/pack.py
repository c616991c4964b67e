"""Packs: immutable files of segments with a sealed table at the end (specs/formats.md §8)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from vimgvc import errors
from vimgvc.codec import aead, segment
from vimgvc.model import encoding, geometry

TARGET_SIZE = 32 << 20
MAX_SIZE = 256 << 20
MAX_SLOT = {segment.DATA: 262144, segment.TREE: 65536}
HEADER_SIZE, TAIL_SIZE = 24, 16
_MAX_SEGMENTS = 65535
#: Chunks that compress to a few bytes each would make a table, in memory and in the pack, larger than MAX_SIZE.
_MAX_SLOTS = 1 << 17
_TAIL_MAGIC = b"vimgvcE\x01"

_SEGMENT = np.dtype(
    [
        ("offset", "<u4"),
        ("stored", "<u4"),
        ("plain", "<u4"),
        ("slots", "<u2"),
        ("codec", "u1"),
        ("reserved", "u1"),
    ]
)

Ids = npt.NDArray[np.uint8]


def blob_name(name: str) -> str:
    return f"packs/{name[:2]}/{name}"


@dataclass(frozen=True, slots=True)
class Table:
    """What is where in a pack. `ids` is (slots, 32), `lengths` the slots' plain lengths in bytes."""

    kind: int
    segments: npt.NDArray[np.void]
    ids: Ids
    lengths: npt.NDArray[np.uint32]
    first_slot: npt.NDArray[np.int64]

    def places(self) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """For each slot: the number of its segment, and its number in that segment."""
        counts = self.segments["slots"].astype(np.int64)
        segments = np.repeat(np.arange(len(counts)), counts)
        slots = np.arange(len(self.ids)) - np.repeat(self.first_slot, counts)
        return segments.astype(np.uint16), slots.astype(np.uint16)

    def shape(self, number: int) -> tuple[int, segment.Shape]:
        """(offset in the pack, shape) of one segment."""
        row = self.segments[number]
        shape = segment.Shape(self.kind, int(row["codec"]), int(row["plain"]), int(row["stored"]))
        return int(row["offset"]), shape

    def slots(self, number: int) -> tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """(identifiers concatenated, offsets in the plain segment, lengths) of one segment's slots."""
        first = int(self.first_slot[number])
        last = first + int(self.segments[number]["slots"])
        lengths = self.lengths[first:last]
        offsets = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1], out=offsets[1:])
        return self.ids[first:last].tobytes(), offsets, lengths


def decode_table(body: bytes, where: str) -> Table:
    """Parse and check a pack's table; raises `FormatError`."""
    cursor = encoding.Cursor(body, where)
    kind, reserved, segment_count, slot_count = cursor.unpack("<BBHI")
    if kind not in MAX_SLOT or reserved or not segment_count or not slot_count:
        cursor.fail("has a malformed table")
    segments = np.frombuffer(cursor.take(_SEGMENT.itemsize * segment_count), _SEGMENT)
    ids = np.frombuffer(cursor.take(geometry.ID_SIZE * slot_count), np.uint8).reshape(-1, geometry.ID_SIZE)
    lengths = np.frombuffer(cursor.take(4 * slot_count), "<u4")
    cursor.end()
    counts = segments["slots"].astype(np.int64)
    first_slot = np.cumsum(counts) - counts
    table = Table(kind, segments, ids, lengths, first_slot)
    if not _is_consistent(table, counts):
        cursor.fail("has a malformed table")
    return table


def _is_consistent(table: Table, counts: npt.NDArray[np.int64]) -> bool:
    segments, lengths = table.segments, table.lengths.astype(np.int64)
    if counts.min() < 1 or counts.sum() != len(lengths) or segments["reserved"].any():
        return False
    stored, plain = segments["stored"].astype(np.int64), segments["plain"].astype(np.int64)
    offsets = HEADER_SIZE + np.cumsum(stored) - stored
    sums = np.add.reduceat(lengths, table.first_slot)
    granule = geometry.BLOCK if table.kind == segment.DATA else 1
    return bool(
        (segments["offset"] == offsets).all()
        and stored.min() > segment.OVERHEAD
        and plain.max() <= segment.MAX_PLAIN
        and (plain == sums).all()
        and lengths.min() >= 1
        and lengths.max() <= MAX_SLOT[table.kind]
        and not (lengths % granule).any()
    )


@dataclass(frozen=True, slots=True)
class Finished:
    """A pack ready to be stored: `parts` are its bytes; the arrays are what the index needs."""

    name: str
    size: int
    table_length: int
    table: Table
    parts: list[bytes | memoryview]


class Builder:
    """Collects segments of one kind in memory until the pack is full. Not thread-safe.

    `buffer` is where they are kept; it may come from an earlier pack, because memory that is new to
    the process costs more than the copy into it.
    """

    def __init__(self, kind: int, repo: bytes, buffer: bytearray) -> None:
        self.kind = kind
        self.buffer = buffer
        self._header = struct.pack("<6scB", b"vimgvc", b"P", 1) + repo
        self._fill = 0
        self._segments: list[tuple[int, int, int, int, int, int]] = []
        self._ids: list[bytes] = []
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def is_full(self) -> bool:
        few = len(self._segments) < _MAX_SEGMENTS and len(self._lengths) < _MAX_SLOTS
        return self._fill >= TARGET_SIZE or not few

    def add(self, shape: segment.Shape, stored: memoryview, ids: bytes, lengths: Sequence[int]) -> None:
        end = self._fill + len(stored)
        self.buffer[self._fill : end] = stored
        self._segments.append(
            (HEADER_SIZE + self._fill, shape.stored_length, shape.plain_length, len(lengths), shape.codec, 0)
        )
        self._fill = end
        self._ids.append(ids)
        self._lengths.extend(lengths)

    def finish(self, seal: Callable[[bytes], bytes]) -> Finished:
        """Close the pack; `seal` makes a sealed object of the table's body."""
        segments = np.array(self._segments, _SEGMENT)
        body = b"".join(
            [
                struct.pack("<BBHI", self.kind, 0, len(segments), len(self._lengths)),
                segments.tobytes(),
                *self._ids,
                np.array(self._lengths, "<u4").tobytes(),
            ]
        )
        table = seal(body)
        tail = struct.pack("<II", len(table), len(table) ^ 0xFFFFFFFF) + _TAIL_MAGIC
        parts: list[bytes | memoryview] = [self._header, memoryview(self.buffer)[: self._fill], table, table, tail]
        hasher = blake3()
        for part in parts:
            hasher.update(part)
        size = sum(len(part) for part in parts)
        assert size <= MAX_SIZE
        return Finished(hasher.hexdigest(), size, len(table), decode_table(body, "new pack"), parts)


def read_table(
    name: str,
    size: int,
    read: Callable[[int, int], bytes],
    unseal: Callable[[bytes, str], bytes],
    *,
    table_length: int | None = None,
) -> tuple[Table, int]:
    """(table, length of one sealed copy) of a stored pack, from whichever of its two copies is sound.

    `read(offset, length)` reads the pack, `unseal(blob, where)` opens a sealed table;
    `table_length` is the index's knowledge, for when the tail is damaged. Raises `IntegrityError`.
    """
    where = f"pack {name[:12]}"
    if not HEADER_SIZE + TAIL_SIZE <= size <= MAX_SIZE:
        raise errors.FormatError(where, "has an impossible size" if size else aead.EMPTY)
    first, check, magic = struct.unpack("<II8s", read(size - TAIL_SIZE, TAIL_SIZE))
    if magic != _TAIL_MAGIC or first ^ check != 0xFFFFFFFF:
        first = table_length or 0
    if not 0 < first <= (size - HEADER_SIZE - TAIL_SIZE) // 2:
        raise errors.FormatError(where, "has lost its tail")
    problem: errors.IntegrityError | None = None
    for copy in (1, 2):
        offset = size - TAIL_SIZE - copy * first
        try:
            table = decode_table(unseal(read(offset, first), where), where)
        except errors.IntegrityError as error:
            problem = error
            continue
        last_offset, last_shape = table.shape(len(table.segments) - 1)
        if last_offset + last_shape.stored_length != size - TAIL_SIZE - 2 * first:
            raise errors.FormatError(where, "is not as long as its table says")
        return table, first
    assert problem is not None
    raise problem
