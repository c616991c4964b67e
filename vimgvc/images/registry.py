"""Opening images by name and format. The one place that knows which format is read by what."""

from __future__ import annotations

import dataclasses

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import access as access_module
from vimgvc.images import detect, lenient, raw

Access = access_module.Access
Opened = access_module.Opened
_PLAIN = Access()


def open_image(path: raw.Path, access: Access = _PLAIN) -> Opened:
    """The disk in an image. Opened once: what is judged is what is read.

    Raises what `raw.RawReader`, `detect.check_declared_reader` and the format's reader raise.
    """
    file = raw.RawReader(path)
    try:
        found = detect.check_declared_reader(file, file.path, access.declared)
        _check_means(file.path, found, access)
        opened = _open(file, found, access)
    except BaseException:
        file.close()
        raise
    if not (access.skip_bad or access.allow_changing):
        return opened
    reader = lenient.LenientSource(
        opened.reader, opened.container, skip_bad=access.skip_bad, allow_changing=access.allow_changing
    )
    return dataclasses.replace(opened, reader=reader)


def _open(file: raw.RawReader, found: str, access: Access) -> Opened:
    if found == "raw":
        return Opened(file, {"format": "raw"})
    if found == "qcow2":
        from vimgvc.images import qcow2_open

        return qcow2_open.open_qcow2(file, access)
    return _open_other(file, found, access)


def _open_other(file: raw.RawReader, found: str, access: Access) -> Opened:
    """Formats that are judged here and, but for a few, read by QEMU."""
    from vimgvc.images import chain, cow, gates, vmdk

    if found == "cow":
        disk = cow.CowReader(file, file.path)
        return Opened(disk, disk.facts())
    if found == "ova":
        raise errors.UsageError(
            f"{file.path}: holds a whole machine, not one disk", hint="commit it: each of its disks is recorded"
        )
    facts = gates.check(found, file, file.path)
    if facts.size is not None and facts.size > access.max_size:
        raise errors.UnsafeImage(f"{file.path}: the disk has {facts.size} bytes, the limit is {access.max_size}")
    reader: protocol.Source
    if found == "vmdk" and vmdk.is_text(file):
        reader = vmdk.open_text(file, chain.open_below)
    elif facts.container.get("subformat") == "monolithicSparse":
        reader = vmdk.open_sparse(file, file.path)
    else:
        from vimgvc.images import foreign

        reader = foreign.open_foreign(file, found, facts, secret_file=access.secret_file)
    return Opened(reader, facts.container, facts.notes)


def _check_means(name: str, found: str, access: Access) -> None:
    """Refuse what only other formats have, so that nobody believes it had an effect."""
    asked = {
        "snapshot": access.snapshot is not None and found != "qcow2",
        "data-file": access.data_file is not None and found != "qcow2",
        "image-secret-file": access.secret_file is not None and found not in ("qcow2", "luks"),
    }
    for option, wrong in asked.items():
        if wrong:
            raise errors.UsageError(f"{name}: --{option} means nothing for {found}", hint="leave it away")
