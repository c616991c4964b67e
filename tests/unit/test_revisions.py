"""What names a commit besides branches and identifiers: what a branch was before, and when (R13, K13)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.model import reflog
from vimgvc.repo import moments, names, repository, revisions

START = 1_800_000_000  # 2027-01-15T08:00:00Z


class Clock:
    """Shows what it is set to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
def repo(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> repository.Repository:
    """Branch `vm` with three commits, a day apart; the last a day ago."""
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    made = repos.create()
    made.clock = clock
    for step in range(3):
        repos.commit(made, ("vm", f"state {step}".encode()))
        clock.now += 86400
    return made


def test_what_a_branch_was(repo: repository.Repository) -> None:
    """@{N} is the N-th value before the present one, also where a branch went back; ~ and ^ start from there."""
    first, second, third = (repo.resolve(f"vm~{step}").id for step in (2, 1, 0))
    repo.set_ref("branch", "vm", first, expect=third)
    assert [repo.resolve(f"vm@{{{number}}}").id for number in range(4)] == [first, third, second, first]
    assert repo.resolve("vm@{1}~2").id == first
    with pytest.raises(errors.NotFound) as caught:
        repo.resolve("vm@{4}")
    assert "@{0} to @{3}" in caught.value.hint


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("now", 2),
        ("1 day ago", 2),
        ("yesterday", 2),
        ("2.days.ago", 1),
        ("30 hours ago", 1),
        ("2027-01-16 08:00", 1),
        ("2027-01-16T07:59:59Z", 0),
        ("2027-01-16 09:00+01:00", 1),
        ("2027-01-17", 1),
        ("a year from 2099", None),
        ("2027-13-01", None),
        ("2027-02-30", None),
        ("9999999999", None),
        ("yesterdays", None),
        ("٣", None),
    ],
)
def test_what_a_branch_was_at_a_time(repo: repository.Repository, at: str, message: int | None) -> None:
    """@{date} is the last value that was there at that time; what is no date is a usage error that shows some."""
    if message is None:
        with pytest.raises(errors.UsageError, match="not a date") as caught:
            repo.resolve(f"vm@{{{at}}}")
        assert "2026-05-01" in caught.value.hint
    else:
        assert repos.restore(repo, f"vm@{{{at}}}") == f"state {message}".encode()


def test_before_a_branch_was_made(repo: repository.Repository) -> None:
    """There is no value before the first, and the error says since when there is one."""
    for at in ("2027-01-15T07:59:59Z", "2 weeks ago", "500 years ago"):
        with pytest.raises(errors.NotFound) as caught:
            repo.resolve(f"vm@{{{at}}}")
        assert "2027-01-15T08:00:00Z" in caught.value.hint


@pytest.mark.parametrize(
    "revision", ["@{1}", "vm@{}", "vm@{1", "vm@{1}@{1}", "vm@{1}x", "vm@{{1}}", "vm@{1}~x", "~@{1}"]
)
def test_malformed(repo: repository.Repository, revision: str) -> None:
    """What is no revision is a usage error with a hint."""
    with pytest.raises(errors.UsageError) as caught:
        repo.resolve(revision)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("vm", ("vm", None)),
        ("vm:disk", ("vm", "disk")),
        ("vm@{2026-05-01 10:00}", ("vm@{2026-05-01 10:00}", None)),
        ("vm@{2026-05-01 10:00:30}~1:a:b", ("vm@{2026-05-01 10:00:30}~1", "a:b")),
        ("vm:a{b}", ("vm", "a{b}")),
    ],
)
def test_disk_of_a_revision(typed: str, expected: tuple[str, str | None]) -> None:
    """The colon of a time is not the one before the disk."""
    assert revisions.split(typed) == expected


def test_disk_by_name_and_alone(repo: repository.Repository) -> None:
    """REV:DISK is that disk, REV alone its only one; where there are more, the error names them."""
    commit, disk = repo.resolve_disk("vm@{1}:vm")
    assert (commit, disk) == (repo.resolve("vm~1"), commit.disks[0])
    assert repo.resolve_disk("vm~1") == (commit, disk)
    repos.commit(repo, ("a", b"1"), ("b", b"2"), branch="two")
    with pytest.raises(errors.UsageError) as caught:
        repo.resolve_disk("two")
    assert "(a, b)" in caught.value.hint


def test_order_of_kinds(repo: repository.Repository) -> None:
    """A whole identifier is that commit, whatever is called like it; then come branches, tags, prefixes."""
    first, third = repo.resolve("vm~2").id, repo.resolve("vm").id
    for kind, name, commit in (
        ("branch", first, third),
        ("tag", "vm", first),
        ("tag", "release", first),
        ("branch", third[:8], first),
    ):
        repo.set_ref(kind, name, commit, expect=None)
    assert repo.resolve(first).id == repo.resolve(first.upper()).id == first
    assert repo.resolve("vm").id == third
    assert repo.resolve("release").id == first
    assert repo.resolve(third[:8]).id == first
    assert repo.resolve(third[:9].upper()).id == third


