"""One SFTP channel: requests to the server's files, many at once. With `sftp_link` the door to asyncssh.

Every method is one request or a few, and raises `Refused` or `Lost`. Paths are bytes, as the server gets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import asyncssh

from vimgvc.backends import rates
from vimgvc.backends.sftp_errors import Lost, Refused, Why

#: Bytes in one request to read or write: what OpenSSH takes at most (256 KiB with the header).
BLOCK = 255 << 10
#: What a server takes that does not say how much (draft-ietf-secsh-filexfer-02 §3).
_SMALL_BLOCK = 32 << 10
#: Requests with data in flight on one channel: somewhat more than the 2 MiB of OpenSSH's window.
_IN_FLIGHT = 9

_NEW_FILE = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
_READ_ONLY_MOUNT = 1  # ST_RDONLY of statvfs

_WHY: list[tuple[tuple[type[asyncssh.SFTPError], ...], Why]] = [
    ((asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory), Why.MISSING),
    ((asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect, asyncssh.SFTPCannotDelete), Why.DENIED),
    ((asyncssh.SFTPFileAlreadyExists,), Why.EXISTS),
    ((asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded), Why.SPACE),
    ((asyncssh.SFTPOpUnsupported,), Why.UNSUPPORTED),
]


@dataclass(frozen=True, slots=True)
class Status:
    """`modified` in seconds since 1970 by the server's clock."""

    is_regular: bool
    is_directory: bool
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has left, in bytes, for this user."""

    free: int
    read_only: bool


class Watch:
    """When the server last answered, as long as there is something to answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting = 0
        self._answered = 0.0

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Around everything that asks the server; foreign errors become ours here."""
        if not self._waiting:
            self._answered = self._loop.time()
        self._waiting += 1
        try:
            yield
        except asyncssh.SFTPError as error:
            raise _of_sftp(error) from error
        # what a malformed packet raises is a ValueError
        except (asyncssh.Error, OSError, EOFError, ValueError) as error:
            raise Lost(str(error) or type(error).__name__) from error
        finally:
            self._waiting -= 1
            self.answered()

    def answered(self) -> None:
        self._answered = self._loop.time()

    def silent(self) -> float:
        """For how many seconds the server has owed an answer."""
        return self._loop.time() - self._answered if self._waiting else 0.0


def _of_sftp(error: asyncssh.SFTPError) -> Exception:
    if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection):
        return Lost(error.reason or "the connection was closed")
    detail = error.reason or type(error).__name__
    for classes, why in _WHY:
        if isinstance(error, classes):
            return Refused(why, detail)
    return Refused(Why.FAILURE, detail)


class File:
    """An open file on the server."""

    def __init__(self, session: Session, file: asyncssh.SFTPClientFile) -> None:
        self._session = session
        self._file: Any = file  # its annotations know only str and bytes

    async def write(self, data: bytes | memoryview, offset: int) -> None:
        async with self._session.slots:
            await _pay(self._session.limits.up, len(data))
            with self._session.watch.request():
                await self._file.write(data, offset)

    async def read(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes (at least one); empty at the end of the file."""
        async with self._session.slots:
            await _pay(self._session.limits.down, length)
            with self._session.watch.request():
                data: bytes = await self._file.read(length, offset)
        if len(data) > length:
            raise Lost("the server sent more than it was asked for")
        return data

    async def fsync(self) -> None:
        with self._session.watch.request():
            await self._file.fsync()

    async def size(self) -> int:
        with self._session.watch.request():
            return int((await self._file.stat()).size or 0)

    async def close(self) -> None:
        with self._session.watch.request():
            await self._file.close()

    def close_later(self) -> None:
        """Close a file that was only read: nobody waits for it."""
        self._session.later(self.close())


