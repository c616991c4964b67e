"""Push between two places in memory: what moves, in which order, and what is refused."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import cached
from vimgvc.model import reflog
from vimgvc.remote import copying, push, refs, seeding
from vimgvc.repo import repository
from vimgvc.store import pack


def with_history(seed: int, commits: int = 3) -> tuple[repository.Repository, list[bytes]]:
    repo, data = repos.create(), places.disk(seed)
    states = []
    for number in range(commits):
        data = places.changed(data, seed + number) if number else data
        repos.commit(repo, ("vm", bytes(data)))
        states.append(bytes(data))
    return repo, states


def test_everything_arrives(seed: int) -> None:
    """Every commit of a pushed branch restores from the other place, and every byte of it verifies."""
    source, states = with_history(seed)
    target = places.far(source)
    done = places.push_all(source, target)
    assert [change.state for change in done.changes] == [refs.State.NEW]
    for back, state in enumerate(reversed(states)):
        assert places.restored(target, f"vm~{back}") == state
    assert target.verify("data").problems == []


def test_packs_move_as_they_are(seed: int) -> None:
    """What one push needs as a whole arrives under its own name: nothing is compressed or sealed again."""
    source, _ = with_history(seed)
    target = places.far(source)
    places.push_all(source, target)
    here = {item.name for item in source.backend.list("packs")}
    assert {item.name for item in target.backend.list("packs")} == here


def test_a_push_costs_what_changed(seed: int, tmp_path: pathlib.Path) -> None:
    """An incremental push stores at most 1.05 times what the commit stored, in at most 12 calls and one a pack."""
    source, states = with_history(seed, 1)
    target = places.far(source)
    far = places.backend_of(target)

    def pushed() -> copying.Result:
        kept = cached.Cached(far, tmp_path / "blobs")  # as by a new process of the same user
        there = repository.Repository(kept, source.config, source.unlocked, tmp_path / "index", source.clock)
        return places.push_all(source, there)

    pushed()
    before = {item.name for item in source.backend.list("packs")}
    data = bytearray(states[0])
    for number in range(2):
        data = places.changed(data, seed + 7 + number, count=9)
        repos.commit(source, ("vm", bytes(data)))
        new = [item for item in source.backend.list("packs") if item.name not in before]
        before.update(item.name for item in new)
        far.calls.clear()
        far.bytes_in = 0
        assert pushed().packs == len(new)
        assert far.bytes_in <= 1.05 * sum(item.size for item in new)
        assert len([call for call in far.calls if call[0] != "sync"]) <= 12 + len(new)
    assert target.verify("data").problems == []


def test_a_dry_run_is_exact(seed: int) -> None:
    """A dry run changes nothing and tells the bytes that the push then stores, also where packs are made anew."""
    source, _ = with_history(seed)
    data = places.disk(seed + 50)
    repos.commit(source, ("other", bytes(data)), branch="other")
    repos.commit(source, ("other", bytes(places.changed(data, seed + 51)) + bytes(1 << 20)), branch="third")
    target = places.far(source)
    far = places.backend_of(target)
    for names in (["third"], ["vm"], ["vm", "other", "third"]):
        wishes = [refs.Wish(reflog.BRANCH, name, name, source.branches()[name]) for name in names]
        before = far.content
        planned = push.push(source, target, wishes, push.Options(dry_run=True), repos.Collector())
        assert far.content == before
        far.bytes_in = 0
        done = push.push(source, target, wishes, push.Options(), repos.Collector())
        assert far.bytes_in == done.size == planned.size
        assert (planned.packs, planned.commits, planned.pack_size) == (done.packs, done.commits, done.pack_size)
    assert target.verify("data").problems == []


def test_only_what_a_branch_needs_moves(seed: int) -> None:
    """Of a pack that holds the data of two branches only the part of the pushed one arrives."""
    rng = np.random.default_rng(seed)
    common, own = rng.bytes(2 << 20), rng.bytes(2 << 20)
    source = repos.create()
    repos.commit(source, ("a", common + own), branch="a")
    repos.commit(source, ("b", common), branch="b")
    target = places.far(source)
    done = push.push(
        source, target, [refs.Wish(reflog.BRANCH, "b", "b", source.branches()["b"])], push.Options(), repos.Collector()
    )
    assert places.restored(target, "b") == common
    assert done.size < 1.05 * len(common)
    assert target.verify("data").problems == []


def test_interrupted_anywhere_it_goes_on(seed: int) -> None:
    """After a failure of any call at the other place it verifies, and the same push completes without sending again."""
    source, states = with_history(seed, 2)
    clean = places.far(source)
    places.backend_of(clean).calls.clear()
    places.push_all(source, clean)
    calls = len(places.backend_of(clean).calls) - 1  # the last one takes a pin away, which others do otherwise
    full = sum(item.size for item in clean.backend.list("packs"))
    assert calls > 8
    for at in range(calls):
        far = places.Far()
        target = places.far(source, far)
        seeding.seed(source, far)
        far.calls.clear()
        far.fail_at = at
        with pytest.raises(errors.RemoteError):
            places.push_all(source, target)
        far.fail_at = None
        kept = {item.name for item in far.list("packs")}
        assert places.far(source, far).verify("data").problems == [], f"after call {at}"
        far.bytes_in = 0
        done = places.push_all(source, places.far(source, far))
        sent = full - sum(item.size for item in clean.backend.list("packs") if item.name in kept)
        assert done.pack_size == sent, f"after call {at}"
        assert places.restored(places.far(source, far), "vm") == states[-1]
        assert places.far(source, far).verify("data").problems == []


def test_d16_what_arrived_cut_short_is_sent_again(seed: int) -> None:
    """A pack that has its name there but not its bytes is not relied on: its content arrives in another pack."""
    source, states = with_history(seed, 1)
    target = places.far(source)
    far = places.backend_of(target)
    [largest] = sorted(source.backend.list("packs"), key=lambda item: item.size)[-1:]
    far.replace(largest.name, source.backend.get(largest.name)[:1000])
    progress = repos.Collector()
    places.push_all(source, target, progress=progress)
    assert places.restored(target, "vm") == states[0]
    assert any("pack" in problem for problem in progress.problems)


def test_what_is_not_a_fast_forward_is_rejected(seed: int) -> None:
    """A branch that has something else there stays, with exit code 26 and a word about force; the others move."""
    source, _ = with_history(seed, 2)
    target = places.far(source)
    places.push_all(source, target)
    first = source.resolve("vm~1").id
    source.set_ref(reflog.BRANCH, "vm", first, expect=source.branches()["vm"])
    repos.commit(source, ("vm", bytes(places.disk(seed + 1))))
    repos.commit(source, ("new", bytes(places.disk(seed + 2))), branch="new")
    before = target.branches()["vm"]
    done = places.push_all(source, target)
    assert {change.name: change.state for change in done.changes} == {
        "new": refs.State.NEW,
        "vm": refs.State.REJECTED,
    }
    assert target.branches() == {"vm": before, "new": source.branches()["new"]}
    with pytest.raises(errors.RefMoved) as raised:
        done.check("origin")
    assert "--force" in raised.value.hint


def test_force_keeps_the_old_tip_in_the_log(seed: int) -> None:
    """A forced push leaves what the branch was as its last value but one."""
    source, _ = with_history(seed, 2)
    target = places.far(source)
    places.push_all(source, target)
    before = target.branches()["vm"]
    source.set_ref(reflog.BRANCH, "vm", source.resolve("vm~1").id, expect=before)
    done = places.push_all(source, target, force=True)
    assert [change.state for change in done.changes] == [refs.State.FORCED]
    assert target.resolve("vm@{1}").id == before


def test_a_tag_is_never_moved_silently(seed: int) -> None:
    """A tag that names another commit there is rejected, and with force moved."""
    source, _ = with_history(seed, 2)
    source.set_ref(reflog.TAG, "v1", source.resolve("vm~1").id, expect=None)
    target = places.far(source)
    places.push_all(source, target)
    source.set_ref(reflog.TAG, "v1", source.resolve("vm").id, expect=source.tags()["v1"])
    done = places.push_all(source, target)
    assert [change.state for change in done.changes if change.kind == reflog.TAG] == [refs.State.REJECTED]
    assert target.tags()["v1"] == source.resolve("vm~1").id
    places.push_all(source, target, force=True)
    assert target.tags()["v1"] == source.resolve("vm").id


def test_nothing_to_do_reads_ref_logs_only(seed: int) -> None:
    """A push of what is there already makes three calls for one branch: collections, ref logs, its last entry."""
    source, _ = with_history(seed, 1)
    target = places.far(source)
    places.push_all(source, target)
    places.backend_of(target).calls.clear()
    done = places.push_all(source, target)
    assert [change.state for change in done.changes] == [refs.State.SAME]
    assert [operation for operation, _ in places.backend_of(target).calls] == ["list", "list", "get"]


def test_n5_what_was_acknowledged_and_lost_stops_the_push(seed: int) -> None:
    """A place that loses a pack it has acknowledged gets no index object, commit or ref entry that relies on it."""
    source, _ = with_history(seed, 1)

    class Losing(places.Far):
        def put(self, name: str, parts: object) -> bool:
            stored = super().put(name, parts)
            if name.startswith("packs/"):
                self.replace(name, None)
            return stored

    far = Losing()
    seeding.seed(source, far)
    with pytest.raises(errors.IntegrityError):
        places.push_all(source, places.far(source, far))
    assert not [name for name in far.content if name.startswith(("index/", "commits/", "refs/"))]


def test_damage_here_is_not_copied(seed: int) -> None:
    """A pack whose bytes are wrong does not move: what it holds comes from another one, or it is an error."""
    source, _ = with_history(seed, 1)
    far = places.Far({name: source.backend.get(name) for name in _names(source)})
    broken = places.far(source, far)
    item = max(far.list("packs"), key=lambda one: one.size)
    blob = bytearray(far.get(item.name))
    blob[pack.HEADER_SIZE + 100] ^= 1
    far.replace(item.name, bytes(blob))
    target = places.far(source)
    with pytest.raises(errors.IntegrityError):
        places.push_all(broken, target)
    assert target.branches() == {}
    assert item.name not in places.backend_of(target).content


def _names(repo: repository.Repository) -> list[str]:
    areas = ("keys", "packs", "index", "commits", "refs")
    return ["config", *(item.name for area in areas for item in repo.backend.list(area))]


def test_n18_a_push_brings_back_what_the_place_lost(seed: int) -> None:
    """With `everything` a place that lost packs of commits it has gets them back, and verifies."""
    source, states = with_history(seed, 3)
    target = places.far(source)
    places.push_all(source, target)
    far = places.backend_of(target)
    for item in list(far.list("packs"))[:2]:
        far.replace(item.name, None)
    assert target.verify().problems
    done = push.push(
        source,
        target,
        [refs.Wish(reflog.BRANCH, "vm", "vm", source.branches()["vm"])],
        push.Options(everything=True),
        repos.Collector(),
    )
    assert done.packs >= 1  # two of a kind come back as one
    assert [item for item in target.verify("data").problems if item.kind not in ("index", "pack")] == []
    for back, state in enumerate(reversed(states)):
        assert places.restored(target, f"vm~{back}") == state


def test_forgotten_commits_move_without_their_data(seed: int) -> None:
    """The history stays connected: a forgotten commit arrives with its record, and nobody misses its data."""
    source, states = with_history(seed, 3)
    source.forget([source.resolve("vm~1").id])
    source.collect(None, repos.Collector())
    target = places.far(source)
    places.push_all(source, target)
    assert target.forgotten().keys() == source.forgotten().keys()
    assert [item.id for item in target.history()] == [item.id for item in source.history()]
    assert target.verify("data").problems == []
    assert places.restored(target, "vm") == states[2]
    assert places.restored(target, "vm~2") == states[0]
