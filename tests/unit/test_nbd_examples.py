"""The conversation of specs/nbd.md is what the two machines have with each other."""

from __future__ import annotations

import doctest
import pathlib
from typing import Any

from tests import nbd_peers as peers
from vimgvc.disk import extents
from vimgvc.nbd import handshake, transmission, wire

_SPEC = pathlib.Path(__file__).parents[2] / "specs" / "nbd.md"


def _made() -> dict[str, Any]:
    """What the examples make; that they are true is tested with those of the other specifications."""
    names: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples(_SPEC.read_text()):
        exec(compile(example.source, str(_SPEC), "single"), names)
    return names


def test_handshake_is_the_one_of_the_specification() -> None:
    """Each side sends the bytes of the example when it hears those of the other."""
    made = _made()
    client, server = handshake.Client("disk"), handshake.Server("disk", 1 << 20)
    from_client, from_server = b"", b""
    while server.wanted() is not None:
        from_server += (said := server.outgoing())
        peers.feed(client, said)
        from_client += (said := client.outgoing())
        peers.feed(server, said)
    from_server += (said := server.outgoing())
    peers.feed(client, said)
    assert from_client == made["from_client"]
    assert from_server == made["from_server"]
    assert client.agreement == server.agreement == handshake.Agreement(1 << 20, 0x183, structured=True, context=1)


def test_transmission_is_the_one_of_the_specification() -> None:
    """The example's requests and replies, made by one side and understood by the other."""
    made = _made()
    agreed = handshake.Agreement(made["size"], 0x183, structured=True, context=1)
    client, server, room = transmission.Client(agreed), transmission.Server(agreed), bytearray(8)
    (read, reading), (question, asking) = client.read(4096, memoryview(room)), client.status(0, made["size"])
    assert read + question + client.disconnect() == made["requests"]
    assert peers.feed(server, made["requests"]) == b""
    assert server.wanted() is None

    first, second = server.requests
    told = [extents.Extent(0, 65536, extents.Kind.DATA), extents.Extent(65536, 983040, extents.Kind.HOLE)]
    head = server.data(first, first.offset, first.length, done=True)
    assert head + b"8 bytes." + server.status(second, told) == made["replies"]
    assert server.error(first, wire.Error.EIO, "it is damaged", 4096) == made["damaged"]

    assert peers.feed(client, made["replies"]) == b""
    assert (reading.done, bytes(room)) == (True, b"8 bytes.")
    assert list(asking.found or []) == told
    client = transmission.Client(agreed)
    _, failing = client.read(4096, memoryview(room))
    assert peers.feed(client, made["damaged"]) == b""
    assert (failing.done, failing.error) == (True, (5, 4096, "it is damaged"))
