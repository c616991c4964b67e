"""Every operation on the files of a repository.

`Files` is the whole of what a repository asks of a file system; `RealFiles` is that file system.
Tests substitute implementations that record, that fail at the k-th operation, or that keep a model
of what survives a power cut. Therefore nothing else opens, creates or removes a repository file.

The methods are single system calls and raise `OSError`. What has to be said once on top of them is
said here too: `again` for interrupted calls, `write_all` and `read_exactly` for short ones, `door`
for the typed errors that the rest of the program knows.
Paths are absolute strings. A handle is an open file descriptor, or stands for one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from vimgvc import errors

P = ParamSpec("P")
T = TypeVar("T")

#: Linux takes no more parts in one writev (IOV_MAX).
_PARTS_AT_ONCE = 1024

#: A signal storm ends some time; an operation that is interrupted this often in a row is broken.
_INTERRUPTIONS = 100

#: What `fsync` of a directory says where directories cannot be synced (some network file systems).
NOT_SYNCABLE = (errno.EINVAL, errno.EOPNOTSUPP)


class Entry(NamedTuple):
    """A name in a directory; `size` and `modified` (seconds since 1970) are 0 for a directory."""

    name: str
    is_directory: bool
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a path without opening it; `identity` is equal for two names of one file."""

    is_regular: bool
    is_directory: bool
    size: int
    identity: tuple[int, int]


class Files(Protocol):
    """A file system, as far as a repository needs one. All methods may be called from several threads."""

    def create(self, path: str) -> int:
        """A new, empty file (0600) open for writing; `FileExistsError` when there is anything of that name."""

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        """Append some of `parts` (at least one byte of them); returns how many bytes."""

    def fsync(self, handle: int) -> None:
        """Make the content durable. After an error the content is lost: do not ask again."""

    def close(self, handle: int) -> None: ...

    def link(self, source: str, target: str) -> None:
        """A second name for a file; `FileExistsError` when the name is taken."""

    def rename_new(self, source: str, target: str) -> None:
        """Another name for a file; `FileExistsError` when it is taken, `EINVAL` when this cannot be promised."""

    def unlink(self, path: str) -> None: ...

    def mkdir(self, path: str) -> None:
        """A new directory (0700)."""

    def fsync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    def sync_all(self) -> None:
        """Make everything on the machine durable: for file systems without `fsync_dir`."""

    def scan(self, path: str, keep: Callable[[str], bool]) -> list[Entry]:
        """The directories and regular files in a directory whose names `keep` accepts.

        `keep` comes before the status is asked for: junk costs no system call. Symbolic links
        are left out.
        """

    def status(self, path: str) -> Status:
        """The status of a path itself, not of what a symbolic link points to."""

    def writable(self, path: str) -> bool:
        """Whether a directory may be written to, as far as can be told without trying."""

    def open(self, path: str) -> tuple[int, int]:
        """A handle for reading a regular file, and its size. Not a link, a FIFO or a directory."""

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes; empty at the end of the file."""

    def lock(self, path: str, *, exclusive: bool) -> int:
        """A handle that holds a kernel lock on a file until it is closed or the process ends.

        Creates the file when it can. `BlockingIOError` when somebody else holds the lock.
        """


class RealFiles:
    """The file system of the machine."""

    def create(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        return os.writev(handle, parts[:_PARTS_AT_ONCE])

    def fsync(self, handle: int) -> None:
        os.fsync(handle)

    def close(self, handle: int) -> None:
        os.close(handle)

    def link(self, source: str, target: str) -> None:
        os.link(source, target, follow_symlinks=False)

    def rename_new(self, source: str, target: str) -> None:
        import ctypes  # needed only where there are no hard links

        at_working_directory, no_replace = -100, 1
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "renameat2"):  # C libraries before glibc 2.28
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), target)
        arguments = (at_working_directory, os.fsencode(source), at_working_directory, os.fsencode(target))
        if library.renameat2(*arguments, no_replace) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def fsync_dir(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_all(self) -> None:
        os.sync()

    def scan(self, path: str, keep: Callable[[str], bool]) -> list[Entry]:
        entries = []
        with os.scandir(path) as found:
            for entry in found:
                if not keep(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    entries.append(Entry(entry.name, is_directory=True, size=0, modified=0))
                elif entry.is_file(follow_symlinks=False):
                    # What was removed since the directory was read is not there: no error.
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        entries.append(Entry(entry.name, False, status.st_size, status.st_mtime))  # noqa: FBT003
        return entries

    def status(self, path: str) -> Status:
        status = os.lstat(path)
        return Status(
            is_regular=stat.S_ISREG(status.st_mode),
            is_directory=stat.S_ISDIR(status.st_mode),
            size=status.st_size,
            identity=(status.st_dev, status.st_ino),
        )

    def writable(self, path: str) -> bool:
        return os.access(path, os.W_OK | os.X_OK)

    def open(self, path: str) -> tuple[int, int]:
        # O_NONBLOCK: opening a FIFO that somebody put here would wait for its writer, for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return handle, status.st_size

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        return os.pread(handle, length, offset)

    def lock(self, path: str, *, exclusive: bool) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            # Network file systems want a writable descriptor for an exclusive lock.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            handle = os.open(path, os.O_RDONLY | flags)
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle


def again(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `call`, repeated while a signal interrupts it.

    Not for `close`: Linux has released the descriptor when it reports EINTR, and by now it may
    belong to another thread.
    """
    for _ in range(_INTERRUPTIONS):
        try:
            return call(*args, **kwargs)
        except InterruptedError:
            continue
    return call(*args, **kwargs)


def write_all(files: Files, handle: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Append all of `parts`, without copying them, however little each call takes."""
    # Empty parts first: a view of nothing cannot be cast.
    views = [memoryview(part) for part in parts]
    left = [view.cast("B") for view in views if view.nbytes]
    while left:
        written = again(files.write, handle, left)
        if written <= 0:
            raise OSError(errno.EIO, "the file takes no more bytes and does not say why")
        done = 0
        while done < len(left) and written >= len(left[done]):
            written -= len(left[done])
            done += 1
        del left[:done]
        if written:
            left[0] = left[0][written:]


def read_exactly(files: Files, handle: int, length: int, offset: int) -> bytes:
    """Exactly `length` bytes from `offset`; fewer only when the file ends."""
    first = again(files.pread, handle, length, offset)
    if len(first) in (length, 0):
        return first
    pieces, have = [first], len(first)
    while have < length:
        piece = again(files.pread, handle, length - have, offset + have)
        if not piece:
            break
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def door(path: str) -> Iterator[None]:
    """Turns every `OSError` met while working on `path` into the typed error."""
    try:
        yield
    except FileNotFoundError as error:
        # Files that may be absent are dealt with inside; what is missing here is what should hold them.
        raise errors.BackendError(
            path, "ENOENT", "the directory is missing", hint="if the repository is on another disk, mount it"
        ) from error
    except OSError as error:
        raise errors.from_os_error(error, path) from error


def sync_directory(files: Files, path: str) -> None:
    """Make the names in a directory durable, also where directories themselves cannot be synced."""
    try:
        again(files.fsync_dir, path)
    except OSError as error:
        if error.errno not in NOT_SYNCABLE:
            raise
        again(files.sync_all)
