"""Transmission: what a server makes of requests, and the bytes of its replies."""

from __future__ import annotations

import pytest

from tests import nbd_peers as peers
from vimgvc.disk import extents
from vimgvc.nbd import handshake, transmission, wire

_SIZE = 1 << 20
_FULL = handshake.Agreement(_SIZE, 0x183, structured=True, context=1)
_PLAIN = handshake.Agreement(_SIZE, 0x103, structured=False, context=None)
_D, _Z, _H = extents.Kind.DATA, extents.Kind.ZERO, extents.Kind.HOLE


def _requests(sent: bytes, agreed: handshake.Agreement = _FULL, step: int = 1 << 20) -> list[transmission.Request]:
    server = transmission.Server(agreed)
    peers.feed(server, sent, step)
    return list(server.requests)


@pytest.mark.parametrize("step", [1, 27, 1 << 20])
def test_server_understands(step: int) -> None:
    """Requests come out in order, with the payload of writes skipped, until the client says goodbye."""
    sent = peers.request(peers.READ, 512, 1024, cookie=(1 << 64) - 1)
    sent += (
        peers.request(peers.WRITE, 0, 100_000) + peers.request(peers.READ, 0, 1) * (100_000 // 28) + bytes(100_000 % 28)
    )
    sent += peers.request(peers.BLOCK_STATUS, 0, _SIZE, flags=8) + peers.request(peers.READ, 0, 65536, flags=4)
    server = transmission.Server(_FULL)
    assert peers.feed(server, sent + peers.request(peers.DISC) + b"more", step) == b"more"
    assert list(server.requests) == [
        transmission.Request(peers.READ, (1 << 64) - 1, 512, 1024, 0),
        transmission.Request(peers.WRITE, 7, 0, 100_000, 0, wire.Error.EPERM),
        transmission.Request(peers.BLOCK_STATUS, 7, 0, _SIZE, 8),
        transmission.Request(peers.READ, 7, 0, 65536, 4),
    ]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (peers.request(peers.READ, 0, 0xFFFFFFFF), "EINVAL"),  # B2
        (peers.request(peers.READ, (1 << 64) - 1, 2), "EINVAL"),
        (peers.request(peers.READ, (1 << 64) - 4096, 4096), "EINVAL"),
        (peers.request(peers.READ, _SIZE, 1), "EINVAL"),
        (peers.request(peers.READ, _SIZE - 1, 2), "EINVAL"),
        (peers.request(peers.READ, 0, 0), "EINVAL"),
        (peers.request(peers.READ, 0, 512, flags=1), "EINVAL"),
        (peers.request(peers.READ, 0, 512, flags=8), "EINVAL"),
        (peers.request(peers.READ, 0, 512, flags=0x8000), "EINVAL"),
        (peers.request(peers.READ, 0, (1 << 19) + 1, flags=4), "EOVERFLOW"),  # B4
        (peers.request(peers.BLOCK_STATUS, 0, _SIZE + 1), "EINVAL"),
        (peers.request(peers.BLOCK_STATUS, 0, 0), "EINVAL"),
        (peers.request(peers.BLOCK_STATUS, 0, 512, flags=4), "EINVAL"),
        (peers.request(peers.TRIM, 0, 0xFFFFFFFF), "EPERM"),  # B5
        (peers.request(peers.WRITE_ZEROES, 0, 512, flags=2), "EPERM"),
        (peers.request(peers.WRITE, 0, 4) + b"data", "EPERM"),
        (peers.request(peers.WRITE, (1 << 64) - 1, 0), "EPERM"),
        (peers.request(peers.FLUSH), "EINVAL"),
        (peers.request(peers.CACHE, 0, 512), "EINVAL"),
        (peers.request(8, 0, 512), "EINVAL"),
        (peers.request(0xFFFF, 0, 512), "EINVAL"),
    ],
)
def test_server_finds_mistakes(sent: bytes, error: str) -> None:
    """B2, B4, B5: what cannot be done has its error, and the next request is understood."""
    found = _requests(sent + peers.request(peers.READ, 0, 512))
    assert [request.error for request in found] == [wire.Error[error], None]


def test_server_keeps_to_the_agreement() -> None:
    """B7: what was not agreed is refused: extents without context, DF without structured replies."""
    found = _requests(peers.request(peers.BLOCK_STATUS, 0, 512) + peers.request(peers.READ, 0, 512, flags=4), _PLAIN)
    assert [request.error for request in found] == [wire.Error.EINVAL] * 2


def test_b2_longest_read() -> None:
    """B2: 32 MiB are answered, a byte more is not."""
    agreed = handshake.Agreement(1 << 40, 0x183, structured=True, context=1)
    sent = peers.request(peers.READ, 0, 32 << 20) + peers.request(peers.READ, 0, (32 << 20) + 1)
    assert [request.error for request in _requests(sent, agreed)] == [None, wire.Error.EINVAL]


@pytest.mark.parametrize("sent", [b"x" * 28, b"\x25\x60\x95\x14" + bytes(24), b"\x21\xe4\x1c\x71" + bytes(24)])
def test_server_hangs_up(sent: bytes) -> None:
    """What is no request ends the connection, because nobody knows where the next one begins."""
    with pytest.raises(wire.ProtocolError):
        _requests(sent)


@pytest.mark.slow
def test_b5_endless_write() -> None:
    """B5: the payload of a write is skipped up to 32 MiB; a longer one ends the connection."""
    server = transmission.Server(_FULL)
    peers.feed(server, peers.request(peers.WRITE, 0, 32 << 20) + bytes(32 << 20) + peers.request(peers.READ, 0, 1))
    assert len(server.requests) == 2
    with pytest.raises(wire.ProtocolError):
        _requests(peers.request(peers.WRITE, 0, (32 << 20) + 1))


def test_server_speaks_as_the_specification_shows() -> None:
    """Each reply of the server, byte for byte."""
    server = transmission.Server(_FULL)
    (request,) = _requests(peers.request(peers.READ, 512, 1024))
    assert server.data(request, 512, 4, done=False) + b"abcd" == peers.data(512, b"abcd", done=False)
    assert server.hole(request, 516, 1020, done=True) == peers.hole(516, 1020)
    assert server.error(request, wire.Error.EIO, "gone", 600) == peers.failure(5, b"gone", 600)
    assert server.error(request, wire.Error.EINVAL) == peers.failure(22)
    assert len(server.error(request, wire.Error.EIO, "x" * 10_000)) == 20 + 6 + 4096
    items = [extents.Extent(512, 100, _D), extents.Extent(612, 100, _Z), extents.Extent(712, 824, _H)]
    assert server.status(request, iter(items)) == peers.status((100, 0), (100, 2), (824, 3))
    (one,) = _requests(peers.request(peers.BLOCK_STATUS, 512, 1024, flags=8))
    assert server.status(one, iter(items)) == peers.status((100, 0))
    plain = transmission.Server(_PLAIN)
    assert plain.data(request, 512, 1024, done=True) == peers.simple()
    assert plain.error(request, wire.Error.EIO, "gone", 600) == peers.simple(5)
