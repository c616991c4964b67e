"""The handshake: two machines against each other, and each against what breaks its rules."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests import nbd_peers as peers
from vimgvc.nbd import handshake, wire

_ACK, _SERVER, _INFO, _CONTEXT = 1, 2, 3, 4
_UNSUP, _INVALID, _UNKNOWN, _TOO_BIG = (0x8000_0000 + number for number in (1, 3, 6, 9))
_EXPORT = struct.pack(">HQH", 0, 1 << 40, 0x103)


def _server(flags: int = 3) -> handshake.Server:
    server = handshake.Server("disk", 12345)
    assert server.outgoing() == peers.greeting()
    assert peers.feed(server, struct.pack(">I", flags)) == b""
    return server


def _said(server: handshake.Server) -> list[tuple[int, int, bytes]]:
    """What a server answered: (option, type, payload)."""
    sent, found = server.outgoing(), []
    while sent:
        magic, about, kind, length = struct.unpack_from(">QIII", sent)
        assert magic == 0x3E889045565A9
        found.append((about, kind, sent[20 : 20 + length]))
        sent = sent[20 + length :]
    return found


def _client(*answers: bytes, export: str = "disk") -> handshake.Client:
    """A client that was greeted and has these answers."""
    client = handshake.Client(export)
    assert peers.feed(client, b"".join([peers.greeting(), *answers])) == b""
    return client


_STRUCTURED = peers.answer(8, _ACK)
_BASE = peers.answer(10, _CONTEXT, b"\0\0\0\x05base:allocation") + peers.answer(10, _ACK)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("export", ["", "disk", "ünïcode", "x" * 4000])
def test_two_machines_agree(step: int, export: str) -> None:
    """However the bytes are split, both sides end with one agreement: everything that either offers."""
    client, server = handshake.Client(export), handshake.Server(export, 12345)
    peers.shake_hands(client, server, step)
    assert client.agreement == server.agreement
    assert client.agreement == handshake.Agreement(12345, 0x183, True, 1)


def test_client_sends_what_the_specification_shows() -> None:
    """Three options in this order, each after the answer to the one before."""
    client = handshake.Client("d")
    assert client.outgoing() == b""
    peers.feed(client, peers.greeting())
    assert client.outgoing() == b"\0\0\0\3" + peers.option(8)
    peers.feed(client, _STRUCTURED)
    assert client.outgoing() == peers.option(10, peers.contexts(b"d", b"base:allocation"))
    peers.feed(client, _BASE)
    assert client.outgoing() == peers.option(7, peers.go(b"d", 3))
    peers.feed(client, peers.answer(7, _INFO, _EXPORT) + peers.answer(7, _ACK))
    assert client.wanted() is None
    assert client.agreement == handshake.Agreement(1 << 40, 0x103, True, 5)


def test_client_bears_what_is_just_allowed() -> None:
    """The longest name, the longest answer, and information without content."""
    longest = peers.answer(8, _UNSUP, bytes(8192))
    empty = peers.answer(7, _INFO, struct.pack(">H", 1))
    found = _client(longest, empty, peers.answer(7, _INFO, _EXPORT), peers.answer(7, _ACK), export="x" * 4096)
    assert found.agreement == handshake.Agreement(1 << 40, 0x103, structured=False, context=None)


def test_client_does_without() -> None:
    """A server without structured replies, or without base:allocation, is one all the same."""
    end = peers.answer(7, _INFO, _EXPORT) + peers.answer(7, _ACK)
    plain = _client(peers.answer(8, _UNSUP, b"what?"), end).agreement
    assert plain == handshake.Agreement(1 << 40, 0x103, False, None)
    for about_contexts in (peers.answer(10, _UNSUP), peers.answer(10, _ACK)):
        found = _client(_STRUCTURED, about_contexts, end).agreement
        assert found == handshake.Agreement(1 << 40, 0x103, True, None)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1, 4096, 32 << 20), (1, 32 << 20)),
        ((512, 512, 0xFFFFFFFF), (512, 32 << 20)),
        ((4096, 4096, 9999), (4096, 8192)),
    ],
)
def test_client_keeps_to_block_sizes(sizes: tuple[int, int, int], expected: tuple[int, int]) -> None:
    """The smallest block and the largest request are the server's, the latter at most 32 MiB, on the grid."""
    info = peers.answer(7, _INFO, struct.pack(">HIII", 3, *sizes))
    other = peers.answer(7, _INFO, struct.pack(">H", 77) + b"never heard of")
    found = _client(_STRUCTURED, _BASE, info, other, peers.answer(7, _INFO, _EXPORT), peers.answer(7, _ACK)).agreement
    assert found is not None
    assert (found.minimum, found.maximum) == expected


