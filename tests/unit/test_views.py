"""What ref entries tell of other logs gives away a log that was cut, and one that was shown in two versions."""

from __future__ import annotations

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import reflog
from vimgvc.monitor import NullMonitor
from vimgvc.repo import repository, roots, views


def copied(repo: repository.Repository) -> repository.Repository:
    """The same blobs in a place of their own, opened afresh."""
    place = memory.MemoryBackend()
    for area in ("keys", "packs", "index", "commits", "refs"):
        for item in list(repo.backend.list(area)):
            place.put(item.name, [repo.backend.get(item.name)])
    place.put("config", [repo.backend.get("config")])
    return repository.Repository.open(place, unlocked=repo.unlocked, clock=repo.clock)


def move(repo: repository.Repository, name: str, kind: str = reflog.BRANCH) -> str:
    """One more entry in a log, which sees all others; the log."""
    known = repo.last_refs()
    blind = repo.seals.blind(kind, name)
    repo.logs.publish(kind, name, None, known, time="2026-01-02T03:04:05Z", host="h")
    return blind


def entry(blind: str, seq: int) -> str:
    return f"refs/{blind}/{seq:016x}"


def take_over(repo: repository.Repository, other: repository.Repository, name: str) -> None:
    """What a server does that joins two histories: an entry of one appears in the other."""
    assert repo.backend.put(name, [other.backend.get(name)])


def opened(
    repo: repository.Repository,
    done: dict[str, int] | None = None,
    accepted: views.Accepted = views.NOTHING,
    budget: int = 100,
) -> views.Checked:
    logs = repo.logs
    return views.check(logs, logs.last(NullMonitor()), {}, done or {}, accepted=accepted, budget=budget)


def whole(repo: repository.Repository, accepted: views.Accepted = views.NOTHING) -> list[views.Difference]:
    found = views.Whole()
    for blind in repo.logs.ends():
        for ref in repo.logs.readable(blind):
            found.add(ref)
    return found.differences(repo.logs, accepted)


@pytest.fixture
def repo() -> repository.Repository:
    """Branch `vm` with three entries, then `web` with one that saw them."""
    made = repos.create()
    for _ in range(3):
        move(made, "vm")
    move(made, "web")
    return made


def test_a_sound_repository_is_sound(repo: repository.Repository, seed: int) -> None:
    """However logs grew between each other, nothing is told of them that is not so."""
    rng = np.random.default_rng(seed)
    for _ in range(30):
        move(repo, ["vm", "web", "db"][rng.integers(3)])
    assert opened(repo).differences == []
    assert whole(repo) == []


