"""Disks in formats that only qemu writes: a confined qemu-img reads them from a server of ours.

Nothing has the target's name before it was opened again, compared if that is wanted, and synced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from vimgvc import errors
from vimgvc.disk import extents, protocol, resized
from vimgvc.images import access, foreign, foreign_options, meeting, qemu, registry, sandbox, side_folder
from vimgvc.nbd import server

Path = str | os.PathLike[str]
Check = Callable[[protocol.Source], None]

parse_options = foreign_options.parse_options
FORMATS = foreign_options.FORMATS

_SECTOR = 512
_SPLIT_SIZE = 2 << 30

#: qemu measures how fast keys are derived with a clock that may be too coarse; the next try can succeed.
_COARSE_CLOCK = "Unable to get accurate CPU usage"
_TRIES = 30


def convert_into(
    reader: protocol.Reader,
    path: Path,
    fmt: str,
    options: Mapping[str, str],
    *,
    tag: str,
    force: bool = False,
    forbidden: Sequence[Path] = (),
    data_bytes: int | None = None,
    secret_file: str | None = None,
    check: Check | None = None,
) -> tuple[str, ...]:
    """Write a disk into the new file `path` in format `fmt`; durable on return. Returns what the user should know.

    `options`: as of `parse_options`. `secret_file`: the passphrase of a luks image.
    `check` gets the result, opened again, before it has its name, and raises if it is not the disk; what
    lies behind the disk's end in it must be zeros, since formats count in sectors. The rest as of
    `raw_target.open_place`.

    Raises `UsageError` (options), what `reader` or `check` raises, `IntegrityError` (qemu-img did not write
    what it should have), `NoSpace`, and as `qemu.available` and `side_folder.SideFolder`.
    """
    chosen = parse_options(fmt, options)
    foreign_options.check_size(fmt, chosen, reader.size)
    if fmt == "luks" and secret_file is None:
        raise errors.UsageError("luks needs a passphrase", hint="give it with --new-secret-file FILE")
    qemu.available()
    target = os.fspath(path)
    inner, others = _names(os.path.basename(target), fmt, chosen, reader.size)
    job = _Job(fmt, chosen, inner, reader.size, secret_file if fmt == "luks" else None)
    sectors = Sectors(reader)
    for left in reversed(range(_TRIES)):
        folder = side_folder.SideFolder(target, tag=tag, force=force, forbidden=forbidden, data_bytes=data_bytes)
        try:
            folder.prepare(inner, others)
            with _Run(sectors, folder, job) as run:
                if run.is_done(try_again=left > 0):
                    if folder.files() != sorted([inner, *others]):
                        raise _short(target, f"it made {', '.join(folder.files())}")
                    notes = _verify(folder, job, check)
                    folder.publish(inner, others)
                    return notes
        finally:
            folder.release()
    raise AssertionError


@dataclass(frozen=True, slots=True)
class _Job:
    """What qemu-img is to make: `inner` is the name of the file, `size` the disk's."""

    fmt: str
    options: Mapping[str, str]
    inner: str
    size: int
    secret_file: str | None

    def settings(self) -> list[str]:
        found = [f"{name}={value}" for name, value in self.options.items()]
        if self.fmt == "vpc":
            found.append("force_size=on")  # else the size is rounded to cylinders
        if self.secret_file is not None:
            found.append(f"key-secret={qemu.SECRET}")
        return found


