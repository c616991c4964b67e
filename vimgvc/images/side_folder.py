"""A private folder beside a target, in which another program makes the files that then get their names.

The rules of `raw_target` hold here too, but for one: nothing is taken up again after an interruption.
What an interrupted run left behind is removed, by the guard of its child or by the next run.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from vimgvc import errors
from vimgvc.images import descriptor, libc, meeting, raw_target, sandbox, target_rules

Path = str | os.PathLike[str]

#: Less than a program writes at once.
_ROOM = 1 << 20


class SideFolder:
    """The folder, locked and empty; `fd` is it, opened, and `path` its name.

    Raises `VimgvcError` (the target exists), `UnsafeImage` (no place for a target), `Busy` or `NoSpace`.
    """

    def __init__(
        self, target: Path, *, tag: str, force: bool, forbidden: Sequence[Path], data_bytes: int | None
    ) -> None:
        self.target = os.fspath(target)
        self.fd = self._beside = -1
        self._force = force
        folder, self.name = os.path.split(self.target)
        if self.name in ("", ".", ".."):
            raise errors.UnsafeImage(f"{self.target}: names a directory", hint="name a file that is to be created")
        self._partial = raw_target.partial_name(self.name, tag)
        self.path = os.path.join(folder or ".", self._partial)
        try:
            self._present = target_rules.look(self.target)
            self._check_present()
            self._beside = target_rules.open_folder(folder or ".")
            target_rules.check_allowed(self.target, folder or ".", forbidden)
            if data_bytes is not None:
                target_rules.check_space(self._beside, self.target, data_bytes)
            self._enter()
        except OSError as error:
            self.release()
            raise errors.from_os_error(error, self.target) from error
        except BaseException:
            self.release()
            raise

    @property
    def scratch(self) -> sandbox.Scratch:
        return sandbox.Scratch(os.path.abspath(self.path), self.fd)

    def prepare(self, inner: str, others: Sequence[str]) -> None:
        """Create the file `inner`, with its mode; refuse if one of `others` has its final name already."""
        for name in others:
            if target_rules.look(os.path.join(os.path.dirname(self.target), name)) is not None:
                raise self._taken(name)
        mode = 0o666 if self._present is None else 0o600
        try:
            os.close(os.open(inner, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=self.fd))
        except OSError as error:
            raise descriptor.write_error(error, self.target, "creating a file") from error

    def files(self) -> list[str]:
        """The files that are there, sorted."""
        return sorted(os.listdir(self.fd))

    def is_full(self) -> bool:
        """Whether there is no room for more in it."""
        room = os.fstatvfs(self.fd)
        return room.f_bavail * room.f_frsize < _ROOM

    def publish(self, inner: str, others: Sequence[str]) -> None:
        """Make all durable and give them their names: `others` keep theirs, `inner` gets the target's, last.

        If one name is taken by now, none of them is given. Releases the folder.
        """
        moved: list[str] = []
        try:
            mode = stat.S_IMODE(os.stat(inner, dir_fd=self.fd, follow_symlinks=False).st_mode)
            for name in others:
                self._sync(name, mode)
            self._sync(inner, None)
            for name in others:
                self._rename(name, name, replace=False)
                moved.append(name)
            self._rename(inner, self.name, replace=self._force)
            moved.clear()
            target_rules.sync_folder(self._beside, self.target)
        finally:
            for name in moved:
                with contextlib.suppress(OSError):  # what led here is what the user must hear of
                    os.unlink(name, dir_fd=self._beside)
            self.release()

    def release(self) -> None:
        """Remove the folder with what is left in it. Never raises."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                self._empty()
                # The guard of a child may have removed it, and somebody made it again.
                if os.path.samestat(os.fstat(self.fd), os.lstat(self.path)):
                    os.rmdir(self._partial, dir_fd=self._beside)
            os.close(self.fd)
            self.fd = -1
        if self._beside >= 0:
            os.close(self._beside)
            self._beside = -1

    def _check_present(self) -> None:
        if self._present is None:
            return
        target_rules.check_target(self.target, self._present.st_mode, force=self._force)
        if stat.S_ISBLK(self._present.st_mode):
            raise target_rules.no_device(self.target)

    def _enter(self) -> None:
        """Make the folder, or take over an abandoned one; lock it. Sets `fd`."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._partial, 0o700, dir_fd=self._beside)
            try:
                fd = os.open(self._partial, flags, dir_fd=self._beside)
            except FileNotFoundError:
                continue  # just removed by the process that had it
            except OSError as error:
                raise self._not_ours() from error
            try:
                if self._is_locked(fd):
                    self.fd = meeting.duplicate(fd)
                    self._empty()
                    return
            finally:
                os.close(fd)

    def _is_locked(self, fd: int) -> bool:
        """Lock the folder; False if it lost its name before the lock was ours."""
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise self._not_ours()
        target_rules.lock(fd, self.target)
        try:
            return os.path.samestat(found, os.stat(self._partial, dir_fd=self._beside, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _not_ours(self) -> errors.VimgvcError:
        return errors.UnsafeImage(
            f"{self.target}: {self._partial!r} beside it is not a folder that this user's vimgvc left there",
            hint="look at it and remove it, or name another target",
        )

    def _empty(self) -> None:
        _remove_all(self.fd, depth=2)  # one of these may have been made in another

    def _sync(self, name: str, mode: int | None) -> None:
        """Make a file durable; `mode` for it, or that of the target that it replaces."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                if mode is not None:
                    os.fchmod(fd, mode)
                elif self._present is not None:
                    target_rules.take_over(fd, self._present)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise descriptor.write_error(error, self.target, "making the data durable") from error

    def _rename(self, old: str, new: str, *, replace: bool) -> None:
        place = f"{self._partial}/{old}"
        try:
            if replace:
                os.rename(place, new, src_dir_fd=self._beside, dst_dir_fd=self._beside)
            elif not libc.rename_noreplace(self._beside, place, new):
                os.link(place, new, src_dir_fd=self._beside, dst_dir_fd=self._beside)
                os.unlink(place, dir_fd=self._beside)
        except FileExistsError as error:
            raise self._taken(new) from error
        except OSError as error:
            raise descriptor.write_error(error, self.target, "giving it its name") from error

    def _taken(self, name: str) -> errors.VimgvcError:
        if name == self.name:
            return errors.VimgvcError(
                f"{self.target}: appeared while the disk was written", hint="run this again with --force, or elsewhere"
            )
        return errors.VimgvcError(
            f"{self.target}: {name!r}, which belongs to it, exists already",
            hint="name another target; a disk of several files is not replaced",
        )


def _remove_all(folder: int, depth: int) -> None:
    """Remove what is in a folder, and in folders in it up to some depth; no links are followed."""
    for name in os.listdir(folder):
        if not depth or not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _remove_all(fd, depth - 1)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=folder)
