"""The server, to clients that behave and to those that do not (rows B1 to B7, B9, B13)."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest

from tests import nbd_peers as peers
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.nbd import client, server

_CONTENT = np.random.default_rng(2).bytes(4 << 20)
_BAD = 1_500_000
T = TypeVar("T")


class _Probe:
    """A disk that asks `before(offset, length)` before it reads."""

    def __init__(self, before: Callable[[int, int], None]) -> None:
        self._disk = memory.MemoryDisk.of(_CONTENT)
        self._before = before
        self.size = self._disk.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._before(offset, buffer.nbytes)
        self._disk.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._disk.extents(offset, length)

    def close(self) -> None:
        self._disk.close()


def _damaged(offset: int, length: int) -> None:
    if offset <= _BAD < offset + length:
        raise errors.IntegrityError("pack", "the tag does not fit")


@contextlib.contextmanager
def _serving(disk: protocol.Reader, **options: int) -> Iterator[server.Server]:
    with peers.short_folder() as folder, server.Server(disk, str(folder / "s"), export="disk", **options) as served:
        yield served
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vimgvc-nbd")] == []


def _raw(served: server.Server, *options: bytes) -> socket.socket:
    """A connection that has shaken hands, with these options before NBD_OPT_GO."""
    with contextlib.ExitStack() as unless_done:
        opened = unless_done.enter_context(client.unix(served.path)())
        opened.sendall(b"\0\0\0\3" + b"".join(options) + peers.option(7, peers.go(b"disk")))
        assert opened.recv(18, socket.MSG_WAITALL) == peers.greeting()
        about, kind = 0, 0
        while (about, kind) != (7, 1):
            _, about, kind, length = struct.unpack(">QIII", opened.recv(20, socket.MSG_WAITALL))
            opened.recv(length, socket.MSG_WAITALL)
        unless_done.pop_all()
    return opened


def _in_time(connect: Callable[[], T], *late: type[Exception]) -> T:
    """What `connect` makes of a server with a short limit; again, while this machine is too slow for it."""
    while True:
        with contextlib.suppress(*late):
            return connect()


_STRUCTURED = peers.option(8)
_EXTENTS = peers.option(10, peers.contexts(b"disk", b"base:allocation"))


def _chunks(opened: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each chunk of one reply."""
    flags = 0
    while not flags:
        magic, flags, kind, _, length = struct.unpack(">IHHQI", opened.recv(20, socket.MSG_WAITALL))
        assert magic == 0x668E33EF
        yield kind, opened.recv(length, socket.MSG_WAITALL) if length else b""


def test_reply_of_data_and_holes() -> None:
    """A read is answered with data and holes in order; small holes are sent as zeros."""
    content = _CONTENT[: 1 << 19] + bytes(1 << 20) + _CONTENT[: 1 << 19]
    hole, small = extents.Extent(1 << 19, 1 << 20, extents.Kind.HOLE), extents.Extent(4096, 4096, extents.Kind.ZERO)
    content = content[:4096] + bytes(4096) + content[8192:]
    disk = memory.MemoryDisk.of(content, extents.cover([small, hole], 0, len(content), extents.Kind.DATA))
    with _serving(disk) as served, _raw(served, _STRUCTURED) as opened:
        opened.sendall(peers.request(peers.READ, 100, (1 << 20) + 100))
        assert list(_chunks(opened)) == [
            (1, struct.pack(">Q", 100) + content[100 : 1 << 19]),
            (2, struct.pack(">QI", 1 << 19, (1 << 19) + 200)),
        ]
        opened.sendall(peers.request(peers.READ, 1 << 18, 1 << 19, flags=4))
        assert list(_chunks(opened)) == [(1, struct.pack(">Q", 1 << 18) + content[1 << 18 :][: 1 << 19])]


def test_socket_is_private() -> None:
    """Only the owner may connect, whatever the umask; after closing, which may be repeated, the name is gone."""
    old = os.umask(0)
    try:
        with _serving(memory.MemoryDisk(0)) as served:
            assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o600
            served.close()
            assert not os.path.exists(served.path)
    finally:
        os.umask(old)


def test_name_that_is_taken() -> None:
    """A socket is never made over something else, and nothing is left of a failure."""
    with peers.short_folder() as folder:
        (folder / "s").write_bytes(b"precious")
        for path in (folder / "s", folder / "none" / "s", folder / ("x" * 200)):
            with pytest.raises(errors.BackendError):
                server.Server(memory.MemoryDisk(0), str(path))
        assert (folder / "s").read_bytes() == b"precious"
        assert os.listdir(folder) == ["s"]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vimgvc-nbd")] == []


