"""What a qcow2 image has besides its disk: internal snapshots and bitmaps (specs/qcow2.md §3)."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import qcow2_layout as layout

_READ_AT_ONCE = 1 << 20
_IN_USE, _AUTO = 1, 2
_BITMAP_FLAGS = 7
_MAX_GRANULARITY_BITS = 63


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An internal snapshot. `size`: of its disk, None if not recorded; `vm_state_bytes` likewise in bytes.

    `seconds` and `nanoseconds`: when it was taken, since 1970; `clock_ns`: how long the guest had run.
    """

    id: str
    name: str
    size: int | None
    seconds: int
    nanoseconds: int
    clock_ns: int
    vm_state_bytes: int
    l1_offset: int
    l1_entries: int


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A persistent dirty bitmap: one bit for `granularity` bytes. `in_use`: it was not saved properly."""

    name: str
    granularity: int
    in_use: bool
    auto: bool


def read_header(file: protocol.Reader, name: str, *, max_size: int = layout.MAX_SIZE) -> layout.Header:
    """The header of an open image. Raises `UnsafeImage`."""
    head = bytearray(min(file.size, layout.MAX_HEAD))
    file.pread_into(0, memoryview(head))
    return layout.parse_header(bytes(head), file.size, name, max_size=max_size)


def snapshots(file: protocol.Reader, name: str, header: layout.Header | None = None) -> list[Snapshot]:
    """The internal snapshots of an open image, in the order of its table. Raises `UnsafeImage`."""
    header = header or read_header(file, name)
    if header.snapshots > layout.MAX_SNAPSHOTS:
        raise errors.UnsafeImage(f"{name}: nb_snapshots is {header.snapshots}, the limit is {layout.MAX_SNAPSHOTS}")
    if header.snapshots and (not header.snapshots_offset or header.snapshots_offset % header.cluster_size):
        raise errors.UnsafeImage(
            f"{name}: snapshots_offset is {header.snapshots_offset}, "
            f"which is no multiple of the cluster's {header.cluster_size}"
        )
    table = _Table(file, name, header.snapshots_offset, layout.MAX_SNAPSHOTS_BYTES)
    return [_snapshot(table, name) for _ in range(header.snapshots)]


def bitmaps(file: protocol.Reader, name: str, header: layout.Header | None = None) -> list[Bitmap]:
    """The persistent bitmaps of an open image. None are told if they are not consistent, or too many."""
    header = header or read_header(file, name)
    where = header.bitmaps
    if where is None or not header.autoclear & layout.BITMAPS_VALID or where.count > layout.MAX_BITMAPS:
        return []
    # QEMU's limit for the directory: 65535 entries of 1024 bytes.
    if where.directory_offset % header.cluster_size or where.directory_size > layout.MAX_BITMAPS << 10:
        return []
    table = _Table(file, name, where.directory_offset, where.directory_size)
    try:
        found = [_bitmap(table) for _ in range(where.count)]
    except errors.UnsafeImage:
        return []
    return [item for item in found if item is not None] if None not in found else []


def find(found: list[Snapshot], wanted: str, name: str) -> Snapshot:
    """The snapshot with this id, else the one with this name. Raises `NotFound`, or `UsageError` if several fit."""
    for matches in ([item for item in found if item.id == wanted], [item for item in found if item.name == wanted]):
        if len(matches) > 1:
            raise errors.UsageError(
                f"{name}: has {len(matches)} snapshots called {wanted!r}", hint="say which by its id"
            )
        if matches:
            return matches[0]
    known = ", ".join(ascii(item.name) for item in found[:8]) or "none"
    raise errors.NotFound("snapshot", wanted, hint=f"{name} has: {known}")


class _Table:
    """Reads fields in order from a table of unknown length, up to `limit` bytes and the end of the file."""

    def __init__(self, file: protocol.Reader, name: str, offset: int, limit: int) -> None:
        self._file = file
        self._name = name
        self._offset = offset
        self._limit = limit
        self._at = 0
        self._held = b""
        self._held_at = 0

    def take(self, length: int, what: str) -> bytes:
        end = self._at + length
        if end > self._limit:
            raise errors.UnsafeImage(f"{self._name}: {what} needs more than the limit of {self._limit} bytes")
        if self._offset + end > self._file.size:
            raise errors.UnsafeImage(f"{self._name}: {what} ends beyond the file's {self._file.size} bytes")
        if end > self._held_at + len(self._held):
            size = max(length, min(_READ_AT_ONCE, self._limit - self._at, self._file.size - self._offset - self._at))
            buffer = bytearray(size)
            self._file.pread_into(self._offset + self._at, memoryview(buffer))
            self._held, self._held_at = bytes(buffer), self._at
        piece = self._held[self._at - self._held_at : end - self._held_at]
        self._at = end
        return piece

    def skip(self, length: int) -> None:
        """Pass what need not be there if nothing follows."""
        self._at += length


def _snapshot(table: _Table, name: str) -> Snapshot:
    what = "the snapshot table"
    fields = layout.SNAPSHOT.unpack(table.take(layout.SNAPSHOT.size, what))
    l1_offset, l1_entries, id_length, name_length, seconds, nanoseconds, clock, state, extra_length = fields
    if extra_length > layout.MAX_SNAPSHOT_EXTRA:
        raise errors.UnsafeImage(
            f"{name}: a snapshot has {extra_length} bytes of extra data, the limit is {layout.MAX_SNAPSHOT_EXTRA}"
        )
    extra = table.take(extra_length, what)
    size = None
    if len(extra) >= 8:
        state = int.from_bytes(extra[:8], "big")
    if len(extra) >= layout.SNAPSHOT_EXTRA.size:
        size = int.from_bytes(extra[8:16], "big")
    own_id, own_name = _text(table.take(id_length, what)), _text(table.take(name_length, what))
    used = layout.SNAPSHOT.size + extra_length + id_length + name_length
    table.skip(-used % 8)  # QEMU does not write it behind the last one
    return Snapshot(own_id, own_name, size, seconds, nanoseconds, clock, state, l1_offset, l1_entries)


def _bitmap(table: _Table) -> Bitmap | None:
    what = "the bitmap directory"
    fields = layout.BITMAP.unpack(table.take(layout.BITMAP.size, what))
    _, _, flags, kind, granularity, name_length, extra_length = fields
    table.take(extra_length, what)
    name = _text(table.take(name_length, what))
    table.take(-(layout.BITMAP.size + extra_length + name_length) % 8, what)
    if flags & ~_BITMAP_FLAGS or kind != 1 or granularity > _MAX_GRANULARITY_BITS or not name:
        return None
    return Bitmap(name, 1 << granularity, bool(flags & _IN_USE), bool(flags & _AUTO))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
