"""Deliveries and admissions that stop anywhere: at every operation of the place, and at every power cut."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import pytest

from tests import depth, repos
from tests.crash import commits, recorder, states
from tests.gc import hooked
from tests.inbox import hosts
from vimgvc import errors
from vimgvc.backends import local, memory, protocol
from vimgvc.codec import deliveries
from vimgvc.repo import inbox, repository

DISK = repos.noise(1, 9_000) + bytes(8192) + repos.text(2, 9_000)


def _start() -> tuple[repository.Repository, hosts.Host]:
    """A repository with a commit of the host that was admitted, and the host."""
    repo = repos.create()
    repos.commit(repo, ("vm", DISK))
    host = hosts.host(repo)
    host.deliver(("db", DISK[:4096]), message="before")
    assert hosts.states(hosts.admit(repo)) == ["admitted"]
    return repo, host


class Stopping(hooked.Failing):
    """Fails from the operation `at` on; None: never, and `count` tells how many there were."""

    def __init__(self, content: dict[str, bytes], at: int | None, *, removes: bool = True) -> None:
        self.count, self.removes = 0, removes
        super().__init__(content, lambda _operation, _name: self._stop(at), lambda name: _Gone(name, "EIO", "is gone"))

    def _stop(self, at: int | None) -> bool:
        self.count += 1
        return at is not None and self.count > at

    @property
    def capabilities(self) -> protocol.Capabilities:
        return dataclasses.replace(super().capabilities, removes=self.removes, locks=False)

    def delete(self, name: str) -> None:
        if not self.removes:
            raise errors.RemoteError("memory:", "EACCES", "may not delete")
        super().delete(name)


class _Gone(errors.RemoteError):
    pass


def _open(repo: repository.Repository, backend: memory.MemoryBackend) -> repository.Repository:
    return repository.Repository.open(backend, unlocked=repo.unlocked, clock=repo.clock)


def _after(repo: repository.Repository, host: hosts.Host, backend: memory.MemoryBackend, *, sure: bool) -> None:
    """The next delivery and admission work; what was acknowledged is there once, and nothing twice or in half."""
    there = _open(repo, memory_of(backend))
    dataclasses.replace(host, backend=there.backend).deliver(("db", DISK + DISK), message="next")
    hosts.admit(there)
    found = [item.message for item in there.history("web1/db")]
    assert found in ([["next", "now", "before"]] if sure else [["next", "now", "before"], ["next", "before"]])
    if "now" in found:
        assert repos.restore(there, "web1/db~1") == DISK
    assert repos.restore(there, "web1/db") == DISK + DISK
    assert repos.restore(there, "vm") == DISK
    assert there.verify("data").problems == []


def memory_of(backend: memory.MemoryBackend) -> memory.MemoryBackend:
    return hosts.copy(dict(backend._blobs))


@pytest.mark.parametrize("removes", [True, False])
def test_a_delivery_stops_anywhere(removes: bool, seed: int) -> None:
    """A delivery that stops at any operation is there whole or not at all; when it was acknowledged it is there."""
    repo, host = _start()
    before = hosts.content(repo.backend)
    whole = Stopping(before, None, removes=removes)
    dataclasses.replace(host, backend=whole).deliver(("db", DISK), message="now")
    assert whole.count > 10
    _after(repo, host, whole, sure=True)
    for at in depth.some(range(whole.count), 25, seed):
        stopped = Stopping(before, at, removes=removes)
        with pytest.raises(_Gone):
            dataclasses.replace(host, backend=stopped).deliver(("db", DISK), message="now")
        assert {name: blob for name, blob in stopped._blobs.items() if name in before} == before
        _after(repo, host, stopped, sure=False)


@pytest.mark.parametrize("removes", [True, False])
def test_an_admission_stops_anywhere(removes: bool, seed: int) -> None:
    """An admission that stops at any operation has published nothing in half, and the next one ends it: once."""
    repo, host = _start()
    host.deliver(("db", DISK), message="now")
    before = hosts.content(repo.backend)
    whole = Stopping(before, None, removes=removes)
    hosts.admit(_open(repo, whole))
    assert whole.count > 20
    for at in depth.some(range(whole.count), 25, seed):
        stopped = Stopping(before, at, removes=removes)
        with contextlib.suppress(_Gone):
            hosts.admit(_open(repo, stopped))
        left = memory_of(stopped)
        there = _open(repo, left)
        for name in there.branches():
            assert repos.restore(there, name)
        hosts.admit(there)
        assert [item.message for item in there.history("web1/db")] == ["now", "before"], at
        assert not [name for name in there.branches() if name.startswith("conflict/")]
        _after(repo, host, left, sure=True)


def test_places_where_nothing_is_removed() -> None:
    """N24: hosts deliver and admissions record where nothing may be removed, once, however often it is asked."""
    repo, host = _start()
    place = Stopping(hosts.content(repo.backend), None, removes=False)
    host = dataclasses.replace(host, backend=place)
    there = _open(repo, place)
    for number in range(3):
        host.deliver(("db", DISK), message=f"number {number}")
        assert hosts.states(hosts.admit(there)) == ["admitted"]
        assert hosts.admit(there) == []
    sent = host.deliver(("db", DISK), message="number 3")
    place.put(inbox.place(sent.id, inbox.DONE), [b"planted, and not to be removed"])
    progress = repos.Collector()
    assert hosts.states(hosts.admit(there, progress)) == ["admitted"]
    assert hosts.admit(there) == []
    assert [item.message for item in there.history("web1/db")] == [
        *("number 3", "number 2", "number 1", "number 0"),
        "before",
    ]
    assert [problem for problem in progress.problems if "may not be removed" in problem]


# -- power cuts --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Delivered:
    """From now on the delivery with this message is there, waiting or admitted."""

    message: str


class Life:
    """A repository with a delivery that waits; then, to be replayed, another one and the admission of both."""

    first: int

    def __init__(self, kind: type[local.LocalBackend] = local.LocalBackend) -> None:
        recording = recorder.RecordingFiles(commits.start())
        self.unlocked = commits.create(recording).unlocked
        repo = commits.reopen(recording, self.unlocked)
        assert commits.commit(repo, "one").created
        self.key: deliveries.WriteKey = inbox.add_key(repo, "web1/", "web1")
        self.disks = {f"d{number}": repos.noise(number, 9_000) for number in range(2)}
        self.clock = itertools.count(1_700_000_000, 3600)
        for message, disk in self.disks.items():
            opened = commits.reopen(recording, self.unlocked, kind)
            self.host(opened).deliver(("db", disk), message=message)
            recording.acknowledge(Delivered(message))
            if message == "d0":
                self.first = len(recording.log) - 1
        hosts.admit(commits.reopen(recording, self.unlocked, kind))
        self.log = recording.log

    def host(self, repo: repository.Repository) -> hosts.Host:
        return hosts.Host(repo.backend, self.key, clock=self.clock)

    def check(self, state: states.State) -> None:
        """What was acknowledged is admitted now, in order, once, and stays; and the next delivery too."""
        promised = [promise.message for promise in state.promises if isinstance(promise, Delivered)]
        repo = commits.reopen(state.files, self.unlocked)
        self.host(repo).deliver(("db", DISK), message="next")
        told = hosts.states(hosts.admit(repo))
        assert set(told) <= {"admitted", "unfinished"}, told
        later = commits.reopen(state.files.crash(states.Certain("synced")), self.unlocked)
        found = [item.message for item in later.history("web1/db")][::-1]
        following = [name for name in self.disks if name not in promised][:1]
        assert found in ([*promised, "next"], [*promised, *following, "next"]), found
        for number, message in enumerate(reversed(found)):
            expected = DISK if message == "next" else self.disks[message]
            assert repos.restore(later, f"web1/db~{number}") == expected
        assert later.verify("quick").problems == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_d2_power_cuts(seed: int) -> None:
    """D1, D2: no power cut costs a delivery that was acknowledged, or admits one twice or in half."""
    life = Life()
    assert states.replay(life.log, commits.start(), life.check, seed=seed, drawn=0, first=life.first, sample=30) > 100


class NoSyncAtAll(local.LocalBackend):
    """Leaves the names of files to chance."""

    def sync(self) -> None:
        return


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rig_finds_deliveries_that_were_not_synced(seed: int) -> None:
    """The replay fails when a delivery is not durable before it is acknowledged."""
    life = Life(NoSyncAtAll)
    with pytest.raises(AssertionError, match=r"^state \w+, seed \d+, after operation \d+ of \d+ "):
        states.replay(life.log, commits.start(), life.check, seed=seed, drawn=0, first=life.first)