def test_b1_silent_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """B1: who does not shake hands in time is disconnected; others wait for the place and are served."""
    monkeypatch.setattr(server, "_HANDSHAKE", 0.2)
    with _serving(memory.MemoryDisk.of(_CONTENT), connections=3) as served, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(client.unix(served.path)()) for _ in range(12)]
        silent[1].sendall(b"\0\0\0")
        disk = _in_time(
            lambda: client.Client(client.unix(served.path), "disk", name="disk", connections=1), errors.BackendError
        )
        with contextlib.closing(disk):
            assert reader.read(disk.pread_into, 77, 1000) == _CONTENT[77:1077]
        for opened in silent:
            assert opened.recv(18, socket.MSG_WAITALL) == peers.greeting()
            assert opened.recv(1) == b""


def test_patience_with_clients_that_shook_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for the handshake: afterwards a client may be silent as long as it likes."""
    monkeypatch.setattr(server, "_HANDSHAKE", 0.2)
    with (
        _serving(memory.MemoryDisk.of(_CONTENT)) as served,
        _in_time(lambda: _raw(served), AssertionError, OSError, struct.error) as opened,
    ):
        opened.settimeout(0.5)
        with pytest.raises(TimeoutError):
            opened.recv(1)
        opened.settimeout(None)
        opened.sendall(peers.request(peers.READ, 0, 5))
        assert opened.recv(21, socket.MSG_WAITALL) == peers.simple() + _CONTENT[:5]


def test_b2_requests_beyond_the_end() -> None:
    """B2: what lies beyond the end has its error, and the connection stays."""
    with _serving(memory.MemoryDisk.of(_CONTENT)) as served, _raw(served, _STRUCTURED) as opened:
        for offset, length in [(0, 0xFFFFFFFF), ((1 << 64) - 1, 0xFFFFFFFF), (len(_CONTENT), 1), (0, 0)]:
            opened.sendall(peers.request(peers.READ, offset, length))
            assert list(_chunks(opened)) == [(0x8001, struct.pack(">IH", 22, 0))]
        opened.sendall(peers.request(peers.READ, len(_CONTENT) - 5, 5))
        assert list(_chunks(opened)) == [(1, struct.pack(">Q", len(_CONTENT) - 5) + _CONTENT[-5:])]


@pytest.mark.parametrize("sent", [b"x" * 4, b"\0\0\0\3" + b"x" * 16, b"\0\0\0\3" + peers.option(4711) * 32])
def test_b3_mistakes_in_the_handshake(sent: bytes) -> None:
    """B3: who makes mistakes in the handshake is disconnected; the next client is served."""
    with _serving(memory.MemoryDisk.of(_CONTENT)) as served:
        with client.unix(served.path)() as opened:
            opened.sendall(sent)
            while opened.recv(1 << 16):
                pass
        with _raw(served) as opened:
            opened.sendall(peers.request(peers.READ, 0, 5))
            assert opened.recv(21, socket.MSG_WAITALL) == peers.simple() + _CONTENT[:5]


def test_b4_half_a_request() -> None:
    """B4: a client that leaves in the middle of a request or a reply disturbs nobody."""
    with _serving(memory.MemoryDisk.of(_CONTENT)) as served:
        with _raw(served) as opened:
            opened.sendall(peers.request(peers.READ, 0, 5)[:27])
        with _raw(served, _STRUCTURED) as opened:
            opened.sendall(peers.request(peers.READ, 0, len(_CONTENT)))
            opened.recv(100)
        with _raw(served) as opened:
            opened.sendall(peers.request(peers.READ, 0, 5))
            assert opened.recv(21, socket.MSG_WAITALL) == peers.simple() + _CONTENT[:5]


def test_b4_flood_of_requests() -> None:
    """B4: of many requests sent at once no more are read than threads can answer; all are answered."""
    count, busy, most, lock = 20_000, 0, 0, threading.Lock()

    def before(offset: int, length: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        with lock:
            busy -= 1

    with _serving(_Probe(before), threads=3) as served, _raw(served, _STRUCTURED) as opened:
        flood = b"".join(peers.request(peers.READ, at, 1, cookie=at) for at in range(count))
        sender = threading.Thread(target=opened.sendall, args=(flood,))
        sender.start()
        found = {}
        for _ in range(count):
            *_, cookie, length = struct.unpack(">IHHQI", opened.recv(20, socket.MSG_WAITALL))
            found[cookie] = opened.recv(length, socket.MSG_WAITALL)
        sender.join()
    assert found == {at: struct.pack(">Q", at) + _CONTENT[at : at + 1] for at in range(count)}
    assert 1 <= most <= 3


def test_several_threads_answer_one_connection() -> None:
    """While one request waits for the disk, others of the same connection are answered; for any number of clients."""
    first, others = threading.Event(), threading.Event()

    def before(offset: int, length: int) -> None:
        if offset == 0:
            first.set()
            assert others.wait(30)

    with _serving(_Probe(before), threads=2) as served:
        for _ in range(20):
            first.clear()
            others.clear()
            with _raw(served, _STRUCTURED) as opened:
                opened.sendall(peers.request(peers.READ, 0, 5, cookie=1))
                assert first.wait(30)
                for cookie in (2, 3):
                    opened.sendall(peers.request(peers.READ, 5, 5, cookie=cookie))
                    assert opened.recv(33, socket.MSG_WAITALL) == peers.data(5, _CONTENT[5:10], cookie=cookie)
                others.set()
                assert opened.recv(33, socket.MSG_WAITALL) == peers.data(0, _CONTENT[:5], cookie=1)


def test_b5_writes_are_refused() -> None:
    """B5: a write, trim or zeroing is not permitted; the connection stays and the disk is as it was."""
    disk = memory.MemoryDisk.of(_CONTENT)
    with _serving(disk) as served, _raw(served) as opened:
        for sent in (
            peers.request(peers.WRITE, 0, 100_000) + bytes(100_000),
            peers.request(peers.TRIM, 0, 4096),
            peers.request(peers.WRITE_ZEROES, 0, 4096),
        ):
            opened.sendall(sent)
            assert opened.recv(16, socket.MSG_WAITALL) == peers.simple(1)
        opened.sendall(peers.request(peers.READ, 0, 5))
        assert opened.recv(21, socket.MSG_WAITALL) == peers.simple() + _CONTENT[:5]
    assert disk.content() == _CONTENT


def test_b6_damage_is_told_where_it_is() -> None:
    """B6: what can be read before the damage is sent, then its place; other ranges are not concerned."""
    with _serving(_Probe(_damaged)) as served, _raw(served, _STRUCTURED) as opened:
        for offset, length in [(0, len(_CONTENT)), (_BAD - 10, 100), (_BAD, 1), (_BAD - 70_000, 1 << 20)]:
            opened.sendall(peers.request(peers.READ, offset, length))
            *good, (kind, payload) = _chunks(opened)
            assert kind == 0x8002
            text = b"pack: the tag does not fit"
            place = struct.unpack(">Q", payload[6 + len(text) :])[0]
            assert payload[:-8] == struct.pack(">IH", 5, len(text)) + text
            assert offset <= place <= _BAD < place + 4096
            told = b"".join(payload[8:] for _, payload in good)
            assert told == _CONTENT[offset:place]
        for offset, length in [(0, _BAD), (_BAD + 1, len(_CONTENT) - _BAD - 1)]:
            opened.sendall(peers.request(peers.READ, offset, length))
            assert b"".join(payload[8:] for _, payload in _chunks(opened)) == _CONTENT[offset:][:length]
        assert isinstance(served.failure, errors.IntegrityError)


def test_b6_client_over_damage() -> None:
    """B6: through both ends, a read of the damage is an error that names it, and others are right."""
    with (
        _serving(_Probe(_damaged)) as served,
        contextlib.closing(client.Client(client.unix(served.path), "disk", name="disk")) as disk,
    ):
        with pytest.raises(errors.BackendError) as raised:
            reader.read(disk.pread_into, 1 << 20, 1 << 20)
        assert raised.value.kind == "EIO"
        first = int(raised.value.where.split()[2])
        assert first <= _BAD < first + 4096
        assert reader.read(disk.pread_into, 0, 1 << 20) == _CONTENT[: 1 << 20]


def test_b6_damage_without_structured_replies() -> None:
    """B6: an error before the first byte is told; after it only hanging up is left, and never zeros."""
    with _serving(_Probe(_damaged)) as served:
        with _raw(served) as opened:
            opened.sendall(peers.request(peers.READ, _BAD, 1) + peers.request(peers.READ, 0, 5))
            assert opened.recv(37, socket.MSG_WAITALL) == peers.simple(5) + peers.simple() + _CONTENT[:5]
        with _raw(served) as opened:
            opened.sendall(peers.request(peers.READ, 0, len(_CONTENT)))
            got = b"".join(iter(lambda: opened.recv(1 << 20), b""))
            assert len(got) <= 16 + _BAD
            assert got == (peers.simple() + _CONTENT)[: len(got)]


@pytest.mark.parametrize("error", [errors.ImageDamaged("image", "no table"), ZeroDivisionError("a bug")])
def test_extents_that_fail(error: Exception) -> None:
    """Whatever goes wrong in the Reader while extents are told is an EIO, kept for who serves the disk."""

    class Broken(_Probe):
        def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
            raise error

    with (
        _serving(Broken(lambda *_: None)) as served,
        contextlib.closing(client.Client(client.unix(served.path), "disk", name="disk")) as disk,
    ):
        for use in (lambda: list(disk.extents(0, 4096)), lambda: reader.read(disk.pread_into, 0, 4096)):
            with pytest.raises(errors.BackendError) as raised:
                use()
            assert raised.value.kind == "EIO"
        assert served.failure is not None


def test_b7_extents_need_an_agreement() -> None:
    """B7: a question about extents without the context is invalid; with it, it is answered."""
    with _serving(memory.MemoryDisk(64 << 20)) as served:
        with _raw(served, _STRUCTURED) as opened:
            opened.sendall(peers.request(peers.BLOCK_STATUS, 0, 4096))
            assert list(_chunks(opened)) == [(0x8001, struct.pack(">IH", 22, 0))]
        with _raw(served, _STRUCTURED, _EXTENTS) as opened:
            opened.sendall(peers.request(peers.BLOCK_STATUS, 1 << 20, 1 << 25))
            assert list(_chunks(opened)) == [(5, struct.pack(">III", 1, 1 << 25, 3))]


def test_b9_closing_with_requests_in_flight() -> None:
    """B9: what is being answered is answered, what waits is told that the server shuts down."""
    started, leave = threading.Event(), threading.Event()

    def before(offset: int, length: int) -> None:
        started.set()
        assert leave.wait(30)

    with _serving(_Probe(before), threads=1) as served, _raw(served, _STRUCTURED) as opened:
        opened.sendall(peers.request(peers.READ, 0, 5) + peers.request(peers.READ, 5, 5, cookie=8))
        assert started.wait(30)
        closing = threading.Thread(target=served.close)
        closing.start()
        served.closing.wait()
        leave.set()
        assert opened.recv(33, socket.MSG_WAITALL) == peers.data(0, _CONTENT[:5])
        assert opened.recv(26, socket.MSG_WAITALL) == peers.failure(108, cookie=8)
        assert opened.recv(1) == b""
        closing.join()


def test_b13_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """B13: a client that takes nothing for too long is disconnected, and closing does not wait for it."""
    monkeypatch.setattr(server, "_SENDING", 0.1)
    with _serving(memory.MemoryDisk.of(_CONTENT)) as served, _raw(served, _STRUCTURED) as opened:
        opened.sendall(peers.request(peers.READ, 0, len(_CONTENT)))
        for thread in list(served._open.values()):
            thread.join()
        assert len(b"".join(iter(lambda: opened.recv(1 << 20), b""))) < len(_CONTENT)
    monkeypatch.setattr(server, "_SENDING", 60)
    monkeypatch.setattr(server, "_DRAINING", 0.1)
    with _serving(memory.MemoryDisk.of(_CONTENT)) as served, _raw(served, _STRUCTURED) as opened:
        opened.sendall(peers.request(peers.READ, 0, len(_CONTENT)))
        opened.recv(1, socket.MSG_PEEK)
        served.close()


def test_many_clients() -> None:
    """More clients than places, each with several threads, are all served in the end."""
    with _serving(memory.MemoryDisk.of(_CONTENT), connections=2, threads=4) as served:

        def work(number: int) -> None:
            disk = client.Client(client.unix(served.path), "disk", name="disk", connections=1)
            with contextlib.closing(disk):
                for offset, length in reader.ranges(disk.size, number, 5):
                    assert reader.read(disk.pread_into, offset, length) == _CONTENT[offset : offset + length]
            done.append(number)

        done: list[int] = []
        crowd = [threading.Thread(target=work, args=(number,)) for number in range(10)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert sorted(done) == list(range(10))