def test_hints(repo: repository.Repository) -> None:
    """What is not found comes with what there is, or what is meant; deleted names with the way back."""
    hints = {}
    for revision in ("vn", "abc", "vm~7", "vm^2"):
        with pytest.raises(errors.NotFound) as caught:
            repo.resolve(revision)
        assert caught.value.name == revision
        hints[revision] = caught.value.hint
    assert hints["vn"] == "branches: vm"
    assert "4 or more" in hints["abc"]
    assert "is the first" in hints["vm~7"]
    assert "no parent 2" in hints["vm^2"]
    for number in range(12):
        repo.set_ref("tag", f"release-{number}", repo.resolve("vm").id, expect=None)
    for name, hint in (("relaese-1", "did you mean release-1"), ("zzzz", "'vimgvc branch' and 'vimgvc tag'")):
        with pytest.raises(errors.NotFound) as caught:
            repo.resolve(name)
        assert hint in caught.value.hint
    repo.set_ref("branch", "vm", None, expect=repo.resolve("vm").id)
    with pytest.raises(errors.NotFound) as caught:
        repo.resolve("vm~1")
    assert "was deleted" in caught.value.hint
    assert "vm@{1}" in caught.value.hint
    assert repos.restore(repo, "vm@{1}~1") == b"state 1"


def test_ambiguous_prefix(repo: repository.Repository) -> None:
    """Candidates are told with their branch and day; damaged ones too, and how many more there are."""
    template = repo.resolve("vm")
    ids = [repo.graph.store(dataclasses.replace(template, message=str(number)).encode()) for number in range(3000)]
    prefix = max((item[:4] for item in ids), key=lambda start: sum(item.startswith(start) for item in ids))
    meant = sorted(item for item in repo.graph.ids() if item.startswith(prefix))
    assert len(meant) > 1
    repo.backend.delete(f"commits/{meant[0]}")
    repo.backend.put(f"commits/{meant[0]}", [b"damaged"])
    with pytest.raises(errors.UsageError) as caught:
        repos.reopen(repo).resolve(prefix)
    assert f"{meant[0][:12]} (damaged), {meant[1][:12]} (vm, {template.time[:10]})" in caught.value.hint


def _without(repo: repository.Repository, kind: str, name: str, seq: int) -> repository.Repository:
    repo.backend.delete(f"refs/{repo.seals.blind(kind, name)}/{seq:016x}")
    return repos.reopen(repo)


def test_r13_entry_missing_in_the_middle(repo: repository.Repository) -> None:
    """R13: over a gap nobody is led (22); the branch, and commits by identifier, are there; the rest is shown."""
    first, third = repo.resolve("vm~2").id, repo.resolve("vm").id
    cut = _without(repo, "branch", "vm", 2)
    assert (cut.resolve("vm").id, cut.resolve("vm@{0}").id, cut.resolve(first[:12]).id) == (third, third, first)
    for revision in ("vm@{1}", "vm@{2}", "vm@{yesterday}"):
        with pytest.raises(errors.Rollback, match="lacks entry 2") as caught:
            cut.resolve(revision)
        assert "--accept" in caught.value.hint
    with pytest.raises(errors.Rollback, match="not whole"):
        cut.reflog("branch", "vm")
    assert [ref.entry.commit for ref in cut.reflog("branch", "vm", accept=True)] == [third, first]
    assert repos.commit(cut, ("vm", b"next")).created


def test_r13_entry_of_another_log(repo: repository.Repository) -> None:
    """R13: an entry that is authentic but does not follow the one before it is noticed (22)."""
    other = repos.create()
    blind = repo.seals.blind("branch", "vm")
    known = {blind: dataclasses.replace(repo.logs.read(blind, 2), hash="ab" * 32, seq=3)}
    repo.logs.publish("branch", "vm", None, known, time="2027-01-18T08:00:00Z", host="h")
    assert other.branches() == {}
    with pytest.raises(errors.Rollback, match="does not follow"):
        repo.reflog("branch", "vm")
    with pytest.raises(errors.Rollback):
        repo.resolve("vm@{1}")


def test_damaged_entry_is_no_rollback(repo: repository.Repository) -> None:
    """An entry that cannot be read is damage (20), and stays that."""
    name = f"refs/{repo.seals.blind('branch', 'vm')}/{2:016x}"
    repo.backend.delete(name)
    repo.backend.put(name, [b"x" * 500])
    for ask in (lambda: repo.resolve("vm@{2}"), lambda: repo.reflog("branch", "vm")):
        with pytest.raises(errors.IntegrityError):
            ask()
    assert len(repo.reflog("branch", "vm", accept=True)) == 2


@pytest.mark.parametrize("kept", [2, 0])
def test_a_damaged_last_entry_leads_nowhere(repo: repository.Repository, kept: int) -> None:
    """What a branch was before its damaged entries is not taken for what it is; a commit's identifier still works."""
    last = repo.resolve("vm").id
    for seq in range(kept + 1, 4):
        name = f"refs/{repo.seals.blind('branch', 'vm')}/{seq:016x}"
        repo.backend.delete(name)
        repo.backend.put(name, [b"x" * 500])
    for revision in ("vm", "vm~1", "vm@{1}"):
        with pytest.raises(errors.IntegrityError):
            repo.resolve(revision)
    assert repo.resolve(last).id == last


