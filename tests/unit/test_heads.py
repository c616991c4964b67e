"""The fingerprint of where all logs end: found again in whatever grew from there, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from tests import repos, test_specs
from tests.unit import test_views
from vimgvc import errors
from vimgvc.model import reflog
from vimgvc.repo import heads, repository

_NAMES = ("vm", "web", "db")
move, entry, copied = test_views.move, test_views.entry, test_views.copied


def noted(repo: repository.Repository) -> str:
    return heads.fingerprint(repo.id, heads.read(repo))


def holds(repo: repository.Repository, head: str) -> bool:
    try:
        heads.check(repo, heads.parse(head))
    except errors.Rollback:
        return False
    return True


def fresh(repo: repository.Repository) -> repository.Repository:
    """As a client that has never seen it."""
    return repository.Repository.open(repo.backend, unlocked=repo.unlocked, clock=repo.clock)


def test_it_is_that_of_the_specification() -> None:
    """What specs/repository.md computes from numbers and hashes is what the program prints."""
    path = next(path for path in test_specs._FILES if path.name == "repository.md")
    names, result = test_specs._run(path)
    assert result.failed == 0
    repo = repos.create()
    for step in ["", "vm", "web", "vm", "db", "web", "vm"]:
        if step:
            move(repo, step)
        ends = {
            blind: (ref.seq, ref.hash, {other: tuple(end) for other, end in ref.entry.seen.items()})
            for blind, ref in heads.read(repo).items()
        }
        assert names["fingerprint"](repo.id, ends) == noted(repo)


def test_n17_what_has_grown_holds_every_fingerprint_of_its_past(seed: int) -> None:
    """Whatever logs were written since, in whatever order, each state that was noted is found again."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    past = [noted(repo)]
    for _ in range(25):
        move(repo, _NAMES[rng.integers(3)], [reflog.BRANCH, reflog.TAG][rng.integers(2)])
        past.append(noted(repo))
    assert len(set(past)) == len(past)
    client = fresh(repo)
    assert all(holds(client, head) for head in past)


def test_n17_a_withheld_entry_is_noticed_by_whoever_has_a_fingerprint(seed: int) -> None:
    """A first look at a repository without its newest entries trusts; with a fingerprint of them it does not."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    made: list[tuple[str, str]] = []
    states = {0: noted(repo)}
    for number in range(1, 13):
        blind = move(repo, _NAMES[rng.integers(3)])
        made.append((blind, entry(blind, repo.logs.ends()[blind])))
        states[number] = noted(repo)
    for withheld in range(1, 13):
        repo.backend.delete(made[-withheld][1])
        client = fresh(repo)
        assert test_views.opened(client).differences == [], "nobody can know"
        left = 12 - withheld
        assert [holds(client, states[number]) for number in range(13)] == [number <= left for number in range(13)]


def test_n17_another_history_does_not_hold_it() -> None:
    """A log that went another way from before the state that was noted is refused, however long it is."""
    repo = repos.create()
    move(repo, "vm")
    other = copied(repo)
    before = noted(repo)
    move(repo, "vm")
    for _ in range(5):
        move(other, "vm")
    assert holds(fresh(other), before)
    assert not holds(fresh(other), noted(repo))
    with pytest.raises(errors.Rollback, match=noted(repo)) as caught:
        heads.check(other, heads.parse(noted(repo)))
    assert caught.value.exit_code == 22


def test_n17_a_joined_history_does_not_hold_it() -> None:
    """The entry that was noted is there, but not all that it tells of."""
    repo = repos.create()
    move(repo, "vm")
    other = copied(repo)
    move(repo, "vm")
    move(other, "vm")
    web = move(other, "web")
    head = noted(other)
    test_views.take_over(repo, other, entry(web, 1))
    assert not holds(fresh(repo), head)


def test_several_that_wrote_at_the_same_time_are_all_named() -> None:
    """Entries that did not see each other are joined, and each has to be there."""
    repo = repos.create()
    move(repo, "vm")
    known = repo.last_refs()
    blinds = []
    for name in ("a", "b", "c"):
        ref = repo.logs.publish(reflog.TAG, name, None, known, time="2026-01-02T03:04:05Z", host="h")
        blinds.append(ref.blind)
    head = noted(repo)
    assert head.count("+") == 2
    assert holds(fresh(repo), head)
    move(repo, "vm")
    assert "+" not in noted(repo)
    assert holds(fresh(repo), head)
    repo.backend.delete(entry(blinds[1], 1))
    assert not holds(fresh(repo), head)


def test_a_repository_without_entries_is_told_by_its_identifier() -> None:
    """The fingerprint of an empty repository is held by it, and by no other one."""
    one, two = repos.create(), repos.create()
    move(two, "vm")
    assert holds(one, noted(one))
    assert not holds(two, noted(one))


def test_what_was_added_since_is_read_and_nothing_else() -> None:
    """A fingerprint from twenty entries ago costs about twenty reads, and that of now one for each log."""
    repo = repos.create()
    for _ in range(40):
        move(repo, "vm")
    move(repo, "web")
    head = noted(repo)
    for _ in range(20):
        move(repo, "vm")
    client = fresh(repo)
    calls: list[tuple[str, str]] = client.backend.calls  # type: ignore[attr-defined]
    calls.clear()
    assert holds(client, head)
    assert len([name for operation, name in calls if operation == "get"]) <= 20 + 1 + 3


def test_damage_on_the_way_is_damage() -> None:
    """A damaged entry that would have to be compared is exit code 20, not 22."""
    repo = repos.create()
    vm = move(repo, "vm")
    head = noted(repo)
    move(repo, "vm")
    blob = bytearray(repo.backend.get(entry(vm, 1)))
    blob[60] ^= 1
    repo.backend.delete(entry(vm, 1))
    repo.backend.put(entry(vm, 1), [blob])
    with pytest.raises(errors.IntegrityError):
        heads.check(fresh(repo), heads.parse(head))
    repo.backend.delete(entry(vm, 2))
    with pytest.raises(errors.IntegrityError):
        heads.read(fresh(repo))


@pytest.mark.parametrize("typed", ["", "12", "12-", "12-abc", "x-0123456789abcdef0123", "1-0123456789abcdef0123+", "+"])
def test_what_is_no_fingerprint_is_a_usage_error(typed: str) -> None:
    """Whatever is not what `head` prints is refused as such, before anything is opened."""
    with pytest.raises(errors.UsageError):
        heads.parse(typed)


def test_spaces_and_case_do_not_matter() -> None:
    """Somebody types it from paper."""
    assert heads.parse(" 12-0123456789ABCDEF0123 ") == ((12, "0123456789abcdef0123"),)
