"""Giving names beside collections: what may be gone is not published."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import repos
from tests.gc import hooked, past
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import reflog
from vimgvc.repo import gcrecords, pins, publication, repository

TIME = "2027-01-15T08:00:00Z"


@pytest.fixture
def repo() -> repository.Repository:
    repo = repos.create()
    repos.commit(repo, ("vm", repos.noise(1, 40_000)))
    return repo


def _say(repo: repository.Repository, epoch: int, *phases: str, **named: tuple[str, ...]) -> None:
    records = gcrecords.Records(repo.backend, repo.seals)
    for phase in phases:
        said = {} if phase in (gcrecords.BEGIN, gcrecords.TAKEN) else named
        records.put(gcrecords.Record(epoch, phase, TIME, "elsewhere", **said))  # type: ignore[arg-type]


def _packs(repo: repository.Repository) -> tuple[str, ...]:
    return tuple(sorted(past.packs(repo.backend)))


ALL = ("begin", "condemn", "sweep", "done")


@pytest.mark.parametrize("phases", [ALL[:3], ALL])
def test_k3_swept_since_the_first_look(repo: repository.Repository, phases: tuple[str, ...]) -> None:
    """K3: a pack that was swept since the first look may be gone, whether the collection has ended or not."""
    pub = publication.Publication.begin(repo)
    tip = repo.branches()["vm"]
    pub.pin(tip)
    _say(repo, 1, *phases, packs=_packs(repo))
    repo.logs.publish(reflog.BRANCH, "vm", None, repo.last_refs(), time=TIME, host="")
    with pytest.raises(publication.Swept):
        pub.check(_packs(repo))


@pytest.mark.parametrize("phases", [("begin",), ("begin", "condemn"), ("begin", "condemn", "sweep", "spared")])
def test_k3_nothing_is_lost_before_the_sweep_or_when_spared(
    repo: repository.Repository, phases: tuple[str, ...]
) -> None:
    """K3: what is condemned but not swept, or swept and spared, can be relied on by who did before."""
    pub = publication.Publication.begin(repo)
    known = repo.last_refs()
    tip = repo.branches()["vm"]
    _say(repo, 1, *phases, packs=_packs(repo))
    pub.pin(tip)
    pub.check(_packs(repo))
    pub.publish(reflog.TAG, "v1", tip, known, time=TIME, host="")
    pub.end()
    assert repo.tags() == {"v1": tip}
    assert pins.Pins(repo.backend, repo.seals).ids() == []


def test_k4_records_that_are_gone(repo: repository.Repository) -> None:
    """K4: who was stopped while collections came and went cannot know what they removed."""
    pub = publication.Publication.begin(repo)
    pub.pin(repo.branches()["vm"])
    _say(repo, 2, *ALL)
    with pytest.raises(publication.Swept):
        pub.check(())


def test_k4_an_epoch_that_was_open_and_is_gone(repo: repository.Repository) -> None:
    """K4: the same for a collection that had begun before."""
    _say(repo, 1, "begin")
    pub = publication.Publication.begin(repo)
    pub.pin(repo.branches()["vm"])
    repo.backend.delete_all([gcrecords.name(1, "begin")])
    with pytest.raises(publication.Swept):
        pub.check(())


def test_k3_swept_packs_are_avoided_from_the_start(repo: repository.Repository) -> None:
    """K3: packs and commits that an unfinished collection named are nobody's to rely on; finished ones say nothing."""
    commit_id = "ab" * 32
    _say(repo, 1, *ALL, packs=("11" * 32,))
    _say(repo, 2, *ALL[:2], packs=("22" * 32,), commits=(commit_id,))
    _say(repo, 3, *ALL[:3], packs=("33" * 32, "44" * 32))
    _say(repo, 3, "spared", packs=("44" * 32,))
    pub = publication.Publication.begin(repo)
    assert pub.avoid == {"22" * 32, "33" * 32}
    assert pub.gone == {commit_id}


def _moment(operation: str, area: str, act: Callable[[], None]) -> Callable[[int, str, str], None]:
    """A hook that acts once, before the first such operation."""
    left = [act]

    def hook(_: int, done: str, name: str) -> None:
        if left and (done, name.partition("/")[0]) == (operation, area):
            left.pop()()

    return hook


