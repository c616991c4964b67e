"""Copies beside other copies and beside collections, at every moment."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import reflog
from vimgvc.remote import fetch, push, refs, seeding
from vimgvc.repo import check, collect, repository

_SIZE = 600_000
#: What somebody may be told who is beside somebody else; the same command works afterwards.
_TOLD = (errors.Busy, errors.RefMoved, errors.IntegrityError, errors.NotFound)


class Hooked(places.Far):
    """Calls `hook` before call number `at` (from 0), once."""

    def __init__(self, content: dict[str, bytes], at: int = -1, hook: Callable[[], None] | None = None) -> None:
        super().__init__(content)
        self.at, self.hook, self.count = at, hook, 0

    def _record(self, operation: str, name: str) -> None:
        super()._record(operation, name)
        hook = self.hook
        if hook is not None and self.count == self.at:
            self.hook = None
            hook()
        self.count += 1


def _collect(repo: repository.Repository, *, max_unused: float = 0) -> None:
    repo.collect(collect.Options(force=True, max_unused=max_unused), repos.Collector())


def _lost(repo: repository.Repository) -> list[check.Problem]:
    """What cannot be restored. An index object may name a pack that was collected before it was put: no harm."""
    return [item for item in repo.verify("data").problems if item.affected or item.kind not in ("pack", "index")]


def _source(seed: int) -> tuple[repository.Repository, bytes]:
    """Two commits on `vm`; the second one's state."""
    source, data = repos.create(), places.disk(seed, _SIZE)
    repos.commit(source, ("vm", bytes(data)))
    data = places.changed(data, seed + 1, 2, 9000)
    repos.commit(source, ("vm", bytes(data)))
    return source, bytes(data)


def _pushed(source: repository.Repository, revision: str) -> dict[str, bytes]:
    """A place that has `revision` as its branch `vm`."""
    target = places.far(source)
    tip = source.branches()["vm"]
    source.set_ref(reflog.BRANCH, "vm", source.resolve(revision).id, expect=tip)
    places.push_all(source, target)
    source.set_ref(reflog.BRANCH, "vm", tip, expect=source.branches()["vm"])
    return places.backend_of(target).content


def _beside(
    source: repository.Repository, content: dict[str, bytes], disturb: Callable[[repository.Repository], None]
) -> int:
    """Push, with `disturb` before each call in turn; every time the place is whole afterwards. Returns how often."""
    at = 0
    while True:
        backend = Hooked(content, at)
        other = places.far(source, backend)
        backend.hook = functools.partial(disturb, other)
        try:
            places.push_all(source, places.far(source, backend), force=True)
        except _TOLD:
            assert backend.hook is None, f"before call {at}"
        if backend.hook is not None:
            return at
        assert _lost(places.far(source, backend)) == [], f"before call {at}"
        places.push_all(source, places.far(source, backend), force=True)
        after = places.far(source, backend)
        assert after.branches()["vm"] == source.branches()["vm"], f"before call {at}"
        assert _lost(after) == [], f"before call {at}"
        assert places.restored(after, "vm") == places.restored(source, "vm"), f"before call {at}"
        at += 1


def test_k7_the_base_of_a_push_is_deleted_and_collected(seed: int) -> None:
    """Whenever the branch a push builds on is deleted and collected there, what it leads to afterwards is whole."""
    source, _ = _source(seed)

    def disturb(repo: repository.Repository) -> None:
        repo.set_ref(reflog.BRANCH, "vm", None, expect=repo.branches().get("vm"))
        _collect(repo)

    assert _beside(source, _pushed(source, "vm~1"), disturb) > 10


def test_k8_a_push_beside_a_collection(seed: int) -> None:
    """A collection that packs everything anew at any moment of a push takes nothing from it."""
    source, _ = _source(seed)
    content = _pushed(source, "vm~1")
    assert _beside(source, content, _collect) > 10


def test_k8_two_pushes_of_the_same(seed: int) -> None:
    """Whenever somebody else pushes the same data as another branch, both branches are whole."""
    source, _ = _source(seed)
    tip = source.branches()["vm"]

    def disturb(repo: repository.Repository) -> None:
        second = places.far(source, repo.backend)
        wish = refs.Wish(reflog.BRANCH, "vm", "copy", tip)
        push.push(source, second, [wish], push.Options(), repos.Collector())
        assert places.restored(second, "copy") == places.restored(source, "vm")

    assert _beside(source, _pushed(source, "vm~1"), disturb) > 10


def test_n19_interrupted_collected_and_gone_on_with(seed: int) -> None:
    """A push that stopped anywhere, then a collection there, then the same push: it is whole."""
    source, state = _source(seed)
    content = _pushed(source, "vm~1")
    for at in range(40):
        backend = places.Far(content)
        backend.fail_at = at
        try:
            places.push_all(source, places.far(source, backend))
        except errors.RemoteError:
            stopped = True
        else:
            stopped = False
        backend.fail_at = None
        _collect(places.far(source, backend))
        places.push_all(source, places.far(source, backend))
        after = places.far(source, backend)
        assert places.restored(after, "vm") == state, f"after call {at}"
        assert _lost(after) == [], f"after call {at}"
        if not stopped:
            assert at > 10
            return
    pytest.fail("it never came to an end")


def test_k6_the_source_of_a_fetch_is_collected(seed: int) -> None:
    """Whenever everything at the source is packed anew, a fetch has all of it, or fails and then has all of it."""
    source, state = _source(seed)
    content = _pushed(source, "vm")
    for at in range(60):
        backend = Hooked(content, at)
        other = places.far(source, backend)
        backend.hook = functools.partial(_collect, other)
        near_backend = memory.MemoryBackend()
        seeding.seed(source, near_backend)
        near = places.far(source, near_backend)
        for _ in range(2):
            try:
                fetch.fetch(places.far(source, backend), near, fetch.Wanted(""), fetch.Options(), repos.Collector())
            except _TOLD:
                assert _lost(near) == [], f"before call {at}"
                continue
            break
        assert places.restored(near, "vm") == state, f"before call {at}"
        assert _lost(near) == [], f"before call {at}"
        if backend.hook is not None:
            assert at > 5
            return
    pytest.fail("it never came to an end")
