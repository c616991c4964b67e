"""qcow2 images: the disk, or an internal snapshot of it, as a Source (specs/qcow2.md §2)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2_clusters, qcow2_metadata, qcow2_tables
from vimgvc.images import qcow2_layout as layout

# How much is looked at to tell how an image was made.
_DATA_CLUSTERS = 1024
_SPANS = 16
_EXTENTS = 1000

_KINDS = {
    qcow2_tables.HOLE: extents.Kind.HOLE,
    qcow2_tables.ZERO: extents.Kind.ZERO,
    qcow2_tables.DATA: extents.Kind.DATA,
    qcow2_tables.COMPRESSED: extents.Kind.DATA,
    qcow2_tables.DAMAGED: extents.Kind.DATA,  # so that it is read, and reading tells
}


class Qcow2Reader:
    """The disk of an open qcow2 image that messages call `name`; shared by threads.

    `header`: as `qcow2_metadata.read_header` told it, if it was asked before. `backing` and `data_file`:
    what the header says is there, opened by the caller as the user allowed; no name in the header is
    used. `snapshot`: an internal snapshot's id, else its name. `force_read`: also if the image is marked
    corrupt. `max_size`: of the disk, in bytes.

    Owns `file`, `backing` and `data_file` once it exists: `close` closes them. Raises `UnsafeImage`,
    `NotFound` (no such snapshot), and while reading `ImageDamaged` with the guest's range.
    """

    def __init__(
        self,
        file: protocol.Source,
        name: str,
        *,
        header: layout.Header | None = None,
        backing: protocol.Source | None = None,
        data_file: protocol.Source | None = None,
        snapshot: str | None = None,
        force_read: bool = False,
        max_size: int = layout.MAX_SIZE,
    ) -> None:
        self.header = header = header or qcow2_metadata.read_header(file, name, max_size=max_size)
        _check_consent(header, name, backing=backing, data_file=data_file, force_read=force_read)
        self._file = file
        self._name = name
        self._backing = backing if header.backing_file is not None else None
        self._data = data_file if header.has_data_file and data_file is not None else file
        self._snapshot = _find_snapshot(header, file, name, snapshot, max_size) if snapshot is not None else None
        self._size, l1_offset, l1_entries = header.size, header.l1_offset, header.l1_entries
        if self._snapshot is not None:
            self._size = header.size if self._snapshot.size is None else self._snapshot.size
            l1_offset, l1_entries = self._snapshot.l1_offset, self._snapshot.l1_entries
        self._tables = qcow2_tables.Tables(
            file, header, l1_offset=l1_offset, l1_entries=l1_entries, size=self._size, data_size=self._data.size
        )
        self._clusters = qcow2_clusters.Clusters(file, header, name)
        self.notes = _notes(header)

    @property
    def size(self) -> int:
        return self._size

    @property
    def allocated_bytes(self) -> int:
        own = [self._file] if self._data is self._file else [self._file, self._data]
        return min(sum(file.allocated_bytes for file in own), self._size)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        for start, stop, kind, place, base in self._tables.runs(offset, offset + buffer.nbytes):
            piece = buffer[start - offset : stop - offset]
            if kind == qcow2_tables.DATA:
                self._data.pread_into(place + start - base, piece)
            elif kind == qcow2_tables.COMPRESSED:
                piece[:] = memoryview(self._clusters.cluster(place, base))[start - base : stop - base]
            elif kind == qcow2_tables.DAMAGED:
                where = f"{self._name}, guest bytes {start} to {stop - 1}"
                raise errors.ImageDamaged(where, qcow2_tables.REASONS[place])
            elif kind == qcow2_tables.HOLE and self._backing is not None:
                self._read_backing(self._backing, start, piece)
            else:
                _clear(piece)

    def _extents(self, offset: int, end: int) -> Iterator[extents.Extent]:
        for start, stop, kind, _, _ in self._tables.runs(offset, end):
            if kind == qcow2_tables.HOLE and self._backing is not None:
                middle = min(max(self._backing.size, start), stop)
                if start < middle:
                    yield from self._backing.extents(start, middle - start)
                if middle < stop:
                    yield extents.Extent(middle, stop - middle, extents.Kind.HOLE)
            else:
                yield extents.Extent(start, stop - start, _KINDS[kind])

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        return extents.merge(self._extents(offset, offset + length))

    def check_unchanged(self) -> None:
        self._file.check_unchanged()
        if self._data is not self._file:
            self._data.check_unchanged()
        if self._backing is not None:
            self._backing.check_unchanged()

    def close(self) -> None:
        self._file.close()
        if self._data is not self._file:
            self._data.close()
        if self._backing is not None:
            self._backing.close()

    def facts(self) -> dict[str, Any]:
        """What a commit records about the container; looks at a few MiB of the tables at most."""
        header = self.header
        found: dict[str, Any] = {
            **header.facts(),
            "compressed": self._is_compressed(),
            "preallocation": self._preallocation(),
        }
        for key, value in (("backing_file", header.backing_file), ("backing_format", header.backing_format)):
            if value is not None:
                found[key] = value.decode("ascii", "backslashreplace")
        if self._snapshot is not None:
            found["snapshot"] = self._snapshot.name.encode("ascii", "backslashreplace").decode()
        if header.has_data_file:
            found["data_file"] = True
        return found

    def _read_backing(self, backing: protocol.Reader, start: int, piece: memoryview) -> None:
        """A backing file that is shorter reads as zeros behind its end."""
        there = min(max(backing.size - start, 0), piece.nbytes)
        if there:
            backing.pread_into(start, piece[:there])
        _clear(piece[there:])

    def _is_compressed(self) -> bool:
        data = number = looked = 0
        while (
            looked < _SPANS
            and data < _DATA_CLUSTERS
            and (number := self._tables.next_used(number)) < self._tables.spans
        ):
            _, allocated, compressed = self._tables.census(number)
            if compressed:
                return True
            data += allocated
            looked += 1
            number += 1
        return False

    def _preallocation(self) -> str:
        """By what is there: a guest that wrote everywhere leaves what "full" leaves."""
        spans = self._tables.spans
        looked_at = sorted({number * max(1, spans - 1) // max(1, _SPANS - 1) for number in range(min(spans, _SPANS))})
        counts = [self._tables.census(number) for number in looked_at]
        if not counts or any(allocated < clusters or compressed for clusters, allocated, compressed in counts):
            return "off"
        if self._data.allocated_bytes < self._data.size - self._data.size // 16:
            return "metadata"
        some = list(itertools.islice(self._data.extents(0, self._data.size), _EXTENTS))
        holes = sum(item.length for item in some if item.kind is extents.Kind.HOLE)
        return "falloc" if holes * 2 > sum(item.length for item in some) else "full"


def _check_consent(
    header: layout.Header,
    name: str,
    *,
    backing: protocol.Source | None,
    data_file: protocol.Source | None,
    force_read: bool,
) -> None:
    """Refuse what may only be read because the user said so, and what cannot be."""
    if header.crypt:
        raise errors.UnsafeImage(
            f"{name}: crypt_method is {header.crypt}: it is encrypted",
            hint="give its passphrase with --image-secret-file, or store the file as it is with --as-raw",
        )
    if header.incompatible & layout.CORRUPT and not force_read:
        raise errors.UnsafeImage(
            f"{name}: is marked corrupt (incompatible_features bit 1)",
            hint="repair it with 'qemu-img check -r all', or read what is there with --force-read",
        )
    if header.has_data_file and data_file is None:
        raise errors.UnsafeImage(
            f"{name}: has its data in another file (incompatible_features bit 2)",
            hint="say with --data-file which file that is",
        )
    if data_file is not None and not header.has_data_file:
        raise errors.UsageError(f"{name}: has no external data file", hint="leave out --data-file")
    if header.backing_file is not None and backing is None:
        raise errors.UnsafeImage(
            f"{name}: names a backing file",
            hint="if you trust the image, allow it with --allow-chain",
        )


def _find_snapshot(
    header: layout.Header, file: protocol.Reader, name: str, wanted: str, max_size: int
) -> qcow2_metadata.Snapshot:
    if header.has_data_file and header.snapshots:
        raise errors.UnsafeImage(f"{name}: nb_snapshots is {header.snapshots}, with an external data file 0 is allowed")
    found = qcow2_metadata.find(qcow2_metadata.snapshots(file, name, header), wanted, name)
    layout.check_table(header, found.l1_offset, found.l1_entries, file.size, what="snapshot's l1", name=name)
    if found.size is None:
        return found
    if found.size > max_size:
        raise errors.UnsafeImage(f"{name}: the snapshot's size is {found.size} bytes, the limit is {max_size}")
    needed = layout.l1_needed(header, found.size)
    if found.l1_entries < needed:
        raise errors.UnsafeImage(
            f"{name}: the snapshot's l1_size is {found.l1_entries}, a disk of {found.size} bytes needs {needed}"
        )
    return found


def _notes(header: layout.Header) -> tuple[str, ...]:
    notes = []
    if header.incompatible & layout.DIRTY:
        notes.append("was not closed properly (dirty bit); the guest's data is read as it is")
    if header.incompatible & layout.CORRUPT:
        notes.append("source-corrupt: is marked corrupt and was read all the same")
    return tuple(notes)


def _clear(piece: memoryview) -> None:
    if piece.nbytes:
        np.frombuffer(piece, np.uint8).fill(0)


def snapshots(file: protocol.Reader, name: str) -> list[qcow2_metadata.Snapshot]:
    """As `qcow2_metadata.snapshots`."""
    return qcow2_metadata.snapshots(file, name)


def bitmaps(file: protocol.Reader, name: str) -> list[qcow2_metadata.Bitmap]:
    """As `qcow2_metadata.bitmaps`."""
    return qcow2_metadata.bitmaps(file, name)
