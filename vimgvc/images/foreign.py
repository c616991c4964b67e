"""Disks in formats that only qemu reads: a confined qemu-nbd, and a client of it.

A gate (`gates.check`) has judged the header before; specs/foreign-formats.md says what the child may do.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import block_graph, gates, meeting, qemu, raw
from vimgvc.nbd import client

#: Longer than any passphrase or key file that qemu's formats were made with.
_MAX_SECRET = 65536

_SECTOR = 512

#: Seconds in which a child that hung up because it ends has ended.
_DYING = 1.0


def open_foreign(
    file: raw.RawReader,
    fmt: str,
    facts: gates.Facts,
    *,
    secret_file: str | None = None,
    offset: int = 0,
    length: int | None = None,
    connections: int = 4,
) -> protocol.Source:
    """The disk in an open file that a gate let pass as format `fmt` (qemu's name), with these facts.

    `secret_file`: holds the passphrase, byte for byte, of luks images and of those with the option
    "encrypt.format". `offset`, `length`: the image is this part of the file. The Source owns `file`, and
    closes it. Raises `UnsafeImage` (qemu refuses the image), `NoKey` (wrong passphrase), `Busy` (locked by
    a running machine), or as `qemu.available`.
    """
    needed = fmt == "luks" or "encrypt.format" in facts.options
    if needed and secret_file is None:
        raise errors.UnsafeImage(
            f"{file.path}: is encrypted",
            hint="give its passphrase with --image-secret-file, or store the file as it is with --as-raw",
        )
    with contextlib.ExitStack() as undo:
        place = meeting.Meeting()
        undo.callback(place.close)
        with contextlib.ExitStack() as passed:
            fd = meeting.duplicate(file.fileno())
            passed.callback(os.close, fd)
            secret = secret_descriptor(secret_file) if needed and secret_file is not None else None
            if secret is not None:
                passed.callback(os.close, secret)
            device = stat.S_ISBLK(os.fstat(fd).st_mode)
            graph = block_graph.image(fmt, fd, options=facts.options, device=device, offset=offset, length=length)
            # The largest disk takes this long if a machine decompresses 1 MiB a second.
            seconds = 600 + ((facts.size or file.size << 4) >> 20)
            began = time.monotonic()
            child = qemu.serve(graph, place, reads=[fd], secret=secret, cpu=seconds, name=file.path)
            undo.callback(child.close)
        try:
            disk = client.Client(place.connect, name=file.path, connections=connections, timeout=qemu.OPENING)
        except errors.BackendError as error:
            if error.kind in {"protocol", "refused"}:
                raise
            raise qemu.ended(child, file.path, asked=began) from error
        undo.callback(disk.close)
        size = _agreed_size(file.path, disk.size, facts.size)
        undo.pop_all()
    return ForeignReader(file, disk, size, child, place)


def _agreed_size(name: str, served: int, told: int | None) -> int:
    """The size of the disk: as the header tells, which qemu may have rounded up to sectors."""
    if told is None or served == told:
        return served
    if served == -(-told // _SECTOR) * _SECTOR:
        return told
    raise errors.UnsafeImage(
        f"{name}: the header tells of a disk of {told} bytes, and qemu of one of {served}",
        hint="convert the image with the tool that made it",
    )


class ForeignReader:
    """An image that a child reads, as a Source. Use `open_foreign`."""

    def __init__(
        self, file: raw.RawReader, disk: client.Client, size: int, child: qemu.Child, place: meeting.Meeting
    ) -> None:
        self._file, self._disk, self._size, self._child, self._place = file, disk, size, child, place

    @property
    def size(self) -> int:
        return self._size

    @property
    def allocated_bytes(self) -> int:
        return min(self._file.allocated_bytes, self._size)

    def check_unchanged(self) -> None:
        self._file.check_unchanged()

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        try:
            self._disk.pread_into(offset, buffer)
        except errors.BackendError as error:
            raise self._typed(error, offset, buffer.nbytes) from error

    def _extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        try:
            yield from self._disk.extents(offset, length)
        except errors.BackendError as error:
            raise self._typed(error, offset, length) from error

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        return self._extents(offset, length)

    def close(self) -> None:
        self._disk.close()
        self._child.close()
        self._place.close()
        self._file.close()

    def _typed(self, error: errors.BackendError, offset: int, length: int) -> errors.VimgvcError:
        """What the client met in a range of the disk, as what it means for the image."""
        hung_up = error.kind == "closed"
        code = self._child.wait(_DYING if hung_up else 0)
        # qemu 7.2 hangs up when a read fails that it answers in pieces, and goes on serving others.
        if code is None and (hung_up or error.kind in ("EIO", "EINVAL")):
            where = f"{error.where}, guest bytes {offset} to {offset + length - 1}"
            return errors.ImageDamaged(where, "qemu cannot read it")
        if code is None:
            return error
        return errors.VimgvcError(
            f"{error.where}: {self._child.failure(code)}",
            hint="run the same command again; if it fails again, report it",
        )


def secret_descriptor(path: str) -> int:
    """A file in memory with the bytes of the file `path`, for a child. The caller closes it."""
    try:
        with open(path, "rb", buffering=0) as file:
            content = bytearray()
            while len(content) <= _MAX_SECRET and (piece := file.read(_MAX_SECRET)):
                content += piece
    except FileNotFoundError as error:
        raise errors.NotFound("secret file", path) from error
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    if len(content) > _MAX_SECRET:
        raise errors.UsageError(f"{path}: a passphrase has at most {_MAX_SECRET} bytes")
    made = os.memfd_create("secret", os.MFD_CLOEXEC)
    try:
        os.write(made, content)
        return meeting.duplicate(made)
    finally:
        os.close(made)