def _export(size: int = 1 << 20, flags: int = 1) -> bytes:
    return peers.answer(7, _INFO, struct.pack(">HQH", 0, size, flags))


def _blocks(*sizes: int) -> bytes:
    return peers.answer(7, _INFO, struct.pack(">HIII", 3, *sizes))


_END = peers.answer(7, _ACK)
_BROKEN = {
    "not NBD": b"SSH-2.0-OpenSSH_10.0\r\n",
    "another magic": peers.greeting().replace(b"NBDMAGIC", b"NBDMAGIX"),
    "oldstyle": b"NBDMAGIC" + bytes.fromhex("0000420281861253") + b"\0\0",
    "not fixed": peers.greeting(2),
    "answer to another option": peers.greeting() + peers.answer(7, _ACK),
    "answer with another magic": peers.greeting() + b"x" + _STRUCTURED[1:],
    "answer too long": peers.greeting() + struct.pack(">QIII", 0x3E889045565A9, 8, _ACK, 8193),
    "answer of 4 GiB": peers.greeting() + struct.pack(">QIII", 0x3E889045565A9, 8, _ACK, 0xFFFFFFFF),
    "endless answers": peers.greeting() + _STRUCTURED + peers.answer(10, _CONTEXT, b"\0\0\0\1base:allocation") * 64,
    "another context": peers.greeting()
    + _STRUCTURED
    + peers.answer(10, _CONTEXT, b"\0\0\0\1x:y")
    + peers.answer(10, 1),
    "context twice": peers.greeting() + _STRUCTURED + _BASE[:39] * 2 + _BASE[39:],
    "short context": peers.greeting() + _STRUCTURED + peers.answer(10, _CONTEXT, b"\0") + peers.answer(10, _ACK),
    "no size": peers.greeting() + _STRUCTURED + _BASE + _END,
    "empty information": peers.greeting() + _STRUCTURED + _BASE + peers.answer(7, _INFO, b"\0") + _END,
    "short information": peers.greeting() + _STRUCTURED + _BASE + peers.answer(7, _INFO, _EXPORT[:-1]) + _END,
    "long information": peers.greeting() + _STRUCTURED + _BASE + peers.answer(7, _INFO, _EXPORT + b"\0") + _END,
    "no information": peers.greeting() + _STRUCTURED + _BASE + peers.answer(7, _SERVER, _EXPORT) + _END,
    "size of 2^63": peers.greeting() + _STRUCTURED + _BASE + _export(1 << 63) + _END,
    "no flags": peers.greeting() + _STRUCTURED + _BASE + _export(flags=2) + _END,
    "block of 0": peers.greeting() + _STRUCTURED + _BASE + _export() + _blocks(0, 4096, 1 << 20) + _END,
    "block of 3": peers.greeting() + _STRUCTURED + _BASE + _export() + _blocks(3, 4096, 1 << 20) + _END,
    "block of 128 KiB": peers.greeting() + _STRUCTURED + _BASE + _export() + _blocks(1 << 17, 1 << 17, 1 << 20) + _END,
    "largest below smallest": peers.greeting() + _STRUCTURED + _BASE + _export() + _blocks(4096, 4096, 512) + _END,
    "block sizes cut": peers.greeting() + _STRUCTURED + _BASE + _export() + peers.answer(7, _INFO, b"\0\3abc") + _END,
    "size off the grid": peers.greeting() + _STRUCTURED + _BASE + _export(513) + _blocks(512, 4096, 1 << 20) + _END,
}


@pytest.mark.parametrize("name", _BROKEN)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_client_refuses(name: str, step: int) -> None:
    """Whatever breaks a rule ends the handshake with the one typed error, and there is no agreement."""
    client = handshake.Client("disk")
    with pytest.raises(wire.ProtocolError) as raised:
        peers.feed(client, _BROKEN[name], step)
    assert raised.value.kind == "protocol"
    assert client.agreement is None
    assert client.wanted() is None


@pytest.mark.parametrize("number", [1, 2, 4, 5, 6, 7, 8, 99])
def test_client_tells_why_it_was_refused(number: int) -> None:
    """A refusal of the export is told as such, with the server's words made fit to be shown."""
    words = b"no \x1b[31mway\n" + b"x" * 1000
    with pytest.raises(wire.ProtocolError) as raised:
        _client(_STRUCTURED, _BASE, peers.answer(7, 0x8000_0000 + number, words))
    assert raised.value.kind == "refused"
    assert "no ?[31mway?" in raised.value.message
    assert len(raised.value.message) < 300


