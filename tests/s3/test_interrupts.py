"""Ctrl-C while a server says nothing any more."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.servers import proxy, s3_places
from vimgvc import errors, threads
from vimgvc.backends import s3, s3_wire

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server

#: Sooner than a connection would be taken for dead, in seconds; a limit against hanging.
_PATIENCE = 50
_LONG = s3_wire.Times(stall=1000, connect=1000)
_COMMAND = [sys.executable, "-m", "vimgvc"]


@pytest.mark.parametrize("verb", ["commit", "restore", "push"])
def test_n2_interrupted_threads(rgw: s3_places.Server, tmp_path: pathlib.Path, seed: int, verb: str) -> None:
    """N2: one Ctrl-C ends commit, restore and push, of which several threads wait for a server that is dead."""
    parts = urllib.parse.urlsplit(rgw.client.endpoint)
    with proxy.Proxy(parts.hostname or "", parts.port or 80) as wire:
        place, far = (rgw.place(f"http://127.0.0.1:{wire.port}").url for _ in range(2))
        environ = os.environ | rgw.environ | {"VIMGVC_REPOSITORY": place}
        (tmp_path / "key").touch(mode=0o600)
        (tmp_path / "key").write_bytes(bytes(range(32)))

        def run(*arguments: str) -> None:
            subprocess.run([*_COMMAND, *arguments], cwd=tmp_path, env=environ, check=True)

        run("init", "--key-file", "key", "--remember")
        for name in ("vm", "other"):
            (tmp_path / f"{name}.img").write_bytes(np.random.default_rng(seed).bytes(20 << 20))
        if verb != "commit":
            run("commit", "other.img")
        if verb == "push":
            run("remote", "add", "far", far)
        before = wire.struck
        # Heads and small blobs pass, packs and their parts do not.
        side: proxy.Side = "up" if verb == "commit" else "down"
        wire.faults.extend([proxy.Fault("stall", side, 300_000)] * 100)
        arguments = {"commit": ["vm.img"], "restore": ["other", "back.img"], "push": ["far"]}[verb]
        process = subprocess.Popen(
            [*_COMMAND, verb, *arguments], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True
        )
        while wire.struck == before:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 130, words
    assert "Traceback" not in words


@contextlib.contextmanager
def _waiting(work: Callable[[], object]) -> Iterator[None]:
    """A thread that does `work`, which must raise `Interrupted` before the block has ended."""
    seen: list[BaseException] = []

    def labour() -> None:
        try:
            work()
        except errors.VimgvcError as error:
            seen.append(error)

    thread = threading.Thread(target=labour)
    thread.start()
    try:
        yield
    finally:
        thread.join(_PATIENCE)
    assert [type(error) for error in seen] == [errors.Interrupted]


def test_n2_interrupted_while_connecting() -> None:
    """N2: also a connection that is being made to a host that does not answer is given up at once."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        # Nobody accepts: when the queue is full the system answers no more.
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        url = f"s3://bucket/p?endpoint=http://127.0.0.1:{port}"
        place = s3.connect(url, environ=environ, memory=s3_places.Tried(), times=_LONG)
        with _waiting(lambda: place.size("config")):
            while _connecting(port) < 3:
                pass
            threads.interrupt_all()


def _connecting(port: int) -> int:
    """How many sockets wait for an answer from a port of this machine."""
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def test_n2_interrupted_handshake() -> None:
    """N2: and one to a host that accepts it and then says nothing about encryption."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        url = f"s3://bucket/p?endpoint=https://127.0.0.1:{server.getsockname()[1]}"
        place = s3.connect(url, environ=environ, memory=s3_places.Tried(), times=_LONG)
        with _waiting(lambda: place.size("config")):
            client, _ = server.accept()
            with client:
                client.recv(1)
                threads.interrupt_all()
