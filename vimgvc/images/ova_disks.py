"""The disks inside an OVA, opened where they lie: as any image of their format, judged on the slice."""

from __future__ import annotations

from typing import Any

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import access as access_module
from vimgvc.images import cow, detect, foreign, gates, ova, pieces, qcow2, raw, vmdk

_NATIVE_VMDK = "monolithicSparse"


def open_disk(file: raw.RawReader, disk: ova.Disk, *, max_size: int = access_module.MAX_SIZE) -> access_module.Opened:
    """The disk `disk` of the OVA `file`, which stays open when the disk is closed; empty disks are zeros.

    The format is what the content shows, and has to be what the descriptor declares, if it does. Backing
    files, data files and passphrases are not for disks in archives. Raises what the format's reader
    raises, and `UnsafeImage` for a format or size that is not allowed.
    """
    if disk.member is None:
        _check_size(f"{file.path}: disk {disk.id[:80]!a}", disk.capacity, max_size)
        parts = [pieces.Piece(disk.capacity)] if disk.capacity else []
        return access_module.Opened(pieces.PiecesReader(parts), {"format": "raw"})
    name = f"{file.path}: {disk.member.name}"
    part = ova.slice_of(file, disk.member)
    found = detect.check_declared_reader(part, name, disk.format)
    opened = _open(file, part, name, found, max_size)
    if opened.reader.size != disk.capacity:
        note = f"{name}: the disk has {opened.reader.size} bytes, its descriptor says {disk.capacity}"
        return access_module.Opened(opened.reader, opened.container, (*opened.notes, note))
    return opened


def _open(file: raw.RawReader, part: pieces.SliceReader, name: str, found: str, max_size: int) -> access_module.Opened:
    if found == "raw":
        _check_size(name, part.size, max_size)
        return access_module.Opened(part, {"format": "raw"})
    if found == "qcow2":
        reader = qcow2.Qcow2Reader(part, name, max_size=max_size)
        return access_module.Opened(reader, reader.facts(), reader.notes)
    if found == "cow":
        return _sized(cow.CowReader(part, name), {"format": "cow"}, (), name, max_size)
    if found == "vmdk" and vmdk.is_text(part):
        raise errors.UnsafeImage(f"{name}: names other files, allowed in an archive is a disk in one file")
    facts = gates.check(found, part, name)
    if found == "vmdk" and facts.container["subformat"] == _NATIVE_VMDK:
        return _sized(vmdk.open_sparse(part, name), facts.container, facts.notes, name, max_size)
    _check_size(name, facts.size or 0, max_size)
    again = _again(file, name)
    try:
        disk = foreign.open_foreign(again, found, facts, offset=part.offset, length=part.length)
    except BaseException:
        again.close()
        raise
    return access_module.Opened(disk, facts.container, facts.notes)


def _sized(
    reader: protocol.Source, container: dict[str, Any], notes: tuple[str, ...], name: str, max_size: int
) -> access_module.Opened:
    _check_size(name, reader.size, max_size)
    return access_module.Opened(reader, container, notes)


def _check_size(name: str, size: int, max_size: int) -> None:
    if size > max_size:
        raise errors.UnsafeImage(f"{name}: the disk has {size} bytes, the limit is {max_size}")


def _again(file: raw.RawReader, name: str) -> raw.RawReader:
    """The very file that is open, opened once more: a reader of its own closes it."""
    again = raw.RawReader(f"/proc/self/fd/{file.fileno()}")
    again.path = name
    return again
