"""The connection to an SFTP server: made when needed, watched, and made again when it breaks.

Who the user is and how the host is reached says ssh's own configuration (`~/.ssh/config`, ssh-agent). A host key that
is not in `known_hosts` is refused, whatever that configuration says (N21); nobody is asked for a password.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import asyncssh

from vimgvc import errors
from vimgvc.backends import rates, sftp_host, sftp_session, sftp_url
from vimgvc.backends.sftp_errors import Lost

T = TypeVar("T")

#: Channels over one connection: each has a process of its own on the server, so that one file's fsync
#: does not hold up the others, and a window of its own. OpenSSH grants ten (MaxSessions).
_CHANNELS = 8
#: Whatever moves so many bytes is worth the time in which a channel is opened: a channel carries no more in a
#: round trip than its window (2 MiB, OpenSSH).
_LARGE = 1 << 20
#: Seconds for the last words on a connection.
_GOODBYE = 1.0
#: A connection that breaks while it is being made is tried this often before there ever was one.
_FIRST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. `stall`: no answer for so long is a broken connection; `give_up`: after that nothing is repeated."""

    connect: float = 30.0
    stall: float = 120.0
    give_up: float = 900.0
    pause: float = 0.5
    longest_pause: float = 30.0


class Link:
    """Used in one event loop. `call` gives each operation the channel that has least to do."""

    def __init__(
        self, address: sftp_url.Address, environ: Mapping[str, str], patience: Patience, limits: rates.Limits
    ) -> None:
        self._address, self._environ, self._patience, self._limits = address, environ, patience, limits
        self._connection: asyncssh.SSHClientConnection | None = None
        self._channels: list[sftp_session.Session] = []
        self._most = _CHANNELS
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._watcher: asyncio.Task[None] | None = None
        self._was_up = False

    async def call(self, operation: Callable[[sftp_session.Session], Awaitable[T]], size: int = 0) -> T:
        """What `operation` returns or raises; it is repeated from its start when the connection breaks meanwhile.

        `size`: the bytes that it moves.
        """
        loop = asyncio.get_running_loop()
        pause, until = self._patience.pause, None
        while True:
            session = None
            try:
                session = await self._session(alone=size >= _LARGE)
                with _busy(session):
                    return await operation(session)
            except Lost as lost:
                self._break(session)
                if until is None:
                    until = loop.time() + self._patience.give_up
                if loop.time() + pause > until:
                    raise self._gave_up(str(lost)) from lost
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._patience.longest_pause)

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[sftp_session.Session | None]:
        """A channel that has nothing to do, for an operation that has one already; None if there is none to be had."""
        least = self._least()
        if least is not None and least.load and len(self._channels) < self._most:
            await self._opened_one()
            least = self._least()
        if least is None or least.load:
            yield None
            return
        with _busy(least):
            yield least

    async def settle(self) -> None:
        """Let what nobody waits for, such as the removal of temporary files, come to its end, for a moment."""
        left = [task for channel in self._channels for task in channel.left]
        if left:
            await asyncio.wait(left, timeout=_GOODBYE)

    async def close(self) -> None:
        """Say goodbye to the server; nothing waits for what was under way."""
        connection = self._connection
        self._drop()
        if connection is not None:
            with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE):
                    await connection.wait_closed()

    # --- channels --------------------------------------------------------------------------------

    async def _session(self, *, alone: bool) -> sftp_session.Session:
        """The channel with the least load; another one is opened while all of them have something to do.

        `alone`: as long as there may be more of them, one that has something to do is not taken.
        """
        while True:
            least = self._least()
            if least is not None and (least.load == 0 or len(self._channels) >= self._most):
                return least
            if least is not None and not alone:
                self._begin_opening()
                return least
            await self._opened_one()

    def _least(self) -> sftp_session.Session | None:
        return min(self._channels, key=lambda channel: channel.load, default=None)

    async def _opened_one(self) -> None:
        """Return when there is another channel, or as many as there may be; raises why there is none."""
        self._begin_opening()
        self._waiting += 1
        try:
            # They are opened for all, and go on opening when this caller is interrupted.
            done, _ = await asyncio.wait(self._opening, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting -= 1
        for task in done:
            task.result()

    def _begin_opening(self) -> None:
        """One for each who waits, and one more; the first of all shows whether there is a connection."""
        most = self._most if self._channels else 1
        if len(self._opening) <= self._waiting and len(self._channels) + len(self._opening) < most:
            task = asyncio.ensure_future(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits is told; otherwise the channels that are there do

    async def _open(self) -> None:
        if self._connection is None or self._watcher is None:
            await self._connect()
        connection = self._connection
        assert connection is not None
        watch = self._watch
        try:
            with watch.request():
                client = await connection.start_sftp_client(path_encoding=None)
        except Lost:
            if connection is not self._connection:
                return  # whoever waits finds what there is now
            if not self._channels:
                raise
            # Servers may allow fewer channels (MaxSessions); what there is serves too.
            self._most = len(self._channels)
            return
        if connection is self._connection:
            self._channels.append(sftp_session.Session(client, watch, self._limits))

    # --- the connection --------------------------------------------------------------------------

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in range(_FIRST_TRIES):
            try:
                self._connection = await sftp_host.connect(self._address, self._environ, self._patience.connect)
                break
            except Lost as lost:
                if self._was_up:
                    raise
                if attempt + 1 == _FIRST_TRIES:
                    raise self._unreachable(str(lost)) from lost
                await asyncio.sleep(self._patience.pause)
            except sftp_host.Unreachable as error:
                if self._was_up:
                    raise Lost(str(error)) from error
                raise self._unreachable(str(error)) from error
        self._was_up, self._most = True, _CHANNELS
        self._watch = sftp_session.Watch(loop)
        self._watcher = loop.create_task(self._supervise(self._watch))

    async def _supervise(self, watch: sftp_session.Watch) -> None:
        """Break a connection on which nothing comes any more (N2)."""
        while watch.silent() < self._patience.stall:  # noqa: ASYNC110 silence has no event
            await asyncio.sleep(self._patience.stall / 8)
        self._drop()

    def _break(self, session: sftp_session.Session | None) -> None:
        """Give up the connection of a channel that failed, unless there is a new one already."""
        if session is None or session in self._channels:
            self._drop()

    def _drop(self) -> None:
        connection, watcher = self._connection, self._watcher
        self._connection, self._watcher, self._channels = None, None, []
        if watcher is not None and watcher is not asyncio.current_task():
            watcher.cancel()
        if connection is not None:
            connection.abort()

    def _unreachable(self, reason: str) -> errors.RemoteError:
        return errors.RemoteError(self._address.url, "unreachable", reason, hint=sftp_host.try_ssh(self._address))

    def _gave_up(self, reason: str) -> errors.RemoteError:
        minutes = max(1, round(self._patience.give_up / 60))
        return errors.RemoteError(
            self._address.url,
            "lost",
            f"the connection broke and did not come back within {minutes} minutes ({reason})",
            hint="run the same command again when the server can be reached: what arrived is not sent twice",
        )


@contextlib.contextmanager
def _busy(session: sftp_session.Session) -> Iterator[None]:
    session.load += 1
    try:
        yield
    finally:
        session.load -= 1
