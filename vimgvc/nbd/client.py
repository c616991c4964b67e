"""An NBD export as a Source.

Each reading thread has a connection to itself while it reads; there are as many as threads read at
once, up to a limit, and one if the server does not promise that all see the same. A connection keeps
several requests in flight, so that the server reads while it sends.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.nbd import handshake, transmission, wire

Connect = Callable[[], socket.socket]

#: Bytes of one read, and how many are in flight.
_PIECE = 1 << 20
_IN_FLIGHT = 4
#: Most bytes that one question about extents is about, on the grid of any block size.
_STATUS_SPAN = (1 << 32) - wire.MAX_MINIMUM_BLOCK


def unix(path: str) -> Connect:
    """How to connect to the Unix socket at `path`, which has at most 107 bytes."""

    def connect() -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.connect(path)
        except BaseException:
            opened.close()
            raise
        return opened

    return connect


class Client:
    """An export of an NBD server, as a Source.

    `connect` gives a new connection to the server, or raises `OSError`; `name` is what messages call
    the disk. `timeout`: seconds without a byte from the server, or for the whole handshake. Of what
    is served nobody here can tell whether it changes: see to it where the server is started.

    Raises `BackendError` when the server fails, refuses, breaks the protocol or is silent; its `kind`
    is what the server reports ("EIO"), an errno name, "protocol", "refused", "closed" or "ETIMEDOUT".
    """

    def __init__(
        self, connect: Connect, export: str = "", *, name: str, connections: int = 4, timeout: float = 30
    ) -> None:
        self._connect, self._export, self._name, self._timeout = connect, export, name, timeout
        self._changed = threading.Condition()
        self._closed = False
        self._allocated: int | None = None
        first = self._open()
        self._agreed = first.agreed
        self._idle = [first]
        self._count = 1
        shared = bool(self._agreed.flags & wire.ExportFlag.CAN_MULTI_CONN)
        self._limit = max(1, connections) if shared else 1

    @property
    def size(self) -> int:
        return self._agreed.size

    @property
    def allocated_bytes(self) -> int:
        """What the server does not call a hole; asks for all extents, once."""
        if self._allocated is None:
            items = self.extents(0, self.size)
            self._allocated = sum(item.length for item in items if item.kind is not extents.Kind.HOLE)
        return self._allocated

    def check_unchanged(self) -> None:
        """Nothing can be asked of an export."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        if not buffer.nbytes:
            return
        jobs, copies = _on_grid(offset, buffer, self._agreed.minimum)
        with self._borrowed() as connection:
            connection.fetch(jobs)
        for target, source in copies:
            target[:] = source

    def close(self) -> None:
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
        for connection in idle:
            connection.leave()

    def _extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        position, end = offset, offset + length
        if self._agreed.context is None and length:
            yield extents.Extent(offset, length, extents.Kind.DATA)
            return
        grid = self._agreed.minimum
        while position < end:
            start = position // grid * grid
            span = min(-(-end // grid) * grid - start, _STATUS_SPAN)
            with self._borrowed() as connection:
                found = connection.status(start, span)
            before = position
            for item in extents.clip(found, position, end - position):
                yield item
                position = item.end
            if position == before:
                raise errors.BackendError(self._name, "protocol", f"no extent is told at {position}")

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[_Connection]:
        connection = self._take()
        healthy = False
        try:
            yield connection
            healthy = True
        except errors.BackendError:
            healthy = connection.usable
            raise
        finally:
            self._give_back(connection, healthy=healthy)

    def _take(self) -> _Connection:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._count < self._limit)
            if self._closed:
                raise errors.BackendError(self._name, "closed", "the connection was closed")
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            return self._open_alike()
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def _open_alike(self) -> _Connection:
        fresh = self._open()
        if (fresh.agreed.size, fresh.agreed.minimum) != (self._agreed.size, self._agreed.minimum):
            fresh.drop()
            raise errors.BackendError(self._name, "protocol", "the export changed its size")
        return fresh

    def _give_back(self, connection: _Connection, *, healthy: bool) -> None:
        with self._changed:
            keep = healthy and not self._closed
            if keep:
                self._idle.append(connection)
            else:
                self._count -= 1
            self._changed.notify()
        if not keep:
            connection.drop()

    def _open(self) -> _Connection:
        try:
            opened = self._connect()
        except OSError as error:
            raise errors.from_os_error(error, self._name) from error
        try:
            return _Connection(opened, self._export, self._name, self._timeout)
        except BaseException:
            opened.close()
            raise

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        return extents.merge(self._extents(offset, length))


class _Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, opened: socket.socket, export: str, name: str, timeout: float) -> None:
        self._socket, self._name, self._timeout = opened, name, timeout
        # The kernel's timeouts, not Python's: a socket with those cannot wait for all of a buffer.
        opened.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            opened.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(timeout), int(timeout % 1 * 1e6)))
        self.agreed = self._shake_hands(export)
        self._session = transmission.Client(self.agreed)
        self._down = False

    @property
    def usable(self) -> bool:
        """Whether the last request failed, but not the connection."""
        return not self._down and self._session.idle

    def _shake_hands(self, export: str) -> handshake.Agreement:
        deadline = time.monotonic() + self._timeout
        with self._typed():
            machine = handshake.Client(export)
            while (room := machine.wanted()) is not None:
                self._socket.sendall(machine.outgoing())
                machine.received(self._receive(room))
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "the handshake takes too long")
        if machine.agreement is None:
            raise AssertionError
        return machine.agreement

    def fetch(self, jobs: list[tuple[int, memoryview]]) -> None:
        """Fill each buffer with what is at its offset. The first error in this order is raised."""
        size = max(self.agreed.minimum, min(_PIECE, self.agreed.maximum))
        pieces = ((at + start, view[start : start + size]) for at, view in jobs for start in range(0, len(view), size))
        flying: collections.deque[transmission.Pending] = collections.deque()
        failed: transmission.Pending | None = None
        with self._typed():
            for offset, view in pieces:
                if failed is not None:
                    break
                request, pending = self._session.read(offset, view)
                self._socket.sendall(request)
                flying.append(pending)
                if len(flying) >= _IN_FLIGHT:
                    failed = failed or self._await(flying.popleft())
            while flying:
                failed = failed or self._await(flying[0])
                self._await(flying.popleft())
        if failed is not None:
            raise self._failure(failed)

    def status(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """Extents from `offset` on, at least one, at most to `offset + length`."""
        with self._typed():
            request, pending = self._session.status(offset, length)
            self._socket.sendall(request)
            failed = self._await(pending)
        if failed is not None or pending.found is None:
            raise self._failure(pending)
        return pending.found

    def leave(self) -> None:
        """Say goodbye; nothing is in flight."""
        with contextlib.suppress(OSError):
            self._socket.send(self._session.disconnect(), socket.MSG_DONTWAIT)
        self.drop()

    def drop(self) -> None:
        self._socket.close()

    def _await(self, pending: transmission.Pending) -> transmission.Pending | None:
        """Receive until the reply is complete: `pending` if it failed."""
        while not pending.done:
            room = self._session.wanted()
            if room is None:
                raise AssertionError
            self._session.received(self._receive(room))
        return pending if pending.error is not None else None

    def _receive(self, room: memoryview) -> int:
        count = self._socket.recv_into(room, 0, socket.MSG_WAITALL)
        if not count:
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        return count

    @contextlib.contextmanager
    def _typed(self) -> Iterator[None]:
        """Whatever fails in between is a failure of the whole connection."""
        self._down = True
        try:
            yield
        except wire.ProtocolError as error:
            raise errors.BackendError(self._name, error.kind, error.message) from error
        except ConnectionError as error:
            raise errors.BackendError(self._name, "closed", "the server closed the connection") from error
        except BlockingIOError as error:
            detail = f"the server is silent for {self._timeout:g} seconds"
            raise errors.BackendError(self._name, "ETIMEDOUT", detail) from error
        except OSError as error:
            raise errors.from_os_error(error, self._name) from error
        self._down = False

    def _failure(self, pending: transmission.Pending) -> errors.BackendError:
        code, offset, message = pending.error or (wire.Error.EIO, None, "")
        kind = wire.error_name(code)
        # proto.md: after this answer a client must leave.
        self._down = self._down or code == wire.Error.ESHUTDOWN
        first = pending.offset if offset is None else offset
        where = f"{self._name}, bytes {first} to {pending.offset + pending.length - 1}"
        said = f" ({message})" if message else ""
        return errors.BackendError(where, kind, f"the NBD server reports {kind}{said}")


def _on_grid(
    offset: int, buffer: memoryview, grid: int
) -> tuple[list[tuple[int, memoryview]], list[tuple[memoryview, memoryview]]]:
    """Reads at multiples of `grid` that give `buffer`, and what to copy (to, from) when they are done."""
    end = offset + buffer.nbytes
    jobs: list[tuple[int, memoryview]] = []
    copies: list[tuple[memoryview, memoryview]] = []

    def block(start: int) -> None:
        room = memoryview(bytearray(grid))
        low, high = max(offset, start), min(end, start + grid)
        jobs.append((start, room))
        copies.append((buffer[low - offset : high - offset], room[low - start : high - start]))

    first, last = -(-offset // grid) * grid, end // grid * grid
    if first > offset:
        block(first - grid)
    if first < last:
        jobs.append((first, buffer[first - offset : last - offset]))
    if last < end and (last >= first):
        block(last)
    return jobs, copies
