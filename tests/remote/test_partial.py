"""A place that has the history and not the data: what it has, reads from the remote, and takes from nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import memory, protocol
from vimgvc.disk import memory as disk_memory
from vimgvc.model import reflog
from vimgvc.remote import fetch, push, refs, seeding
from vimgvc.repo import collect, promises, repository


@dataclass
class Origin:
    """A user's only remote; as by a new process each time."""

    source: repository.Repository
    backend: protocol.Backend

    def names(self, promised: Sequence[str]) -> list[str]:
        return ["origin"]

    def open(self, name: str) -> repository.Repository:
        assert name == "origin"
        return places.far(self.source, self.backend)


def _near(source: repository.Repository, backend: protocol.Backend | None = None) -> repository.Repository:
    if backend is None:
        backend = memory.MemoryBackend()
        seeding.seed(source, backend)
    return places.far(source, backend)


def _fetch(
    source: repository.Repository, target: repository.Repository, *, metadata: bool = False, dry_run: bool = False
) -> fetch.Fetched:
    options = fetch.Options(metadata=metadata, dry_run=dry_run, host="host")
    return fetch.fetch(source, target, fetch.Wanted("origin"), options, repos.Collector())


def _partial(far: repository.Repository) -> repository.Repository:
    """With the branch vm at where it is there."""
    near = _near(far)
    _fetch(far, near, metadata=True)
    near.set_ref(reflog.BRANCH, "vm", near.branches()["origin/vm"], expect=None)
    near.elsewhere = Origin(far, far.backend)
    return near


def _promised(repo: repository.Repository) -> frozenset[str]:
    return promises.Promises(repo.backend, repo.seals).ids()


def _pack_bytes(repo: repository.Repository) -> int:
    return sum(item.size for item in repo.backend.list("packs"))


def _check_states(repo: repository.Repository, states: Sequence[bytes], revision: str = "origin/vm") -> None:
    for back, state in enumerate(reversed(states)):
        assert places.restored(repo, f"{revision}~{back}") == state


def test_only_metadata_arrives(seed: int) -> None:
    """Commits and manifests are here and verify, chunks are not and are counted; comparing needs no remote."""
    far, _ = places.far_with_history(seed)
    near = _partial(far)
    near.elsewhere = None
    assert _pack_bytes(near) < _pack_bytes(far) / 50
    assert [item.id for item in near.history("vm")] == [item.id for item in far.history("vm")]
    found = near.verify("data")
    assert found.problems == []
    assert found.elsewhere is not None
    assert (found.elsewhere.commits, found.elsewhere.remotes) == (3, ("origin",))
    assert 4 << 20 < found.elsewhere.size <= 3 * (5 << 20)
    assert near.stats().promised == 3
    new, old = (near.open_disk(near.resolve_disk(revision)[1]) for revision in ("vm", "vm~1"))
    assert sum(extent.length for extent in new.changed_since(old)) >= 20_000
    assert far.verify().elsewhere is None


def test_a_dry_run_is_exact(seed: int) -> None:
    """A dry run changes nothing here and tells the bytes that the fetch then stores."""
    far, _ = places.far_with_history(seed)
    near = _near(far)
    planned = _fetch(far, near, metadata=True, dry_run=True).result
    assert _promised(near) == frozenset()
    done = _fetch(far, near, metadata=True).result
    assert (planned.size, planned.packs, planned.commits) == (done.size, done.packs, done.commits)


