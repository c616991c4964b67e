"""The other side of an NBD connection: bytes built here with their own struct code, scripted servers, real tools."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests import needs
from vimgvc.nbd import handshake, wire

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
NONE, DATA, HOLE, STATUS, ERROR, ERROR_OFFSET = 0, 1, 2, 5, 0x8001, 0x8002


def request(command: int, offset: int = 0, length: int = 0, *, cookie: int = 7, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length)


def simple(error: int = 0, *, cookie: int = 7) -> bytes:
    return struct.pack(">IIQ", 0x67446698, error, cookie)


def chunk(kind: int, payload: bytes = b"", *, cookie: int = 7, done: bool = True) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, len(payload)) + payload


def data(offset: int, content: bytes, *, cookie: int = 7, done: bool = True) -> bytes:
    return chunk(DATA, struct.pack(">Q", offset) + content, cookie=cookie, done=done)


def hole(offset: int, length: int, *, cookie: int = 7, done: bool = True) -> bytes:
    return chunk(HOLE, struct.pack(">QI", offset, length), cookie=cookie, done=done)


def failure(code: int, text: bytes = b"", offset: int | None = None, *, cookie: int = 7, done: bool = True) -> bytes:
    payload = struct.pack(">IH", code, len(text)) + text
    if offset is None:
        return chunk(ERROR, payload, cookie=cookie, done=done)
    return chunk(ERROR_OFFSET, payload + struct.pack(">Q", offset), cookie=cookie, done=done)


def status(*pairs: tuple[int, int], context: int = 1, cookie: int = 7, done: bool = True) -> bytes:
    payload = struct.pack(">I", context) + b"".join(struct.pack(">II", *pair) for pair in pairs)
    return chunk(STATUS, payload, cookie=cookie, done=done)


def option(number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">QII", 0x49484156454F5054, number, len(payload)) + payload


def answer(about: int, kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, about, kind, len(payload)) + payload


def greeting(flags: int = 3) -> bytes:
    return b"NBDMAGICIHAVEOPT" + struct.pack(">H", flags)


def go(name: bytes = b"", *wishes: int) -> bytes:
    return struct.pack(f">I{len(name)}sH{len(wishes)}H", len(name), name, len(wishes), *wishes)


def contexts(name: bytes, *queries: bytes) -> bytes:
    counted = b"".join(struct.pack(">I", len(query)) + query for query in queries)
    return struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) + counted


def feed(machine: wire.Feed, sent: bytes, step: int = 1 << 30) -> bytes:
    """Give `sent` to a machine, at most `step` bytes at once; what it did not want anymore."""
    while sent and (room := machine.wanted()) is not None:
        count = min(step, len(room), len(sent))
        room[:count] = sent[:count]
        machine.received(count)
        sent = sent[count:]
    return sent


def shake_hands(client: handshake.Client, server: handshake.Server, step: int) -> None:
    """Pass bytes between two machines until both are done."""
    while client.wanted() is not None or server.wanted() is not None:
        assert feed(client, server.outgoing(), step) == b""
        assert feed(server, client.outgoing(), step) == b""
    assert feed(client, server.outgoing(), step) == b""


class Asked(NamedTuple):
    """A request that a scripted server got."""

    command: int
    cookie: int
    offset: int
    length: int


class Last(bytes):
    """What is sent before the connection is closed."""

    __slots__ = ()


@dataclass
class Scripted:
    """An NBD server over socket pairs that shakes hands well and then answers with what `reply` returns."""

    size: int
    reply: Callable[[Asked], bytes]
    flags: int = 0x103
    structured: bool = True
    minimum: int = 1

    def __post_init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.accepted = 0

    def connect(self) -> socket.socket:
        near, far = socket.socketpair()
        self.accepted += 1
        self.threads.append(threading.Thread(target=self._serve, args=(far,)))
        self.threads[-1].start()
        return near

    def join(self) -> None:
        for thread in self.threads:
            thread.join()

    def _serve(self, far: socket.socket) -> None:
        with far, contextlib.suppress(OSError):
            far.sendall(greeting())
            far.recv(4, socket.MSG_WAITALL)
            while (about := self._option(far)) != wire.Option.GO:
                assert about in (wire.Option.STRUCTURED_REPLY, wire.Option.SET_META_CONTEXT)
            while len(head := far.recv(28, socket.MSG_WAITALL)) == 28:
                _, _, command, cookie, offset, length = struct.unpack(">IHHQQI", head)
                reply = self.reply(Asked(command, cookie, offset, length)) if command != DISC else Last()
                far.sendall(reply)
                if isinstance(reply, Last):
                    return

    def _option(self, far: socket.socket) -> int:
        _, about, length = struct.unpack(">QII", far.recv(16, socket.MSG_WAITALL))
        if length:
            far.recv(length, socket.MSG_WAITALL)
        kind = 1
        if about == wire.Option.STRUCTURED_REPLY and not self.structured:
            kind = 0x8000_0001
        elif about == wire.Option.SET_META_CONTEXT:
            far.sendall(answer(about, 4, struct.pack(">I", 1) + b"base:allocation"))
        elif about == wire.Option.GO:
            far.sendall(answer(about, 3, struct.pack(">HQH", 0, self.size, self.flags)))
            far.sendall(answer(about, 3, struct.pack(">HIII", 3, self.minimum, 4096, 32 << 20)))
        far.sendall(answer(about, kind))
        return int(about)


@contextlib.contextmanager
def scripted(server: Scripted) -> Iterator[Scripted]:
    """Its threads are gone afterwards; close the clients before."""
    try:
        yield server
    finally:
        server.join()


@contextlib.contextmanager
def short_folder() -> Iterator[pathlib.Path]:
    """A private folder whose name leaves room for the name of a socket."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Running:
    """A server that listens at the Unix socket `path`."""

    path: str
    process: subprocess.Popen[bytes]


def qemu_nbd(image: pathlib.Path, *options: str, fmt: str = "raw") -> contextlib.AbstractContextManager[Running]:
    """A qemu-nbd that serves `image` read-only to up to 4 connections."""
    tool = needs.require_tool("qemu-nbd", "qemu-utils")
    return _running(tool, "--read-only", "--persistent", "--shared=4", f"--format={fmt}", *options, str(image))


def nbdkit(*arguments: str | pathlib.Path) -> contextlib.AbstractContextManager[Running]:
    """A read-only nbdkit with these arguments."""
    return _running(needs.require_tool("nbdkit", "nbdkit"), "-r", *map(str, arguments))


@contextlib.contextmanager
def _running(*command: str) -> Iterator[Running]:
    """A server that gets its listening socket from here (sd_listen_fds(3)): nobody needs to wait for it."""
    with short_folder() as folder:
        path = str(folder / "s")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen()
            script = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{listener.fileno()}'
            arguments = ["bash", "-c", script, "bash", *command]
            process = subprocess.Popen(arguments, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
        try:
            yield Running(path, process)
        finally:
            process.terminate()
            process.wait()