def _hooked(repo: repository.Repository, operation: str, area: str, act: Callable[[], None]) -> repository.Repository:
    assert isinstance(repo.backend, memory.MemoryBackend)
    backend = hooked.Hooked({}, _moment(operation, area, act))
    backend._blobs = repo.backend._blobs
    return repository.Repository.open(backend, [repos.SECRET], clock=repo.clock)


def test_k3_a_commit_is_stored_again(repo: repository.Repository) -> None:
    """K3: a commit that relies on what is swept between its two looks stores it again, and says so."""
    data = repos.noise(1, 40_000)
    old = _packs(repo)

    def sweep() -> None:
        repo.logs.publish(reflog.BRANCH, "vm", None, repo.last_refs(), time=TIME, host="")
        _say(repo, 1, *ALL, packs=old)
        repo.backend.delete_all([f"packs/{name[:2]}/{name}" for name in old])

    told = repos.Collector()
    done = repos.commit(_hooked(repo, "put", "pins", sweep), ("vm", data), branch="other", progress=told)
    assert done.created
    assert len(told.notes) == 1
    assert repos.restore(repo, "other") == data
    assert not set(old) & past.packs(repo.backend)
    assert pins.Pins(repo.backend, repo.seals).ids() == []


def test_k3_who_cannot_store_again_is_refused(repo: repository.Repository) -> None:
    """K3: a name for a commit whose data is being removed is refused, and nothing is left."""
    tip = repo.branches()["vm"]
    repo.logs.publish(reflog.BRANCH, "vm", None, repo.last_refs(), time=TIME, host="")
    _say(repo, 1, *ALL[:3], packs=_packs(repo))
    with pytest.raises(publication.Swept) as caught:
        repo.set_ref(reflog.TAG, "v1", tip, expect=None)
    assert caught.value.exit_code == 11
    assert repo.tags() == {}
    assert pins.Pins(repo.backend, repo.seals).ids() == []


def test_k3_data_that_is_gone_is_not_named(repo: repository.Repository) -> None:
    """K3: nor is a commit that no name leads to and whose data a collection that ended has removed."""
    tip = repo.branches()["vm"]
    repo.logs.publish(reflog.BRANCH, "vm", None, repo.last_refs(), time=TIME, host="")
    repo.backend.delete_all([f"packs/{name[:2]}/{name}" for name in _packs(repo)])
    with pytest.raises(errors.NotFound):
        repo.set_ref(reflog.TAG, "v1", tip, expect=None)
    assert repo.tags() == {}


@pytest.mark.parametrize("swept", [False, True])
def test_k10_a_pin_that_was_removed_by_force(repo: repository.Repository, swept: bool) -> None:
    """K10: who was taken for dead looks again after the ref entry, and takes it back when its data may be gone."""
    data = repos.noise(1, 40_000)
    old = _packs(repo)

    def expire() -> None:
        found = pins.Pins(repo.backend, repo.seals)
        repo.backend.delete_all([pins.name(pin_id) for pin_id in found.ids()])
        if swept:
            _say(repo, 1, *ALL, packs=old)
            repo.logs.publish(reflog.BRANCH, "vm", None, repo.last_refs(), time=TIME, host="")
            repo.backend.delete_all([f"packs/{name[:2]}/{name}" for name in old])

    told = repos.Collector()
    done = repos.commit(_hooked(repo, "put", "refs", expire), ("vm", data), branch="other", progress=told)
    assert sum("is taken back" in problem for problem in told.problems) == len(told.notes) == int(swept)
    assert repos.restore(repo, "other") == data
    assert len(repo.reflog("branch", "other")) == (3 if swept else 1)
    assert repo.branches()["other"] == done.commit.id


def test_a_pin_stays_when_nobody_knows(repo: repository.Repository) -> None:
    """After an error of which nobody knows what it left, the commit is held by its pin."""

    def fail(operation: str, name: str) -> bool:
        return operation == "put" and name.startswith("refs/")

    assert isinstance(repo.backend, memory.MemoryBackend)
    backend = hooked.Failing(repo.backend._blobs, fail, lambda name: errors.RemoteError(name, "timeout", "no answer"))
    broken = repository.Repository.open(backend, [repos.SECRET], clock=repo.clock)
    with pytest.raises(errors.RemoteError):
        repos.commit(broken, ("vm", b"x" * 5000))
    (pin,) = pins.Pins(backend, repo.seals).all().values()
    assert pin.host == "host"
    assert broken.graph.load(pin.commit).branch == "vm"
