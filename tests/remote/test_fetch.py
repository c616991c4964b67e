"""Fetch between two places in memory: what arrives, what follows, and what stays."""

from __future__ import annotations

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import reflog
from vimgvc.remote import fetch, refs, seeding
from vimgvc.repo import repository


def _near(source: repository.Repository) -> repository.Repository:
    """An empty place at hand."""
    backend = memory.MemoryBackend()
    seeding.seed(source, backend)
    return places.far(source, backend)


def _fetch(
    source: repository.Repository,
    target: repository.Repository,
    branches: list[str] | None = None,
    *,
    remote: str = "origin",
    progress: repos.Collector | None = None,
    **options: bool,
) -> fetch.Fetched:
    wanted = fetch.Wanted(remote, branches)
    return fetch.fetch(source, target, wanted, fetch.Options(host="host", **options), progress or repos.Collector())


def test_everything_arrives(seed: int) -> None:
    """After a fetch every commit of the branch restores here, and the branch that follows says where it is there."""
    far, states = places.far_with_history(seed)
    near = _near(far)
    done = _fetch(far, near)
    assert done.tips == far.branches()
    assert near.branches() == {"origin/vm": far.branches()["vm"]}
    for back, state in enumerate(reversed(states)):
        assert places.restored(near, f"origin/vm~{back}") == state
    assert near.verify("data").problems == []


def test_a_fetch_costs_what_changed(seed: int) -> None:
    """An incremental fetch reads each new data pack once and whole, and no data pack that is here."""
    far, states = places.far_with_history(seed, 1)
    near = _near(far)
    _fetch(far, near)
    repos.commit(far, ("vm", bytes(places.changed(bytearray(states[0]), seed + 5))))
    here = {item.name for item in near.backend.list("packs")}
    new = {item.name for item in far.backend.list("packs")} - here
    backend = places.backend_of(far)
    backend.calls.clear()
    done = _fetch(places.far(far, backend), near)
    assert done.result.packs == len(new)
    read = [name for operation, name in backend.calls if operation == "get" and name.startswith("packs/")]
    data = {item.name for item in near.backend.list("packs")} & {max(new, key=lambda name: len(backend.content[name]))}
    assert [name for name in read if name in data] == list(data)


def test_many_commits_are_read_at_once(seed: int) -> None:
    """The commits of a long history are listed and read by several threads, not one after the other along parents."""
    first = repos.create()
    for number in range(12):
        repos.commit(first, ("vm", bytes([number]) * 4096))
    far = places.far(first)
    places.push_all(first, far)
    places.backend_of(far).calls.clear()
    near = _near(far)
    _fetch(far, near)
    calls = places.backend_of(far).calls
    assert ("list", "commits") in calls
    assert [item.id for item in near.history("origin/vm")] == [item.id for item in first.history()]


def test_a_dry_run_is_exact(seed: int) -> None:
    """A dry run changes nothing here and tells the bytes that the fetch then stores."""
    far, _ = places.far_with_history(seed)
    near = _near(far)
    before = {item.name for area in ("packs", "commits", "refs", "index") for item in near.backend.list(area)}
    planned = _fetch(far, near, dry_run=True).result
    assert {item.name for area in ("packs", "commits", "refs", "index") for item in near.backend.list(area)} == before
    done = _fetch(far, near).result
    assert (planned.size, planned.packs, planned.commits) == (done.size, done.packs, done.commits)


def test_tags_arrive_and_stay(seed: int) -> None:
    """A tag arrives with its commit; one that is here and elsewhere there stays, and is told."""
    far, _ = places.far_with_history(seed)
    far.set_ref(reflog.TAG, "v1", far.resolve("vm~1").id, expect=None)
    near = _near(far)
    _fetch(far, near)
    assert near.tags() == far.tags()
    far.set_ref(reflog.TAG, "v1", far.resolve("vm").id, expect=far.tags()["v1"])
    done = _fetch(far, near)
    assert [change.state for change in done.result.changes if change.kind == reflog.TAG] == [refs.State.REJECTED]
    assert near.tags()["v1"] == far.resolve("vm~1").id
    _fetch(far, near, force=True)
    assert near.tags() == far.tags()


