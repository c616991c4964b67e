"""A server that never ends before there is a connection (N14); `test_hostile` has those that end too late."""

from __future__ import annotations

import pathlib
import socket

import pytest

from tests.servers import proxy
from tests.sftp.conftest import Open
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import sftp_link

_STREAMS = {
    "greeting": (b"", b"welcome\r\n" * 100),
    "line": (b"", b"welcome" * 100),
    "version": (b"SSH-2.0-", b"welcome" * 100),
    "packet": (b"SSH-2.0-server\r\n", b"\x00\x00\x80\x00" * 100),
    "ignored": (b"SSH-2.0-server\r\n", (b"\x00\x00\x00\x0c\x06\x02\x00\x00\x00\x00" + bytes(6)) * 100),
}


class _Endless(proxy.Listener):
    """Says nothing but this."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._first, self._more = _STREAMS[name]

    def serve(self, client: socket.socket) -> None:
        client.sendall(self._first)
        while True:
            client.sendall(self._more)


@pytest.mark.parametrize("name", _STREAMS)
def test_n14_endless_words(connect: Open, root: pathlib.Path, name: str) -> None:
    """N14: whatever a server says without end in place of an SSH connection, it is given up as one that is none."""
    patience = sftp_link.Patience(connect=5, give_up=0.1, pause=0.01)
    with _Endless(name) as server:
        place = connect(root, port=server.port, patience=patience)
        with pytest.raises(errors.RemoteError) as raised:
            place.size(backend.pack(1))
    assert raised.value.kind == "unreachable"
