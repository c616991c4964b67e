"""One Reader as a read-only NBD export on a Unix socket.

The threads of a connection take turns: one waits for the next request while others answer theirs. So
no request is read before somebody is free to answer it: what is in flight is bounded by the threads,
one piece of a disk each, and a client that sends faster than it reads waits in the kernel.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import struct
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from vimgvc import errors
from vimgvc import threads as threads_module
from vimgvc.disk import extents, protocol
from vimgvc.disk import room as room_module
from vimgvc.nbd import handshake, transmission, wire

T = TypeVar("T")

#: Bytes that a thread reads and sends at once.
_PIECE = transmission.MAX_UNFRAGMENTED
#: Holes are told on this grid, so that many small ones do not become many small messages.
_HOLE_GRID = 1 << 16
#: How closely the place of a read error is told.
_ERROR_GRID = 4096
#: Threads beyond the first of each connection, over all connections.
_MAX_HELPERS = 16

#: Seconds: for a handshake, without progress in sending, and for what is in flight when the server closes.
_HANDSHAKE = 10
_SENDING = 60
_DRAINING = 5


class Server:
    """Serves `reader` at the Unix socket `path` from when it is made until `close`.

    Only the owner may connect (mode 0600); `path` should lie in a folder where nobody else may
    write. `threads` answer the requests of one connection; at most `connections` are served, others
    wait. `failure` is the first error met, above all of the Reader: a client only learns of an EIO. The
    Reader stays open. Raises `BackendError` when there can be no socket.
    """

    def __init__(
        self,
        reader: protocol.Reader,
        path: str,
        *,
        export: str = "",
        threads: int | None = None,
        connections: int = 100,
    ) -> None:
        self.reader, self.export, self.path = reader, export, path
        self.threads = threads or min(4, len(os.sched_getaffinity(0)))
        self.failure: errors.VimgvcError | None = None
        self.closing = threading.Event()
        self.helpers = threading.BoundedSemaphore(_MAX_HELPERS)
        self._slots = threading.Semaphore(connections)
        self._lock = threading.Lock()
        self._open: dict[_Connection, threading.Thread] = {}
        self._listener = _listen(path)
        self._bound = True
        self._accepting = threads_module.Thread(target=self._accept, name="vimgvc-nbd-accept")
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and threads; what is being answered is answered if the client takes it."""
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._slots.release()
        # Before anything is waited for: an interrupted wait leaves threads that end by themselves.
        self._shut_all(socket.SHUT_RD)
        self._accepting.join()
        self._listener.close()
        self._shut_all(socket.SHUT_RD)  # the last one that was accepted
        if self._bound:
            self._bound = False
            pathlib.Path(self.path).unlink(missing_ok=True)
        deadline = time.monotonic() + _DRAINING
        for thread in self._threads():
            thread.join(max(0, deadline - time.monotonic()))
        self._shut_all(socket.SHUT_RDWR)
        for thread in self._threads():
            thread.join()

    def _shut_all(self, how: int) -> None:
        with self._lock:
            left = list(self._open)
        for connection in left:
            connection.shut(how)

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._open.values())

    def ask(self, question: Callable[[], T]) -> T:
        """Ask the Reader; whatever it raises comes out as `_ReaderError`, the first is kept."""
        try:
            return question()
        except Exception as error:
            raise _ReaderError(self.fail(error).message) from error

    def fail(self, error: BaseException) -> errors.VimgvcError:
        """Keep what went wrong if it is the first; what is told of it."""
        typed = error if isinstance(error, errors.VimgvcError) else _unexpected(error)
        with self._lock:
            self.failure = self.failure or typed
        return typed

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            if self.closing.is_set():
                return
            try:
                self._welcome(self._listener.accept()[0])
            except (OSError, RuntimeError):  # shut down; or no descriptor or thread is left, which may pass
                self._slots.release()
                self.closing.wait(0.1)

    def _welcome(self, accepted: socket.socket) -> None:
        connection = _Connection(self, accepted)
        thread = threads_module.Thread(target=self._serve, args=(connection,), name="vimgvc-nbd")
        with self._lock:
            self._open[connection] = thread
        try:
            thread.start()
        except RuntimeError:
            accepted.close()
            with self._lock:
                del self._open[connection]
            raise

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                del self._open[connection]
            self._slots.release()