class Later:
    """Works that nobody waits for."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        # a task that is ended before it began has not begun what it was to wait for
        task.add_done_callback(lambda _: work.close())


class Session:
    """Made by `sftp_link.Link`. `load` is how many operations use it now."""

    def __init__(self, client: asyncssh.SFTPClient, watch: Watch, limits: rates.Limits) -> None:
        self._client = client
        self.watch, self.limits = watch, limits
        self.load = 0
        self.slots = asyncio.Semaphore(_IN_FLIGHT)
        self._later = Later()
        # What the server can do asyncssh tells nobody, and of a listing it waits for each answer; tests watch this.
        self._handler = client._handler  # noqa: SLF001
        self.has_fsync = self._handler._supports_fsync  # noqa: SLF001
        self.has_links = self._handler._supports_hardlink  # noqa: SLF001
        most = client.limits
        self.write_block = limits.up.piece(min(BLOCK, most.max_write_len or _SMALL_BLOCK))
        self.read_block = limits.down.piece(min(BLOCK, most.max_read_len or _SMALL_BLOCK))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something nobody waits for, and nobody misses if it fails."""
        self._later.add(work)

    @property
    def left(self) -> frozenset[asyncio.Task[None]]:
        """What of that has not ended."""
        return frozenset(self._later.tasks)

    async def create(self, path: bytes) -> File:
        """A new file of mode 0600 open for writing; FAILURE or EXISTS when there is anything of that name."""
        with self.watch.request():
            attrs = asyncssh.SFTPAttrs(permissions=0o600)
            return File(self, await self._client.open(path, _NEW_FILE, attrs, encoding=None, block_size=0))

    async def reopen(self, path: bytes) -> File:
        """A file that is there, to be written to."""
        with self.watch.request():
            return File(self, await self._client.open(path, asyncssh.FXF_WRITE, encoding=None, block_size=0))

    async def open(self, path: bytes) -> File:
        with self.watch.request():
            return File(self, await self._client.open(path, asyncssh.FXF_READ, encoding=None, block_size=0))

    async def status(self, path: bytes) -> Status:
        """Of the path itself, not of what a symbolic link points to."""
        with self.watch.request():
            return _status(await self._client.lstat(path))

    async def link(self, source: bytes, target: bytes) -> None:
        """A second name; UNSUPPORTED where the server knows no hard links."""
        with self.watch.request():
            await self._client.link(source, target)

    async def rename(self, source: bytes, target: bytes) -> None:
        """Another name. Protocol version 3 says that it fails if the name is taken; servers differ."""
        with self.watch.request():
            await self._client.rename(source, target)

    async def remove(self, path: bytes) -> None:
        with self.watch.request():
            await self._client.remove(path)

    async def make_directory(self, path: bytes) -> None:
        with self.watch.request():
            await self._client.mkdir(path, asyncssh.SFTPAttrs(permissions=0o700))

    async def remove_directory(self, path: bytes) -> None:
        with self.watch.request():
            await self._client.rmdir(path)

    async def scan(self, path: bytes) -> AsyncIterator[tuple[bytes, Status | None]]:
        """Names in a directory, with what the listing says of each; None when it does not say enough."""
        with self.watch.request():
            handle = await self._handler.opendir(path)
            try:
                at_end = False
                while not at_end:
                    # Mostly the first answer has all names, and the second says so.
                    asked = (self._handler.readdir(handle) for _ in range(2))
                    for answer in await asyncio.gather(*asked, return_exceptions=True):
                        self.watch.answered()
                        if isinstance(answer, asyncssh.SFTPEOFError):
                            at_end = True
                        elif isinstance(answer, BaseException):
                            raise answer
                        else:
                            for entry in answer[0]:
                                yield _entry(entry)
                            at_end = at_end or answer[1]
            finally:
                self.later(self._close(handle))

    async def _close(self, handle: bytes) -> None:
        with self.watch.request():
            await self._handler.close(handle)

    async def room(self, path: bytes) -> Room:
        """Raises `Refused` (UNSUPPORTED) where the server does not tell."""
        with self.watch.request():
            found = await self._client.statvfs(path)
        return Room(found.bavail * found.frsize, bool(found.flags & _READ_ONLY_MOUNT))


def _entry(entry: asyncssh.SFTPName) -> tuple[bytes, Status | None]:
    attrs = entry.attrs
    known = attrs.permissions is not None and attrs.size is not None
    return bytes(entry.filename), _status(attrs) if known else None  # type: ignore[arg-type]


def _status(attrs: asyncssh.SFTPAttrs) -> Status:
    mode = attrs.permissions or 0
    return Status(stat.S_ISREG(mode), stat.S_ISDIR(mode), attrs.size or 0, attrs.mtime or 0)


async def _pay(limit: rates.Limit, count: int) -> None:
    if wait := limit.charge(count):
        await asyncio.sleep(wait)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(Refused, Lost):
        await work
