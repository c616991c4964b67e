"""The proxies that fail on purpose pass everything on else, and fail as they are told."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.servers import http_proxy, proxy


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers PUT with what was put."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _put(port: int, *bodies: bytes, timeout: float = 30.0) -> list[bytes]:
    """What comes back over one connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        found = []
        for body in bodies:
            connection.request("PUT", "/x", body)
            found.append(connection.getresponse().read())
        return found


_BODY = bytes(range(256)) * 400


def test_passes_on(port: int) -> None:
    """Without a fault or a rule both proxies pass on every byte, of several requests."""
    with proxy.Proxy("127.0.0.1", port) as wire:
        assert _put(wire.port, b"1", _BODY) == [b"1", _BODY]
        assert wire.carried[0]["up"] > len(_BODY)
    with http_proxy.HttpProxy("127.0.0.1", port) as web:
        assert _put(web.port, b"1", _BODY) == [b"1", _BODY]
        assert [request.body for request in web.seen] == [b"1", _BODY]


@pytest.mark.parametrize("side", ["up", "down"])
def test_faults_at_a_byte(port: int, side: proxy.Side) -> None:
    """A connection is reset, ended, stalled or changed at the byte that was said, and the next one is not."""
    with proxy.Proxy("127.0.0.1", port) as wire:
        wire.faults.extend(
            [
                proxy.Fault("flip", side, 50_000),
                proxy.Fault("reset", side, 50_000),
                proxy.Fault("end", side, 50_000),
                proxy.Fault("stall", side, 50_000),
            ]
        )
        (changed,) = _put(wire.port, _BODY)
        assert [abs(one - other) for one, other in zip(changed, _BODY, strict=True) if one != other] == [1]
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _put(wire.port, _BODY)
        with pytest.raises((OSError, http.client.HTTPException)):
            _put(wire.port, _BODY)
        with pytest.raises(TimeoutError):
            _put(wire.port, _BODY, timeout=0.2)
        assert _put(wire.port, _BODY) == [_BODY]


def test_rules(port: int) -> None:
    """The first rule that fits answers, as often as it may; then requests are passed on."""
    with http_proxy.HttpProxy("127.0.0.1", port) as web:
        web.on("GET", "", http_proxy.error(500, "Never"))
        web.on("PUT", "/x", http_proxy.answer(200, b"ours"), times=2)
        web.on("PUT", "", http_proxy.flip(0), times=1)
        assert _put(web.port, b"a", b"b", b"c", b"d") == [b"ours", b"ours", b"b", b"d"]
        web.on("PUT", "", http_proxy.lost_reply(), times=1)
        with pytest.raises(ConnectionResetError):
            _put(web.port, b"e")
        web.on("PUT", "", http_proxy.cut(1, ending="close"), times=1)
        with pytest.raises(http.client.IncompleteRead):
            _put(web.port, b"abc")


def test_ends_with_a_connection_that_waits(port: int) -> None:
    """Leaving a proxy ends what is open, however long it would have waited."""
    with http_proxy.HttpProxy("127.0.0.1", port) as web:
        waiting = socket.create_connection(("127.0.0.1", web.port))
        web.on("PUT", "", http_proxy.silence("stall"))
        waiting.sendall(b"PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    with waiting, contextlib.suppress(ConnectionResetError):
        assert waiting.recv(1) == b""
