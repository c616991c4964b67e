"""Copies over a line that fails again and again, between repositories and a real S3 server."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests import depth, repos
from tests.remote import places
from tests.servers import proxy, s3_places
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.remote import fetch, push, refs, seeding
from vimgvc.repo import repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Faults that each verb has to live through, and how many are in the way of one try.
_POINTS, _AT_ONCE = 150 if depth.ALL else 40, 12
#: Where a connection fails: heads of requests and answers, and the bodies of all blobs but the largest.
_REACH = 40_000
#: More tries than this would be no going on but beginning again for ever.
_TRIES = 40


@pytest.fixture
def line(rgw: s3_places.Server) -> Iterator[proxy.Proxy]:
    parts = urllib.parse.urlsplit(rgw.client.endpoint)
    with proxy.Proxy(parts.hostname or "", parts.port or 80) as wire:
        yield wire


def _history(seed: int) -> repository.Repository:
    made, data = repos.create(), places.disk(seed, 400_000)
    for number in range(2):
        repos.commit(made, ("vm", bytes(places.changed(data, seed + number, 2, 5_000))))
    return made


def _at(source: repository.Repository, place: s3_places.Place) -> repository.Repository:
    return repository.Repository(place.backend(), source.config, source.unlocked, clock=source.clock)


def _faults(rng: np.random.Generator) -> list[proxy.Fault | None]:
    """For the next connections: half of them fail, at any byte, in either direction."""
    found: list[proxy.Fault | None] = []
    for _ in range(_AT_ONCE):
        side: proxy.Side = "up" if rng.integers(2) else "down"
        kind: proxy.Kind = "reset" if rng.integers(2) else "end"
        reach = _REACH if rng.integers(2) else 2_000
        found += [proxy.Fault(kind, side, int(rng.integers(reach))), None]
    return found


def _until_done(wire: proxy.Proxy, rng: np.random.Generator, work: Callable[[], None]) -> None:
    """Try until it works; what fails on the way fails as a remote that cannot be reached."""
    for _ in range(_TRIES):
        wire.faults.extend(_faults(rng))
        try:
            work()
            return
        except errors.RemoteError:
            pass
        finally:
            wire.faults.clear()
    pytest.fail(f"not done after {_TRIES} tries")


def _check(found: repository.Repository, source: repository.Repository) -> None:
    """All of it is there, and nothing dangles."""
    again = repository.Repository(found.backend, source.config, source.unlocked, clock=source.clock)
    assert again.branches()["vm"] == source.branches()["vm"]
    for back in range(2):
        assert places.restored(again, f"vm~{back}") == places.restored(source, f"vm~{back}")
    assert again.verify("data").problems == []


def _push(source: repository.Repository, far: repository.Repository) -> None:
    wishes = [refs.Wish("branch", name, name, tip) for name, tip in source.branches().items()]
    push.push(source, far, wishes, push.Options(host="host"), repos.Collector())


def test_n1_push(rgw: s3_places.Server, line: proxy.Proxy, seed: int) -> None:
    """N1: a push that loses its connections at many places ends as one that lost none, tried again or not."""
    rng = np.random.default_rng(seed)
    source = _history(seed)
    while line.struck < _POINTS:
        place = rgw.place()
        with contextlib.closing(place.backend()) as direct:
            seeding.seed(source, direct)
        bad = s3_places.Place(rgw, place.prefix, f"http://127.0.0.1:{line.port}")

        def work(bad: s3_places.Place = bad) -> None:
            far = _at(source, bad)
            with contextlib.closing(far.backend):
                _push(source, far)

        _until_done(line, rng, work)
        with contextlib.closing(place.backend()) as direct:
            _check(places.far(source, direct), source)


@pytest.mark.parametrize("remote", ["origin", ""], ids=["pull", "clone"])
def test_n1_fetch(rgw: s3_places.Server, line: proxy.Proxy, seed: int, remote: str) -> None:
    """N1: a pull, and a clone, that lose their connections at many places end as if they had lost none."""
    rng = np.random.default_rng(seed)
    source = _history(seed)
    place = rgw.place()
    with contextlib.closing(place.backend()) as direct:
        seeding.seed(source, direct)
        _push(source, places.far(source, direct))
    bad = s3_places.Place(rgw, place.prefix, f"http://127.0.0.1:{line.port}")
    while line.struck < _POINTS:
        near = memory.MemoryBackend()
        seeding.seed(source, near)

        def work(near: memory.MemoryBackend = near) -> None:
            far = _at(source, bad)
            with contextlib.closing(far.backend):
                fetch.fetch(
                    far, places.far(source, near), fetch.Wanted(remote), fetch.Options(host="host"), repos.Collector()
                )

        _until_done(line, rng, work)
        here = places.far(source, near)
        if remote:
            here.set_ref("branch", "vm", here.branches()["origin/vm"], expect=None)
        _check(here, source)