def test_a_name_with_a_high_number_hides_nothing(repo: repository.Repository) -> None:
    """Anybody can put a name in a log; one that no entry leads up to changes nothing."""
    last = repo.resolve("vm").id
    repo.backend.put(f"refs/{repo.seals.blind('branch', 'vm')}/{1 << 60:016x}", [b"x"])
    assert repo.resolve("vm").id == last


def test_a_branch_whose_commit_is_missing_is_damage(repo: repository.Repository) -> None:
    """R14: that a commit is not there that a branch leads to is exit code 20, unlike a name that nobody gave."""
    repo.backend.delete(f"commits/{repo.resolve('vm').id}")
    again = repository.Repository.open(repo.backend, unlocked=repo.unlocked)
    with pytest.raises(errors.IntegrityError, match="is missing"):
        again.resolve("vm")
    with pytest.raises(errors.NotFound):
        again.resolve("nobody")


def test_k13_clocks_of_other_hosts(repo: repository.Repository, clock: Clock) -> None:
    """K13: an entry from a clock that is 10 years ahead or behind changes no other entry's time, and no order."""
    ids = [repo.resolve(f"vm~{step}").id for step in (2, 1, 0)]
    now = clock.now
    for skew in (10 * 365 * 86400, -20 * 365 * 86400):
        clock.now = now + skew
        tip = repo.branches()["vm"]
        repo.set_ref("branch", "vm", ids[0] if tip == ids[2] else ids[1], expect=tip)
    clock.now = now + 60
    repo.set_ref("branch", "vm", ids[2], expect=ids[1])
    clock.now = now + 3600
    at = {0: 2, 1: 1, 2: 0, 3: 2, 4: 1, 5: 0}
    assert [repo.resolve(f"vm@{{{number}}}").id for number in at] == [ids[which] for which in at.values()]
    for moment, which in (("2027-01-15T12:00:00Z", 0), ("2027-01-16T12:00:00Z", 1), ("2027-01-17T12:00:00Z", 2)):
        assert repo.resolve(f"vm@{{{moment}}}").id == ids[which]
    assert repo.resolve("vm@{now}").id == ids[2]


def test_times_that_are_believed(seed: int) -> None:
    """As many times as agree with the order are believed; what is between never leaves its neighbours."""
    assert moments.believed([], "5") == []
    assert moments.believed(["1", "2", "3"], "9") == ["1", "2", "3"]
    assert moments.believed(["1", "8", "3"], "9") == ["1", "3", "3"]
    assert moments.believed(["5", "6", "1", "7"], "9") == ["5", "6", "7", "7"]
    assert moments.believed(["5", "99", "98"], "6") == ["5", "6", "6"]
    draw = np.random.default_rng(seed)
    for _ in range(200):
        times = [f"{number:02}" for number in draw.integers(30, size=int(draw.integers(12)))]
        found = moments.believed(times, "20")
        assert found == sorted(found)
        assert all(item in [*times, "20"] for item in found)
        if times == sorted(times) and all(item <= "20" for item in times):
            assert found == times


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("1 month ago", "2028-02-29T12:00:00Z"),
        ("a month ago", "2028-02-29T12:00:00Z"),
        ("13 months ago", "2027-02-28T12:00:00Z"),
        ("3 months ago", "2027-12-31T12:00:00Z"),
        ("4 years ago", "2024-03-31T12:00:00Z"),
        ("2 weeks ago", "2028-03-17T12:00:00Z"),
        ("today", "2028-03-31T00:00:00Z"),
    ],
)
def test_calendar(typed: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Months and years are those of the calendar; a day that a month lacks is its last."""
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    now = dt.datetime(2028, 3, 31, 12, tzinfo=dt.UTC).timestamp()
    assert names.stamp(moments.parse(typed, now)) == expected


@pytest.mark.parametrize("seconds", [-1e18, 1e18, 0, START])
def test_d15_any_clock_can_be_spelled(seconds: float) -> None:
    """D15: whatever the clock says, a time that is valid comes of it."""
    reflog.Entry("branch", "vm", 1, None, None, names.stamp(seconds), "", {})
    assert len(names.stamp(seconds)) == 20


def test_only_what_is_asked_for_is_read() -> None:
    """Nothing is read but the log when a value of long ago is asked for."""
    made = repos.create()
    for step in range(6):
        repos.commit(made, ("vm", bytes([step])))
    opened = repos.reopen(made)
    opened.backend.calls.clear()  # type: ignore[attr-defined]
    opened.resolve("vm@{1}")
    read = [name for kind, name in opened.backend.calls if kind == "get"]  # type: ignore[attr-defined]
    assert len(read) == 4, "the end of the log, its last two entries, the commit"
