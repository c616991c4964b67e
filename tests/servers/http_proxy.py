"""An HTTP/1.1 proxy between a client and its server that answers as its rules say.

    with http_proxy.HttpProxy("127.0.0.1", port) as wire:
        wire.on("PUT", r"/packs/", http_proxy.lost_reply(), times=1)
        ...use http://127.0.0.1:{wire.port}...
        wire.seen  # every request, with its body

A rule is a function of the request and of `forward`, which asks the server; what it returns is sent. The
first rule that fits is used, and used up after `times`; without one a request is passed on as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal, Self

from tests.servers import proxy

_MAX_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` with names in lower case; `wire` is the head as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    wire: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent: `body` as it is, whatever the headers say of it, then what `ending` says.

    keep: the connection goes on. close: an orderly end. reset. stall: silence until the proxy closes.
    A `status` of 0 sends nothing before the ending.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    ending: Literal["keep", "close", "reset", "stall"] = "keep"


Forward = Callable[[Request], Response]
Action = Callable[[Request, Forward], Response]


@dataclass(slots=True)
class _Rule:
    method: re.Pattern[str]
    target: re.Pattern[str]
    action: Action
    times: int | None


class HttpProxy(proxy.Listener):
    """`seen`: the requests so far, in order."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._target = (host, port)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.seen: list[Request] = []

    def on(self, method: str, target: str, action: Action, *, times: int | None = None) -> None:
        """Let requests whose method is `method` (a pattern) and whose target has `target` in it be answered so."""
        with self._lock:
            self._rules.append(_Rule(re.compile(method), re.compile(target), action, times))

    def forget(self) -> None:
        """Drop all rules and what was seen."""
        with self._lock:
            self._rules.clear()
            self.seen.clear()

    def serve(self, client: socket.socket) -> None:
        with client.makefile("rb") as stream, contextlib.ExitStack() as stack:
            upstream = stack.enter_context(_Upstream(self._target, self))
            while (request := _read_request(client, stream)) is not None:
                with self._lock:
                    self.seen.append(request)
                response = self._action(request)(request, upstream.ask)
                self._send(client, request, response)
                if response.ending != "keep":
                    return

    def _action(self, request: Request) -> Action:
        with self._lock:
            for rule in self._rules:
                fits = rule.method.fullmatch(request.method) and rule.target.search(request.target)
                if fits and rule.times != 0:
                    rule.times = None if rule.times is None else rule.times - 1
                    return rule.action
        return pass_on

    def _send(self, client: socket.socket, request: Request, response: Response) -> None:
        if response.status:
            lines = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
            body = b"" if request.method == "HEAD" else response.body
            client.sendall(f"HTTP/1.1 {response.status} Said\r\n{lines}\r\n".encode("latin-1") + body)
        if response.ending == "stall":
            self.closing.wait()
        if response.ending == "reset":
            proxy.reset_on_close(client)
            client.close()


class _Upstream:
    """One connection to the server, made when it is needed and again when it has ended."""

    def __init__(self, target: tuple[str, int], owner: HttpProxy) -> None:
        self._target, self._owner = target, owner
        self._held = contextlib.ExitStack()
        self._stream: BinaryIO | None = None
        self._socket: socket.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def ask(self, request: Request) -> Response:
        if self._stream is None:
            self._socket = self._held.enter_context(self._owner.holding(socket.create_connection(self._target, 30)))
            self._socket.settimeout(60)
            self._stream = self._held.enter_context(self._socket.makefile("rb"))
        self._socket.sendall(request.wire + request.body)
        status, headers = _read_head(self._stream)
        while status == 100:
            status, headers = _read_head(self._stream)
        empty = request.method == "HEAD" or status in (204, 304)
        body = b"" if empty else _read_body(self._stream, headers)
        if headers.pop("transfer-encoding", None):
            headers["content-length"] = str(len(body))
        if headers.get("connection", "").lower() == "close":
            self._held.close()
            self._stream = None
            headers["connection"] = "keep-alive"
        return Response(status, headers, body)


