"""S3 rows of the catalogue of faults, between a client and a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.parse
from collections.abc import Iterator

import numpy as np
import pytest

from tests.servers import http_proxy, proxy, s3_places
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import protocol, s3

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server

_NAME = backend.pack(1)
_BLOB = bytes(range(256)) * 1000


@pytest.fixture
def faulty(rgw: s3_places.Server) -> Iterator[tuple[s3.S3Backend, http_proxy.HttpProxy, s3_places.Place]]:
    """A backend whose requests go through a proxy, and the place behind it."""
    with rgw.through_proxy() as (place, wire):
        yield place.backend(), wire, place


Faulty = tuple[s3.S3Backend, http_proxy.HttpProxy, s3_places.Place]


@contextlib.contextmanager
def _tcp(server: s3_places.Server) -> Iterator[tuple[s3_places.Place, proxy.Proxy]]:
    parts = urllib.parse.urlsplit(server.client.endpoint)
    with proxy.Proxy(parts.hostname or "", parts.port or 80) as wire:
        yield server.place(f"http://127.0.0.1:{wire.port}"), wire


@pytest.mark.parametrize("kind", ["reset", "end", "flip"])
@pytest.mark.parametrize("side", ["up", "down"])
def test_n1_n4_connections_fail_at_any_byte(
    rgw: s3_places.Server, seed: int, kind: proxy.Kind, side: proxy.Side
) -> None:
    """N1, N4: lost or changed at any byte of a request or an answer, a blob is put once and read as it is."""
    rng = np.random.default_rng(seed)
    with _tcp(rgw) as (place, wire):
        for number in range(6):
            name = backend.pack(number)
            blob = rng.bytes(60_000)
            # what is flipped in a head may make another request of it: of bodies every bit counts
            low, high = (1_500, 60_000) if kind == "flip" else (0, 61_000)
            at = int(rng.integers(low, high)) if side == "up" else int(rng.integers(0, 150))
            with contextlib.closing(place.backend()) as there:
                wire.faults.append(proxy.Fault(kind, "up", at) if side == "up" else None)
                assert there.put(name, [blob])
            with contextlib.closing(place.backend()) as there:
                wire.faults.append(proxy.Fault(kind, "down", int(rng.integers(low, high))) if side == "down" else None)
                assert there.get(name) == blob
            wire.faults.clear()
            assert place.content(name) == blob


def test_n1_a_lost_answer_to_a_creation(faulty: Faulty) -> None:
    """N1: whoever's answer was lost is told whether the name is its own, by what is there."""
    there, wire, place = faulty
    wire.on("PUT", "/packs/", http_proxy.lost_reply(), times=1)
    assert there.put(_NAME, [_BLOB])
    wire.on("PUT", "/packs/", http_proxy.silence("reset"), times=1)
    assert not there.put(_NAME, [b"other"])
    there.sync()
    assert place.content(_NAME) == _BLOB


@pytest.mark.parametrize("made", [False, True])
def test_n1_doubt_is_for_good(faulty: Faulty, made: bool) -> None:
    """N1: when it stays unknown whether a blob is there, that is an error, and this object never again syncs."""
    there, wire, _ = faulty
    wire.on("PUT", "", http_proxy.lost_reply() if made else http_proxy.silence("reset"))
    wire.on("HEAD", "", http_proxy.silence("reset"))
    with pytest.raises(errors.RemoteError):
        there.put(_NAME, [_BLOB])
    wire.forget()
    there.put(backend.pack(2), [_BLOB])
    for _ in range(2):
        with pytest.raises(errors.RemoteError, match=r"whether .* is stored is not known"):
            there.sync()


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_n2_stalls(faulty: Faulty, method: str) -> None:
    """N2: a server that falls silent is left and asked again."""
    _, wire, place = faulty
    there = place.backend(times=s3_places.SHORT)
    place.put(backend.pack(2), _BLOB)
    wire.on(method, "", http_proxy.silence("stall"), times=1)
    assert there.put(_NAME, [_BLOB])
    assert there.size(backend.pack(2)) == len(_BLOB)
    assert there.get(backend.pack(2)) == _BLOB