class _ReaderError(Exception):
    """The Reader failed; the text is for the client."""


class _Connection:
    def __init__(self, server: Server, accepted: socket.socket) -> None:
        self._server, self._socket = server, accepted
        self._receiving, self._sending, self._counting = threading.Lock(), threading.Lock(), threading.Lock()
        self._ended = False
        self._idle = 0
        self._helpers: list[threading.Thread] = []

    def run(self) -> None:
        """Serve until the client leaves or breaks a rule; all threads are gone afterwards."""
        try:
            agreed = self._shake_hands()
            if agreed is not None:
                self._session = transmission.Server(agreed)
                self._work()
        except (wire.ProtocolError, OSError):
            pass  # this client is gone or not worth talking to; nobody else is concerned
        finally:
            for helper in self._helpers:
                helper.join()
            self._socket.close()

    def shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(how)

    def _shake_hands(self) -> handshake.Agreement | None:
        deadline = time.monotonic() + _HANDSHAKE
        machine = handshake.Server(self._server.export, self._server.reader.size)
        self._limit(socket.SO_SNDTIMEO, _HANDSHAKE)
        while True:
            self._socket.sendall(machine.outgoing())
            if (room := machine.wanted()) is None:
                break
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._limit(socket.SO_RCVTIMEO, left)
            count = self._socket.recv_into(room)
            if not count:
                return None
            machine.received(count)
        self._limit(socket.SO_RCVTIMEO, 0)
        self._limit(socket.SO_SNDTIMEO, _SENDING)
        return machine.agreement

    def _limit(self, option: int, seconds: float) -> None:
        """A timeout of the kernel's; 0 is none."""
        value = struct.pack("ll", int(seconds), max(1 if seconds else 0, int(seconds % 1 * 1e6)))
        self._socket.setsockopt(socket.SOL_SOCKET, option, value)

    def _work(self) -> None:
        view: memoryview | None = None
        try:
            while (request := self._next()) is not None:
                view = view or room_module.pages(_PIECE)
                self._answer(request, view)
        except (wire.ProtocolError, OSError):
            # The stream is beyond repair. Other threads end when they next look at it.
            self.shut(socket.SHUT_RDWR)
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: kept for who made the server
            self._server.fail(error)
            self.shut(socket.SHUT_RDWR)

    def _help(self) -> None:
        try:
            self._work()
        finally:
            self._server.helpers.release()

    def _next(self) -> transmission.Request | None:
        """The next request; None when there are no more."""
        with self._counting:
            self._idle += 1
        with self._receiving:
            request = None if self._ended else self._receive()
            with self._counting:
                self._idle -= 1
                alone = not self._idle
            if request is None:
                self._ended = True
            elif alone and len(self._helpers) + 1 < self._server.threads:
                self._call_help()
        return request

    def _receive(self) -> transmission.Request | None:
        session = self._session
        while not session.requests:
            room = session.wanted()
            if room is None:
                return None
            try:
                count = self._socket.recv_into(room, 0, socket.MSG_WAITALL)
                if not count:
                    return None
                session.received(count)
            except (wire.ProtocolError, OSError):
                self.shut(socket.SHUT_RDWR)
                return None
        return session.requests.popleft()

    def _call_help(self) -> None:
        if not self._server.helpers.acquire(blocking=False):
            return
        helper = threads_module.Thread(target=self._help, name="vimgvc-nbd-help")
        try:
            helper.start()
        except RuntimeError:  # no thread is left: this one goes on alone
            self._server.helpers.release()
            return
        self._helpers.append(helper)

    def _answer(self, request: transmission.Request, room: memoryview) -> None:
        if request.error is not None:
            self._send(self._session.error(request, request.error))
        elif self._server.closing.is_set():
            self._send(self._session.error(request, wire.Error.ESHUTDOWN))
        elif request.command == wire.Command.BLOCK_STATUS:
            self._answer_status(request)
        elif self._session.structured:
            self._answer_read(request, room)
        else:
            self._answer_simply(request, room)

    def _answer_status(self, request: transmission.Request) -> None:
        reader = self._server.reader
        try:
            reply = self._server.ask(
                lambda: self._session.status(request, reader.extents(request.offset, request.length))
            )
        except _ReaderError as error:
            reply = self._session.error(request, wire.Error.EIO, str(error), request.offset)
        self._send(reply)

    def _answer_read(self, request: transmission.Request, room: memoryview) -> None:
        """Data and holes; at an error what is before it, then where it is."""
        end, at = request.offset + request.length, request.offset
        try:
            for item in self._pieces(request):
                at = item.start
                if item.kind is extents.Kind.DATA:
                    self._fill(at, room[: item.length])
                    self._send(self._session.data(request, at, item.length, done=item.end == end), room[: item.length])
                else:
                    self._send(self._session.hole(request, at, item.length, done=item.end == end))
        except _ReaderError as error:
            good = self._readable(at, room[: min(_PIECE, end - at)])
            if good:
                self._send(self._session.data(request, at, good, done=False), room[:good])
            self._send(self._session.error(request, wire.Error.EIO, str(error), at + good))

    def _pieces(self, request: transmission.Request) -> Iterator[extents.Extent]:
        """What a read is answered with, one chunk each."""
        offset, length = request.offset, request.length
        if request.flags & wire.CommandFlag.DF:
            yield extents.Extent(offset, length, extents.Kind.DATA)
            return
        reader = self._server.reader
        told = self._server.ask(lambda: list(extents.align(reader.extents(offset, length), _HOLE_GRID, reader.size)))
        for item in extents.clip(told, offset, length):
            if item.kind is not extents.Kind.DATA:
                yield item
                continue
            for start in range(item.start, item.end, _PIECE):
                yield extents.Extent(start, min(_PIECE, item.end - start), item.kind)

    def _answer_simply(self, request: transmission.Request, room: memoryview) -> None:
        """Without structured replies an error can only be told before the first byte."""
        end = request.offset + request.length
        begun = False
        with self._sending:
            for at in range(request.offset, end, _PIECE):
                piece = room[: min(_PIECE, end - at)]
                try:
                    self._fill(at, piece)
                except _ReaderError as error:
                    if begun:
                        raise ConnectionAbortedError from error
                    self._transmit(self._session.error(request, wire.Error.EIO), piece[:0])
                    return
                head = b"" if begun else self._session.data(request, at, request.length, done=True)
                self._transmit(head, piece)
                begun = True

    def _fill(self, offset: int, room: memoryview) -> None:
        self._server.ask(lambda: self._server.reader.pread_into(offset, room))

    def _readable(self, offset: int, room: memoryview) -> int:
        """How many bytes from `offset` on can be read into `room`, on a grid; not all can."""
        low, high = 0, -(-room.nbytes // _ERROR_GRID)  # the first bad block is in this range
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self._fill(offset + low * _ERROR_GRID, room[low * _ERROR_GRID : middle * _ERROR_GRID])
                low = middle
            except _ReaderError:
                high = middle
        return low * _ERROR_GRID

    def _send(self, head: bytes, data: memoryview | None = None) -> None:
        with self._sending:
            self._transmit(head, data if data is not None else memoryview(b""))

    def _transmit(self, head: bytes, data: memoryview) -> None:
        """Send both. `_sending` is held."""
        sent = self._socket.sendmsg([head, data])
        if sent < len(head):
            self._socket.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + data.nbytes:
            self._socket.sendall(data[sent - len(head) :])


def _listen(path: str) -> socket.socket:
    """A listening socket that only this user can connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    try:
        listener.bind(path)
        bound = True
        # Nobody can connect before listen(), so there is no moment with the mode that bind() gave it.
        pathlib.Path(path).chmod(0o600)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        if bound:
            pathlib.Path(path).unlink()
        raise errors.from_os_error(error, path) from error
    return listener


def _unexpected(error: BaseException) -> errors.VimgvcError:
    return errors.VimgvcError(f"reading the disk failed: {type(error).__name__}: {error}")
