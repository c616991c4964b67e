"""Deliveries that are refused, and those that somebody shows again, holds back, or lets go."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from tests import repos
from tests.inbox import hosts
from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import deliveries
from vimgvc.model import commit as commits
from vimgvc.remote import admission
from vimgvc.repo import inbox, repository

DISK = repos.noise(1, 50_000) + bytes(70_000) + repos.text(2, 30_000)


def _defects(backend: protocol.Backend, delivery: str, other: str, rng: np.random.Generator) -> Iterator[str]:
    """Damages a delivery in every way, one at a time; `other` is another one of the same host."""
    names = sorted(item.name for item in backend.list(f"inbox/{delivery}"))
    others = sorted(item.name for item in backend.list(f"inbox/{other}"))
    for name in names:
        blob = backend.get(name)
        at, kind = int(rng.integers(len(blob))), name.rpartition("/")[2].partition("-")[0]
        wrong = {
            "altered": blob[:at] + bytes([blob[at] ^ 1 << int(rng.integers(8))]) + blob[at + 1 :],
            "cut": blob[:at],
            "empty": b"",
            "swapped": backend.get(next(one for one in others if f"/{kind}" in one)),
        }
        for what, bad in wrong.items():
            backend.delete(name)
            backend.put(name, [bad])
            yield f"{kind} {what}"
            backend.delete(name)
            backend.put(name, [blob])
        if kind != "key":
            backend.delete(name)
            yield f"{kind} gone"
            backend.put(name, [blob])


def test_what_was_altered_is_refused(seed: int) -> None:
    """Altered, cut, swapped or incomplete deliveries are refused, alone; what is not theirs never becomes a commit."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    host = hosts.host(repo)
    victim, other = host.deliver(("db", DISK)).id, host.deliver(("db", repos.noise(7, 60_000)), branch="other").id
    found = []
    for defect in _defects(repo.backend, victim, other, rng):
        there = repository.Repository.open(
            hosts.copy(hosts.content(repo.backend)), unlocked=repo.unlocked, clock=repo.clock
        )
        done = {item.id: item for item in hosts.admit(there)}
        assert done[other].state == "admitted", defect
        assert repos.restore(there, "web1/other") == repos.noise(7, 60_000)
        if done[victim].state == "admitted":
            # packs say themselves what an index would; a first table has a second copy, and a header says nothing
            assert defect.startswith(("index", "packs altered")), defect
            assert repos.restore(there, "web1/db") == DISK
        else:
            assert done[victim].state == "refused", defect
            assert done[victim].reason
            assert "web1/db" not in there.branches(), defect
            there.backend.size(inbox.place(victim, inbox.KEY))  # where it was
        assert there.verify("data").problems == []
        found.append(done[victim].state)
    assert found.count("refused") >= 10
    assert hosts.states(hosts.admit(repo)) == ["admitted", "admitted"]


def test_names_are_bound() -> None:
    """A delivery under another name, or a key beside the packs of another delivery, is refused."""
    repo = repos.create()
    host = hosts.host(repo)
    first, second = host.deliver(("db", DISK)).id, host.deliver(("db", DISK[:4096])).id
    moved = "ff" * 16
    for item in list(repo.backend.list(f"inbox/{first}")):
        blob = repo.backend.get(item.name)
        repo.backend.put(item.name.replace(first, moved), [blob])
    key = repo.backend.get(inbox.place(first, inbox.KEY))
    repo.backend.delete(inbox.place(second, inbox.KEY))
    repo.backend.put(inbox.place(second, inbox.KEY), [key])
    done = {item.id: item.state for item in hosts.admit(repo)}
    assert done == {first: "admitted", second: "refused", moved: "refused"}


def test_keys_of_other_slots_and_repositories() -> None:
    """A key slot of another repository with another root is not believed, nor is a delivery for it."""
    repo, foreign = repos.create(), repos.create()
    stranger = hosts.host(foreign)
    for copy in "01":
        name = f"keys/{stranger.key.slot}-{copy}"
        repo.backend.put(name, [foreign.backend.get(name)])
    stranger = dataclasses.replace(stranger, backend=repo.backend)
    stranger.deliver(("db", DISK))
    stranger.key = dataclasses.replace(stranger.key, repo=repo.id)
    stranger.deliver(("db", DISK))
    assert hosts.states(hosts.admit(repo)) == ["refused", "refused"]
    assert repo.branches() == {}


