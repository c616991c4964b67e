"""Manifest nodes: the Merkle tree of a disk (specs/formats.md §7)."""

from __future__ import annotations

import operator
import struct
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.model import encoding, geometry

_LEAF, _INNER, _ROOT = 1, 2, 3
_ZERO_RUN = 0x8000


@dataclass(frozen=True, slots=True)
class Leaf:
    """One window: `runs` are (blocks, is_zero) in order, `ids` the chunks' identifiers, concatenated."""

    runs: tuple[tuple[int, bool], ...]
    ids: bytes

    def encode(self) -> bytes:
        fields = [blocks | (_ZERO_RUN if zero else 0) for blocks, zero in self.runs]
        return struct.pack(f"<BBH{len(fields)}H", _LEAF, 0, len(fields), *fields) + self.ids

    def chunk_ids(self) -> list[bytes]:
        size = geometry.ID_SIZE
        return [self.ids[at : at + size] for at in range(0, len(self.ids), size)]


@dataclass(frozen=True, slots=True)
class Inner:
    """`children` maps 0 … 63 to identifiers; absent children are all zeros."""

    level: int
    children: dict[int, bytes]

    def encode(self) -> bytes:
        bitmap = sum(1 << child for child in self.children)
        ids = b"".join(self.children[child] for child in sorted(self.children))
        return struct.pack("<BBHQ", _INNER, self.level, 0, bitmap) + ids


@dataclass(frozen=True, slots=True)
class Root:
    """`size` of the disk in bytes; `top` the identifier of the node of `level`, or the zero identifier."""

    size: int
    top: bytes

    @property
    def level(self) -> int:
        return geometry.top_level(self.size)

    def encode(self) -> bytes:
        return struct.pack("<BB6xQ", _ROOT, self.level, self.size) + self.top


def decode_leaf(data: bytes, blocks: int) -> Leaf:
    """The leaf of a window of `blocks` blocks; raises `FormatError`."""
    cursor = encoding.Cursor(data, "manifest leaf")
    kind, reserved, count = cursor.unpack("<BBH")
    if kind != _LEAF:
        cursor.fail("is of an unknown type")
    if reserved:
        cursor.fail("has non-zero reserved bytes")
    fields = cursor.unpack(f"<{count}H")
    lengths = [field & ~_ZERO_RUN for field in fields]
    zeros = [field >= _ZERO_RUN for field in fields]
    _check_runs(lengths, zeros, blocks, cursor)
    ids = bytes(cursor.take(geometry.ID_SIZE * zeros.count(False)))
    cursor.end()
    return Leaf(tuple(zip(lengths, zeros, strict=True)), ids)


def _check_runs(lengths: list[int], zeros: list[bool], blocks: int, cursor: encoding.Cursor) -> None:
    """Every disk has 16 of these runs a MiB: no loop here is one of Python's."""
    if 0 in lengths or max(lengths, default=0) > blocks:
        cursor.fail("has an empty or overlong run")
    if sum(lengths) != blocks:
        cursor.fail("does not cover its window")
    if all(zeros):
        cursor.fail("holds no chunk")
    if any(map(operator.and_, zeros, zeros[1:])):
        cursor.fail("has two zero runs side by side")


def decode_inner(data: bytes, level: int, windows: int) -> Inner:
    """The inner node of `level` that covers the next `windows` windows of its disk; raises `FormatError`."""
    cursor = encoding.Cursor(data, "manifest node")
    kind, found, reserved, bitmap = cursor.unpack("<BBHQ")
    if kind != _INNER:
        cursor.fail("is of an unknown type")
    if found != level:
        cursor.fail("is of another level than its place")
    if reserved:
        cursor.fail("has non-zero reserved bytes")
    present = [child for child in range(geometry.FANOUT) if bitmap >> child & 1]
    if not present:
        cursor.fail("has no child")
    if present[-1] * geometry.span(level - 1) >= windows:
        cursor.fail("has a child beyond the end of the disk")
    size = geometry.ID_SIZE
    ids = bytes(cursor.take(size * len(present)))
    cursor.end()
    return Inner(level, {child: ids[size * at : size * at + size] for at, child in enumerate(present)})


def decode_root(data: bytes) -> Root:
    cursor = encoding.Cursor(data, "manifest root")
    kind, level = cursor.unpack("<BB")
    if kind != _ROOT:
        cursor.fail("is of an unknown type")
    cursor.zeros(6)
    (size,) = cursor.unpack("<Q")
    root = Root(size, bytes(cursor.take(geometry.ID_SIZE)))
    cursor.end()
    if size >> 63:
        raise errors.FormatError("manifest root", "has an impossible disk size")
    if level != root.level:
        cursor.fail("is of another level than its size")
    if not size and root.top != geometry.ZERO_ID:
        cursor.fail("has a node for a disk of size 0")
    return root
