"""`vimgvc info`: what an image is, without reading its data and without following anything in it."""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from vimgvc.commands import images
from vimgvc.disk import extents, protocol
from vimgvc.images import cow, detect, gates, ova, raw

#: Asking a file system for its holes reads nothing, but takes time for each.
_EXTENTS = 200_000
#: A bit of its table for each sector: 4 MiB.
_COW = 16 << 30


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of an image; None where it is not known.

    `virtual_size` is the guest's, `file_size` what `ls` says, `allocated_bytes` what `du` says,
    `data_bytes` what this file holds of the guest's data, and `cluster_size` what it allocates at once.
    `container` is what a commit records.
    `backing_file`, `data_file` and `files` (which hold a disk in several files) are names in the image,
    which nobody followed. `disks` are those of a machine.
    """

    image: str
    format: str
    virtual_size: int | None
    file_size: int
    allocated_bytes: int
    data_bytes: int | None
    container: dict[str, Any]
    cluster_size: int | None = None
    encryption: str | None = None
    backing_file: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    files: tuple[str, ...] = ()
    snapshots: tuple[dict[str, Any], ...] = ()
    bitmaps: tuple[dict[str, Any], ...] = ()
    disks: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = field(default=())


def run(path: str, wanted: images.Access) -> Info:
    """Look at the file or device `path`, and at nothing else.

    Raises `NotFound`, `UsageError`, `UnsafeImage` with the reason why it cannot be trusted, `Unsupported`.
    """
    file = raw.RawReader(path)
    try:
        found = detect.check_declared_reader(file, path, wanted.declared)
        if found == "raw":
            return _raw(file)
        if found == "qcow2":
            from vimgvc.commands import info_qcow2

            start = Info(file.path, found, None, file.size, _allocated(file), None, {})
            return info_qcow2.look(file, start)
        own = {"cow": _cow, "ova": _ova}.get(found)
        return own(file) if own else _gated(file, found)
    finally:
        file.close()


def _raw(file: raw.RawReader) -> Info:
    allocated = _allocated(file)
    container = {"format": "raw", "preallocation": "full" if file.size and allocated >= file.size else "off"}
    looks = _looks(file)
    warnings = (
        (f"{file.path}: the disk in it looks like {' and '.join(looks)}: always say --format raw",) if looks else ()
    )
    return Info(file.path, "raw", file.size, file.size, allocated, data_in(file), container, warnings=warnings)


def _cow(file: raw.RawReader) -> Info:
    disk = cow.CowReader(file, file.path)
    data = data_in(disk) if disk.size <= _COW else None
    return Info(file.path, "cow", disk.size, file.size, _allocated(file), data, disk.facts(), cluster_size=512)


def _ova(file: raw.RawReader) -> Info:
    machine = ova.parse_ova(file, file.path)
    disks = tuple(
        {
            "name": disk.name,
            "file": disk.member.name if disk.member else None,
            "format": disk.format,
            "size": disk.capacity,
            "file_size": disk.member.length if disk.member else 0,
        }
        for disk in machine.disks
    )
    return Info(file.path, "ova", None, file.size, _allocated(file), None, {"format": "ova"}, disks=disks)


def _gated(file: raw.RawReader, found: str) -> Info:
    facts = gates.look(found, file, file.path)
    data = facts.data_bytes
    if facts.container.get("subformat") == "fixed" and facts.unit is None:
        data = data_in(file, facts.size)
    return Info(
        file.path,
        found,
        facts.size,
        file.size,
        _allocated(file),
        data,
        facts.container,
        cluster_size=facts.unit,
        encryption="luks" if found == "luks" else None,
        files=tuple(os.fsdecode(name) for name in facts.files),
        warnings=tuple(images.about(file.path, note) for note in facts.notes),
    )


def _looks(file: raw.RawReader) -> list[str]:
    """Every container that a program which guesses could take this disk for."""
    head, tail = bytearray(min(detect.HEAD, file.size)), bytearray(min(detect.TAIL, file.size))
    file.pread_into(0, memoryview(head))
    file.pread_into(file.size - len(tail), memoryview(tail))
    return sorted(set(detect.formats_of(bytes(head), bytes(tail))) - {"raw"})


def _allocated(file: raw.RawReader) -> int:
    status = os.fstat(file.fileno())
    return status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else file.size


def data_in(disk: protocol.Reader, size: int | None = None) -> int | None:
    """Bytes of all of it, or the first `size`, that are no holes; None if there are too many to ask for."""
    told = list(itertools.islice(disk.extents(0, disk.size if size is None else size), _EXTENTS + 1))
    if len(told) > _EXTENTS:
        return None
    return sum(one.length for one in told if one.kind is extents.Kind.DATA)
