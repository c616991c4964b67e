"""A server that never ends: each answer is cut off where it is more than an answer can be (N14)."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator

import pytest

from tests.servers import proxy, s3_places
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import s3

_ENVIRON = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "r"}
_OK = b"HTTP/1.1 200 OK\r\n"
_TAG = b'ETag: "tag"\r\n'
_CHUNKED = _OK + _TAG + b"Content-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n"


def _forever(first: bytes, more: bytes) -> Iterator[bytes]:
    yield first
    while True:
        yield more


#: What a server sends, without end.
_STREAMS = {
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header lines": (_OK, b"X-More: more\r\n"),
    "one header line": (_OK + b"X-More: ", b"more" * 1000),
    "status line": (b"HTTP/1.1 200 ", b"OK" * 1000),
    "chunks": (_CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "chunk size": (_CHUNKED, b"0" * 4096),
    "body without a length": (_OK + _TAG + b"\r\n", b"x" * 4096),
    "error document": (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"<" * 4096 + b"\r\n"),
}


class _Endless(proxy.Listener):
    """Answers every request with a stream that only ends when nobody listens."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._stream = _STREAMS[name]

    def serve(self, client: socket.socket) -> None:
        while b"\r\n\r\n" not in (head := client.recv(1 << 16)):
            if not head:
                return
        for piece in _forever(*self._stream):
            client.sendall(piece)


@pytest.mark.parametrize("name", _STREAMS)
def test_n14_endless_answers(name: str) -> None:
    """N14: a listing, a blob and a size that never end are cut off, with an error of a known kind."""
    with _Endless(name) as server:
        url = f"s3://bucket/p?endpoint=http://127.0.0.1:{server.port}"
        place = s3.connect(url, environ=_ENVIRON, memory=s3_places.Tried(), patience=s3_places.QUICK)
        with contextlib.closing(place):
            for ask in (lambda: list(place.list("index")), lambda: place.get("keys/" + "a" * 32 + "-0")):
                with pytest.raises((errors.RemoteError, errors.IntegrityError)):
                    ask()
            if name in ("continue", "header lines", "one header line", "status line"):
                with pytest.raises(errors.RemoteError):
                    place.size(backend.pack(1))


class _Pages(proxy.Listener):
    """A listing of ever more names, in order, page after page."""

    def serve(self, client: socket.socket) -> None:
        for number in itertools.count():
            if not client.recv(1 << 16):
                return
            names = [f"p/refs/{number:032x}/{at:016x}" for at in range(1, 101)]
            found = "".join(f"<Contents><Key>{name}</Key><Size>1</Size></Contents>" for name in names)
            body = (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Prefix>p/refs/</Prefix><KeyCount>100</KeyCount><IsTruncated>true</IsTruncated>{found}"
                f"<NextContinuationToken>{number}</NextContinuationToken></ListBucketResult>"
            ).encode()
            head = b"Content-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body)
            client.sendall(_OK + head + body)


def test_n14_endless_pages() -> None:
    """N6, N14: a listing that goes on for ever with new names ends with an error; up to the limit it is believed."""
    with _Pages() as server:
        url = f"s3://bucket/p?endpoint=http://127.0.0.1:{server.port}"
        place = s3.connect(url, environ=_ENVIRON, memory=s3_places.Tried(), patience=s3_places.QUICK, max_names=5_000)
        with contextlib.closing(place):
            found = place.list("refs")
            assert len(list(itertools.islice(found, 5_000))) == 5_000
            with pytest.raises(errors.RemoteError, match="does not end"):
                next(found)
