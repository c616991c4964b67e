"""The client, over servers that behave, break off, lie and are silent."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import pathlib
import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests import nbd_peers as peers
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.nbd import client, server

_CONTENT = np.random.default_rng(1).bytes(1 << 20)


class _Owned(client.Client):
    """A client that ends its server when it is closed."""

    def __init__(self, served: contextlib.ExitStack, path: str, connections: int) -> None:
        self._served = served
        super().__init__(client.unix(path), name="disk", connections=connections)

    def close(self) -> None:
        super().close()
        self._served.close()


def _serve(sample: reader.Sample, connections: int) -> _Owned:
    kinds = extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(peers.short_folder())
        disk = memory.MemoryDisk.of(sample.content, kinds)
        stack.enter_context(server.Server(disk, str(folder / "s"), threads=3))
        return _Owned(stack.pop_all(), str(folder / "s"), connections)


class TestOverOwnServer(reader.ReaderSuite):
    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> client.Client:
        return _serve(sample, 4)


class TestOverOneConnection(reader.ReaderSuite):
    hole_grid = 1

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> client.Client:
        return _serve(sample, 1)


def _honest(asked: peers.Asked) -> bytes:
    if asked.command == peers.READ:
        return peers.data(asked.offset, _CONTENT[asked.offset :][: asked.length], cookie=asked.cookie)
    return peers.status((asked.length, 0), cookie=asked.cookie)


def _simple(asked: peers.Asked) -> bytes:
    return peers.simple(cookie=asked.cookie) + _CONTENT[asked.offset :][: asked.length]


def _data(asked: peers.Asked, offset: int, length: int) -> bytes:
    return peers.data(asked.offset + offset, bytes(length), cookie=asked.cookie)


@contextlib.contextmanager
def _connected(peer: peers.Scripted, *, timeout: float = 30, connections: int = 4) -> Iterator[client.Client]:
    with peers.scripted(peer):
        disk = client.Client(peer.connect, name="disk", timeout=timeout, connections=connections)
        with contextlib.closing(disk):
            yield disk


@pytest.mark.parametrize("grid", [1, 512, 4096, 65536])
def test_reads_keep_to_the_grid(grid: int, seed: int) -> None:
    """Whatever is read, the server is asked in whole blocks; the caller gets exactly the range."""
    seen: list[peers.Asked] = []

    def reply(asked: peers.Asked) -> bytes:
        seen.append(asked)
        return _honest(asked)

    with _connected(peers.Scripted(len(_CONTENT), reply, minimum=grid)) as disk:
        for offset, length in [*reader.ranges(disk.size, seed, 100), (5, 10), (500, 20), (0, 1), (4096, 4096)]:
            assert reader.read(disk.pread_into, offset, length) == _CONTENT[offset : offset + length]
            found = list(disk.extents(offset, length))
            assert found == ([extents.Extent(offset, length, extents.Kind.DATA)] if length else [])
    assert all(asked.offset % grid == asked.length % grid == 0 < asked.length for asked in seen)


def test_simple_replies() -> None:
    """A server without structured replies is read; what it holds is all data."""
    with _connected(peers.Scripted(len(_CONTENT), _simple, structured=False)) as disk:
        assert reader.read(disk.pread_into, 100, 700_000) == _CONTENT[100:700_100]
        assert list(disk.extents(10, 20)) == [extents.Extent(10, 20, extents.Kind.DATA)]
        assert disk.allocated_bytes == disk.size


def test_connections_as_promised() -> None:
    """Threads get connections of their own, up to the limit, and one if the server promises no more."""
    for flags, limit in ((0x103, 3), (0x3, 1)):
        together = threading.Barrier(limit)

        def reply(asked: peers.Asked, together: threading.Barrier = together) -> bytes:
            together.wait()
            return _honest(asked)

        peer = peers.Scripted(len(_CONTENT), reply, flags=flags)
        with _connected(peer, connections=3) as disk, concurrent.futures.ThreadPoolExecutor(6) as pool:
            work = [pool.submit(reader.read, disk.pread_into, at * 4096, 4096) for at in range(6)]
            assert [done.result() for done in work] == [_CONTENT[at * 4096 :][:4096] for at in range(6)]
        assert peer.accepted == limit


@pytest.mark.parametrize("length", [0, 1, 20, 1000])
def test_l8_connection_drops(length: int) -> None:
    """L8: a reply that breaks off is an error; the next read has a new connection."""
    replies: list[bytes] = []

    def reply(asked: peers.Asked) -> bytes:
        replies.append(_honest(asked))
        return replies[-1] if len(replies) > 1 else peers.Last(replies[0][:length])

    peer = peers.Scripted(len(_CONTENT), reply)
    with _connected(peer) as disk:
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 0, 4096)
        assert raised.value.kind == "closed"
        assert reader.read(disk.pread_into, 4096, 4096) == _CONTENT[4096:8192]
    assert peer.accepted == 2


@pytest.mark.parametrize("kind", ["structured", "simple"])
def test_l8_read_errors(kind: str) -> None:
    """L8: an error of the server names its value and the bytes; the connection serves the next read."""

    def reply(asked: peers.Asked) -> bytes:
        bad = 700_000
        if not asked.offset <= bad < asked.offset + asked.length:
            return (_simple if kind == "simple" else _honest)(asked)
        if kind == "simple":
            return peers.simple(5, cookie=asked.cookie)
        good = peers.data(asked.offset, _CONTENT[asked.offset : bad], cookie=asked.cookie, done=False)
        return good + peers.failure(5, b"the disk is old", bad, cookie=asked.cookie)

    peer = peers.Scripted(len(_CONTENT), reply, structured=kind == "structured")
    with _connected(peer) as disk:
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 600_000, 300_000)
        first = 600_000 if kind == "simple" else 700_000
        assert raised.value.where == f"disk, bytes {first} to 899999"
        assert raised.value.kind == "EIO"
        assert reader.read(disk.pread_into, 0, 4096) == _CONTENT[:4096]
    assert peer.accepted == 1


def test_first_of_several_errors() -> None:
    """Of the requests in flight the lowest that failed is told; the others are waited for."""

    def reply(asked: peers.Asked) -> bytes:
        if asked.offset >= 2 << 20:
            return peers.failure(12, b"", asked.offset, cookie=asked.cookie)
        return peers.hole(asked.offset, asked.length, cookie=asked.cookie)

    peer = peers.Scripted(16 << 20, reply)
    with _connected(peer) as disk:
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 0, 12 << 20)
        assert raised.value.where.startswith(f"disk, bytes {2 << 20} ")
        assert raised.value.kind == "ENOMEM"
        assert reader.read(disk.pread_into, 0, 5) == bytes(5)
    assert peer.accepted == 1


def test_unknown_and_final_errors() -> None:
    """An unknown value counts as EINVAL; after ESHUTDOWN the connection is left."""
    for code, kind, accepted in ((4711, "EINVAL", 1), (108, "ESHUTDOWN", 2)):

        def reply(asked: peers.Asked, code: int = code) -> bytes:
            return _honest(asked) if asked.offset else peers.failure(code, cookie=asked.cookie)

        peer = peers.Scripted(len(_CONTENT), reply)
        with _connected(peer) as disk:
            with pytest.raises(errors.BackendError) as raised:
                reader.read(disk.pread_into, 0, 4096)
            assert raised.value.kind == kind
            assert reader.read(disk.pread_into, 1, 4096) == _CONTENT[1:4097]
        assert peer.accepted == accepted


_LIES = {
    "to somebody else": lambda asked: peers.data(asked.offset, bytes(asked.length), cookie=asked.cookie + 1),
    "short": lambda asked: _data(asked, 0, asked.length - 1),
    "elsewhere": lambda asked: _data(asked, 1, asked.length),
    "long": lambda asked: _data(asked, 0, asked.length + 1),
    "simple": _simple,
    "not NBD": lambda asked: b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(asked.length),
}


@pytest.mark.parametrize("name", _LIES)
def test_l8_lies(name: str) -> None:
    """L8: a reply that is short, elsewhere or no reply at all is an error of the protocol, never zeros."""
    with _connected(peers.Scripted(len(_CONTENT), _LIES[name])) as disk:
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 4096, 4096)
        assert raised.value.kind == "protocol"


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), ((1 << 20) + 1, 3)])
def test_l8_extents_that_make_no_sense(pair: tuple[int, int]) -> None:
    """L8: extents that do not advance or leave the disk are an error, not an endless loop."""
    peer = peers.Scripted(1 << 20, lambda asked: peers.status(pair, cookie=asked.cookie), minimum=512)
    with _connected(peer) as disk:
        with pytest.raises(errors.BackendError) as raised:
            list(disk.extents(100, 1000))
        assert raised.value.kind == "protocol"


def test_extents_in_many_answers() -> None:
    """Answers that cover less than was asked are followed by further questions, from where they end."""
    seen: list[peers.Asked] = []

    def reply(asked: peers.Asked) -> bytes:
        seen.append(asked)
        return peers.status((min(asked.length, 65536), asked.offset // 65536 % 2 * 3), cookie=asked.cookie)

    with _connected(peers.Scripted(6 << 30, reply)) as disk:
        found = list(disk.extents(4 << 30, 1 << 20))
        assert [item.kind for item in found] == [extents.Kind.DATA, extents.Kind.HOLE] * 8
        assert found[0].start == 4 << 30
        assert found[-1].end == (4 << 30) + (1 << 20)
        next(disk.extents(0, 6 << 30))
    assert max(asked.length for asked in seen) < 1 << 32


def test_allocated_bytes_are_those_outside_holes() -> None:
    """Zeros that take space count, holes do not."""

    def reply(asked: peers.Asked) -> bytes:
        return peers.status((4096, 0), (8192, 3), (asked.length - 12288, 2), cookie=asked.cookie)

    with _connected(peers.Scripted(1 << 20, reply)) as disk:
        source: protocol.Source = disk
        assert source.allocated_bytes == (1 << 20) - 8192
        source.check_unchanged()


def test_silent_server() -> None:
    """A server that says nothing, from the beginning or later, is an error after the timeout."""
    with (
        peers.scripted(peers.Scripted(1 << 20, lambda _: b"")) as peer,
        # On a machine that is too busy for it the handshake already takes too long.
        pytest.raises(errors.BackendError) as raised,
        contextlib.closing(client.Client(peer.connect, name="disk", timeout=0.1)) as disk,
    ):
        reader.read(disk.pread_into, 0, 4096)
    assert raised.value.kind == "ETIMEDOUT"
    near, far = socket.socketpair()
    with far, pytest.raises(errors.BackendError) as raised:
        client.Client(lambda: near, name="disk", timeout=0.05)
    assert (raised.value.kind, near.fileno()) == ("ETIMEDOUT", -1)


def test_dripping_handshake() -> None:
    """The timeout is for the whole handshake, however often a byte comes."""
    near, far = socket.socketpair()
    over = threading.Event()
    drops = itertools.cycle(peers.answer(10, 4, b"\0\0\0\1base:allocation"))

    def drip() -> None:
        far.sendall(peers.greeting() + peers.answer(8, 1))
        while not over.wait(0.01):
            with contextlib.suppress(OSError):
                far.sendall(bytes([next(drops)]))

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(errors.BackendError) as raised:
        client.Client(lambda: near, name="disk", timeout=0.1)
    over.set()
    thread.join()
    far.close()
    assert raised.value.kind == "ETIMEDOUT"


@pytest.mark.parametrize("failing", [ConnectionRefusedError(111, "refused"), FileNotFoundError(2, "no socket")])
def test_no_server(failing: OSError) -> None:
    """That there is nobody to connect to is a typed error that names the disk."""

    def connect() -> socket.socket:
        raise failing

    with pytest.raises(errors.BackendError) as raised:
        client.Client(connect, name="disk")
    assert raised.value.where == "disk"
    with peers.short_folder() as folder, pytest.raises(errors.BackendError):
        client.Client(client.unix(str(folder / "none")), name="disk")


def test_export_that_changes_its_size() -> None:
    """A further connection that shows another size is refused."""
    peer = peers.Scripted(len(_CONTENT), lambda _: peers.Last())
    with _connected(peer) as disk:
        with pytest.raises(errors.BackendError):
            reader.read(disk.pread_into, 0, 1)
        peer.size += 512
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 0, 1)
        assert raised.value.kind == "protocol"


def test_no_use_after_close() -> None:
    """A closed client says so."""
    with _connected(peers.Scripted(len(_CONTENT), _honest)) as disk:
        disk.close()
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 0, 1)
        assert raised.value.kind == "closed"


def test_goodbye() -> None:
    """Closing says goodbye on every connection."""
    far: list[socket.socket] = []

    def connect() -> socket.socket:
        near, other = socket.socketpair()
        far.append(other)
        sent = [peers.greeting(), peers.answer(8, 0x8000_0001)]
        info = struct.pack(">HQH", 0, 512, 0x103)
        other.sendall(b"".join([*sent, peers.answer(7, 3, info), peers.answer(7, 1)]))
        return near

    client.Client(connect, name="disk").close()
    with far[0]:
        said = b"".join(iter(lambda: far[0].recv(4096), b""))
    assert said.endswith(peers.request(peers.DISC, cookie=0))


def test_interrupted_read_leaves_no_half_used_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption in the middle of a reply drops that connection; the next read is right."""
    peer = peers.Scripted(len(_CONTENT), _honest)
    with _connected(peer) as disk:

        def interrupt(*_: object) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(client._Connection, "_receive", interrupt)
            with pytest.raises(KeyboardInterrupt):
                reader.read(disk.pread_into, 0, 4096)
        assert reader.read(disk.pread_into, 8192, 4096) == _CONTENT[8192:12288]
    assert peer.accepted == 2
