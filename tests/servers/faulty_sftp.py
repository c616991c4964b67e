"""An SFTP server in this process that lies: asyncssh's own, with one method or the other replaced.

It serves the files of the machine under the key of the test's sshd, so that whoever may log in there may log in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import asyncssh

from tests.servers import sshd

Server = asyncssh.SFTPServer


class _Login(asyncssh.SSHServer):
    """Whoever may log in to the real server."""

    def __init__(self, there: list[asyncssh.SSHServerConnection]) -> None:
        self._there = there

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._there.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True


@contextlib.contextmanager
def serving(rig: sshd.Sshd, kind: type[Server]) -> Iterator[int]:
    """The port on which a server of class `kind` listens until the end."""
    ready, over = threading.Event(), asyncio.Event()
    ports: list[int] = []
    there: list[asyncssh.SSHServerConnection] = []

    async def serve() -> None:
        loop_of.append(asyncio.get_running_loop())
        acceptor = await asyncssh.create_server(
            lambda: _Login(there),
            "127.0.0.1",
            0,
            server_host_keys=[str(rig.folder / "host_key")],
            authorized_client_keys=str(rig.folder / "authorized_keys"),
            sftp_factory=kind,
            allow_scp=False,
        )
        ports.append(acceptor.get_port())
        ready.set()
        await over.wait()
        acceptor.close()
        for connection in there:
            connection.abort()
            await connection.wait_closed()

    loop_of: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield ports[0]
    finally:
        loop_of[0].call_soon_threadsafe(over.set)
        thread.join()
