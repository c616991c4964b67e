"""Transmission: the client against replies that break its rules, and two machines against each other."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests import nbd_peers as peers
from vimgvc.disk import extents
from vimgvc.nbd import handshake, transmission, wire

_SIZE = 1 << 20
_FULL = handshake.Agreement(_SIZE, 0x183, structured=True, context=1)
_PLAIN = handshake.Agreement(_SIZE, 0x103, structured=False, context=None)
_D, _Z, _H = extents.Kind.DATA, extents.Kind.ZERO, extents.Kind.HOLE

#: A read of 4 KiB at 8192 or a question about them waits in every test of replies; its cookie is 1.
_AT, _LENGTH = 8192, 4096
_CONTENT = bytes(range(256)) * 16


def _reading(agreed: handshake.Agreement = _FULL) -> tuple[transmission.Client, transmission.Pending, bytearray]:
    client, room = transmission.Client(agreed), bytearray(b"\xa5" * (_LENGTH + 64))
    request, pending = client.read(_AT, memoryview(room)[32:-32])
    assert request == peers.request(peers.READ, _AT, _LENGTH, cookie=1)
    return client, pending, room


def _asking(agreed: handshake.Agreement = _FULL) -> tuple[transmission.Client, transmission.Pending]:
    client = transmission.Client(agreed)
    request, pending = client.status(_AT, _LENGTH)
    assert request == peers.request(peers.BLOCK_STATUS, _AT, _LENGTH, cookie=1)
    return client, pending


def _data(start: int, end: int, *, done: bool = False) -> bytes:
    return peers.data(_AT + start, _CONTENT[start:end], cookie=1, done=done)


def _hole(start: int, end: int, *, done: bool = False) -> bytes:
    return peers.hole(_AT + start, end - start, cookie=1, done=done)


_NONE = peers.chunk(peers.NONE, cookie=1)
_GOOD_READS = {
    "one chunk": _data(0, 4096, done=True),
    "none at the end": _data(0, 4096) + _NONE,
    "two chunks": _data(0, 1000) + _data(1000, 4096, done=True),
    "backwards": _data(3000, 4096) + _data(1000, 3000) + _data(0, 1000) + _NONE,
    "both ends first": _data(0, 512)
    + _data(3584, 4096)
    + _data(1024, 2048)
    + _data(512, 1024)
    + _data(2048, 3584, done=True),
}


@pytest.mark.parametrize("step", [1, 13, 1 << 20])
@pytest.mark.parametrize("name", _GOOD_READS)
def test_client_reads(name: str, step: int) -> None:
    """Chunks in any order and any split of the stream fill exactly the buffer."""
    client, pending, room = _reading()
    assert peers.feed(client, _GOOD_READS[name], step) == b""
    assert (pending.done, pending.error, client.idle) == (True, None, True)
    assert room == b"\xa5" * 32 + _CONTENT + b"\xa5" * 32


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_client_reads_holes(step: int) -> None:
    """A chunk that tells of a hole makes zeros, and only there."""
    client, pending, room = _reading()
    peers.feed(client, _hole(1000, 2000) + _data(0, 1000) + _data(2000, 4096, done=True), step)
    assert pending.done
    assert room[32:-32] == _CONTENT[:1000] + bytes(1000) + _CONTENT[2000:]
    big = transmission.Client(handshake.Agreement(64 << 20, 0x183, structured=True, context=None))
    zeroed = bytearray(b"\xa5" * ((5 << 20) + 3))
    big.read(7, memoryview(zeroed))
    peers.feed(big, peers.hole(7, len(zeroed), cookie=1), step)
    assert not any(zeroed)


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_client_reads_simple_replies(step: int) -> None:
    """Where structured replies were not agreed, simple ones fill the buffer or tell the error."""
    client, pending, room = _reading(_PLAIN)
    peers.feed(client, peers.simple(cookie=1) + _CONTENT, step)
    assert (pending.done, pending.error, bytes(room[32:-32])) == (True, None, _CONTENT)
    client, pending, _ = _reading(_PLAIN)
    peers.feed(client, peers.simple(5, cookie=1), step)
    assert (pending.done, pending.error) == (True, (5, None, ""))


_WRONG_READS = {
    "unknown magic": b"\xde\xad\xbe\xef" + bytes(12),
    "extended reply": b"\x6e\x8a\x27\x8c" + bytes(12),
    "b7 simple data": peers.simple(cookie=1) + _CONTENT,
    "b7 simple error": peers.simple(5, cookie=1),
    "unknown cookie": peers.data(_AT, _CONTENT, cookie=2),
    "cookie 0": peers.chunk(peers.NONE, cookie=0),
    "answered twice": _data(0, 4096, done=True) + _NONE,
    "l8 nothing": _NONE,
    "l8 short": _data(0, 4095, done=True),
    "l8 a gap": _data(0, 1000) + _data(1001, 4096, done=True),
    "l8 no beginning": _data(1, 4096, done=True),
    "l8 overlap": _data(0, 1000) + _data(999, 4096),
    "l8 twice": _data(0, 4096) + _data(0, 4096),
    "l8 inside another": _data(0, 4096) + _hole(10, 20),
    "l8 hole over data": _data(100, 200) + _hole(0, 4096),
    "l8 before the buffer": peers.data(_AT - 1, _CONTENT, cookie=1),
    "l8 behind the buffer": peers.data(_AT + 1, _CONTENT, cookie=1),
    "l8 longer": peers.data(_AT, _CONTENT + b"x", cookie=1),
    "l8 at 2^64": peers.data((1 << 64) - 1, b"xy", cookie=1),
    "l8 elsewhere": peers.data(0, _CONTENT, cookie=1),
    "l8 length of 4 GiB": struct.pack(">IHHQIQ", 0x668E33EF, 0, 1, 1, 0xFFFFFFFF, _AT),
    "no data": peers.chunk(peers.DATA, bytes(8), cookie=1),
    "no offset": peers.chunk(peers.DATA, bytes(7), cookie=1),
    "empty hole": _hole(0, 0),
    "hole cut": peers.chunk(peers.HOLE, bytes(11), cookie=1),
    "hole long": peers.chunk(peers.HOLE, bytes(13), cookie=1),
    "hole behind": _hole(0, 4097),
    "none with payload": peers.chunk(peers.NONE, b"x", cookie=1),
    "none that is not the end": peers.chunk(peers.NONE, cookie=1, done=False),
    "unknown chunk": peers.chunk(3, b"x", cookie=1),
    "extents for a read": peers.status((4096, 0), cookie=1),
    "error without value": peers.chunk(peers.ERROR, bytes(5), cookie=1),
    "error of 0": peers.failure(0, cookie=1),
    "error text beyond": peers.chunk(peers.ERROR, struct.pack(">IH", 5, 4) + b"abc", cookie=1),
    "error of 1 GiB": struct.pack(">IHHQI", 0x668E33EF, 1, 0x8001, 1, 1 << 30),
    "error without offset": peers.chunk(peers.ERROR_OFFSET, struct.pack(">IHI", 5, 0, 0), cookie=1),
    "error before": peers.failure(5, b"", _AT - 1, cookie=1),
    "error behind": peers.failure(5, b"", _AT + _LENGTH, cookie=1),
    "many chunks": b"".join(_data(at, at + 1) for at in range(4096)),
    "many errors": peers.failure(5, b"", _AT, cookie=1, done=False) * 4096,
}


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("name", _WRONG_READS)
def test_client_refuses_replies(name: str, step: int) -> None:
    """A reply that breaks a rule is the one typed error; nothing outside the buffer changes."""
    client, _, room = _reading()
    with pytest.raises(wire.ProtocolError) as raised:
        peers.feed(client, _WRONG_READS[name], step)
    assert raised.value.kind == "protocol"
    assert room[:32] == room[-32:] == b"\xa5" * 32
    assert client.wanted() is None


def test_client_refuses_structured_replies_that_were_not_agreed() -> None:
    """B7: without an agreement about them, a structured reply breaks the protocol."""
    client, _, _ = _reading(_PLAIN)
    with pytest.raises(wire.ProtocolError):
        peers.feed(client, _data(0, 4096, done=True))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (peers.failure(5, cookie=1), (5, None, "")),
        (peers.failure(5, b"bad \x1b disk", cookie=1), (5, None, "bad ? disk")),
        (peers.failure(5, b"x", _AT + 1000, cookie=1), (5, _AT + 1000, "x")),
        (_data(0, 1000) + peers.failure(5, b"x", _AT + 1000, cookie=1), (5, _AT + 1000, "x")),
        (peers.failure(5, b"x", _AT + 7, cookie=1, done=False) + _data(0, 4096) + _NONE, (5, _AT + 7, "x")),
        (peers.chunk(0x8099, struct.pack(">IH", 12, 1) + b"xlater", cookie=1), (12, None, "x")),
        (peers.failure(5, b"a", _AT, cookie=1, done=False) + peers.failure(1, b"b", cookie=1), (5, _AT, "a")),
    ],
)
def test_client_hears_errors(sent: bytes, expected: tuple[int, int | None, str]) -> None:
    """An error chunk of any kind, anywhere in a reply, fails the request and leaves the connection in order."""
    client, pending, _ = _reading()
    peers.feed(client, sent)
    assert (pending.done, pending.error, client.idle) == (True, expected, True)
    assert client.wanted() is not None


def test_client_has_many_requests_in_flight() -> None:
    """Replies come in any order, and their chunks mixed; each goes to its own request."""
    client, rooms = transmission.Client(_FULL), [bytearray(1024) for _ in range(4)]
    asked = [client.read(number * 4096, memoryview(room))[1] for number, room in enumerate(rooms)]
    sent = [
        [peers.data(at * 4096 + half * 512, bytes([at + 1]) * 512, cookie=at + 1, done=half == 1) for half in (0, 1)]
        for at in range(4)
    ]
    peers.feed(client, sent[3][0] + sent[0][0] + sent[3][1] + sent[1][0] + sent[0][1])
    assert [pending.done for pending in asked] == [True, False, False, True]
    peers.feed(client, sent[2][0] + sent[2][1] + sent[1][1])
    assert client.idle
    assert [bytes(room) for room in rooms] == [bytes([at + 1]) * 1024 for at in range(4)]


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(4096, 0)], [(_D, 0, 4096)]),
        ([(4096, 3)], [(_H, 0, 4096)]),
        ([(4096, 2)], [(_Z, 0, 4096)]),
        ([(4096, 1)], [(_D, 0, 4096)]),  # a hole whose content is not told to be zeros
        ([(4096, 0xFFFFFFFC)], [(_D, 0, 4096)]),
        ([(4096, 0xFFFFFFFF)], [(_H, 0, 4096)]),
        ([(1000, 0), (3096, 3)], [(_D, 0, 1000), (_H, 1000, 4096)]),
        ([(1000, 0), (1000, 4), (2096, 2)], [(_D, 0, 2000), (_Z, 2000, 4096)]),
        ([(1, 0)], [(_D, 0, 1)]),  # less than was asked for
        ([(4095, 0), (100_000, 3)], [(_D, 0, 4095), (_H, 4095, 4096)]),  # more than was asked for
        ([(_SIZE - _AT, 3)], [(_H, 0, 4096)]),
    ],
)
def test_client_learns_extents(
    pairs: list[tuple[int, int]], expected: list[tuple[extents.Kind, int, int]], step: int
) -> None:
    """Descriptors become extents: merged, clipped to the question, zeros only where zeros are promised."""
    client, pending = _asking()
    peers.feed(client, peers.status(*pairs, cookie=1), step)
    assert pending.done
    assert pending.found is not None
    wanted = [extents.Extent(_AT + start, end - start, kind) for kind, start, end in expected]
    assert list(pending.found) == wanted


_WRONG_EXTENTS = {
    "none": _NONE,
    "simple success": peers.simple(cookie=1),
    "no descriptor": peers.status(cookie=1),
    "no context": peers.chunk(peers.STATUS, cookie=1),
    "half a descriptor": peers.chunk(peers.STATUS, struct.pack(">III", 1, 4096, 0) + b"xxxx", cookie=1),
    "another context": peers.status((4096, 0), context=2, cookie=1),
    "twice": peers.status((4096, 0), cookie=1, done=False) + peers.status((4096, 0), cookie=1),
    "l8 no length": peers.status((0, 0), cookie=1),
    "l8 no length between": peers.status((10, 0), (0, 3), (4086, 0), cookie=1),
    "l8 beyond the disk": peers.status((_SIZE - _AT + 1, 3), cookie=1),
    "l8 beyond by 4 GiB": peers.status((0xFFFFFFFF, 3), cookie=1),
    "l8 on and on": peers.status((4096, 0), (4096, 3), cookie=1),
    "l8 sum beyond 2^32": peers.status((0xFFFFFFFF, 0), (0xFFFFFFFF, 3), (8192, 0), cookie=1),
    "l8 too many": struct.pack(">IHHQI", 0x668E33EF, 1, 5, 1, 4 + 8 * ((1 << 20) + 1)),
    "data for extents": _data(0, 4096, done=True),
    "hole for extents": _hole(0, 4096, done=True),
}


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("name", _WRONG_EXTENTS)
def test_client_refuses_extents(name: str, step: int) -> None:
    """L8: extents that are empty, too many, beyond the disk or beyond the question are an error."""
    client, pending = _asking()
    with pytest.raises(wire.ProtocolError):
        peers.feed(client, _WRONG_EXTENTS[name], step)
    assert not pending.done


@pytest.mark.slow
def test_l8_a_million_extents() -> None:
    """L8: as many extents as the protocol allows are read, told one by one, and complete."""
    count = 1 << 20
    client = transmission.Client(handshake.Agreement(1 << 40, 0x183, structured=True, context=1))
    _, pending = client.status(0, count * 512)
    table = np.full((count, 2), 512, ">u4")
    table[:, 1] = np.arange(count) % 2 * 3
    peers.feed(client, peers.chunk(peers.STATUS, b"\0\0\0\1" + table.tobytes(), cookie=1))
    assert pending.found is not None
    position = 0
    for number, item in enumerate(pending.found):
        assert (item.start, item.length, item.kind) == (position, 512, _H if number % 2 else _D)
        position = item.end
    assert position == count * 512


def test_client_hears_errors_about_extents() -> None:
    """A question about extents may fail with a simple or a structured reply."""
    for sent in (peers.simple(22, cookie=1), peers.failure(22, cookie=1)):
        client, pending = _asking()
        peers.feed(client, sent)
        assert (pending.done, pending.error) == (True, (22, None, ""))


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_two_machines_read_a_disk(step: int, seed: int) -> None:
    """Reads and questions pass from one machine to the other and back, however the bytes are split."""
    rng = np.random.default_rng(seed)
    disk = rng.bytes(65536)
    agreed = handshake.Agreement(len(disk), 0x183, structured=True, context=1)
    client, server = transmission.Client(agreed), transmission.Server(agreed)
    for _ in range(20):
        offset = int(rng.integers(len(disk)))
        room = bytearray(int(rng.integers(1, len(disk) - offset + 1)))
        sent, reading = client.read(offset, memoryview(room))
        question, asking = client.status(offset, len(room))
        peers.feed(server, sent + question, step)
        read, asked = server.requests.popleft(), server.requests.popleft()
        whole = [extents.Extent(asked.offset, asked.length, _D)]
        assert peers.feed(client, server.status(asked, whole), step) == b""
        head = server.data(read, read.offset, read.length, done=True)
        assert peers.feed(client, head + disk[read.offset :][: read.length], step) == b""
        assert (reading.done, asking.done) == (True, True)
        assert room == disk[offset : offset + len(room)]
        assert list(asking.found or []) == whole


def test_noise_is_one_error(seed: int) -> None:
    """Random changes of good streams, in random splits: requests done or not, or ProtocolError."""
    rng = np.random.default_rng(seed)
    replies = _hole(0, 512) + _data(512, 1024) + peers.failure(5, b"text", _AT + 1024, cookie=1, done=False)
    replies += peers.status((512, 0), (3584, 3), cookie=2) + _data(1024, 4096, done=True)
    requests = peers.request(peers.READ, 0, 512) + peers.request(peers.WRITE, 0, 40) + bytes(40)
    requests += peers.request(peers.BLOCK_STATUS, 0, 4096) + peers.request(peers.DISC)
    ended = 0
    for _ in range(1000):
        client, _, room = _reading()
        client.status(_AT, _LENGTH)
        for machine, sent in ((client, replies), (transmission.Server(_FULL), requests)):
            noisy = bytearray(sent)
            for _ in range(int(rng.integers(1, 4))):
                noisy[rng.integers(min(len(noisy), 200))] = int(rng.integers(256))
            try:
                peers.feed(machine, bytes(noisy), int(rng.integers(1, 400)))
            except wire.ProtocolError:
                ended += 1
        assert room[:32] == room[-32:] == b"\xa5" * 32
    assert ended > 100
