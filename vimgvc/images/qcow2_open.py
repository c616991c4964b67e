"""Opening qcow2 images with what they need: backing files, a data file, a passphrase (specs/images.md §5)."""

from __future__ import annotations

import contextlib
import os

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import access as access_module
from vimgvc.images import chain, detect, gates, qcow2, qcow2_metadata, raw
from vimgvc.images import qcow2_layout as layout

Access = access_module.Access
Opened = access_module.Opened

#: Formats that an image may be on top of; the names that QEMU writes for them.
_BACKING_FORMATS = ("raw", "qcow2")


def open_qcow2(file: raw.RawReader, access: Access) -> Opened:
    """The disk of an open image, which is closed with it. Raises what `qcow2.Qcow2Reader` and `chain` raise."""
    header = qcow2_metadata.read_header(file, file.path, max_size=access.max_size)
    if header.crypt != layout.CRYPT_NONE:
        return _open_encrypted(file, header, access)
    if access.secret_file is not None:
        raise errors.UsageError(f"{file.path}: is not encrypted", hint="leave --image-secret-file away")
    links = None if access.chain_roots is None else chain.Chain(file, _roots(file, access), access.chain_depth)
    reader = _open_link(file, header, access, links)
    return Opened(reader, reader.facts(), reader.notes)


def _roots(file: raw.RawReader, access: Access) -> list[str]:
    return [os.path.dirname(file.path) or os.curdir, *(access.chain_roots or ())]


def _open_link(
    file: raw.RawReader, header: layout.Header, access: Access, links: chain.Chain | None
) -> qcow2.Qcow2Reader:
    """The first image of a chain, or a backing file of the same format."""
    with contextlib.ExitStack() as undo:
        data_file = None
        if header.has_data_file and access.data_file is not None:
            data_file = raw.RawReader(access.data_file)
            undo.callback(data_file.close)
        elif access.data_file is not None:
            raise errors.UsageError(f"{file.path}: has no external data file", hint="leave --data-file away")
        backing = None
        if header.backing_file is not None and links is not None:
            backing = _open_backing(file, header, access, links)
            undo.callback(backing.close)
        reader = qcow2.Qcow2Reader(
            file,
            file.path,
            header=header,
            backing=backing,
            data_file=data_file,
            snapshot=access.snapshot,
            force_read=access.force_read,
            max_size=access.max_size,
        )
        undo.pop_all()
    return reader


def _open_backing(file: raw.RawReader, header: layout.Header, access: Access, links: chain.Chain) -> protocol.Source:
    """What lies below an image, opened as the format that its header names."""
    found = links.open(file, header.backing_file or b"")
    try:
        named = _named_format(file, header)
        return found if named == "raw" else _open_lower(found, named, access, links)
    except BaseException:
        found.close()
        raise


def _open_lower(file: raw.RawReader, named: str, access: Access, links: chain.Chain) -> qcow2.Qcow2Reader:
    """A backing file in a container; only qcow2 can be one."""
    detect.check_declared_reader(file, file.path, named)
    if named == "qcow2":
        header = qcow2_metadata.read_header(file, file.path, max_size=access.max_size)
        if header.crypt == layout.CRYPT_NONE:
            below = Access(force_read=access.force_read, max_size=access.max_size)
            return _open_link(file, header, below, links)
        named = "encrypted qcow2"
    raise errors.Unsupported(f"a backing file in format {named} ({file.path})", hint="merge the chain into one image")


def _named_format(file: raw.RawReader, header: layout.Header) -> str:
    if header.backing_format is None:
        # Guessing would let a guest choose how its own raw disk is read.
        raise errors.UnsafeImage(
            f"{file.path}: does not say the format of its backing file",
            hint="write it into the header: qemu-img rebase -u -b NAME -F FORMAT IMAGE",
        )
    named = header.backing_format.decode("ascii", "backslashreplace")
    if named not in _BACKING_FORMATS:
        raise errors.UnsafeImage(
            f"{file.path}: the format of its backing file is {named!a}, allowed are raw and qcow2",
            hint="merge the chain into one image",
        )
    return named


def _open_encrypted(file: raw.RawReader, header: layout.Header, access: Access) -> Opened:
    """Through QEMU, which is told how it is encrypted; what it would have to look for is refused."""
    from vimgvc.images import foreign

    kind = "aes" if header.crypt == layout.CRYPT_AES else "luks"
    if header.backing_file is not None or header.has_data_file or access.snapshot is not None:
        raise errors.Unsupported(
            f"an encrypted image with a backing file, a data file or a snapshot to read ({file.path})",
            hint="convert it first, or store the file as it is with --as-raw",
        )
    container = {
        "format": "qcow2",
        "compat": "0.10" if header.version == 2 else "1.1",
        "cluster_size": header.cluster_size,
        "encryption": kind,
    }
    facts = gates.Facts("qcow2", header.size, container, options={"encrypt.format": kind})
    reader = foreign.open_foreign(file, "qcow2", facts, secret_file=access.secret_file)
    return Opened(reader, container)