def _names(name: str, fmt: str, options: Mapping[str, str], size: int) -> tuple[str, list[str]]:
    """What the file is called while it is written, and the other files that qemu-img makes beside it."""
    if fmt != "vmdk":
        return "disk", []
    subformat = options.get("subformat")
    if subformat not in foreign_options.SPLIT:
        return foreign_options.inner_name(name), []
    if not foreign_options.PLAIN_NAME.fullmatch(name):
        raise errors.UsageError(
            f"{name!r} cannot be written into the text of a vmdk that has several files",
            hint="use letters, digits, spaces and .-_+()@#= in its name",
        )
    stem, suffix = os.path.splitext(name)
    if subformat == "monolithicFlat":
        return name, [f"{stem}-flat{suffix}"]
    kind = "f" if subformat == "twoGbMaxExtentFlat" else "s"
    return name, [f"{stem}-{kind}{number:03}{suffix}" for number in range(1, max(1, -(-size // _SPLIT_SIZE)) + 1)]


class _Run:
    """One qemu-img, and the server that it reads from."""

    def __init__(self, reader: protocol.Reader, folder: side_folder.SideFolder, job: _Job) -> None:
        self._folder = folder
        with contextlib.ExitStack() as undo:
            self._place = meeting.Meeting()
            undo.callback(self._place.close)
            self._server = server.Server(reader, self._place.address)
            undo.callback(self._server.close)
            with contextlib.ExitStack() as passed:
                secret = None
                if job.secret_file is not None:
                    secret = foreign.secret_descriptor(job.secret_file)
                    passed.callback(os.close, secret)
                self._child = qemu.convert(
                    self._place,
                    folder.scratch,
                    job.inner,
                    job.fmt,
                    job.settings(),
                    secret=secret,
                    cpu=600 + (reader.size >> 20),
                    # A table entry of 8 bytes for each 512 at the worst, and a header.
                    file_bytes=reader.size + reader.size // 32 + (1 << 30),
                    name=folder.target,
                )
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The child first: the server waits a while for those that it still talks to.
        self._child.close()
        self._server.close()
        self._place.close()

    def is_done(self, *, try_again: bool) -> bool:
        """Wait for the end. False if it should be tried again; raises if it went wrong."""
        code = self._child.wait()
        if code == 0:
            return True
        message = self._child.failure(code)
        if try_again and _COARSE_CLOCK in message:
            return False
        if self._server.failure is not None:
            raise self._server.failure
        raise _failed(self._folder, message, code)


def _failed(folder: side_folder.SideFolder, message: str, code: int | None) -> errors.VimgvcError:
    path = folder.target
    # Of a full disk, some drivers say that an argument was invalid.
    if "No space left on device" in message or "Disk quota exceeded" in message or folder.is_full():
        return errors.NoSpace(f"{path}: {message}", hint="free some space and run the same command again")
    if code == sandbox.NOT_CONFINED:
        return errors.VimgvcError(f"{path}: qemu could not be confined: {message}")
    return errors.VimgvcError(f"{path}: {message}", hint="nothing was left behind")


def _verify(folder: side_folder.SideFolder, job: _Job, check: Check | None) -> tuple[str, ...]:
    """Open the result as any image would be opened, and compare."""
    how = access.Access(declared=job.fmt, secret_file=job.secret_file)
    try:
        opened = registry.open_image(os.path.join(folder.path, job.inner), how)
    except (errors.UnsafeImage, errors.IntegrityError, errors.Unsupported, errors.NotFound) as error:
        raise _short(folder.target, error.message) from error
    size = job.size
    try:
        found = opened.reader.size
        if found not in (size, -(-size // _SECTOR) * _SECTOR):
            raise _short(folder.target, f"the disk has {size} bytes, and in it {found}")
        if check is not None:
            check(opened.reader)
    finally:
        opened.reader.close()
    return () if found == size else (foreign_options.rounded(job.fmt, size, found),)


def _short(path: str, reason: str) -> errors.IntegrityError:
    return errors.IntegrityError(
        path, f"qemu-img did not write the disk: {reason}", hint="nothing was left behind; run the same command again"
    )


class Sectors:
    """A disk as qemu-img believes in it: whole sectors, zeros behind the end, each sector of one kind.

    A hole that ends within a sector would be taken for one up to the sector's end.
    """

    def __init__(self, disk: protocol.Reader) -> None:
        self._size = -(-disk.size // _SECTOR) * _SECTOR
        self._disk = resized.Grown(disk, self._size)

    @property
    def size(self) -> int:
        return self._size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._disk.pread_into(offset, buffer)

    def close(self) -> None:
        """The disk is not ours to close."""

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        start, end = offset // _SECTOR * _SECTOR, -(-(offset + length) // _SECTOR) * _SECTOR
        items = extents.align(self._disk.extents(start, end - start), _SECTOR, self._size)
        return extents.clip(items, offset, length)
