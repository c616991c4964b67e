"""A TCP proxy that fails on purpose: resets, ends, stalls or changes a connection at a given byte.

    with proxy.Proxy("127.0.0.1", port) as wire:
        wire.faults.append(proxy.Fault("reset", "down", at=1000))  # for the next connection
        ...connect to wire.port...
        wire.carried  # bytes up and down of each connection so far

What speaks HTTP has more to choose from in `http_proxy`.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Kind = Literal["reset", "end", "stall", "flip"]
Side = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Fault:
    """At byte `at` of what goes `up` to the server or `down` to the client.

    reset: both sides get a reset. end: both get an orderly end. stall: nothing passes any more, in neither
    direction, until the proxy is closed. flip: one bit of that byte is another.
    """

    kind: Kind
    side: Side
    at: int = 0


class Listener:
    """Accepts connections on a loopback port, a thread for each; ends all of them on leaving."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.closing = threading.Event()
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepter = threading.Thread(target=self._accept, name="proxy")

    def __enter__(self) -> Self:
        self._accepter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepter.join()
        with self._guard:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def serve(self, client: socket.socket) -> None:
        """What a connection's thread does."""
        raise NotImplementedError

    @contextlib.contextmanager
    def holding(self, one: socket.socket) -> Iterator[socket.socket]:
        """`one`, shut down when the proxy closes and closed behind the block."""
        with self._guard:
            self._open.add(one)
        try:
            if self.closing.is_set():
                raise ConnectionResetError
            yield one
        finally:
            with self._guard:
                self._open.discard(one)
            one.close()

    def spawn(self, *work: Callable[[], None]) -> list[threading.Thread]:
        threads = [threading.Thread(target=one, name="proxy") for one in work]
        with self._guard:
            self._threads += threads
        for thread in threads:
            thread.start()
        return threads

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.spawn(functools.partial(self._serve, client))

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), self.holding(client):
            self.serve(client)


class Proxy(Listener):
    """Every connection goes to `host` and `port`; the first of `faults` is taken by each new one."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._target = (host, port)
        self.faults: deque[Fault | None] = deque()
        self.carried: list[dict[Side, int]] = []
        #: How many faults have happened.
        self.struck = 0
        self._cut: tuple[dict[Side, int], int] | None = None

    def cut(self) -> None:
        """End all connections that there are."""
        with self._guard:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def cut_after(self, more: int) -> None:
        """End the last connection when that many more bytes came down."""
        last = self.carried[-1]
        self._cut = last, last["down"] + more

    def serve(self, client: socket.socket) -> None:
        fault = self.faults.popleft() if self.faults else None
        count: dict[Side, int] = {"up": 0, "down": 0}
        self.carried.append(count)
        with self.holding(socket.create_connection(self._target, 30)) as server:
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one = functools.partial(self._carry, client, server, "up", fault, count)
            other = functools.partial(self._carry, server, client, "down", fault, count)
            for thread in self.spawn(one, other):
                thread.join()

    def _carry(
        self, source: socket.socket, sink: socket.socket, side: Side, fault: Fault | None, count: dict[Side, int]
    ) -> None:
        mine = fault if fault is not None and fault.side == side else None
        with contextlib.suppress(OSError):
            while data := received(source):
                before, count[side] = count[side], count[side] + len(data)
                if mine is not None and before <= mine.at < count[side]:
                    data = self._strike(mine, data, mine.at - before, source, sink)
                if self._cut is not None and self._cut[0] is count and count["down"] > self._cut[1]:
                    data = self._strike(Fault("end", side), data, 0, source, sink)
                sink.sendall(data)
            if not _is_reset(sink):
                sink.shutdown(socket.SHUT_WR)

    def _strike(self, fault: Fault, data: bytes, at: int, source: socket.socket, sink: socket.socket) -> bytes:
        """What goes on to the sink; ends the connection when that is the fault."""
        with self._guard:
            self.struck += 1
        if fault.kind == "flip":
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        sink.sendall(data[:at])
        if fault.kind == "stall":
            self.closing.wait()
        for one in (source, sink):
            if fault.kind == "reset":
                reset_on_close(one)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                # An orderly end of writing would come before the reset; the other thread is woken either way.
                one.shutdown(socket.SHUT_RD if fault.kind == "reset" else socket.SHUT_RDWR)
        raise ConnectionResetError


def reset_on_close(one: socket.socket) -> None:
    """Let closing a socket be a reset for the other side."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def received(source: socket.socket, size: int = 1 << 16) -> bytes:
    """Acknowledged at once: servers that write head and body apart wait for it, and it would come 40 ms later."""
    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return source.recv(size)


def _is_reset(one: socket.socket) -> bool:
    return struct.unpack("ii", one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 0)