@pytest.mark.parametrize("side", ["up", "down"])
def test_n2_stalls_within_a_body(rgw: s3_places.Server, side: proxy.Side) -> None:
    """N2: a stall in the middle of a body is left too, in either direction."""
    blob = bytes(9 << 20)  # more than all buffers on the way
    with _tcp(rgw) as (place, wire), contextlib.closing(place.backend(times=s3_places.SHORT)) as there:
        if side == "down":
            place.server.client.request("PUT", f"{place.server.bucket}/{place.prefix}/{_NAME}", body=blob)
        wire.faults.append(proxy.Fault("stall", side, 1 << 20))
        assert there.put(_NAME, [blob]) if side == "up" else there.get(_NAME) == blob


def _longer_than_it_is(request: http_proxy.Request, forward: http_proxy.Forward) -> http_proxy.Response:
    said = forward(request)
    length = str(len(said.body) + 5)
    return http_proxy.Response(said.status, {**said.headers, "content-length": length}, said.body, "close")


#: What no answer to a whole blob has, and so does not harm one.
_MEANINGLESS = ("range", "no range")
_WRONG = {
    "short": http_proxy.cut(1000, ending="close"),
    "reset": http_proxy.cut(1000, ending="reset"),
    "cut": http_proxy.change(lambda body: body[:1000]),
    "longer": http_proxy.change(lambda body: body + b"more"),
    "length": _longer_than_it_is,
    "compressed": http_proxy.headers(content_encoding="gzip"),
    "range": http_proxy.headers(content_range="bytes 0-1/2"),
    "no range": http_proxy.headers(content_range=None),
    "empty": http_proxy.answer(200),
    "login page": http_proxy.login_page(),
    "login page with 206": http_proxy.login_page(206),
}


@pytest.mark.parametrize("wrong", sorted(_WRONG))
@pytest.mark.parametrize("part", [(0, None), (10, 200_000)], ids=["whole", "part"])
def test_n3_n7_bodies_that_are_not(faulty: Faulty, wrong: str, part: tuple[int, int | None]) -> None:
    """N3, N7: a body that is short, long, packed or another page is asked for again, and in the end an error."""
    there, wire, place = faulty
    place.put(_NAME, _BLOB)
    expected = _BLOB[10:200_010] if part[1] else _BLOB
    wire.on("GET", "", _WRONG[wrong], times=1)
    assert there.get(_NAME, *part) == expected
    if part[1] is None and wrong in ("cut", "longer", *_MEANINGLESS):
        return  # another blob, for all that can be seen here, or nothing that matters
    wire.on("GET", "", _WRONG[wrong])
    with pytest.raises((errors.RemoteError, errors.IntegrityError)) as raised:
        there.get(_NAME, *part)
    assert raised.value.hint


def test_n4_bits_that_flip_on_the_way(faulty: Faulty) -> None:
    """N4: what flips once is read again; what is other each time is an error; what is so at rest is given."""
    there, wire, place = faulty
    place.put(_NAME, _BLOB)
    wire.on("GET", "", http_proxy.flip(1000), times=1)
    assert there.get(_NAME) == _BLOB
    for at in range(9):
        wire.on("GET", "", http_proxy.flip(at), times=1)
    with pytest.raises(errors.IntegrityError, match="other bytes each time"):
        there.get(_NAME)
    wire.forget()
    wire.on("GET", "", http_proxy.flip(1000))
    assert there.get(_NAME) != _BLOB