def test_one_branch_brings_its_tags_only(seed: int) -> None:
    """With named branches only what they reach is copied, with the tags that lead to it."""
    far, _ = places.far_with_history(seed)
    repos.commit(far, ("other", bytes(places.disk(seed + 9))), branch="other")
    far.set_ref(reflog.TAG, "v1", far.resolve("vm~1").id, expect=None)
    far.set_ref(reflog.TAG, "o1", far.resolve("other").id, expect=None)
    near = _near(far)
    _fetch(far, near, ["vm"])
    assert list(near.branches()) == ["origin/vm"]
    assert list(near.tags()) == ["v1"]
    with pytest.raises(errors.NotFound):
        near.graph.load(far.resolve("other").id)
    with pytest.raises(errors.NotFound):
        _fetch(far, near, ["nothing"])


def test_prune_deletes_what_follows_nothing(seed: int) -> None:
    """A branch that is gone there is deleted here with prune only; its log keeps where it was."""
    far, _ = places.far_with_history(seed, 1)
    near = _near(far)
    _fetch(far, near)
    tip = far.branches()["vm"]
    far.set_ref(reflog.BRANCH, "new", tip, expect=None)
    far.set_ref(reflog.BRANCH, "vm", None, expect=tip)
    _fetch(far, near)
    assert set(near.branches()) == {"origin/vm", "origin/new"}
    _fetch(far, near, prune=True)
    assert set(near.branches()) == {"origin/new"}
    assert near.resolve("origin/vm@{1}").id == tip


def test_interrupted_anywhere_it_goes_on(seed: int) -> None:
    """After a failure of any call at the source the place here verifies, and the same fetch completes."""
    far, states = places.far_with_history(seed, 2)
    blobs = places.backend_of(far).content
    counted = places.Far(blobs)
    _fetch(places.far(far, counted), _near(far))
    calls = len(counted.calls)
    assert calls > 8
    for at in range(calls):
        backend = places.Far(blobs)
        source, near = places.far(far, backend), _near(far)
        backend.fail_at = at
        with pytest.raises(errors.RemoteError):
            _fetch(source, near)
        backend.fail_at = None
        assert near.verify("data").problems == [], f"after call {at}"
        _fetch(places.far(far, backend), near)
        assert places.restored(near, "origin/vm") == states[-1]
        assert near.verify("data").problems == []


def test_n4_what_was_damaged_on_its_way_is_read_again(seed: int) -> None:
    """A bit that flips on the way costs a second reading, and nothing is reported or stored wrong."""
    far, states = places.far_with_history(seed, 1)

    class Flipping(places.Far):
        flipped = 0

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            blob = super().get(name, offset, length)
            if name.startswith("packs/") and len(blob) > 1 << 20 and not self.flipped:
                self.flipped += 1
                return blob[:5000] + bytes([blob[5000] ^ 4]) + blob[5001:]
            return blob

    backend = Flipping(places.backend_of(far).content)
    near, progress = _near(far), repos.Collector()
    _fetch(places.far(far, backend), near, progress=progress)
    assert backend.flipped
    assert progress.problems == []
    assert places.restored(near, "origin/vm") == states[0]


def test_n18_what_was_lost_here_comes_back(seed: int) -> None:
    """With `everything` packs and commits that were lost here are fetched again, and every commit restores."""
    far, states = places.far_with_history(seed, 3)
    near = _near(far)
    _fetch(far, near)
    assert isinstance(near.backend, memory.MemoryBackend)
    for item in list(near.backend.list("packs"))[:2]:
        near.backend.delete(item.name)
    near.backend.delete(f"commits/{near.resolve('origin/vm~1').id}")
    backend = near.backend
    near = places.far(far, backend)
    assert near.verify().problems
    _fetch(far, near, everything=True)
    near = places.far(far, backend)
    for back, state in enumerate(reversed(states)):
        assert places.restored(near, f"origin/vm~{back}") == state


def test_without_a_name_branches_only_go_forward(seed: int) -> None:
    """A fetch that is not to follow anything moves the branches themselves, and rejects what has parted."""
    far, _ = places.far_with_history(seed, 2)
    near = _near(far)
    _fetch(far, near, remote="")
    assert near.branches() == far.branches()
    repos.commit(far, ("vm", bytes(places.disk(seed + 3))))
    _fetch(far, near, remote="")
    assert near.branches() == far.branches()
    repos.commit(near, ("vm", bytes(places.disk(seed + 4))))
    repos.commit(far, ("vm", bytes(places.disk(seed + 5))))
    before = near.branches()
    done = _fetch(far, near, remote="")
    assert [change.state for change in done.result.changes] == [refs.State.REJECTED]
    assert near.branches() == before
