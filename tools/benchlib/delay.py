"""A line to another port of this machine that is as long as one likes.

    with delay.Line("127.0.0.1", port, 0.025) as line:
        ...connect to line.port...

What goes into one end comes out of the other so many seconds later, in order and at any rate. A connection is
made a round trip later, too.
"""

from __future__ import annotations

import functools
import queue
import socket
import threading
import time

from tests.servers import proxy

_PIECE = 1 << 18
#: Pieces under way in one direction of a connection: 64 MiB, more than any window that a system grants.
_FLYING = 256


class Line(proxy.Listener):
    """`delay`: seconds each way."""

    def __init__(self, host: str, port: int, delay: float) -> None:
        super().__init__()
        self._target, self._delay = (host, port), delay

    def serve(self, client: socket.socket) -> None:
        time.sleep(2 * self._delay)
        with self.holding(socket.create_connection(self._target, 30)) as server:
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways = [(client, server), (server, client)]
            for thread in self.spawn(*(functools.partial(self._carry, *way) for way in ways)):
                thread.join()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        flying: queue.Queue[tuple[float, bytes]] = queue.Queue(_FLYING)
        deliver = threading.Thread(target=self._deliver, args=(flying, sink), name="line")
        deliver.start()
        data = b"-"
        while data:
            try:
                data = proxy.received(source, _PIECE)
            except OSError:
                data = b""
            flying.put((time.monotonic() + self._delay, data))
        deliver.join()

    def _deliver(self, flying: queue.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        """Until the end of what goes that way; what comes behind a failure is dropped."""
        broken = False
        while True:
            due, data = flying.get()
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            try:
                if data and not broken:
                    sink.sendall(data)
                elif not data:
                    sink.shutdown(socket.SHUT_WR)
            except OSError:
                broken = True
            if not data:
                return