@pytest.mark.parametrize("tag", [None, '"not-a-digest"', f'"{"0" * 32}"'])
def test_n5_put_acknowledged_but_absent(faulty: Faulty, tag: str | None) -> None:
    """N5: a put that is answered well without being done is noticed, done again, and in the end an error."""
    there, wire, place = faulty
    said = http_proxy.answer(200, b"", **({"etag": tag} if tag else {}))
    wire.on("PUT", "/packs/", said, times=1)
    assert there.put(_NAME, [_BLOB])
    assert place.content(_NAME) == _BLOB
    wire.on("PUT", "/packs/", said)
    with pytest.raises(errors.RemoteError):
        there.put(backend.pack(2), [_BLOB])


@pytest.mark.parametrize("other", [b"older", _BLOB[:-1] + b"x"], ids=["size", "content"])
def test_n5_other_content_is_stored(faulty: Faulty, other: bytes) -> None:
    """N5: where something else was stored than what was put, by whatever mistake, the put fails."""
    there, wire, place = faulty

    def store(request: http_proxy.Request, forward: http_proxy.Forward) -> http_proxy.Response:
        place.put(_NAME, other)
        return http_proxy.answer(200, etag=f'"{"0" * 32}"')(request, forward)

    wire.on("PUT", "/packs/", store)
    with pytest.raises((errors.IntegrityError, errors.RemoteError)):
        there.put(_NAME, [_BLOB])


