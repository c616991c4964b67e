"""Block devices: how large they are, and taking one for writing without hurting who else uses it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import stat
import struct

from vimgvc import errors

_BLKROGET = 0x125E  # <linux/fs.h>


def size(fd: int) -> int:
    """In bytes. `fstat` says 0 for a device; its end is where seeking to it leads."""
    return os.lseek(fd, 0, os.SEEK_END)


def claim(path: str) -> int:
    """Open the device for reading and writing, for us alone; returns the descriptor.

    Refuses with `UnsafeImage` a device that the kernel uses (mounted, swap, part of another device),
    also when that is true of a partition of it, or that another process holds open for writing, such
    as a running machine; with `Busy` one that another program has claimed as we do.
    """
    try:
        # O_EXCL without O_CREAT claims a block device (open(2)); the mount of a partition counts too.
        fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(path) from error
        raise errors.from_os_error(error, path) from error
    try:
        status = os.fstat(fd)
        _check_writable(path, fd, status)
        _check_unused(path, status)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_writable(path: str, fd: int, status: os.stat_result) -> None:
    if not stat.S_ISBLK(status.st_mode):
        raise errors.UnsafeImage(f"{path}: is no longer a block device")
    # Opening a write-protected device for writing works; only the first write would fail.
    (read_only,) = struct.unpack("i", fcntl.ioctl(fd, _BLKROGET, bytes(4)))
    if read_only:
        raise errors.BackendError(path, "EROFS", "is write-protected", hint="see 'blockdev --getro'")


def _check_unused(path: str, status: os.stat_result) -> None:
    writer = _writer_of(status.st_rdev)
    if writer:
        hint = "shut down what uses the device, then run this again"
        raise errors.UnsafeImage(f"{path}: {writer} has it open for writing", hint=hint)


def _busy(path: str) -> errors.VimgvcError:
    number = os.stat(path).st_rdev
    use = _use(number)
    if use:
        return errors.UnsafeImage(f"{path}: {use}", hint="name a device that nothing uses")
    return errors.Busy(f"{path}: another program has claimed this device", hint="wait until it is done")


def _use(number: int) -> str:
    """What the kernel uses a device for, as far as /proc and /sys tell; empty if they do not."""
    name = f"{os.major(number)}:{os.minor(number)}"
    for line in _lines("/proc/self/mountinfo"):
        fields = line.split()
        if fields[2] == name:
            return f"is mounted at {fields[4]}"
    for line in _lines("/proc/swaps")[1:]:
        with contextlib.suppress(OSError):  # a swap file on something that is gone
            if os.stat(line.split()[0]).st_rdev == number:
                return "is used as swap"
    holders = pathlib.Path(f"/sys/dev/block/{name}/holders")
    with contextlib.suppress(OSError):  # a kernel without /sys
        for holder in holders.iterdir():
            return f"is part of /dev/{holder.name}"
    return ""


def _writer_of(number: int) -> str:
    """A process, other than this one, that has the device open for writing; empty if none is seen.

    Who is not root sees only the processes of the same user.
    """
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            for link in (process / "fd").iterdir():
                if _is_writer(link, number):
                    command = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"process {process.name} ({command})"
    return ""


def _is_writer(link: pathlib.Path, number: int) -> bool:
    try:
        if not str(link.readlink()).startswith("/dev/"):  # others may lie where a look at them hangs
            return False
        status = link.stat()
        if not stat.S_ISBLK(status.st_mode) or status.st_rdev != number:
            return False
        lines = (link.parent.parent / "fdinfo" / link.name).read_text(encoding="ascii").splitlines()
    except OSError:
        return False  # closed meanwhile
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), os.O_RDWR)
    return flags & os.O_ACCMODE != os.O_RDONLY


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()
    return []
