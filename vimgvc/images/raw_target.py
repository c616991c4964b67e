"""Where a raw disk is written to: a new file under a temporary name, or a block device.

Rules of a file
- The partial file `.<name>.<tag>.partial` lies beside the target. The target's name appears only when
  the disk is complete and durable: fsync, rename, fsync of the folder.
- An existing target is refused without `force`, at the beginning and again by the rename itself.
- A partial file that was written to stays after a failure, so that the next run with this tag finds
  it. It does not stay after a failed fsync: the kernel then calls lost pages clean, so neither
  reading the file nor another fsync would ever show what is missing.
- A partial file is only taken up if it is an ordinary file of this user with no other name.
- One process at a time: the partial file is locked while it is written.
- New files get the mode that the umask leaves, as with `cp`. A replaced target's mode and, where
  permitted, owner pass to the new file, which until then only its owner can read.

Rules of a device
- Only with `force`, only if nothing uses it, only if the disk fits.
- All of the first `size` bytes are written, freed or zeroed; the rest is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import stat
import threading
from collections.abc import Sequence
from typing import Protocol

from vimgvc import errors
from vimgvc.images import coverage, descriptor, device, libc

Path = str | os.PathLike[str]

_TAG = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
_NAME_MAX = 255
_BLOCK = coverage.BLOCK


class Place(Protocol):
    """What a `RawWriter` writes to; ranges are inside the disk."""

    fd: int
    resumed: bool

    def about_to_write(self, offset: int, length: int) -> None:
        """Called before each write (> 0 bytes), also from several threads."""

    def clear(self, offset: int, length: int) -> None:
        """Make a range (> 0 bytes) read as zeros."""

    def publish(self) -> None:
        """Make the disk durable and final; releases everything, also when this raises."""

    def release(self, *, keep: bool) -> None:
        """Give up; without `keep` no trace of it stays. Never raises."""


def open_place(
    target: Path, size: int, *, tag: str, force: bool, forbidden: Sequence[Path], data_bytes: int | None
) -> Place:
    """The place for a disk of `size` bytes, or the error that says why not; nothing was changed then.

    `tag`: the same for the same disk, so that an interrupted run is continued. `forbidden`: folders in
    which nothing may be written. `data_bytes`: how much will be written at most, to be refused early
    if that cannot fit.
    """
    path = os.fspath(target)
    try:
        present = _look(path)
        if present is not None:
            _check_target(path, present.st_mode, force=force)
            if stat.S_ISBLK(present.st_mode):
                return DevicePlace(path, size)
        place = FilePlace(path, tag=tag, force=force, present=present)
        try:
            place.prepare(size, forbidden, data_bytes)
        except BaseException:
            place.release(keep=True)
            raise
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    return place


def _look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def partial_name(name: str, tag: str) -> str:
    """The name beside `name` under which a disk is written; a long name is cut and told apart by its hash."""
    if not _TAG.fullmatch(tag):
        msg = f"not a tag: {tag!r}"
        raise ValueError(msg)
    full = f".{name}.{tag}.partial"
    raw = os.fsencode(name)
    if len(os.fsencode(full)) <= _NAME_MAX:
        return full
    end = f"~{hashlib.blake2b(raw, digest_size=8).hexdigest()}.{tag}.partial"
    return "." + raw[: _NAME_MAX - 1 - len(end)].decode(errors="ignore") + end


class FilePlace:
    """A partial file beside its target. Use `open_place`."""

    def __init__(self, path: str, *, tag: str, force: bool, present: os.stat_result | None) -> None:
        folder, self._name = os.path.split(path)
        if self._name in ("", ".", ".."):
            raise errors.UnsafeImage(f"{path}: names a directory", hint="name a file that is to be created")
        self._path = path
        self._partial = partial_name(self._name, tag)
        self._force = force
        self._present = present
        self._written = coverage.Coverage()
        self._lock = threading.Lock()
        self._touched = False
        self.resumed = False
        self.fd = -1
        self._folder = _open_folder(folder or ".")

    def prepare(self, size: int, forbidden: Sequence[Path], data_bytes: int | None) -> None:
        """Check the rules and open the partial file."""
        _check_allowed(self._path, os.path.dirname(self._path) or ".", forbidden)
        if data_bytes is not None:
            self._check_space(min(size, data_bytes))
        self._open_partial()
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise descriptor.write_error(error, self._path, f"making a file of {size} bytes") from error
        if self.resumed:
            self._sync()  # only then may `extents` tell holes

    def about_to_write(self, offset: int, length: int) -> None:
        with self._lock:
            self._touched = True
            self._written.add(offset // _BLOCK, -(-(offset + length) // _BLOCK))

    def clear(self, offset: int, length: int) -> None:
        if self.resumed:
            descriptor.zero_out(self.fd, self._path, offset, length)
            return
        # A fresh file is zeros where it was not written: a file system that cannot free a range need
        # not fill it, and one that can is not asked.
        end = offset + length
        with self._lock:
            runs = list(self._written.runs(offset // _BLOCK, -(-end // _BLOCK)))
        for first, stop in runs:
            start = max(first * _BLOCK, offset)
            descriptor.zero_out(self.fd, self._path, start, min(stop * _BLOCK, end) - start)

    def publish(self) -> None:
        try:
            if self._present is not None:
                self._take_over(self._present)
            self._sync()
            self._rename()
            _sync_folder(self._folder, self._path)
        finally:
            self._close()

    def release(self, *, keep: bool) -> None:
        if self.fd >= 0 and not (keep and self._touched):
            self._drop()
        self._close()

    def _check_space(self, needed: int) -> None:
        with contextlib.suppress(OSError):  # nothing is there yet
            needed -= os.stat(self._partial, dir_fd=self._folder, follow_symlinks=False).st_blocks * 512
        room = os.fstatvfs(self._folder)
        free = (room.f_bfree if os.geteuid() == 0 else room.f_bavail) * room.f_frsize
        if needed > free:
            raise errors.NoSpace(
                f"{self._path}: needs {needed} bytes, but only {free} are free there",
                hint="free some space, or name a target elsewhere",
            )

    def _open_partial(self) -> None:
        """Create or take up the partial file, locked. Sets `fd`, `resumed`."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        # What replaces a file may not be readable by more people than that was.
        mode = 0o666 if self._present is None else 0o600
        while True:
            try:
                fd = os.open(self._partial, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=self._folder)
                resumed = False
            except FileExistsError:
                try:
                    fd = os.open(self._partial, flags, dir_fd=self._folder)
                except FileNotFoundError:
                    continue  # just finished or removed by another process
                except OSError as error:
                    raise self._not_ours() from error
                resumed = True
            if self._acquire(fd, resumed=resumed):
                return

    def _acquire(self, fd: int, *, resumed: bool) -> bool:
        """Lock `fd` and keep it; False if it lost its name before the lock was ours."""
        ours = False
        try:
            found = os.fstat(fd)
            if resumed and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()):
                raise self._not_ours()
            _lock(fd, self._path)
            try:
                named = os.stat(self._partial, dir_fd=self._folder, follow_symlinks=False)
                ours = os.path.samestat(found, named)
            except FileNotFoundError:
                ours = False
        finally:
            if not ours:
                os.close(fd)
        if ours:
            self.fd, self.resumed, self._touched = fd, resumed, resumed
        return ours

    def _not_ours(self) -> errors.VimgvcError:
        return errors.UnsafeImage(
            f"{self._path}: {self._partial!r} beside it is not a file that this user's vimgvc left there",
            hint="look at it and remove it, or name another target",
        )

    def _take_over(self, present: os.stat_result) -> None:
        mode = stat.S_IMODE(present.st_mode) & 0o777
        try:
            os.fchown(self.fd, present.st_uid, present.st_gid)
        except OSError:
            mode &= ~0o070  # only root may give files away; then another group must not get in instead
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(self.fd, mode)

    def _sync(self) -> None:
        try:
            os.fsync(self.fd)
            # Network file systems may have more to say on closing; the lock must outlive that.
            os.close(os.dup(self.fd))
        except OSError as error:
            self._drop()
            raise descriptor.write_error(error, self._path, "making the data durable") from error

    def _rename(self) -> None:
        folder = self._folder
        try:
            if self._force:
                os.rename(self._partial, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            elif not libc.rename_noreplace(folder, self._partial, self._name):
                # A crash between the two leaves two names of the complete file; such a partial file
                # is never taken up.
                os.link(self._partial, self._name, src_dir_fd=folder, dst_dir_fd=folder)
                os.unlink(self._partial, dir_fd=folder)
        except FileExistsError as error:
            raise errors.VimgvcError(
                f"{self._path}: appeared while the disk was written",
                hint=f"the disk is complete in {self._partial!r}; rename it, or run this again with --force",
            ) from error
        except OSError as error:
            raise descriptor.write_error(error, self._path, "giving it its name") from error

    def _drop(self) -> None:
        with contextlib.suppress(OSError):  # what led here is what the user must hear of
            os.unlink(self._partial, dir_fd=self._folder)

    def _close(self) -> None:
        for fd in (self.fd, self._folder):
            if fd >= 0:
                with contextlib.suppress(OSError):  # the data is synced by now, or given up
                    os.close(fd)
        self.fd = self._folder = -1


class DevicePlace:
    """A block device, claimed. What was on it is lost with the first write."""

    resumed = False

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._size = size
        self._written = coverage.Coverage()
        self._lock = threading.Lock()
        self.fd = device.claim(path)
        room = device.size(self.fd)
        if room < size:
            self.release(keep=True)
            raise errors.NoSpace(
                f"{path}: has {room} bytes, the disk {size}", hint="name a device that is at least as large"
            )

    def about_to_write(self, offset: int, length: int) -> None:
        """Mark the blocks; one that is written in part for the first time is zeroed before."""
        end = offset + length
        first, last = offset // _BLOCK, (end - 1) // _BLOCK
        with self._lock:
            ragged = {first} if offset % _BLOCK else set()
            if end % _BLOCK and end < self._size:
                ragged.add(last)
            for block in ragged:
                if not self._written.has(block):
                    room = min(_BLOCK, self._size - block * _BLOCK)
                    descriptor.write_zeros(self.fd, self._path, block * _BLOCK, room)
            self._written.add(first, last + 1)

    def clear(self, offset: int, length: int) -> None:
        self.about_to_write(offset, length)
        descriptor.zero_out(self.fd, self._path, offset, length, _BLOCK)

    def publish(self) -> None:
        try:
            for first, stop in self._written.gaps(-(-self._size // _BLOCK)):
                length = min(stop * _BLOCK, self._size) - first * _BLOCK
                descriptor.zero_out(self.fd, self._path, first * _BLOCK, length, _BLOCK)
            os.fsync(self.fd)
        except OSError as error:
            raise descriptor.write_error(error, self._path, "making the data durable") from error
        finally:
            self.release(keep=True)

    def release(self, *, keep: bool) -> None:
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # the data is synced by now, or given up
                os.close(self.fd)
            self.fd = -1


def _check_target(path: str, mode: int, *, force: bool) -> None:
    if stat.S_ISLNK(mode):
        hint = f"name what it points to: {os.path.realpath(path)}"
        raise errors.UnsafeImage(f"{path}: is a symbolic link, which is not written through", hint=hint)
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise errors.UnsafeImage(f"{path}: is {descriptor.kind_name(mode)}", hint="name a file that is to be created")
    if force:
        return
    if stat.S_ISBLK(mode):
        hint = "--force writes to the device; what is on it now will be lost"
        raise errors.VimgvcError(f"{path}: is a block device", hint=hint)
    raise errors.VimgvcError(f"{path}: exists already", hint="name another target, or replace it with --force")


def _open_folder(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.NotFound("directory", folder, hint="create it first") from error


def _check_allowed(path: str, folder: str, forbidden: Sequence[Path]) -> None:
    """Refuse a folder that is one of `forbidden` or below one, under whatever names or mounts."""
    places = pathlib.Path(folder).resolve()
    above = [os.stat(place) for place in (places, *places.parents)]
    for name in forbidden:
        try:
            barred = os.stat(name)
        except OSError:
            continue  # nothing can be inside what is not there
        if any(os.path.samestat(barred, place) for place in above):
            raise errors.UnsafeImage(
                f"{path}: lies inside {os.fspath(name)}, where vimgvc keeps its own files",
                hint="name a target outside of it",
            )


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise errors.Busy(f"{path}: is being written by another process", hint="wait until it is done") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # some network file systems cannot
            raise


def _sync_folder(folder: int, path: str) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # there is no such operation on this file system
            raise descriptor.write_error(error, path, "making its name durable") from error