def test_one_host_cannot_write_for_another() -> None:
    """With a key of its own, and the public key and slot of another, a host gets nothing onto the other's branch."""
    repo = repos.create()
    web, db = hosts.host(repo, "web"), hosts.host(repo, "db")
    thief = dataclasses.replace(web, key=dataclasses.replace(db.key, writer=web.key.writer))
    thief.deliver(("db", DISK))
    assert hosts.states(hosts.admit(repo)) == ["refused"]
    web.deliver(("vm", DISK), branch="db/db")
    assert hosts.states(hosts.admit(repo)) == ["admitted", "refused"]
    assert repo.branches().keys() == {"web/db/db"}


def test_a_removed_key_adds_nothing() -> None:
    """What waits when a key is removed is refused, and so is what is delivered with it afterwards."""
    repo = repos.create()
    host, other = hosts.host(repo), hosts.host(repo, "other")
    host.deliver(("db", DISK))
    repo.keyring.remove(host.key.slot)
    host.deliver(("db", DISK))
    other.deliver(("db", DISK))
    done = hosts.admit(repo)
    assert sorted(hosts.states(done)) == ["admitted", "refused", "refused"]
    assert {item.reason for item in done if item.state == "refused"} == {
        f"the write key it was made with ({host.key.slot[:8]}) is none, or was removed"
    }
    assert repo.branches().keys() == {"other/db"}


def test_what_was_admitted_comes_back() -> None:
    """Shown once more, with its record or without, a delivery becomes no second commit; nor does a discarded one."""
    repo = repos.create()
    host = hosts.host(repo)
    sent = host.deliver(("db", DISK))
    kept = hosts.content(repo.backend)
    hosts.admit(repo)
    host.deliver(("db", DISK[:8192]))
    hosts.admit(repo)
    tip = repo.branches()["web1/db"]
    for forget in (False, True):
        if forget:
            repo.backend.delete(inbox.place(sent.id, inbox.DONE))
        for name, blob in kept.items():
            if name.startswith("inbox/"):
                repo.backend.put(name, [blob])
        hosts.admit(repo)
        assert repo.branches()["web1/db"] == tip
        assert hosts.left(repo.backend) == {"done"}
    gone = host.deliver(("db", DISK))
    kept = hosts.content(repo.backend)
    admission.discard(repo, gone.id[:6], host=hosts.HOST)
    for name, blob in kept.items():
        repo.backend.put(name, [blob])
    hosts.admit(repo)
    assert repo.branches()["web1/db"] == tip


def test_a_planted_record_hides_nothing() -> None:
    """A record that no holder of the root key wrote keeps no delivery from being admitted, and is replaced."""
    repo = repos.create()
    sent = hosts.host(repo).deliver(("db", DISK))
    repo.backend.put(inbox.place(sent.id, inbox.DONE), [b"planted"])
    assert hosts.states(hosts.admit(repo)) == ["admitted"]
    assert inbox.Records(repo.backend, repo.seals).read(sent.id).commit == repo.branches()["web1/db"]


def test_an_older_delivery_is_told() -> None:
    """What is older than its branch is recorded, and told: a clock was wrong, or somebody held it back."""
    repo = repos.create()
    host = hosts.host(repo)
    first = host.deliver(("db", DISK))
    held = {name: blob for name, blob in hosts.content(repo.backend).items() if first.id in name}
    repo.backend.delete_all(held)
    host.deliver(("db", DISK + DISK))
    progress = repos.Collector()
    hosts.admit(repo, progress)
    assert progress.problems == []
    for name, blob in held.items():
        repo.backend.put(name, [blob])
    hosts.admit(repo, progress)
    assert [problem for problem in progress.problems if "is older than what is on web1/db" in problem]


