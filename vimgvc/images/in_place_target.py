"""A raw file or block device that exists and becomes another disk by writing what differs.

Rules
- Before the first byte is changed a marker beside the target is durable; it goes when the target is
  complete and durable. While it is there nobody can say what state the target is in.
- A file in use is refused (`in_use`), and kept from others while it is written; devices: `device.claim`.
- A file gets the size of the disk: it grows before it is written, and is cut off at the very end. A
  device may be larger; the rest of it is left alone.
- What is zeroed is freed where the target can do that. What reads as it should is not touched, so
  space that was reserved stays reserved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import descriptor, detect, device, in_use, libc, raw, target_rules

Path = str | os.PathLike[str]

_SUFFIX = ".vimgvc-in-place"
_NAME_MAX = 255
_BLOCK = 4096
#: As in `raw`: bytes after which the kernel is asked to begin writing.
_WRITEBACK = 64 << 20


def marker_path(target: str, devices: Path | None = None) -> str:
    """Where the marker of a target lies: beside it; of a device in `devices`, because /dev does not last."""
    folder, name = os.path.split(target)
    if devices is not None and _is_device(target):
        folder, name = os.fspath(devices), _device_name(target)
    full = f".{name}{_SUFFIX}"
    if len(os.fsencode(full)) > _NAME_MAX:
        full = f".{hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()}{_SUFFIX}"
    return os.path.join(folder or ".", full)


def _is_device(path: str) -> bool:
    present = target_rules.look(path)
    return present is not None and stat.S_ISBLK(present.st_mode)


def _device_name(path: str) -> str:
    """What a device is called as long as it is the same one, as far as the kernel knows."""
    number = os.stat(path).st_rdev
    facts = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for fact in ("dm/uuid", "wwid", "device/wwid"):
        with contextlib.suppress(OSError):
            text = (facts / fact).read_bytes().strip()
            if text:
                return hashlib.blake2b(text, digest_size=16).hexdigest()
    return os.path.basename(path)


def is_marked(target: Path, devices: Path | None = None) -> bool:
    """Whether writing to the target in place was interrupted, so that it holds a mixture."""
    return target_rules.look(marker_path(os.fspath(target), devices)) is not None


def unmark(target: Path) -> None:
    """Forget that a file held a mixture: it was replaced as a whole."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(marker_path(os.fspath(target)))


@dataclass(frozen=True, slots=True)
class Known:
    """The target is said to hold a disk of `size` bytes; `name` is what messages call it."""

    name: str
    size: int


def open_target(
    target: Path,
    size: int,
    *,
    known: Known | None,
    as_raw: bool,
    forbidden: Sequence[Path],
    devices: Path | None,
) -> InPlaceTarget:
    """The target for a disk of `size` bytes, or the error that says why not; nothing was changed then.

    `known`: what it holds, if that is to be relied on. `as_raw`: it is raw though it looks like a
    container. `forbidden`: folders in which nothing may be written. `devices`: the folder for markers
    of devices. Raises `NotFound`, `UnsafeImage`, `Busy`, `NoSpace`, `BackendError`.
    """
    path = os.fspath(target)
    try:
        present = target_rules.look(path)
        if present is None:
            raise errors.NotFound("target", path, hint="leave --in-place away to make a new file")
        target_rules.check_target(path, present.st_mode, force=True)
        is_device = stat.S_ISBLK(present.st_mode)
        if not is_device:
            _check_file(path, present, forbidden)
        fd = device.claim(path) if is_device else in_use.open_alone(path)
        place = InPlaceTarget(fd, path, size, marker=marker_path(path, devices), is_device=is_device)
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    try:
        place.check(known, as_raw=as_raw)
    except BaseException:
        place.abort()
        raise
    return place


def _check_file(path: str, present: os.stat_result, forbidden: Sequence[Path]) -> None:
    target_rules.check_allowed(path, os.path.dirname(path) or ".", forbidden)
    if present.st_nlink > 1:
        raise errors.UnsafeImage(
            f"{path}: has {present.st_nlink} names, and all of them would change",
            hint="give it a content of its own: copy it, and rename the copy to its name",
        )


