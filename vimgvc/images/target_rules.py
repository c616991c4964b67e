"""Where targets may be, and how folders around them are opened, locked and made durable."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import stat
from collections.abc import Sequence

from vimgvc import errors
from vimgvc.images import descriptor

Path = str | os.PathLike[str]


def look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_target(path: str, mode: int, *, force: bool) -> None:
    if stat.S_ISLNK(mode):
        hint = f"name what it points to: {os.path.realpath(path)}"
        raise errors.UnsafeImage(f"{path}: is a symbolic link, which is not written through", hint=hint)
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise errors.UnsafeImage(f"{path}: is {descriptor.kind_name(mode)}", hint="name a file or a block device")
    if force:
        return
    if stat.S_ISBLK(mode):
        hint = "--force writes to the device; what is on it now will be lost"
        raise errors.VimgvcError(f"{path}: is a block device", hint=hint)
    raise errors.VimgvcError(f"{path}: exists already", hint="name another target, or replace it with --force")


def no_device(path: str) -> errors.VimgvcError:
    """The refusal of a block device where a container in a file is to be written."""
    return errors.VimgvcError(
        f"{path}: is a block device, and only raw disks are written to those", hint="write a file, or --format raw"
    )


def open_folder(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.NotFound("directory", folder, hint="create it first") from error


def check_allowed(path: str, folder: str, forbidden: Sequence[Path]) -> None:
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


def check_space(folder: int, path: str, needed: int) -> None:
    room = os.fstatvfs(folder)
    free = (room.f_bfree if os.geteuid() == 0 else room.f_bavail) * room.f_frsize
    if needed > free:
        raise errors.NoSpace(
            f"{path}: needs {needed} bytes, but only {free} are free there",
            hint="free some space, or name a target elsewhere",
        )


def take_over(fd: int, present: os.stat_result) -> None:
    """Give a file the mode and, where permitted, the owner of the file that it will replace."""
    mode = stat.S_IMODE(present.st_mode) & 0o777
    try:
        os.fchown(fd, present.st_uid, present.st_gid)
    except OSError:
        mode &= ~0o070  # only root may give files away; then another group must not get in instead
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(fd, mode)


def lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise errors.Busy(f"{path}: is being written by another process", hint="wait until it is done") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # some network file systems cannot
            raise


def sync_folder(folder: int, path: str) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # there is no such operation on this file system
            raise descriptor.write_error(error, path, "making its name durable") from error