@pytest.mark.parametrize("decoy", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_n15_a_log_that_was_cut_is_given_away_by_another(repo: repository.Repository, kept: int, decoy: bool) -> None:
    """Entry 1 of `web` saw `vm` with three entries: with fewer, or none, the first look tells.

    A name with a high number that means nothing does not hide it.
    """
    vm = repo.seals.blind(reflog.BRANCH, "vm")
    if decoy:
        repo.backend.put(entry(vm, 1 << 60), [b"no entry"])
    for seq in range(kept + 1, 4):
        repo.backend.delete(entry(vm, seq))
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    for found in (opened(again).differences, whole(again)):
        assert [(one.blind, one.seq, one.found) for one in found] == [(vm, 3, kept)]
        assert "entry 1 of branch 'web' tells of 3 entries" in views.describe(found, {})
    if decoy:
        return  # which gc takes for damage, and goes no further
    with pytest.raises(errors.Rollback, match="tells of 3 entries"):
        roots.read(again.backend, again.seals)
    assert roots.read(again.backend, again.seals, accepted={vm: [(kept, 3)]}).heads


def test_n16_two_histories_that_are_joined_are_noticed(repo: repository.Repository) -> None:
    """Two writers were shown two versions of `vm`; an entry of one that reaches the other names another `vm`."""
    other = copied(repo)
    move(repo, "vm")
    move(other, "vm")
    web = move(other, "web")
    take_over(repo, other, entry(web, 2))
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    for found in (opened(again).differences, whole(again)):
        assert [(one.seq, one.found) for one in found] == [(4, 4)]
        text = views.describe(found, {found[0].blind: ("branch", "vm")})
        assert text == "branch 'vm' has another entry 4 than entry 2 of branch 'web' tells"
    problems = [item for item in again.verify().problems if item.kind == "ref"]
    assert [item.object for item in problems] == ["vm"]
    with pytest.raises(errors.Rollback):
        roots.read(again.backend, again.seals)


def test_n16_a_fork_that_lies_further_back_is_noticed(repo: repository.Repository) -> None:
    """Also when both sides went on; what has to be read for it is read little by little, and only once."""
    other = copied(repo)
    for _ in range(4):
        move(repo, "vm")
        move(other, "vm")
    web = move(other, "web")
    for _ in range(4):
        move(repo, "vm")
    take_over(repo, other, entry(web, 2))
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    none = opened(again, budget=0)
    assert none.differences == []
    assert web not in none.done
    found = opened(again)
    assert [(one.seq, one.found) for one in found.differences] == [(7, 11)]
    assert found.done[web] == 2


def test_what_was_compared_is_not_read_again(repo: repository.Repository) -> None:
    """After all was compared nothing but the last entries is read, and of the rest only what an entry is new for."""
    for name in ("a", "b", "c"):
        move(repo, name)
    for _ in range(3):
        move(repo, "vm")
    assert isinstance(repo.backend, memory.MemoryBackend)
    known = repo.last_refs()
    repo.backend.calls.clear()
    first = views.check(repo.logs, known, {}, {}, accepted={}, budget=100)
    assert len(repo.backend.calls) == 1, "entry 3 of vm, which four tell of"
    repo.backend.calls.clear()
    assert views.check(repo.logs, known, {}, first.done, accepted={}, budget=100) == first
    assert repo.backend.calls == []


def test_a_budget_is_used_up_over_several_times() -> None:
    """What one opening had no room for the next one compares, until all is."""
    repo = repos.create()
    for number in range(8):
        move(repo, f"tag{number}", reflog.TAG)
        move(repo, "vm")
    done: dict[str, int] = {}
    rounds = 0
    while len(done) < 9:
        before = len(done)
        done |= opened(repo, done, budget=2).done
        assert len(done) > before
        rounds += 1
    assert rounds > 2


def test_what_was_added_meanwhile_is_no_rollback(repo: repository.Repository) -> None:
    """A listing that has an entry but not yet an earlier one of another log is asked again by name."""
    vm, web = repo.seals.blind(reflog.BRANCH, "vm"), repo.seals.blind(reflog.BRANCH, "web")
    move(repo, "vm")
    move(repo, "web")
    known = repo.last_refs()
    stale = {web: known[web], vm: repo.logs.read(vm, 3)}
    found = views.check(repo.logs, stale, {}, {}, accepted={}, budget=100)
    assert found.differences == []


def test_damage_is_no_rollback(repo: repository.Repository) -> None:
    """An entry that others tell of and that is damaged, or missing below a later one, is left to `verify`."""
    vm = repo.seals.blind(reflog.BRANCH, "vm")
    move(repo, "vm")
    move(repo, "vm")
    blob = bytearray(repo.backend.get(entry(vm, 3)))
    repo.backend.delete(entry(vm, 3))
    assert opened(repo).differences == []
    blob[60] ^= 1
    repo.backend.put(entry(vm, 3), [blob])
    assert opened(repo).differences == []
    assert whole(repo) == []


def test_an_entry_that_follows_a_damaged_one_is_no_fork(repo: repository.Repository) -> None:
    """Whoever goes on from a damaged entry holds the hash of the damage; what others tell of it stays true."""
    vm = repo.seals.blind(reflog.BRANCH, "vm")
    blob = repo.backend.get(entry(vm, 3))
    repo.backend.delete(entry(vm, 3))
    repo.backend.put(entry(vm, 3), [blob[:60] + bytes([blob[60] ^ 1]) + blob[61:]])
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    move(again, "vm")
    assert opened(again).differences == []
    assert whole(again) == []
    repo.backend.delete(entry(vm, 3))
    repo.backend.put(entry(vm, 3), [blob])
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    assert opened(again).differences == []
    assert [item.object for item in again.verify().problems] == ["vm"], "the chain"


def test_r13_verify_reports_each_log_once(repo: repository.Repository) -> None:
    """A cut log that many entries tell of is one problem; what was accepted is none."""
    vm = repo.seals.blind(reflog.BRANCH, "vm")
    for _ in range(3):
        move(repo, "vm")
        move(repo, "web")
    for seq in (4, 5, 6):
        repo.backend.delete(entry(vm, seq))
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    problems = [item for item in again.verify().problems if item.kind == "ref"]
    assert [(item.object, item.detail) for item in problems] == [
        ("vm", "branch 'vm' ends with entry 3, entry 4 of branch 'web' tells of 6 entries")
    ]
    again.accepted = {vm: [views.spans(whole(again))[vm]]}
    assert again.verify().problems == []


def test_n15_a_log_that_shrinks_while_it_is_used_is_noticed(repo: repository.Repository) -> None:
    """Between two looks of one run a log neither gets shorter nor becomes another one."""
    vm = repo.seals.blind(reflog.BRANCH, "vm")
    repo.last_refs()
    last = repo.backend.get(entry(vm, 3))
    repo.backend.delete(entry(vm, 3))
    with pytest.raises(errors.Rollback, match="a moment ago"):
        repo.last_refs()
    repo.backend.put(entry(vm, 3), [last])
    repo.last_refs()
    repo.backend.delete(entry(vm, 3))
    other = copied(repo)
    move(other, "vm")
    take_over(repo, other, entry(vm, 3))
    with pytest.raises(errors.Rollback, match="a moment ago"):
        repo.last_refs()