class InPlaceTarget:
    """A `disk.protocol.Target` of the `size` that the disk is to have. Use `open_target`."""

    resumed = False

    def __init__(self, fd: int, path: str, size: int, *, marker: str, is_device: bool) -> None:
        self._fd, self.path, self._size, self._marker, self._is_device = fd, path, size, marker, is_device
        self._there = device.size(fd) if is_device else os.fstat(fd).st_size
        self.marked = target_rules.look(marker) is not None
        self._begun = False
        #: Where the zeros must begin that a disk of a device is said to have behind it.
        self._end = size
        self._lock = threading.Lock()
        self._tells_holes = False
        self._unwritten = 0

    @property
    def size(self) -> int:
        return self._size

    def check(self, known: Known | None, *, as_raw: bool) -> None:
        """Refuse what must not be written to."""
        if self._is_device and self._there < self._size:
            raise errors.NoSpace(
                f"{self.path}: has {self._there} bytes, the disk {self._size}",
                hint="name a device that is at least as large",
            )
        if known is not None:
            self._check_known(known)
        try:
            os.fsync(self._fd)
            self._tells_holes = not self._is_device
        except OSError as error:
            if error.errno in descriptor.LOST_WRITE:
                raise errors.from_os_error(error, self.path) from error
        if self.marked:
            # After a failed sync the kernel shows what never reached the disk; read from the disk instead.
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if not as_raw:
            self._check_content()

    def _check_known(self, known: Known) -> None:
        if self.marked:
            raise errors.VimgvcError(
                f"{self.path}: writing to it was interrupted, so it is not what {known.name} is",
                hint="leave --base away: then it is compared, and what differs is written",
            )
        if self._there != known.size and not (self._is_device and self._there >= known.size):
            raise errors.VimgvcError(
                f"{self.path}: has {self._there} bytes and {known.name} {known.size}, so it is not in that state",
                hint="leave --base away: then it is compared, and what differs is written",
            )
        if self._is_device:
            self._end = min(known.size, self._size)

    def _check_content(self) -> None:
        file = raw.RawReader(self.path, fd=os.dup(self._fd))
        try:
            found = detect.look(file)
        finally:
            file.close()
        if found != ("raw",):
            raise errors.UnsafeImage(
                f"{self.path}: looks like {' or '.join(found)}, and only raw images are written in place",
                hint="restore to a new file; if it is a raw disk with such content, say --as-raw",
            )

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._check(offset, data.nbytes)
        if data.nbytes:
            self._begin()
            descriptor.write_all(self._fd, self.path, offset, data)
            self._unwritten += data.nbytes  # a race between threads only changes when the disk is put to work
            if self._unwritten >= _WRITEBACK:
                self._unwritten = 0
                libc.start_writeback(self._fd)

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        if length:
            self._begin()
            descriptor.zero_out(self._fd, self.path, offset, length, _BLOCK if self._is_device else 1)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._check(offset, buffer.nbytes)
        there = max(0, min(buffer.nbytes, self._there - offset))
        descriptor.read_into(self._fd, self.path, offset, buffer[:there])
        if there < buffer.nbytes:
            buffer[there:] = bytes(buffer.nbytes - there)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """What lies behind the end of a file that is to grow is a hole."""
        self._check(offset, length)
        inside = max(0, min(length, self._there - offset))
        found: Iterator[extents.Extent] = iter(())
        if inside:
            found = iter([extents.Extent(offset, inside, extents.Kind.DATA)])
            if self._tells_holes:
                found = descriptor.sparse_extents(self._fd, self.path, offset, inside)
        return extents.cover(found, offset, length, extents.Kind.HOLE)

    def finish(self) -> None:
        """Cut off what a file has too much, make everything durable, and take the marker away."""
        self._check(0, 0)
        try:
            if self._end < self._size:
                self._begin()
            if not self._is_device and self._there != self._size:
                self._begin()
                self._resize()
            if self._begun or self.marked:
                self._sync()
                self._unmark()
        finally:
            self._close()

    def abort(self) -> None:
        """Let go; once something was written the marker stays. Never raises."""
        self._close()

    def _check(self, offset: int, length: int) -> None:
        if self._fd < 0:
            raise errors.VimgvcError(f"{self.path}: is no longer open for writing")
        extents.check_range(self._size, offset, length)

    def _begin(self) -> None:
        """Before the first change: the marker; then zeros where the disk is longer than what is there."""
        with self._lock:
            if self._begun:
                return
            if not self.marked:
                self._mark()
            if not self._is_device and self._there < self._size:
                self._resize()
            if self._end < self._size:
                descriptor.zero_out(self._fd, self.path, self._end, self._size - self._end, _BLOCK)
            self._begun = True

    def _mark(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        folder = os.path.dirname(self._marker)
        try:
            fd = os.open(self._marker, flags, 0o600)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            _sync_folder(folder, self.path)
        except OSError as error:
            raise descriptor.write_error(error, self._marker, "making it before the first change") from error

    def _unmark(self) -> None:
        try:
            os.unlink(self._marker)
            _sync_folder(os.path.dirname(self._marker), self.path)
        except OSError as error:
            raise descriptor.write_error(error, self._marker, "removing it") from error

    def _resize(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            raise descriptor.write_error(error, self.path, f"making it {self._size} bytes long") from error
        self._there = self._size

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
            os.close(os.dup(self._fd))  # network file systems may have more to say on closing
        except OSError as error:
            raise descriptor.write_error(error, self.path, "making the data durable") from error

    def _close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # the data is synced by now, or given up
                os.close(self._fd)
            self._fd = -1


def _sync_folder(folder: str, path: str) -> None:
    fd = target_rules.open_folder(folder)
    try:
        target_rules.sync_folder(fd, path)
    finally:
        os.close(fd)