@pytest.mark.parametrize("what", ["time", "parents", "no disks", "branch", "large"])
def test_hostile_commits(what: str) -> None:
    """A host that holds a key and writes what no program writes gets nothing recorded, and stops nobody."""
    repo = repos.create()
    host, other = hosts.host(repo), hosts.host(repo, "other")
    fresh = deliveries.draw(host.key, b"moment", repo.rng)
    there = inbox.opened(repo.backend, fresh.id.hex(), fresh.root, repo.clock, repo.rng)
    good = repos.commit(repos.create(), ("db", DISK)).commit
    changes: dict[str, object] = {
        "time": {"time": "9999-99-99T99:99:99Z"},
        "parents": {"parents": ("00" * 32,)},
        "no disks": {"disks": ()},
        "branch": {"branch": "a..b"},
        "large": {"message": "x" * (2 << 20)},
    }
    made = dataclasses.replace(good, **changes[what])  # type: ignore[arg-type]
    commit_id = there.graph.store(made.encode())
    repo.backend.put(
        inbox.place(fresh.id.hex(), inbox.KEY), [deliveries.seal(host.key, fresh, (commit_id, 0), repo.rng)]
    )
    other.deliver(("db", DISK))
    assert sorted(hosts.states(hosts.admit(repo))) == ["admitted", "refused"]
    assert repo.branches().keys() == {"other/db"}
    assert isinstance(made, commits.Commit)


def test_the_branch_moves_meanwhile() -> None:
    """Two that admit at once: nothing is lost, and the second says where its commit is."""
    repo = repos.create()
    host = hosts.host(repo)
    host.deliver(("db", DISK))
    other = repos.reopen(repo)
    publish = other.logs.publish
    raced: list[repository.CommitResult] = []

    def race(*arguments: object, **said: object) -> object:
        if not raced:
            raced.append(repos.commit(repo, ("db", b"y" * 4096), branch="web1/db"))
        return publish(*arguments, **said)  # type: ignore[arg-type]

    object.__setattr__(other.logs, "publish", race)
    (done,) = hosts.admit(other)
    assert done.state == "admitted"
    assert done.reason.startswith("the branch moved meanwhile: kept as conflict/web1/db/")
    kept = next(name for name in repo.branches() if name.startswith("conflict/"))
    assert repos.restore(repo, kept) == DISK
    assert hosts.admit(other) == []


def test_a_flood_fills_the_inbox_only() -> None:
    """N25: rubbish and unfinished deliveries cost nobody else anything, are told, and can be let go."""
    repo = repos.create()
    repos.commit(repo, ("vm", DISK))
    before = {name: blob for name, blob in hosts.content(repo.backend).items() if not name.startswith("inbox/")}
    for number in range(50):
        delivery = f"{number:032x}"
        repo.backend.put(inbox.place(delivery, f"packs-{number:064x}"), [b"x" * 100])
        if number % 2:
            repo.backend.put(inbox.place(delivery, inbox.KEY), [bytes(number)])
    told = hosts.states(hosts.admit(repo))
    assert (told.count("refused"), told.count("unfinished")) == (25, 25)
    after = {name: blob for name, blob in hosts.content(repo.backend).items() if not name.startswith("inbox/")}
    assert after == before
    for number in range(50):
        admission.discard(repo, f"{number:032x}", host=hosts.HOST)
    assert hosts.admit(repo) == []
    assert repo.verify("data").problems == []
    with pytest.raises(errors.NotFound):
        admission.discard(repo, "ab", host=hosts.HOST)
    with pytest.raises(errors.UsageError, match="several deliveries"):
        admission.discard(repo, "0000", host=hosts.HOST)


def test_a_discarded_delivery_is_not_acknowledged() -> None:
    """A delivery that is discarded while it is made is told to have failed."""
    repo = repos.create()
    host = hosts.host(repo)
    outbox = host.outbox()
    put = repo.backend.put

    class Discarding:
        def __getattr__(self, name: str) -> object:
            return getattr(repo.backend, name)

        def put(self, name: str, parts: list[protocol.Buffer]) -> bool:
            if name.endswith("/key"):
                admission.discard(repo, name.split("/")[1], host=hosts.HOST)
            return put(name, parts)

    outbox.backend = Discarding()  # type: ignore[assignment]
    host.outbox = lambda: outbox  # type: ignore[method-assign]
    with pytest.raises(errors.Busy, match="discarded while it was made"):
        host.deliver(("db", DISK))