def test_long_export_name_is_not_asked_for() -> None:
    """A name that no server takes is an error before anything is sent."""
    with pytest.raises(wire.ProtocolError):
        handshake.Client("x" * 4097)


def test_server_answers_options() -> None:
    """Every option has its answer, whatever came before, and nothing but GO ends the handshake."""
    base = b"base:allocation"
    for about, payload, expected in [
        (3, b"", [(3, _SERVER, b"\0\0\0\4disk"), (3, _ACK, b"")]),
        (3, b"x", [(3, _INVALID, b"")]),
        (5, b"", [(5, _UNSUP, b"")]),  # no TLS
        (4711, b"junk", [(4711, _UNSUP, b"")]),
        (10, peers.contexts(b"disk", base), [(10, _INVALID, b"")]),  # not before structured replies
        (8, b"x", [(8, _INVALID, b"")]),
        (8, b"", [(8, _ACK, b"")]),
        (9, peers.contexts(b"disk"), [(9, _CONTEXT, bytes(4) + base), (9, _ACK, b"")]),
        (9, peers.contexts(b"disk", b"base:"), [(9, _CONTEXT, bytes(4) + base), (9, _ACK, b"")]),
        (10, peers.contexts(b"disk", b"base:"), [(10, _ACK, b"")]),
        (10, peers.contexts(b"disk", b"qemu:dirty", base), [(10, _CONTEXT, b"\0\0\0\1" + base), (10, _ACK, b"")]),
        (10, peers.contexts(b"none", base), [(10, _UNKNOWN, b"")]),
        (6, peers.go(b"disk"), [(6, _INFO, struct.pack(">HQH", 0, 12345, 0x183)), (6, _ACK, b"")]),
        (6, peers.go(b"none"), [(6, _UNKNOWN, b"")]),
        (7, peers.go(b"../disk"), [(7, _UNKNOWN, b"")]),
        (7, peers.go(b"disk\0"), [(7, _UNKNOWN, b"")]),
    ]:
        server = _server()
        if about in (6, 9) or (about == 10 and expected[0][1] != _INVALID):
            peers.feed(server, peers.option(8))
            server.outgoing()
        assert peers.feed(server, peers.option(about, payload)) == b""
        assert _said(server) == expected
        assert server.agreement is None
        assert server.wanted() is not None


def test_server_gives_what_is_asked_for() -> None:
    """NBD_OPT_GO has name and block sizes if they are wanted, and then transmission begins."""
    server = _server()
    peers.feed(server, peers.option(7, peers.go(b"disk", 1, 2, 3)))
    assert [kind for _, kind, _ in _said(server)] == [_INFO, _INFO, _INFO, _ACK]
    assert server.agreement == handshake.Agreement(12345, 0x103, False, None)
    assert server.wanted() is None


@pytest.mark.parametrize(("flags", "zeroes"), [(3, 0), (1, 124)])
def test_server_knows_the_old_end(flags: int, zeroes: int) -> None:
    """NBD_OPT_EXPORT_NAME has no answer but size and flags, and zeros if they were not declined."""
    server = _server(flags)
    peers.feed(server, peers.option(1, b"disk"))
    assert server.outgoing() == struct.pack(">QH", 12345, 0x103) + bytes(zeroes)
    assert server.agreement is not None


@pytest.mark.parametrize("setting", [peers.contexts(b"disk"), peers.contexts(b"none"), b"junk"])
def test_contexts_are_replaced(setting: bytes) -> None:
    """The last NBD_OPT_SET_META_CONTEXT counts, also when it selects nothing or fails."""
    server = _server()
    peers.feed(server, peers.option(8) + peers.option(10, peers.contexts(b"disk", b"base:allocation")))
    peers.feed(server, peers.option(10, setting) + peers.option(7, peers.go(b"disk")))
    assert server.agreement is not None
    assert server.agreement.context is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\0\4disk",
        b"\0\0\0\x05disk\0\0",
        b"\xff\xff\xff\xffdisk\0\0",
        b"\0\0\0\4disk\0\1",
        b"\0\0\0\4disk\0\0\0",
        b"\0\0\0\4disk\xff\xff\0\0",
    ],
)
def test_b3_malformed_go(payload: bytes) -> None:
    """B3: lengths inside of an option that do not fit it are invalid, and the connection stays."""
    server = _server()
    assert peers.feed(server, peers.option(7, payload)) == b""
    assert _said(server) == [(7, _INVALID, b"")]
    assert server.wanted() is not None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\0\4disk",
        b"\0\0\0\4disk\0\0\0\1",
        b"\0\0\0\4disk\xff\xff\xff\xff",
        b"\0\0\0\4disk\0\0\0\1\xff\xff\xff\xffbase:",
        b"\0\0\0\4disk\0\0\0\0\0",
        b"\xff\xff\xff\xff",
    ],
)
def test_b3_malformed_contexts(payload: bytes) -> None:
    """B3: the same for lists of contexts, however many they claim to have."""
    server = _server()
    assert peers.feed(server, peers.option(8) + peers.option(9, payload)) == b""
    assert _said(server)[1:] == [(9, _INVALID, b"")]