def pass_on(request: Request, forward: Forward) -> Response:
    """What the server says."""
    return forward(request)


def answer(status: int, body: bytes = b"", **headers: str) -> Action:
    """An answer of our own; the server hears nothing. Underscores in names of headers stand for hyphens."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request, _forward: Response(status, {"content-length": str(len(body)), **said}, body)


def error(status: int, code: str) -> Action:
    """An S3 error document."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    return answer(status, body.encode(), content_type="application/xml")


def login_page(status: int = 200) -> Action:
    """What a captive portal says to everything."""
    return answer(status, b"<html><body>please log in</body></html>" * 40, content_type="text/html")


def silence(ending: Literal["close", "reset", "stall"]) -> Action:
    """The server hears nothing, and the client no word before the ending."""
    return lambda _request, _forward: Response(0, {}, b"", ending)


def lost_reply(ending: Literal["close", "reset", "stall"] = "reset") -> Action:
    """The server does what it is asked, and the client does not hear of it."""

    def act(request: Request, forward: Forward) -> Response:
        forward(request)
        return Response(0, {}, b"", ending)

    return act


def change(edit: Callable[[bytes], bytes], *, ending: Literal["keep", "close", "reset", "stall"] = "keep") -> Action:
    """The body is another; its length is said to be that of the new one."""

    def act(request: Request, forward: Forward) -> Response:
        said = forward(request)
        body = edit(said.body)
        return Response(said.status, {**said.headers, "content-length": str(len(body))}, body, ending)

    return act


def flip(at: int) -> Action:
    """One bit of byte `at` of the body is another."""
    return change(lambda body: body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])


def cut(at: int, *, ending: Literal["close", "reset", "stall"]) -> Action:
    """Only `at` bytes of the body come, and its length is said truly."""

    def act(request: Request, forward: Forward) -> Response:
        said = forward(request)
        return dataclasses.replace(said, body=said.body[:at], ending=ending)

    return act


def headers(**changed: str | None) -> Action:
    """Headers of the answer are others, or (None) missing."""

    def act(request: Request, forward: Forward) -> Response:
        said = forward(request)
        new = {name.replace("_", "-"): value for name, value in changed.items()}
        kept = {name: value for name, value in said.headers.items() if name not in new}
        return dataclasses.replace(said, headers={**kept, **{name: value for name, value in new.items() if value}})

    return act


def _read_request(client: socket.socket, stream: BinaryIO) -> Request | None:
    first = stream.readline(_MAX_LINE)
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    found, wire = _read_headers(stream)
    if found.get("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire = re.sub(rb"(?im)^expect:.*\r\n", b"", wire)
    return Request(method, target, found, _read_body(stream, {"content-length": "0"} | found), first + wire)


def _read_head(stream: BinaryIO) -> tuple[int, dict[str, str]]:
    first = stream.readline(_MAX_LINE).decode("latin-1")
    if not first:
        raise ConnectionResetError
    return int(first.split(" ", 2)[1]), _read_headers(stream)[0]


def _read_headers(stream: BinaryIO) -> tuple[dict[str, str], bytes]:
    found: dict[str, str] = {}
    wire = b""
    while True:
        line = stream.readline(_MAX_LINE)
        wire += line
        if line in (b"\r\n", b""):
            return found, wire
        name, _, value = line.decode("latin-1").partition(":")
        found[name.strip().lower()] = value.strip()


def _read_body(stream: BinaryIO, found: dict[str, str]) -> bytes:
    if found.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(stream.readline(_MAX_LINE).split(b";")[0], 16):
            body += stream.read(size)
            stream.readline(_MAX_LINE)
        while stream.readline(_MAX_LINE) not in (b"\r\n", b""):
            pass
        return body
    if "content-length" in found:
        return stream.read(int(found["content-length"]))
    return stream.read()