def test_data_is_read_on_demand(seed: int) -> None:
    """Every state reads as it was committed, and nothing of it stays here."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    before = _pack_bytes(near)
    _check_states(near, states)
    assert repos.restore(near, "vm") == states[-1]
    assert _pack_bytes(near) == before


def test_neighbours_are_read_together(seed: int) -> None:
    """What lies side by side in a pack there is read in a quarter of the calls, and every byte is right."""
    first = repos.create()
    data = repos.noise(seed, 24 << 20)
    repos.commit(first, ("vm", data), threads=1)
    far = places.far(first)
    places.push_all(first, far)
    near = _partial(far)
    backend = places.backend_of(far)
    backend.calls.clear()
    facts = near.resolve("vm").disk(None)
    target = disk_memory.MemoryDisk(facts.size)
    near.open_disk(facts).restore(target, repos.Collector(), 1)
    assert target.content() == data
    sizes = {name: len(blob) for name, blob in backend.content.items()}
    read = [name for operation, name in backend.calls if operation == "get" and sizes[name] > 4 << 20]
    assert 6 <= len(read) <= 10  # the table, and 25 segments


def test_a_new_state_costs_its_metadata(seed: int) -> None:
    """What the remote got since arrives without data, too, and is promised."""
    far, states = places.far_with_history(seed, 1)
    near = _partial(far)
    states.append(bytes(places.changed(bytearray(states[0]), seed + 5)))
    repos.commit(far, ("vm", states[1]))
    done = _fetch(far, near, metadata=True).result
    assert done.commits == 1
    assert done.pack_size < 10_000
    assert len(_promised(near)) == 2
    _check_states(near, states)


def test_a_commit_relies_on_what_is_here(seed: int) -> None:
    """A commit on top of promised ones restores without the remote, also where it repeats what only that has."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    states.append(bytes(places.changed(bytearray(states[-1]), seed + 9)))
    repos.commit(near, ("vm", states[-1]))
    near.elsewhere = None
    assert places.restored(near, "vm") == states[-1]
    assert near.resolve("vm").id not in _promised(near)
    found = near.verify("data")
    assert found.problems == []
    assert found.elsewhere is not None
    assert found.elsewhere.commits == 3
    with pytest.raises(errors.IntegrityError):
        places.restored(near, "vm~3")


def test_later_all_of_it_comes(seed: int) -> None:
    """A fetch without the option brings the data and ends the promises: then the remote may go."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    repos.commit(near, ("vm", bytes(places.disk(seed + 20))))
    _fetch(far, near)
    assert _promised(near) == frozenset()
    near.elsewhere = None
    _check_states(near, states)
    found = near.verify("data")
    assert (found.problems, found.elsewhere) == ([], None)


@pytest.mark.parametrize("metadata", [True, False])
def test_interrupted_anywhere_it_goes_on(seed: int, *, metadata: bool) -> None:
    """After a failure of any call at either side nothing here is damaged or unpromised; the same fetch completes."""
    far, states = places.far_with_history(seed, 2)
    blobs = places.backend_of(far).content
    empty = places.Far()
    seeding.seed(far, empty)
    if not metadata:
        _fetch(far, _near(far, empty), metadata=True)
    start = empty.content
    for side in ("source", "target"):
        at = 0
        while True:
            there, here = places.Far(blobs), places.Far(start)
            failing = there if side == "source" else here
            failing.fail_at = at
            try:
                _fetch(places.far(far, there), _near(far, here), metadata=metadata)
            except errors.RemoteError:
                failing.fail_at = None
            else:
                break
            near = _near(far, here)
            assert near.verify("data").problems == [], f"after call {at} of {side}"
            _fetch(places.far(far, there), near, metadata=metadata)
            near = _near(far, here)
            assert near.verify("data").problems == []
            assert bool(_promised(near)) == metadata
            near.elsewhere = Origin(far, there) if metadata else None
            _check_states(near, states)
            at += 1
        assert at > 8


def test_n1_a_remote_that_is_gone(seed: int) -> None:
    """N1: what is not here cannot be read, which names the remote (25); what is here can."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    own = bytes(places.disk(seed + 30))
    repos.commit(near, ("vm", own))
    places.backend_of(far).fail_at = 0
    with pytest.raises(errors.RemoteError, match=r"remote 'origin'.*connection reset") as caught:
        places.restored(near, "vm~1")
    assert caught.value.exit_code == 25
    assert "vimgvc fetch origin" in caught.value.hint
    assert places.restored(near, "vm") == own
    places.backend_of(far).fail_at = None
    assert places.restored(near, "vm~1") == states[-1]


