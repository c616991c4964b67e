"""Listings that a server, or something on the way, gets wrong are errors: never a shorter list, never an empty one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.servers import http_proxy, s3_places
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import s3

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server

_NAMES = sorted(backend.entry(blind, sequence) for blind in range(4) for sequence in range(4))
Faulty = tuple[s3.S3Backend, http_proxy.HttpProxy, s3_places.Place]


@pytest.fixture(scope="module")
def filled(rgw: s3_places.Server) -> s3_places.Place:
    """A place with the blobs `_NAMES`."""
    place = rgw.place()
    for name in _NAMES:
        place.put(name, b"x")
    return place


@pytest.fixture
def faulty(rgw: s3_places.Server, filled: s3_places.Place) -> Iterator[Faulty]:
    """A backend that lists by five, through a proxy."""
    with rgw.through_proxy() as (place, wire):
        same = s3_places.Place(rgw, filled.prefix, place.endpoint)
        yield same.backend(page=5), wire, same


def _without(pattern: bytes, by: bytes = b"") -> Callable[[bytes], bytes]:
    return lambda body: re.sub(pattern, by, body)


def test_n6_pages(faulty: Faulty) -> None:
    """N6: a listing of several pages has everything once, each page asked for again when it fails."""
    there, wire, _ = faulty
    for number in range(3):
        wire.on("GET", "", http_proxy.error(503, "SlowDown"), times=1)
        wire.on("GET", "continuation-token", http_proxy.cut(300 + number, ending="reset"), times=1)
    assert backend.names(there.list("refs")) == _NAMES
    assert backend.names(there.list(f"refs/{2:032x}")) == [name for name in _NAMES if f"/{2:032x}/" in name]


_BROKEN = {
    "error": http_proxy.error(500, "InternalError"),
    "denied": http_proxy.error(403, "AccessDenied"),
    "not there": http_proxy.answer(404),
    "nothing": http_proxy.answer(200),
    "login page": http_proxy.login_page(),
    "half": http_proxy.change(lambda body: body[: len(body) // 2]),
    "another document": http_proxy.answer(200, b"<Error><Code>InternalError</Code></Error>"),
    "an empty document": http_proxy.answer(200, b"<ListBucketResult></ListBucketResult>"),
    "a prefix of another": http_proxy.change(_without(b"<Prefix>[^<]*</Prefix>", b"<Prefix>other</Prefix>")),
    "an entry less": http_proxy.change(lambda body: re.sub(b"<Contents>.*?</Contents>", b"", body, count=1)),
    "no word of more": http_proxy.change(_without(b"<IsTruncated>[^<]*</IsTruncated>")),
    "no way to more": http_proxy.change(_without(b"<NextContinuationToken>[^<]*</NextContinuationToken>")),
    "no sizes": http_proxy.change(_without(b"<Size>[^<]*</Size>")),
    "sizes that are none": http_proxy.change(_without(b"<Size>[^<]*</Size>", b"<Size>-1</Size>")),
    "a declaration": http_proxy.change(lambda body: b'<!DOCTYPE a [<!ENTITY x "y">]>' + body[body.index(b"<List") :]),
}


@pytest.mark.parametrize("broken", sorted(_BROKEN))
@pytest.mark.parametrize("page", ["", "continuation-token"], ids=["first", "later"])
def test_n6_n7_a_page_that_is_none(faulty: Faulty, broken: str, page: str) -> None:
    """N6, N7: a page that cannot be had, first or later, fails the listing."""
    there, wire, _ = faulty
    wire.on("GET", page, _BROKEN[broken])
    with pytest.raises(errors.RemoteError) as raised:
        list(there.list("refs"))
    assert raised.value.exit_code == 25
    assert raised.value.hint


def test_n6_circles(faulty: Faulty) -> None:
    """N6: a listing that leads back to where it was ends with an error, not never."""
    there, wire, _ = faulty
    first: list[http_proxy.Response] = []

    def again(request: http_proxy.Request, forward: http_proxy.Forward) -> http_proxy.Response:
        if not first:
            first.append(forward(request))
        return first[0]

    wire.on("GET", "", again)
    with pytest.raises(errors.RemoteError, match="circles"):
        list(there.list("refs"))
    assert len(wire.seen) <= 3


def test_n6_empty_pages_without_end(faulty: Faulty) -> None:
    """N6: pages without names that promise more are no listing either."""
    there, wire, _ = faulty
    wire.on(
        "GET", "", http_proxy.change(lambda body: re.sub(b"<Contents>.*</Contents>|<KeyCount>.*</KeyCount>", b"", body))
    )
    with pytest.raises(errors.RemoteError):
        list(there.list("refs"))


_HOSTILE = [
    "../../etc/passwd",
    "refs/../config",
    "refs/" + "a" * 70_000,
    "refs/%00",
    f"refs/{1:032x}/{1:016x}/x",
    f"refs/{1:032x}/{1:016X}A",
    "refs/",
    "refs/\N{HORIZONTAL ELLIPSIS}",
    f"index/{'a' * 64}",
]


def test_n13_hostile_names(rgw: s3_places.Server) -> None:
    """N13: names that are none of ours are in no listing, whatever they look like and wherever they are."""
    with rgw.through_proxy() as (place, wire):
        good = backend.entry(9, 1)
        keys = sorted({good, *_HOSTILE})
        entries = "".join(f"<Contents><Key>{place.prefix}/{key}</Key><Size>7</Size></Contents>" for key in keys)
        entries += "<Contents><Key>zzz</Key><Size>7</Size></Contents>"
        body = (
            f"<ListBucketResult><Prefix>{place.prefix}/refs/</Prefix><IsTruncated>false</IsTruncated>"
            f"{entries}</ListBucketResult>"
        )
        wire.on("GET", "", http_proxy.answer(200, body.encode()))
        assert [(item.name, item.size) for item in place.backend().list("refs")] == [(good, 7)]


def test_n14_oversized_answers(rgw: s3_places.Server) -> None:
    """N14: an answer that says it has a tebibyte, or a list or a head without end, is not read."""
    with rgw.through_proxy() as (place, wire):
        there = place.backend()
        place.put(backend.pack(1), b"0123456789")
        wire.on("GET", "/packs/", http_proxy.headers(content_length=str(1 << 40)))
        with pytest.raises(errors.IntegrityError, match="impossible size"):
            there.get(backend.pack(1))
        with pytest.raises(errors.RemoteError):
            there.get(backend.pack(1), 2, 3)
        wire.on("GET", "", http_proxy.answer(200, b"<ListBucketResult>" + b" " * (9 << 20)))
        with pytest.raises(errors.RemoteError, match="more than"):
            list(there.list("packs"))
        wire.forget()
        wire.on("HEAD", "", http_proxy.headers(**{f"x_{number}": "y" for number in range(2000)}))
        with pytest.raises(errors.RemoteError, match="not HTTP"):
            there.size(backend.pack(1))
        wire.forget()
        wire.on("HEAD", "", http_proxy.headers(etag="y" * 100_000))
        with pytest.raises(errors.RemoteError, match="not HTTP"):
            there.size(backend.pack(1))
