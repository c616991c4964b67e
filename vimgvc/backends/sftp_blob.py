"""Writing one blob to an SFTP server, and reading one: what is repeated as a whole when the connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.backends.sftp_errors import Refused, Why

if TYPE_CHECKING:
    from vimgvc.backends.sftp_session import File, Session, Status

Blocks = Iterator[tuple[int, "bytes | memoryview"]]
#: Requests of one operation that wait for the server's answer.
IN_FLIGHT = 16

#: A channel carries no more in a round trip than its window: one more for each so many bytes, and at most so many.
_SHARE = 8 << 20
_MORE = 2


@dataclass(frozen=True, slots=True)
class Way:
    """`begin` makes a temporary file. `claim` gives a finished one a name, unless that is taken: then False.

    `another` lends a channel that has nothing to do, if there is one.
    """

    begin: Callable[[Session], Awaitable[tuple[bytes, File]]]
    claim: Callable[[Session, bytes, bytes], Awaitable[bool]]
    another: Callable[[], contextlib.AbstractAsyncContextManager[Session | None]]


class Put:
    """A blob on its way to `target`. `run` may be repeated on another session after `Lost`."""

    def __init__(self, target: bytes, parts: Sequence[protocol.Buffer], way: Way) -> None:
        self._target, self._way = target, way
        views = [memoryview(part) for part in parts]
        self._parts = [view.cast("B") for view in views if view.nbytes]
        self.total = sum(len(part) for part in self._parts)
        self._left: list[bytes] = []
        self._claimed = False

    async def run(self, session: Session) -> bool:
        """Whether the name was free. Raises `Refused`, `IntegrityError`."""
        looking = asyncio.ensure_future(self._is_taken(session))
        beginning = asyncio.ensure_future(self._way.begin(session))
        await asyncio.gather(looking, beginning, return_exceptions=True)
        temporary, file = beginning.result()
        self._left.append(temporary)
        try:
            try:
                if looking.result():
                    session.later(file.close())
                    return await self._came_second(session)
                await self._write(session, file, temporary)
            except BaseException:
                session.later(file.close())
                raise
            named, status = await self._name(session, file, temporary)
        finally:
            # Whatever happened, only the final name stays. A temporary one is in nobody's way.
            session.later(_remove_all(session, self._left))
        if not named:
            return await self._came_second(session)
        self._check(status if self._is_whole(status) else await status_or_none(session, self._target))
        return True

    async def _is_taken(self, session: Session) -> bool:
        """Whether writing is in vain; not asked where that takes but one request."""
        return self.total > session.write_block and await status_or_none(session, self._target) is not None

    async def _name(self, session: Session, file: File, temporary: bytes) -> tuple[bool, Status | None]:
        """Whether the name was free, and what has it now as far as is known; the file is closed."""
        if not session.has_links:  # a server may refuse to rename what is open
            await file.close()
            self._claimed = True
            return await self._way.claim(session, temporary, self._target), None
        # In this order; servers that do it in another one are asked again what has the name.
        self._claimed = True
        closing = asyncio.ensure_future(file.close())
        naming = asyncio.ensure_future(self._way.claim(session, temporary, self._target))
        looking = asyncio.ensure_future(status_or_none(session, self._target))
        await asyncio.gather(closing, naming, looking, return_exceptions=True)
        closing.result()
        return naming.result(), looking.result()

    async def _write(self, session: Session, file: File, path: bytes) -> None:
        blocks = _blocks(self._parts, session.write_block)
        # A server without fsync need not have a file system: what a second handle does to an object nobody knows.
        helpers = min(_MORE, self.total // _SHARE) if session.has_fsync else 0
        await all_of([_carry(file, blocks), *(self._help(path, blocks) for _ in range(helpers))])
        # An error is final for this file: the server may have dropped what it could not write.
        _, size = await asyncio.gather(_sync(file), file.size())
        if size != self.total:
            raise Refused(Why.FAILURE, f"{self.total} bytes were acknowledged, {size} are there")

    async def _help(self, path: bytes, blocks: Blocks) -> None:
        """Write some of the blocks over another channel, where there is one and the server opens the file for it."""
        async with self._way.another() as session:
            if session is None:
                return
            try:
                file = await session.reopen(path)
            except Refused:
                return
            try:
                await _carry(file, blocks)
                await _sync(file)
            finally:
                session.later(file.close())

    async def _came_second(self, session: Session) -> bool:
        """Whether what has the name is this blob, named by a request whose answer got lost."""
        if not self._claimed:
            return False
        status = await session.status(self._target)
        if not status.is_regular or status.size != self.total:
            return False
        content = await Get(self._target, shown(self._target), 0, None).run(session)
        at = 0
        for part in self._parts:
            if content[at : at + len(part)] != part:
                return False
            at += len(part)
        return True

    def _is_whole(self, status: Status | None) -> bool:
        return status is not None and status.is_regular and status.size == self.total

    def _check(self, status: Status | None) -> None:
        """What was acknowledged must be there (N5)."""
        if not self._is_whole(status):
            found = "is not there" if status is None else f"has {status.size} bytes"
            raise errors.IntegrityError(
                shown(self._target),
                f"the server acknowledged {self.total} bytes under this name, and it {found}",
                hint="do not trust this server with backups",
            )


class Get:
    """`length` bytes of a blob from `offset` (None: to the end); what has arrived is not asked for again."""

    def __init__(self, path: bytes, name: str, offset: int, length: int | None) -> None:
        self._path, self._name, self._offset, self._length = path, name, offset, length
        self._content, self._done = io.BytesIO(), set[int]()
        self._size = -1

    async def run_twice(self, session: Session) -> bytes:
        """As `run`; what is missing, or ends too soon, is looked at once more before it is believed (N3, N7)."""
        try:
            return await self.run(session)
        except (errors.NotFound, errors.IntegrityError):
            return await self.run(session)

    async def run(self, session: Session) -> bytes:
        """Raises `Refused`, `NotFound`, `BackendError` for what is not a file, `IntegrityError`."""
        status, file = await self._open(session)
        try:
            end = self._end(status)
            if status.size != self._size:
                self._content, self._done, self._size = io.BytesIO(), set(), status.size
            starts = range(self._offset, end, session.read_block)
            await all_of(
                self._fetch(file, start, min(session.read_block, end - start))
                for start in starts
                if start not in self._done
            )
            return self._content.getvalue()
        finally:
            file.close_later()

    async def _open(self, session: Session) -> tuple[Status, File]:
        status, file = await asyncio.gather(
            session.status(self._path), session.open(self._path), return_exceptions=True
        )
        if not isinstance(file, BaseException):
            if not isinstance(status, BaseException) and status.is_regular:
                return status, file
            file.close_later()
        for failure in (status, file):
            if isinstance(failure, Refused) and failure.why is Why.MISSING:
                raise protocol.missing(self._name)
        for failure in (status, file):
            if isinstance(failure, BaseException):
                raise failure
        raise not_a_file(self._path)

    def _end(self, status: Status) -> int:
        """Where the range ends; checked before anything is allocated for it."""
        size, name = status.size, self._name
        end = max(size, self._offset) if self._length is None else self._offset + self._length
        if self._length is None and end - self._offset > protocol.most(name):
            raise protocol.too_large(name, size)
        if end > size:
            raise protocol.too_short(name, size, end)
        return end

    async def _fetch(self, file: File, start: int, length: int) -> None:
        have = 0
        while have < length:
            piece = await file.read(length - have, start + have)
            if not piece:
                raise protocol.too_short(self._name, start + have, start + length)
            self._content.seek(start + have - self._offset)
            self._content.write(piece)
            have += len(piece)
        self._done.add(start)


async def status_or_none(session: Session, path: bytes) -> Status | None:
    try:
        return await session.status(path)
    except Refused as refused:
        if refused.why is Why.MISSING:
            return None
        raise


async def all_of(works: Iterable[Coroutine[Any, Any, object]], most: int = IN_FLIGHT) -> None:
    """Run all, `most` at once, in the order given; the first failure ends the others and is raised."""
    waiting: set[asyncio.Task[object]] = set()
    try:
        for work in works:
            waiting.add(asyncio.ensure_future(work))
            if len(waiting) >= most:
                waiting = await _some(waiting)
        while waiting:
            waiting = await _some(waiting)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _some(waiting: set[asyncio.Task[object]]) -> set[asyncio.Task[object]]:
    done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    failures = [failure for task in done if (failure := task.exception()) is not None]
    if failures:
        waiting &= left
        raise failures[0]
    return left


async def _carry(file: File, blocks: Blocks) -> None:
    """Write what is left of the blocks, which others may take from, too."""
    await all_of(file.write(block, offset) for offset, block in blocks)


async def _sync(file: File) -> None:
    try:
        await file.fsync()
    except Refused as refused:
        if refused.why is not Why.UNSUPPORTED:
            raise


async def _remove_all(session: Session, paths: list[bytes]) -> None:
    while paths:
        with contextlib.suppress(Refused):
            await session.remove(paths[-1])
        paths.pop()


def _blocks(parts: Sequence[memoryview], block: int) -> Blocks:
    """The parts one after the other in blocks of one size, each with its offset; copied only where parts meet."""
    offset, pending, have = 0, list[memoryview](), 0
    for part in parts:
        at = 0
        while at < len(part):
            piece = part[at : at + block - have]
            pending.append(piece)
            have, at = have + len(piece), at + len(piece)
            if have == block:
                yield offset, pending[0] if len(pending) == 1 else b"".join(pending)
                offset, pending, have = offset + block, [], 0
    if pending:
        yield offset, pending[0] if len(pending) == 1 else b"".join(pending)


def shown(path: bytes) -> str:
    """A path of the server for messages."""
    return path.decode("utf-8", "backslashreplace")


def not_a_file(path: bytes) -> errors.BackendError:
    return errors.BackendError(
        shown(path),
        "not a file",
        "there is something in the place of a blob that is not a regular file",
        hint="move it away",
    )