def test_n1_a_remote_that_goes_while_it_is_read(seed: int) -> None:
    """N1: a restore that loses the remote at any call ends with an error that names it, and no wrong byte."""
    far, states = places.far_with_history(seed, 1)
    near = _partial(far)
    backend = places.backend_of(far)
    backend.calls.clear()
    assert repos.restore(near, "vm") == states[0]
    needed = len(set(backend.calls))  # two threads may read one table
    assert needed > 3
    for at in range(needed):
        backend.calls.clear()
        backend.fail_at = at
        with pytest.raises(errors.RemoteError, match="remote 'origin'"):
            repos.restore(near, "vm")


def test_n4_wrong_bytes_are_refused(seed: int) -> None:
    """N4, T12: a remote that returns other bytes for its packs is not believed."""
    far, _ = places.far_with_history(seed, 1)
    near = _partial(far)

    class Lying(places.Far):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            blob = super().get(name, offset, length)
            return bytes([blob[0] ^ 1]) + blob[1:] if name.startswith("packs/") and length else blob

    near.elsewhere = Origin(far, Lying(places.backend_of(far).content))
    with pytest.raises(errors.IntegrityError):
        places.restored(near, "vm")


def test_a_damaged_pack_at_the_remote(seed: int) -> None:
    """A pack that is damaged there is damage, and what does not need it reads."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    backend = places.backend_of(far)
    name = max(backend.content, key=lambda name: len(backend.content[name]))
    blob = bytearray(backend.content[name])
    blob[len(blob) // 2] ^= 1
    backend.replace(name, bytes(blob))
    with pytest.raises(errors.IntegrityError):
        places.restored(near, "vm~2")
    backend.replace(name, None)
    with pytest.raises(errors.IntegrityError, match=r"bytes of it are neither here nor in remote 'origin'"):
        places.restored(near, "vm~2")
    assert states


def test_a_remote_that_forgot(seed: int) -> None:
    """The remote owes nothing to anybody: after a collection there one line says what it lacks."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    tip = far.branches()["vm"]
    far.set_ref(reflog.BRANCH, "vm", None, expect=tip)
    repos.commit(far, ("vm", bytes(places.disk(seed + 40))))
    far.collect(collect.Options(force=True))
    with pytest.raises(errors.IntegrityError, match=r"bytes of it are neither here nor in remote 'origin'") as caught:
        places.restored(near, "vm")
    assert "vimgvc verify --remote origin" in caught.value.hint
    assert near.verify("data").problems == []
    assert states


def test_collecting_here(seed: int) -> None:
    """A collection neither misses what is promised nor takes away what is here; promises go with their commits."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    own = bytes(places.changed(bytearray(states[-1]), seed + 50))
    repos.commit(near, ("vm", own))
    done = near.collect(collect.Options(max_unused=0.0))
    assert done.commits_deleted == 0
    near.elsewhere = None
    assert places.restored(near, "vm") == own
    found = near.verify("data")
    assert found.problems == []
    for name, tip in near.branches().items():
        near.set_ref(reflog.BRANCH, name, None, expect=tip)
    near.collect(collect.Options(force=True))
    assert _promised(near) == frozenset()
    assert near.verify().commits == 0


def test_pushing_what_is_here(seed: int) -> None:
    """A commit made here is pushed to the remote it builds on, and is whole there."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    own = bytes(places.changed(bytearray(states[-1]), seed + 60))
    repos.commit(near, ("vm", own))
    wish = refs.Wish(reflog.BRANCH, "vm", "vm", near.branches()["vm"])
    done = push.push(near, far, [wish], push.Options(), repos.Collector())
    assert done.commits == 1
    assert done.pack_size < 1 << 20
    assert places.restored(far, "vm") == own
    assert far.verify("data").problems == []


def test_pushing_what_is_not_here(seed: int) -> None:
    """What neither side has is not pushed, and the error names the remote that has it."""
    far, _ = places.far_with_history(seed)
    near = _partial(far)
    other = places.far(near)
    with pytest.raises(errors.NotFound, match="data of commit") as caught:
        places.push_all(near, other)
    assert "remote 'origin'" in caught.value.hint
    assert other.branches() == {}


