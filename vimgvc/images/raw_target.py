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
import hashlib
import os
import re
import stat
import threading
from collections.abc import Sequence
from typing import Protocol

from vimgvc import errors
from vimgvc.images import coverage, descriptor, device_place, libc, raw_space, target_rules

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

    def reserve(self, offset: int, length: int) -> None:
        """Take the space of a range now, where the place can do that; content stays."""

    def resize(self, size: int) -> None:
        """Change the size; what comes in addition reads as zeros."""

    def settle(self) -> None:
        """Make what was not written read as zeros already now."""

    def publish(self) -> None:
        """Make the disk durable and final; releases everything, also when this raises."""

    def release(self, *, keep: bool) -> None:
        """Give up; without `keep` no trace of it stays. Never raises."""


def open_place(
    target: Path,
    size: int,
    *,
    tag: str,
    force: bool,
    forbidden: Sequence[Path],
    data_bytes: int | None,
    preallocation: str = "off",
) -> Place:
    """The place for a disk of `size` bytes, or the error that says why not; nothing was changed then.

    `tag`: the same for the same disk, so that an interrupted run is continued. `forbidden`: folders in
    which nothing may be written. `data_bytes`: how much will be written at most, to be refused early
    if that cannot fit. `preallocation`: one of `raw_space.MODES`; of a device all space is there anyway.
    """
    path = os.fspath(target)
    try:
        present = target_rules.look(path)
        if present is not None:
            target_rules.check_target(path, present.st_mode, force=force)
            if stat.S_ISBLK(present.st_mode):
                return device_place.DevicePlace(path, size)
        place = FilePlace(path, tag=tag, force=force, present=present)
        try:
            place.prepare(size, forbidden, data_bytes, preallocation)
        except BaseException:
            place.release(keep=True)
            raise
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    return place


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
        self._space: raw_space.Space | None = None
        self.resumed = False
        self.fd = -1
        self._folder = target_rules.open_folder(folder or ".")

    def prepare(self, size: int, forbidden: Sequence[Path], data_bytes: int | None, preallocation: str = "off") -> None:
        """Check the rules and open the partial file."""
        target_rules.check_allowed(self._path, os.path.dirname(self._path) or ".", forbidden)
        if preallocation != "off":
            self._check_space(size)
        elif data_bytes is not None:
            self._check_space(min(size, data_bytes))
        self._open_partial()
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise descriptor.write_error(error, self._path, f"making a file of {size} bytes") from error
        if self.resumed:
            self._sync()  # only then may `extents` tell holes
        if preallocation != "off":
            self._space = raw_space.Space(
                self.fd, self._path, size, full=preallocation == "full", fresh=not self.resumed
            )

    def about_to_write(self, offset: int, length: int) -> None:
        with self._lock:
            self._touched = True
            self._written.add(offset // _BLOCK, -(-(offset + length) // _BLOCK))

    def clear(self, offset: int, length: int) -> None:
        if self.resumed:
            if self._space is None:
                descriptor.zero_out(self.fd, self._path, offset, length)
            else:
                self._space.clear(offset, length)
            return
        # A fresh file is zeros where it was not written: a file system that cannot free a range need
        # not fill it, and one that can is not asked.
        end = offset + length
        with self._lock:
            runs = list(self._written.runs(offset // _BLOCK, -(-end // _BLOCK)))
        free = descriptor.zero_out if self._space is None else descriptor.write_zeros
        for first, stop in runs:
            start = max(first * _BLOCK, offset)
            free(self.fd, self._path, start, min(stop * _BLOCK, end) - start)

    def reserve(self, offset: int, length: int) -> None:
        try:
            libc.reserve(self.fd, offset, length)
        except OSError as error:
            raise descriptor.write_error(error, self._path, f"reserving {length} bytes") from error

    def resize(self, size: int) -> None:
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise descriptor.write_error(error, self._path, f"making a file of {size} bytes") from error

    def settle(self) -> None:
        """A fresh file reads as zeros; of one that was taken up, the writer has zeroed what it did not write."""

    def publish(self) -> None:
        try:
            if self._present is not None:
                target_rules.take_over(self.fd, self._present)
            if self._space is not None:
                if self.resumed:
                    self._sync()  # as in prepare
                self._space.complete(self._written)
            self._sync()
            self._rename()
            target_rules.sync_folder(self._folder, self._path)
        finally:
            self._close()

    def release(self, *, keep: bool) -> None:
        if self.fd >= 0 and not (keep and self._touched):
            self._drop()
        self._close()

    def _check_space(self, needed: int) -> None:
        with contextlib.suppress(OSError):  # nothing is there yet
            needed -= os.stat(self._partial, dir_fd=self._folder, follow_symlinks=False).st_blocks * 512
        target_rules.check_space(self._folder, self._path, needed)

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
            target_rules.lock(fd, self._path)
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
