"""Places are tried before anything is written to them, and refused where two writers could meet unseen."""

from __future__ import annotations

import base64
import pathlib

import pytest

from tests.servers import http_proxy, s3_places
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import protocol, s3
from vimgvc.repo import places

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server


def _trials(wire: http_proxy.HttpProxy) -> int:
    return sum(request.method == "PUT" and "/probe/" in request.target for request in wire.seen)


def test_d19_rclone_is_refused(rclone: s3_places.Server, tmp_path: pathlib.Path) -> None:
    """D19, N9: a server that overwrites whatever it is told is refused by `init` and by the first writing."""
    place, memory = rclone.place(), places.Places(tmp_path)
    with pytest.raises(errors.RemoteError, match="ignores If-None-Match: two writers would overwrite") as raised:
        s3.open_backend(place.url, create=True, environ=rclone.environ, memory=memory)
    assert (raised.value.kind, raised.value.exit_code) == ("unsafe", 25)
    assert raised.value.hint
    assert memory.recall(raised.value.where) is None
    with pytest.raises(errors.RemoteError, match="ignores If-None-Match"):
        place.backend(memory).put(protocol.CONFIG, [b"x"])
    assert place.keys() == {}


def test_d19_swift_is_refused(swift: s3_places.Server, tmp_path: pathlib.Path) -> None:
    """D19: OpenStack Swift looks, then writes: it keeps the condition for those only that come one after the other."""
    place = swift.place()
    with pytest.raises(errors.RemoteError, match="not for those that come at the same time"):
        s3.open_backend(place.url, create=True, environ=swift.environ, memory=places.Places(tmp_path))
    assert place.keys() == {}


def test_swift_is_understood(swift: s3_places.Server) -> None:
    """What another server says differently is understood: everything but the one promise holds there."""
    place = swift.place()
    there = place.backend(page=3)
    blobs = {backend.pack(number): bytes([number]) * number * 999 for number in range(1, 8)}
    for name, blob in blobs.items():
        assert there.put(name, [blob])
        assert not there.put(name, [b"other"])
        assert there.get(name) == blob
        assert there.get(name, 5, 100) == blob[5:105]
    assert {item.name: item.size for item in there.list("packs")} == {name: len(blob) for name, blob in blobs.items()}
    with pytest.raises(errors.IntegrityError):
        there.get(backend.pack(1), 0, 1000)
    with pytest.raises(errors.NotFound):
        there.get(backend.pack(77))
    there.set_aside(backend.pack(1))
    there.delete(backend.pack(2))
    there.delete_all([backend.pack(3), backend.pack(4), backend.pack(77)])
    assert backend.names(there.list("packs")) == sorted(backend.pack(number) for number in (5, 6, 7))
    assert place.content(f"quarantine/{backend.pack(1)}") == blobs[backend.pack(1)]
    there.sync()


def test_d19_what_was_found_is_remembered(rgw: s3_places.Server, tmp_path: pathlib.Path) -> None:
    """D19: a place is tried by the first that writes there, not again by the same user, and its traces are removed."""
    memory = places.Places(tmp_path)
    with rgw.through_proxy() as (place, wire):
        first = place.backend(memory)
        assert not first.capabilities.locks
        with pytest.raises(errors.NotFound):
            first.get(protocol.CONFIG)
        assert _trials(wire) == 0
        first.put(protocol.CONFIG, [b"x"])
        assert _trials(wire) > 8
        assert list(place.keys()) == [protocol.CONFIG]
        assert memory.recall(first.url) is not None
        wire.forget()
        for there in (first, place.backend(memory)):
            there.put(backend.pack(1), [b"x"])
        assert [request.method for request in wire.seen] == ["PUT", "PUT"]


@pytest.mark.parametrize("status", [200, 501])
def test_n9_conditions_that_get_lost(rgw: s3_places.Server, status: int) -> None:
    """N9: where something on the way drops the condition, or the server does not know it, nothing is written."""

    def drop(request: http_proxy.Request, forward: http_proxy.Forward) -> http_proxy.Response:
        if status != 200:
            return http_proxy.error(status, "NotImplemented")(request, forward)
        tag = request.headers["content-md5"]
        md5 = base64.b64decode(tag).hex()
        return http_proxy.Response(200, {"etag": f'"{md5}"', "content-length": "0"})

    with rgw.through_proxy() as (place, wire):
        wire.on("PUT", "/probe/", drop)
        with pytest.raises(errors.RemoteError) as raised:
            place.backend(s3_places.Remembered()).put(protocol.CONFIG, [b"x"])
        assert raised.value.kind in ("unsafe", "refused")
        assert not any(request.target.endswith("/config") for request in wire.seen)


def test_stale_trials_are_removed(rgw: s3_places.Server) -> None:
    """What an interrupted trial left is removed when it is a week old; nothing else ever is."""
    place = rgw.place()
    there = place.backend()
    place.put("probe/left", b"x")
    there.put(backend.pack(1), [b"x"])
    assert there.remove_stale(0.0) == 0
    assert there.remove_stale(4e9) == 1
    assert list(place.keys()) == [backend.pack(1)]


class TestInit:
    def test_room(self, rgw: s3_places.Server) -> None:
        """A repository is made where none is, also beside others in the bucket, and opened where one is."""
        places_ = [rgw.place(), rgw.place()]
        for place in places_:
            made = s3.open_backend(place.url, create=True, environ=rgw.environ, memory=s3_places.Tried())
            made.put(protocol.CONFIG, [place.prefix.encode()])
        for place in places_:
            found = s3.open_backend(place.url, environ=rgw.environ)
            assert found.get(protocol.CONFIG) == place.prefix.encode()

    @pytest.mark.parametrize("name", [protocol.CONFIG, f"keys/{1:032x}-0", backend.pack(1), backend.entry(1, 1)])
    def test_occupied(self, rgw: s3_places.Server, name: str) -> None:
        """Where anything of a repository is, none is made, and nothing is changed."""
        place = rgw.place()
        place.put(name, b"there")
        with pytest.raises(errors.UsageError) as raised:
            s3.open_backend(place.url, create=True, environ=rgw.environ)
        assert raised.value.hint
        assert place.keys() == {name: 5}

    def test_nothing_there(self, rgw: s3_places.Server) -> None:
        """A place without a repository is none; one without a config is one as long as it has a key (R15)."""
        place = rgw.place()
        place.put("letter", b"dear")
        with pytest.raises(errors.NoRepository):
            s3.open_backend(place.url, environ=rgw.environ)
        place.put(f"keys/{1:032x}-0", b"key")
        assert backend.names(s3.open_backend(place.url, environ=rgw.environ).list("keys")) == [f"keys/{1:032x}-0"]

    def test_no_bucket(self, rgw: s3_places.Server) -> None:
        """A bucket that is not there is told, with what to do; it is not made."""
        url = f"s3://vimgvc-not-there?endpoint={rgw.client.endpoint}"
        for create in (False, True):
            with pytest.raises(errors.RemoteError, match="there is no bucket vimgvc-not-there") as raised:
                s3.open_backend(url, create=create, environ=rgw.environ)
            assert raised.value.exit_code == 25
