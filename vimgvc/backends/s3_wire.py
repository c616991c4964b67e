"""HTTP to one host: connections that are used again, and every wait bounded.

The only module that imports `http.client`. It retries nothing, follows no redirect and interprets no
answer. Blocking calls are interrupted by Ctrl-C in the main thread; `close` ends those of other threads.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import os
import select
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from vimgvc import errors
from vimgvc.backends import rates

#: Bytes a second below which a body counts as stalled although it trickles.
_SLOWEST = 8 << 10
_STEP, _PIECE = 1 << 18, 4 << 20
_IDLE = 30.0
#: Answers to one request, all but the last of which say that there will be another one.
_MAX_HEADS = 10

Kind = Literal["unreachable", "certificate", "lost", "timeout", "answer"]


class Broken(Exception):
    """No usable answer. `sent`: the server may have done what was asked."""

    def __init__(self, kind: Kind, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.sent = kind, detail, sent


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds without a byte until a connection counts as dead, and seconds to make one."""

    stall: float = 60.0
    connect: float = 10.0


TIMES = Times()


class Reply:
    """An answer whose body is read once, by `read` or `skip`."""

    def __init__(self, response: http.client.HTTPResponse, started: float, times: Times, toll: _Toll) -> None:
        self._response, self._started, self._times, self._toll = response, started, times, toll
        self.status = response.status

    def header(self, name: str) -> str:
        """Empty when it is not there, or there with different values."""
        found = set(self._response.headers.get_all(name) or [""])
        return found.pop().strip() if len(found) == 1 else ""

    @property
    def length(self) -> int | None:
        """What the head says of the body's length, also in answer to HEAD."""
        said = self.header("content-length")
        return int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else None

    def read(self, limit: int) -> bytes:
        """The whole body. Raises `Broken` when it has more than `limit` bytes or is cut."""
        if self.header("content-encoding").lower() not in ("", "identity"):
            raise Broken("answer", "the answer was compressed on the way", sent=True)
        length = self._response.length
        data = (
            b"" if length is not None and length > limit else self.read_exactly(limit + 1 if length is None else length)
        )
        if len(data) > limit or (length or 0) > limit:
            raise Broken("answer", f"the answer has more than {limit} bytes", sent=True)
        return data

    def read_exactly(self, length: int) -> bytes:
        """At most `length` bytes: fewer only where a body without a length ends. Raises `Broken`."""
        found = io.BytesIO()  # whose value is no second copy, as joined pieces would be
        left = length
        with _translated(sent=True):
            if not left:
                self._response.read(0)  # an empty body is over when it has been read
            while left:
                piece = self._response.read(self._toll.limits.down.piece(min(left, _PIECE)))
                if not piece:
                    if self._response.length:
                        raise Broken("lost", "the connection ended in the middle of an answer", sent=True)
                    break
                found.write(piece)
                left -= len(piece)
                self._toll.pay(self._toll.limits.down, len(piece))
                taken = time.monotonic() - self._started - self._toll.waited
                if taken > self._times.stall * 2 + (length - left) / _SLOWEST:
                    raise Broken("timeout", "the answer trickles", sent=True)
        return found.getvalue()

    @property
    def is_over(self) -> bool:
        """Whether the connection can be used again."""
        return self._response.isclosed() and not self._response.will_close


class _Response(http.client.HTTPResponse):
    """As it is, but that a server which says 'continue' for ever is not listened to for ever (N14)."""

    _heads = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._heads += 1
        if self._heads > _MAX_HEADS:
            raise http.client.BadStatusLine("continue")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found


class Wire:
    """Thread-safe. `endpoint` is an address without a path."""

    def __init__(
        self, endpoint: str, environ: Mapping[str, str], times: Times, limits: rates.Limits | None = None
    ) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        self._limits = limits or rates.Limits()
        self._host, self._times = parts.hostname or "", times
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls(environ) if parts.scheme == "https" else None
        # plain http is for this machine, or a network that the user trusts: not for whoever runs a proxy
        self._proxy = _proxy(environ, self._host) if self._tls else None
        self._pool = _Pool()
        self._end = weakref.finalize(self, self._pool.close)

    @property
    def closed(self) -> bool:
        return self._pool.closed

    def close(self) -> None:
        self._end()

    @contextlib.contextmanager
    def ask(
        self, method: str, target: str, headers: Mapping[str, str], parts: Iterable[memoryview] = ()
    ) -> Iterator[Reply]:
        """Send a request; its answer is read inside the block. Raises `Broken`."""
        connection = self._pool.take() or self._new()
        self._pool.use(connection)
        over, toll = False, _Toll(self._limits, self._pool.ended)
        try:
            if connection.sock is None:
                self._connect(connection)
            with _translated(sent=True):
                _prepare(connection, method, target, headers)
                response = _exchange(connection, parts, toll)
                toll.waited = 0.0
                reply = Reply(response, time.monotonic(), self._times, toll)
            with contextlib.closing(response):  # which may hold the socket on its own
                yield reply
                over = reply.is_over
        finally:
            self._pool.give_back(connection, again=over)

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._proxy.address if self._proxy else (self._host, self._port)
        connection = http.client.HTTPConnection(host, port, timeout=self._times.connect)
        connection.response_class = _Response
        connection._create_connection = self._pool.dial  # type: ignore[attr-defined]  # noqa: SLF001
        if self._proxy:
            connection.set_tunnel(self._host, self._port, self._proxy.headers)
        return connection

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        with _translated(sent=False):
            connection.connect()
            if self._tls is not None:
                # Not `HTTPSConnection`: `close` ends a handshake only if it is begun with the socket in its place.
                connection.sock = self._tls.wrap_socket(
                    connection.sock, server_hostname=self._host, do_handshake_on_connect=False
                )
                connection.sock.do_handshake()
            connection.sock.settimeout(self._times.stall)


