"""Whether somebody else works with a file that is to be written in place, and keeping machines away from it.

Three questions, because none sees everything: QEMU's locks (also those of other users and containers),
other processes' descriptors (those that this user may see), and the kernel's own count of who writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import struct

from vimgvc import errors
from vimgvc.images import target_rules

# QEMU's block/file-posix.c: bytes 100 … say what a process does with an image, 200 … what it lets
# others do; both are locked shared. Whoever has all of them exclusively is alone.
_QEMU_FIRST, _QEMU_COUNT = 100, 200
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid, which must be 0
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
#: What is the same of every descriptor comes first in its fdinfo: pos, flags, mnt_id, and since Linux 5.14 ino.
_FACTS = 4
_HINT = "shut down what uses it, then run this again"


def open_alone(path: str) -> int:
    """Open a file for reading and writing; returns the descriptor. Symbolic links are not followed.

    Raises `Busy` where another process has it open for writing, a machine for reading, or a loop device
    lies on it, and what `os.open` raises. While the descriptor stays open no machine of QEMU's can start
    with the file, nor another vimgvc write to it. A mere reader is no reason.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    looking = os.open(path, os.O_RDONLY | flags)
    try:
        status = os.fstat(looking)
        written = _has_writer(looking)
    finally:
        os.close(looking)
    user = _user_of(status, path, writing=True) or _loop_device_on(status)
    if user or written:
        raise _busy(path, user or "a process that cannot be seen from here")
    fd = os.open(path, os.O_RDWR | flags)
    try:
        _take(fd, path, status)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _take(fd: int, path: str, status: os.stat_result) -> None:
    if not os.path.samestat(os.fstat(fd), status):
        raise errors.Busy(f"{path}: was replaced in this moment", hint="run this again")
    target_rules.lock(fd, path)
    if not _lock_as_qemu(fd):
        raise _busy(path, _user_of(status, path, writing=False) or "a virtual machine")


def _busy(path: str, user: str) -> errors.Busy:
    return errors.Busy(f"{path}: is in use by {user}", hint=_HINT)


def _lock_as_qemu(fd: int) -> bool:
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _QEMU_FIRST, _QEMU_COUNT, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _has_writer(fd: int) -> bool:
    """Whether the kernel knows of anybody that has the file open for writing (fcntl(2), F_SETLEASE).

    `fd` is open for reading. Who does not own the file is not told.
    """
    try:
        # Whoever opens the file in this moment makes the kernel signal us; by default that would end us.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _user_of(status: os.stat_result, path: str, *, writing: bool) -> str:
    """A process other than this one that has the file open; empty if none is seen."""
    name, own = os.path.basename(path), str(os.getpid())
    for number in filter(str.isdecimal, os.listdir("/proc")):
        if number == own:
            continue
        process = f"/proc/{number}"
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            for descriptor in os.listdir(f"{process}/fd"):
                if _is_use(process, descriptor, status, name, writing=writing):
                    return f"process {number} ({_read(f'{process}/comm').decode(errors='replace').strip()})"
    return ""


def _is_use(process: str, descriptor: str, status: os.stat_result, name: str, *, writing: bool) -> bool:
    link = f"{process}/fd/{descriptor}"
    try:
        lines = _read(f"{process}/fdinfo/{descriptor}").split(b"\n", _FACTS)[:_FACTS]
        facts = {key: value for key, _, value in (line.partition(b":") for line in lines)}
        # Only what may be the file is looked at: others may lie where a look at them hangs.
        if b"ino" in facts:
            if int(facts[b"ino"]) != status.st_ino:
                return False
        elif os.path.basename(os.readlink(link)) != name:
            return False
        if not os.path.samestat(os.stat(link), status):
            return False
    except OSError:
        return False  # closed meanwhile
    return not writing or int(facts.get(b"flags", b"2"), 8) & os.O_ACCMODE != os.O_RDONLY


def _read(path: str) -> bytes:
    """The beginning of a file of /proc. A machine has thousands of descriptors, and each is asked about."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _loop_device_on(status: os.stat_result) -> str:
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile, or its file is gone
            if os.path.samestat(os.stat(backing.read_text(encoding="utf-8", errors="surrogateescape").strip()), status):
                return f"/dev/{backing.parent.parent.name}"
    return ""
