"""What `vimgvc info` tells of a qcow2 image."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from vimgvc import errors
from vimgvc.commands import info
from vimgvc.disk import extents, memory
from vimgvc.images import qcow2, qcow2_metadata, raw
from vimgvc.images import qcow2_layout as layout

#: More of its tables is not read to tell how much data there is.
_TABLES = 8 << 20
#: Of the lists of snapshots and of bitmaps no more is read, each.
_LISTS = 4 << 20
_CRYPT = {layout.CRYPT_AES: "aes", layout.CRYPT_LUKS: "luks"}


def look(file: raw.RawReader, found: info.Info) -> info.Info:
    """`found` with what the image's header and, within bounds, its tables say. Raises `UnsafeImage`."""
    header = qcow2_metadata.read_header(file, file.path)
    warnings = list(found.warnings)
    snapshots: list[qcow2_metadata.Snapshot] = []
    try:
        snapshots = qcow2_metadata.snapshots(_Little(file), file.path, header)
    except errors.UnsafeImage as error:
        warnings.append(f"{error.message}; its internal snapshots are not shown")
    bitmaps = qcow2_metadata.bitmaps(_Little(file), file.path, header)
    found = dataclasses.replace(
        found,
        virtual_size=header.size,
        container=header.facts(),
        cluster_size=header.cluster_size,
        encryption=_CRYPT.get(header.crypt),
        backing_file=_text(header.backing_file),
        backing_format=_text(header.backing_format),
        data_file=_text(header.data_file_name or b"") if header.has_data_file else None,
        snapshots=tuple(_snapshot(one) for one in snapshots),
        bitmaps=tuple(dataclasses.asdict(one) for one in bitmaps),
        warnings=tuple(warnings),
    )
    return found if header.crypt or header.has_data_file else _with_tables(file, header, found)


class _Little:
    """A file of which no more than `_LISTS` bytes are read."""

    def __init__(self, file: raw.RawReader) -> None:
        self._file, self._left = file, _LISTS

    @property
    def size(self) -> int:
        return self._file.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._left -= buffer.nbytes
        if self._left < 0:
            raise errors.UnsafeImage(f"{self._file.path}: a list in it has more than {_LISTS} bytes")
        self._file.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._file.extents(offset, length)

    def close(self) -> None:
        """Its owner does that."""


def _with_tables(file: raw.RawReader, header: layout.Header, found: info.Info) -> info.Info:
    # The backing file stays closed: an empty disk in its place makes holes of what is not in this file.
    base = None if header.backing_file is None else memory.MemoryDisk(0)
    reader = qcow2.Qcow2Reader(file, file.path, backing=base, force_read=True)
    data = info.data_in(reader) if _table_bytes(file, header) <= _TABLES else None
    warnings = (*found.warnings, *(f"{file.path}: {note}" for note in reader.notes))
    return dataclasses.replace(found, container=reader.facts(), data_bytes=data, warnings=warnings)


def _table_bytes(file: raw.RawReader, header: layout.Header) -> int:
    """Size of the tables that lead to the data; the L1 table alone is read, if it is not too large itself."""
    length = header.l1_needed * 8
    if length > _TABLES:
        return length
    table = bytearray(length)
    file.pread_into(header.l1_offset, memoryview(table))
    return length + int(np.count_nonzero(np.frombuffer(table, np.uint64))) * header.cluster_size


def _snapshot(one: qcow2_metadata.Snapshot) -> dict[str, Any]:
    time = ""
    with contextlib.suppress(OverflowError, ValueError):
        time = dt.datetime.fromtimestamp(one.seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"id": one.id, "name": one.name, "size": one.size, "time": time, "vm_state_bytes": one.vm_state_bytes}


def _text(name: bytes | None) -> str | None:
    return None if name is None else os.fsdecode(name)