class _Toll:
    """What the bytes of one request and its answer wait for; `waited` in seconds. `ended` ends the waiting."""

    def __init__(self, limits: rates.Limits, ended: threading.Event) -> None:
        self.limits, self._ended = limits, ended
        self.waited = 0.0

    def pay(self, limit: rates.Limit, count: int) -> None:
        if wait := limit.charge(count):
            self._ended.wait(wait)
            self.waited += wait


class _Pool:
    """Idle connections, and those in use so that they can be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._used: set[http.client.HTTPConnection] = set()
        self._dialled: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._process = os.getpid()
        self.ended = threading.Event()

    @property
    def closed(self) -> bool:
        return self.ended.is_set()

    def take(self) -> http.client.HTTPConnection | None:
        """An idle connection that the server has not ended."""
        while True:
            with self._lock:
                if self._process != os.getpid():
                    # Behind a fork the connections are still those of the other process.
                    self._process, self._idle = os.getpid(), []
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            if time.monotonic() - since < _IDLE and not _is_readable(connection.sock):
                return connection
            connection.close()

    def use(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self.closed:
                self._used.add(connection)
                return
        connection.close()
        raise Broken("lost", "closed", sent=False)

    def give_back(self, connection: http.client.HTTPConnection, *, again: bool) -> None:
        with self._lock:
            self._used.discard(connection)
            if again and not self.closed:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self.ended.set()
            idle, self._idle = self._idle, []
            used = [*self._dialled, *(connection.sock for connection in self._used)]
        for connection, _ in idle:
            connection.close()
        for one in used:
            with contextlib.suppress(OSError, AttributeError):  # AttributeError: there is none
                one.shutdown(socket.SHUT_RDWR)

    def dial(self, address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        """As `socket.create_connection`, and ended by `close`."""
        failure = OSError("there is no such host")
        for family, kind, number, _, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            one = socket.socket(family, kind, number)
            with self._lock:
                if self.closed:
                    raise ConnectionAbortedError
                self._dialled.add(one)
            try:
                one.settimeout(timeout)
                one.connect(where)
            except OSError as error:
                one.close()
                failure = error
            else:
                return one
        raise failure


@dataclass(frozen=True, slots=True)
class _Proxy:
    address: tuple[str, int]
    headers: dict[str, str]


def _prepare(connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str]) -> None:
    """The head of a request, to be sent with its body."""
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)


def _exchange(
    connection: http.client.HTTPConnection, parts: Iterable[memoryview], toll: _Toll
) -> http.client.HTTPResponse:
    try:
        connection.endheaders()
        for part in parts:
            # `sendall` has its timeout for all that it is given
            step = toll.limits.up.piece(_STEP)
            for at in range(0, len(part), step):
                piece = part[at : at + step]
                toll.pay(toll.limits.up, len(piece))
                connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        # Who refuses a request may say so, and end the connection, before all of it has come.
        connection.sock.settimeout(2.0)
        response = connection.getresponse()
        response.will_close = True
        return response
    # Servers that write head and body of an answer apart wait in between for this side to acknowledge, which it
    # delays (40 ms) unless told not to; the system forgets that soon, so it is told each time.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return connection.getresponse()


@contextlib.contextmanager
def _translated(*, sent: bool) -> Iterator[None]:
    """The door: what the system and `http.client` raise becomes `Broken`."""
    try:
        yield
    except TimeoutError:
        raise Broken("timeout", "no answer in time", sent=sent) from None
    except ssl.SSLCertVerificationError as error:
        raise Broken(
            "certificate", f"the server's certificate is not valid: {error.verify_message}", sent=False
        ) from None
    except ssl.SSLError as error:
        raise Broken("lost", f"encryption failed ({error.reason or 'unknown'})", sent=sent) from None
    except socket.gaierror:
        raise Broken("unreachable", "there is no such host", sent=False) from None
    except OSError as error:
        kind: Kind = "lost" if sent else "unreachable"
        raise Broken(kind, (error.strerror or "the connection was lost").lower(), sent=sent) from None
    except http.client.IncompleteRead:
        raise Broken("lost", "the connection ended in the middle of an answer", sent=sent) from None
    except (http.client.HTTPException, ValueError, OverflowError):
        raise Broken("answer", "the answer is not HTTP", sent=sent) from None


def _is_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to say, which can only be that it has ended."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    bundle = environ.get("AWS_CA_BUNDLE") or None
    try:
        return ssl.create_default_context(cafile=bundle)
    except (OSError, ssl.SSLError):
        raise errors.UsageError(
            f"AWS_CA_BUNDLE is not a file of certificates: {bundle}", hint="give a file in PEM format"
        ) from None


def _proxy(environ: Mapping[str, str], host: str) -> _Proxy | None:
    """The HTTP proxy that the environment names for `host`, through which encrypted connections go."""
    given = environ.get("https_proxy") or environ.get("HTTPS_PROXY")
    if not given:
        return None
    excluded = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").replace(",", " ").split()
    if any(one == "*" or f".{host}".endswith(f".{one.lstrip('.').lower()}") for one in excluded):
        return None
    parts = urllib.parse.urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme != "http" or not parts.hostname:
        raise errors.UsageError(
            "HTTPS_PROXY is not the address of an HTTP proxy", hint="write it like http://HOST:PORT"
        )
    headers = {}
    if parts.username:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    return _Proxy((parts.hostname, parts.port or 8080), headers)