def test_n8_refusals_are_final(faulty: Faulty) -> None:
    """N8: what the server will not let pass is not tried again."""
    there, wire, place = faulty
    place.put(_NAME, _BLOB)
    for code, word in (("AccessDenied", "s3:GetObject"), ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY")):
        wire.forget()
        wire.on("GET", "", http_proxy.error(403, code))
        with pytest.raises(errors.RemoteError) as raised:
            there.get(_NAME)
        assert word in raised.value.hint
        assert len(wire.seen) == 1


@pytest.mark.parametrize(
    "fault", [(429, "TooManyRequests"), (503, "SlowDown"), (500, "InternalError"), (400, "BadDigest")]
)
def test_n8_what_passes_is_tried_again(faulty: Faulty, fault: tuple[int, str]) -> None:
    """N8: a busy server is asked again, a few times; in the end the error says that it is."""
    there, wire, _ = faulty
    wire.on("PUT|GET|HEAD", "", http_proxy.error(*fault), times=2)
    assert there.put(_NAME, [_BLOB])
    wire.on("GET|HEAD", "", http_proxy.error(*fault), times=2)
    assert there.get(_NAME) == _BLOB
    wire.forget()
    wire.on("GET", "", http_proxy.error(*fault))
    with pytest.raises(errors.RemoteError, match=fault[1]):
        there.get(_NAME)
    assert len(wire.seen) == s3_places.QUICK.tries


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_n8_redirects_are_not_followed(faulty: Faulty, status: int) -> None:
    """N8: no request goes, with its signature, to where an answer points; the hint has the region that it names."""
    there, wire, _ = faulty
    with proxy.Proxy("127.0.0.1", wire.port) as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/"
        wire.on("", "", http_proxy.answer(status, location=location, x_amz_bucket_region="eu-north-1"))
        wire.on("GET|PUT|HEAD", "", http_proxy.answer(status, location=location, x_amz_bucket_region="eu-north-1"))
        for use in (lambda: there.get(_NAME), lambda: there.put(_NAME, [b"x"]), lambda: list(there.list("packs"))):
            with pytest.raises(errors.RemoteError) as raised:
                use()
            assert "region=eu-north-1" in raised.value.hint
        assert elsewhere.carried == []


def test_n9_conflicts(faulty: Faulty) -> None:
    """N9: 412 says that the name is taken, 409 that it has to be asked again."""
    there, wire, _ = faulty
    wire.on("PUT", "", http_proxy.error(409, "ConditionalRequestConflict"), times=2)
    assert there.put(_NAME, [_BLOB])
    assert not there.put(_NAME, [_BLOB])
    there.sync()


def test_n10_no_upload_in_parts(faulty: Faulty) -> None:
    """N10: a pack of full size is one request, so that no part can be missing or be left behind."""
    there, wire, _ = faulty
    assert there.put(_NAME, [bytes(33 << 20)])
    assert [(request.method, request.target.partition("?")[2]) for request in wire.seen] == [("PUT", "")]


def test_n10_an_error_with_status_200(faulty: Faulty) -> None:
    """N10: a copy that failed with status 200 is noticed: nothing is removed before it is there."""
    there, wire, place = faulty
    place.put(_NAME, _BLOB)
    wire.on("PUT", "/quarantine/", http_proxy.error(200, "InternalError"))
    with pytest.raises(errors.RemoteError):
        there.set_aside(_NAME)
    assert place.content(_NAME) == _BLOB
    wire.forget()
    there.set_aside(_NAME)
    assert place.keys() == {f"quarantine/{_NAME}": len(_BLOB)}


def test_full(faulty: Faulty) -> None:
    """A quota, or a full store, is that, and not tried again."""
    there, wire, _ = faulty
    for status, code in ((403, "QuotaExceeded"), (507, "InsufficientStorage"), (507, "Other")):
        wire.forget()
        wire.on("PUT", "", http_proxy.error(status, code))
        with pytest.raises(errors.NoSpace):
            there.put(_NAME, [_BLOB])
        assert len(wire.seen) == 1


def test_d14_ctrl_c(faulty: Faulty) -> None:
    """D14: Ctrl-C ends a request of the main thread at once, however long the server is silent."""
    _, wire, place = faulty

    def interrupt(request: http_proxy.Request, forward: http_proxy.Forward) -> http_proxy.Response:
        os.kill(os.getpid(), signal.SIGINT)
        return http_proxy.Response(0, {}, b"", "stall")

    wire.on("PUT", "", interrupt)
    there = place.backend()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started this may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            there.put(_NAME, [_BLOB])
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(errors.RemoteError):
        there.sync()


def test_d14_closing_ends_requests_of_other_threads(faulty: Faulty) -> None:
    """D14: closing ends what other threads wait for, and nothing begins any more."""
    _, wire, place = faulty
    there = place.backend()

    def close(request: http_proxy.Request, forward: http_proxy.Forward) -> http_proxy.Response:
        there.close()
        return http_proxy.Response(0, {}, b"", "stall")

    wire.on("GET", "", close)
    for _ in range(2):
        with pytest.raises(errors.Interrupted):
            there.get(_NAME)
    there.close()


def test_after_a_fork(rgw: s3_places.Server) -> None:
    """A process that was forked uses connections of its own: answers never go to the other one."""
    with _tcp(rgw) as (place, wire):
        there = place.backend()
        there.put(_NAME, [b"content"])
        assert len(wire.carried) == 1
        child = os.fork()
        if child == 0:
            os._exit(there.get(_NAME) != b"content")
        assert os.waitpid(child, 0)[1] == 0
        assert len(wire.carried) == 2
        assert there.get(_NAME) == b"content"
        assert len(wire.carried) == 2


def test_removes_are_many_in_one_request(faulty: Faulty) -> None:
    """Many blobs go with one request where the server can, else one by one; absent ones are fine."""
    there, wire, place = faulty
    for can in (True, False):
        for number in range(1, 4):
            place.put(backend.pack(number), b"x")
        wire.forget()
        if not can:
            wire.on("POST", "", http_proxy.error(501, "NotImplemented"))
        there.delete_all([backend.pack(number) for number in range(5)])
        assert [request.method for request in wire.seen] == (["POST"] if can else ["POST", *["DELETE"] * 5])
        assert place.keys() == {}


def test_cost_of_reading(faulty: Faulty) -> None:
    """A read, a size and a put are one request each; a listing is one for a thousand names."""
    there, wire, _ = faulty
    there.put(_NAME, [_BLOB])
    there.get(_NAME)
    there.get(_NAME, 5, 10)
    there.size(_NAME)
    list(there.list("packs"))
    there.sync()
    assert [request.method for request in wire.seen] == ["PUT", "GET", "GET", "HEAD", "GET"]
    assert protocol.AREAS