def test_pushing_to_where_the_data_is(seed: int) -> None:
    """Commits whose data is at the target already can be pushed by whoever has only their metadata."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    other = places.far(near)
    for state in states:
        repos.commit(other, ("vm", state), branch="another")
    places.push_all(near, other)
    _check_states(other, states, "vm")
    assert other.verify("data").problems == []


def test_pushing_into_a_partial_place(seed: int) -> None:
    """A commit that is pushed to where its parent is only promised is whole there all the same."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    own = bytes(places.changed(bytearray(states[-1]), seed + 70))
    repos.commit(far, ("vm", own))
    wish = refs.Wish(reflog.BRANCH, "vm", "vm", far.branches()["vm"])
    push.push(far, near, [wish], push.Options(), repos.Collector())
    near.elsewhere = None
    assert places.restored(near, "vm") == own
    assert near.verify("data").problems == []


def test_a_promise_while_somebody_pushes(seed: int) -> None:
    """A push that looked at promises before one was made for what it builds on is planned again, and is whole."""
    far, states = places.far_with_history(seed)
    second = far.resolve("vm").id
    own = bytes(places.changed(bytearray(states[-1]), seed + 75))

    class Late(places.Far):
        """Does something right after the records of collections were listed for the first time."""

        then: Callable[[], object] | None = None

        def list(self, area: str) -> Iterator[protocol.Item]:
            items = [*super().list(area)]
            then, self.then = (self.then, None) if area == "gc" else (None, self.then)
            if then is not None:
                then()
            return iter(items)

    backend = Late()
    seeding.seed(far, backend)
    near = _near(far, backend)
    blobs = places.backend_of(far).content
    repos.commit(far, ("vm", own))
    backend.then = lambda: _fetch(places.far(far, places.Far(blobs)), near, metadata=True)
    progress = repos.Collector()
    wish = refs.Wish(reflog.BRANCH, "vm", "vm", far.branches()["vm"])
    push.push(far, near, [wish], push.Options(), progress)
    assert backend.then is None
    assert second in _promised(near)
    assert far.branches()["vm"] not in _promised(near)
    assert progress.notes
    assert places.restored(near, "vm") == own
    assert near.verify("data").problems == []


def test_a_promise_of_a_promise(seed: int) -> None:
    """A place that has no data itself cannot be left with it."""
    far, _ = places.far_with_history(seed)
    near = _partial(far)
    with pytest.raises(errors.UsageError, match="only the metadata"):
        _fetch(near, _near(near), metadata=True)
    with pytest.raises(errors.NotFound, match="data of commit"):
        _fetch(near, _near(near))


def test_loss_here_is_damage(seed: int) -> None:
    """What was here and is lost is reported, promised or not; repair takes nothing that is absent for damage."""
    far, states = places.far_with_history(seed)
    near = _partial(far)
    assert near.repair().actions == ()
    trees = {item.name for item in near.backend.list("packs")}
    repos.commit(near, ("vm", bytes(places.changed(bytearray(states[-1]), seed + 80))))
    data = max((item for item in near.backend.list("packs") if item.name not in trees), key=lambda item: item.size)
    for name in (data.name, min(trees)):
        content = near.backend.get(name)
        near.backend.delete(name)
        kinds = {problem.kind for problem in near.verify("quick").problems}
        assert kinds == {"pack", "disk"}
        near.backend.put(name, [content])
    assert near.verify("data").problems == []
    content = near.backend.get(data.name)
    near.backend.delete(data.name)
    near.backend.put(data.name, [content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]])
    touched = {one.object for one in near.verify("data").problems if one.kind == "disk"}
    assert {name.partition(":")[0] for name in touched} >= {near.resolve("vm").id[:12], near.resolve("vm~1").id[:12]}


def test_a_promise_that_is_damaged(seed: int) -> None:
    """A promise that cannot be read is reported, and still counts."""
    far, _ = places.far_with_history(seed, 1)
    near = _partial(far)
    [commit_id] = _promised(near)
    name = promises.name(commit_id)
    blob = near.backend.get(name)
    near.backend.delete(name)
    near.backend.put(name, [blob[:-1] + bytes([blob[-1] ^ 1])])
    assert [(one.kind, one.object) for one in near.verify().problems] == [("promised", commit_id)]