def test_b3_longest_option() -> None:
    """B3: an option of 4 KiB is read; here it is one that nobody knows."""
    server = _server()
    assert peers.feed(server, peers.option(4711, bytes(4096))) == b""
    assert _said(server) == [(4711, _UNSUP, b"")]


@pytest.mark.parametrize("length", [4097, 65536])
def test_b3_long_option(length: int) -> None:
    """B3: an option beyond 4 KiB is skipped and told to be too big; the next one is understood."""
    server = _server()
    assert peers.feed(server, peers.option(7, bytes(length)) + peers.option(8)) == b""
    assert _said(server) == [(7, _TOO_BIG, b""), (8, _ACK, b"")]


@pytest.mark.parametrize(("about", "length"), [(7, 65537), (7, 1 << 31), (7, 0xFFFFFFFF), (1, 4097), (99, 1 << 31)])
def test_b3_endless_option(about: int, length: int) -> None:
    """B3: an option that is too long to be skipped ends the connection, before any of it was read."""
    server = _server()
    with pytest.raises(wire.ProtocolError):
        peers.feed(server, struct.pack(">QII", 0x49484156454F5054, about, length))
    assert server.agreement is None


def test_b3_flood_of_options() -> None:
    """B3: after 32 wrong options, or 256 that lead nowhere, the server hangs up."""
    for wanted, allowed in ((peers.option(4711), 31), (peers.option(7, bytes(5000)), 31), (peers.option(8), 255)):
        server = _server()
        assert peers.feed(server, wanted * allowed) == b""
        with pytest.raises(wire.ProtocolError):
            peers.feed(server, wanted)


@pytest.mark.parametrize("flags", [0, 2, 4, 7, 0xFFFFFFFF])
def test_server_wants_fixed_newstyle(flags: int) -> None:
    """Client flags that nobody knows, or without fixed newstyle, end the connection."""
    with pytest.raises(wire.ProtocolError):
        _server(flags)


def test_server_lets_go() -> None:
    """NBD_OPT_ABORT is acknowledged and ends the handshake; a foreign magic or export ends it without."""
    server = _server()
    peers.feed(server, peers.option(2, b"bye"))
    assert _said(server) == [(2, _ACK, b"")]
    assert (server.wanted(), server.agreement) == (None, None)
    for sent in (b"x" * 16, b"x" + peers.option(8)[1:], peers.option(1, b"none")):
        server = _server()
        with pytest.raises(wire.ProtocolError):
            peers.feed(server, sent)


def test_noise_ends_in_an_agreement_or_one_error(seed: int) -> None:
    """Random changes of good conversations, in random splits: an agreement, more to come, or ProtocolError."""
    rng = np.random.default_rng(seed)
    to_client = peers.greeting() + _STRUCTURED + _BASE + _blocks(512, 4096, 1 << 20) + _export() + _END
    to_server = b"\0\0\0\3" + peers.option(8) + peers.option(9, peers.contexts(b"disk", b"base:"))
    to_server += peers.option(10, peers.contexts(b"disk", b"base:allocation")) + peers.option(7, peers.go(b"disk", 3))
    ended = 0
    for _ in range(1500):
        for machine, sent in ((handshake.Client("disk"), to_client), (handshake.Server("disk", 99), to_server)):
            noisy = bytearray(sent)
            for _ in range(int(rng.integers(1, 4))):
                noisy[rng.integers(len(noisy))] = int(rng.choice([0, 1, 0x80, 0xFF]))
            try:
                peers.feed(machine, bytes(noisy), int(rng.integers(1, 40)))
            except wire.ProtocolError:
                ended += 1
                assert machine.agreement is None
    assert ended > 100
