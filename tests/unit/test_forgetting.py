"""Forgetting commits: records, what lives, and what a policy means for branches."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.commands import forget, revisions
from vimgvc.model import reflog, retention
from vimgvc.repo import collect, forgetting, repository
from vimgvc.repo import names as names_module

Policy = retention.Policy


def history(count: int = 4, branch: str = "vm", *, repo: repository.Repository | None = None) -> repository.Repository:
    """A branch of `count` commits, the clock counting seconds."""
    made = repo or repos.create()
    for step in range(count):
        repos.commit(made, ("vm", f"{branch} {step}".encode()), branch=branch)
    return made


def tag(repo: repository.Repository, name: str, commit_id: str | None, expect: str | None = None) -> None:
    repo.set_ref(reflog.TAG, name, commit_id, expect=expect)


def live(repo: repository.Repository) -> set[str]:
    return {commit.id for commit in repos.reopen(repo).live()}


def names(repo: repository.Repository, *revisions: str) -> list[str]:
    return [repo.resolve(revision).id for revision in revisions]


def test_forgotten_commits_do_not_live() -> None:
    """A forgotten commit is not live, with all else as it was: its identifier, its children, what it holds."""
    repo = history()
    before = [commit.id for commit in repo.history()]
    gone = names(repo, "vm~1", "vm~3")
    assert repo.forget(gone, "too old", host="here") == gone
    assert live(repo) == set(before) - set(gone)
    assert [commit.id for commit in repos.reopen(repo).history()] == before
    record = repos.reopen(repo).forgotten()[gone[0]]
    assert (record.commit, record.reason, record.host) == (gone[0], "too old", "here")
    assert repos.restore(repo, gone[0]) == b"vm 2"


def test_forgotten_twice() -> None:
    """Forgetting again changes nothing: the first record stays."""
    repo = history()
    (gone,) = names(repo, "vm~2")
    repo.forget([gone], "first")
    assert repo.forget([gone, gone], "second") == []
    assert repo.forgotten()[gone].reason == "first"


def test_a_name_brings_back() -> None:
    """A forgotten commit lives as long as a branch or tag names it; its forgotten parents do not."""
    repo = history()
    gone = names(repo, "vm~1", "vm~2")
    repo.forget(gone)
    tag(repo, "v1", gone[0])
    assert live(repo) == set(names(repo, "vm", "vm~3", "vm~1"))
    tag(repo, "v1", None, gone[0])
    assert gone[0] not in live(repo)
    repo.set_ref(reflog.BRANCH, "again", gone[1], expect=None)
    assert live(repo) == set(names(repo, "vm", "vm~3", "vm~2"))


@pytest.mark.parametrize("kind", [reflog.BRANCH, reflog.TAG])
def test_what_is_named_is_not_forgotten(kind: str) -> None:
    """What a branch or tag names is refused, and then nothing else is forgotten either."""
    repo = history()
    repo.set_ref(kind, "name", repo.resolve("vm~1").id, expect=None)
    for tip in names(repo, "vm", "vm~1"):
        with pytest.raises(errors.UsageError) as caught:
            repo.forget([*names(repo, "vm~2"), tip])
        assert caught.value.hint
    assert repo.forgotten() == {}


def test_absent_commit() -> None:
    """A commit that is not there cannot be forgotten, nor what was named with it."""
    repo = history()
    with pytest.raises(errors.NotFound):
        repo.forget([*names(repo, "vm~1"), "0" * 64])
    assert repo.forgotten() == {}


def test_damaged_branch() -> None:
    """Where it cannot be read what a branch names, nothing is forgotten."""
    repo = history()
    backend = repo.backend
    assert isinstance(backend, memory.MemoryBackend)
    (_, last) = max((item.name, item) for item in backend.list("refs"))
    blob = bytearray(backend.get(last.name))
    blob[60] ^= 1
    backend.delete(last.name)
    backend.put(last.name, [blob])
    with pytest.raises(errors.IntegrityError):
        repo.forget(names(repo, "vm~2"))
    assert repo.forgotten() == {}


def test_damaged_record() -> None:
    """A record that cannot be read, or is another commit's, is an error: what lives is not known."""
    repo = history()
    one, other = names(repo, "vm~1", "vm~2")
    repo.forget([one])
    blob = repo.backend.get(forgetting.name(one))
    repo.backend.put(forgetting.name(other), [blob])
    with pytest.raises(errors.IntegrityError):
        repo.forgotten()
    with pytest.raises(errors.IntegrityError):
        repo.live()
    with pytest.raises(errors.IntegrityError):
        forget.by_policy(repo, Policy(last=2), ())


# -- policies -----------------------------------------------------------------------------------


def kept(plan: forget.Plan) -> dict[str, list[str]]:
    return {branch.name: [item.commit.id for item in branch.kept] for branch in plan.branches}


def test_policy_of_each_branch() -> None:
    """A policy counts on each branch by itself; what another branch keeps stays."""
    repo = history(4)
    repo.set_ref(reflog.BRANCH, "fork", repo.resolve("vm~1").id, expect=None)
    history(2, "fork", repo=repo)
    plan = forget.by_policy(repo, Policy(last=2), ())
    assert kept(plan) == {"fork": names(repo, "fork", "fork~1", "vm~1"), "vm": names(repo, "vm", "vm~1")}
    assert {commit.id for commit in plan.forgotten} == set(names(repo, "vm~2", "vm~3"))
    everything = forget.by_policy(repo, Policy(last=3), ())
    assert kept(everything)["vm"] == names(repo, "vm", "vm~1", "vm~2")
    assert kept(everything)["fork"] == names(repo, "fork", "fork~1", "vm~1", "vm~2")


def test_branches_that_were_not_named() -> None:
    """What a branch leads to that the policy is not for stays whole."""
    repo = history(4)
    repo.set_ref(reflog.BRANCH, "fork", repo.resolve("vm~1").id, expect=None)
    history(2, "vm", repo=repo)
    plan = forget.by_policy(repo, Policy(last=1), ["vm"])
    assert {commit.id for commit in plan.forgotten} == set(names(repo, "vm~1", "vm~2"))
    assert {item.reasons for item in plan.branches[0].kept[1:]} == {("branch fork",), ("another branch",)}


def test_what_is_forgotten_does_not_count() -> None:
    """A policy is applied to what lives: forgotten commits count for no rule, and are not forgotten again."""
    repo = history(5)
    repo.forget(names(repo, "vm~1", "vm~3"))
    plan = forget.by_policy(repo, Policy(last=2), ())
    assert kept(plan) == {"vm": names(repo, "vm", "vm~2")}
    assert [commit.id for commit in plan.forgotten] == names(repo, "vm~4")


def _commit_as(repo: repository.Repository, host: str, when: dt.datetime, number: int) -> str:
    repo.clock = when.timestamp
    request = repository.CommitRequest("vm", str(number), "tester", host, allow_empty=True)
    return repo.commit([], request).commit.id


def test_k14_two_hosts() -> None:
    """K14: a policy counts for each host by itself, and a clock that is ahead pushes nobody's commits out."""
    repo = repos.create()
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    hours = itertools.count()
    good = [_commit_as(repo, "good", start + dt.timedelta(hours=next(hours)), n) for n in range(5)]
    ahead = [_commit_as(repo, "ahead", start + dt.timedelta(days=4000 + n), n) for n in range(4)]
    many = [_commit_as(repo, "busy", start + dt.timedelta(hours=next(hours)), n) for n in range(9)]
    repo.clock = (start + dt.timedelta(days=1)).timestamp
    plan = forget.by_policy(repo, Policy(last=2), ())
    assert set(kept(plan)["vm"]) == {*good[-2:], *ahead, *many[-2:]}
    shown = {item.commit.id: item.reasons for item in plan.branches[0].kept}
    assert all(shown[commit_id] == (retention.AHEAD,) for commit_id in ahead)


def test_n25_only_what_the_named_hosts_committed() -> None:
    """N25: with hosts named, nothing that others committed is forgotten, whatever the policy."""
    repo = repos.create()
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    hours = itertools.count()
    good = [_commit_as(repo, "good", start + dt.timedelta(hours=next(hours)), n) for n in range(5)]
    evil = [_commit_as(repo, "evil", start + dt.timedelta(hours=next(hours)), n) for n in range(9)]
    tip = _commit_as(repo, "web", start + dt.timedelta(hours=next(hours)), 0)
    plan = forget.by_policy(repo, Policy(last=1), (), ["evil"])
    assert {commit.id for commit in plan.forgotten} == set(evil[:-1])
    reasons = {item.commit.id: item.reasons for item in plan.branches[0].kept}
    assert all(reasons[commit_id] == ("another host",) for commit_id in [*good, tip])
    with pytest.raises(errors.NotFound, match="nobody") as caught:
        forget.by_policy(repo, Policy(last=1), (), ["nobody"])
    assert "evil, good, web" in caught.value.hint


def test_n25_a_flood_of_commits_pushes_out_nothing_of_others() -> None:
    """N25: with any rule, what is kept of a host's commits is the same with thousands of another's beside them."""
    now = 1_800_000_000
    mine = [retention.Item(f"m{n}", names_module.stamp(now - 86_400 * n)) for n in range(40)]
    theirs = [retention.Item(f"t{n}", names_module.stamp(now - 60 * n + 86_400)) for n in range(10_000)]
    for policy in (Policy(last=5), Policy(daily=7), Policy(within=retention.parse_duration("7d")), Policy(monthly=2)):
        alone = retention.choose(policy, mine, now)
        together = forget.by_host(policy, {"mine": mine, "theirs": theirs}, (), now)
        assert {item: why for item, why in together.items() if item.startswith("m")} == alone
        assert any(alone.values())


def test_n25_more_than_half() -> None:
    """N25: more than half of a branch is not forgotten without being asked for; half of it is."""
    repo = history(4)
    forget.check_drastic(forget.by_policy(repo, Policy(last=2), ()))
    plan = forget.by_policy(repo, Policy(last=1), ())
    assert plan.drastic == (("vm", 3, 4),)
    with pytest.raises(errors.UsageError, match="3 of the 4") as caught:
        forget.check_drastic(plan)
    assert "--force" in caught.value.hint
    named = forget.by_name(repo, ["vm~1", "vm~2", "vm~3"])
    assert named.drastic == plan.drastic


def test_by_name() -> None:
    """Commits are named by any revision; a tip is refused, what is forgotten already left out."""
    repo = history(5)
    repo.forget(names(repo, "vm~2"))
    plan = forget.by_name(repo, ["vm~1", "vm~2", "vm^"])
    assert [commit.id for commit in plan.forgotten] == names(repo, "vm~1")
    with pytest.raises(errors.UsageError):
        forget.by_name(repo, ["vm~1", "vm"])
    assert forget.carry_out(repo, plan, "", "here") == names(repo, "vm~1")
    assert forget.carry_out(repo, forget.by_name(repo, ["vm~1"]), "", "here") == []


def test_unreachable() -> None:
    """What no branch or tag leads to is gc's anyway, which is said."""
    repo = history(2)
    lost = history(2, "other", repo=repo).resolve("other").id
    repo.set_ref(reflog.BRANCH, "other", None, expect=lost)
    with pytest.raises(errors.UsageError, match="no branch or tag"):
        forget.by_name(repo, [lost])


def test_policies_refused() -> None:
    """No rule at all, or an unknown branch, is an error."""
    repo = history(2)
    with pytest.raises(errors.UsageError):
        forget.by_policy(repo, Policy(), ())
    with pytest.raises(errors.NotFound):
        forget.by_policy(repo, Policy(last=1), ["vm", "vn"])


def test_a_gap_in_the_history() -> None:
    """Where a commit is lost, no policy is applied: what lies behind is not known."""
    repo = history(4)
    repo.backend.delete(f"commits/{repo.resolve('vm~1').id}")
    with pytest.raises(errors.NotFound):
        forget.by_policy(repos.reopen(repo), Policy(last=1), ())


def test_would_free_what_gc_frees() -> None:
    """The bytes of a dry run are those that the repository is smaller by after forgetting and gc."""
    repo = repos.create()
    for step in range(6):
        repos.commit(repo, ("vm", repos.noise(step, 300_000) + repos.noise(99, 100_000)))
    plan = forget.by_policy(repo, Policy(last=4), ())  # far from the half for which gc wants to be forced
    expected = forget.would_free(repos.reopen(repo), plan, repos.Collector())
    assert repo.forgotten() == {}
    forget.carry_out(repo, plan, "", "here")
    before = _stored(repo)
    freed = repos.reopen(repo).collect().freed_bytes
    assert before - _stored(repo) == freed == expected > 500_000
    for step, name in enumerate(("vm~3", "vm~2", "vm~1", "vm")):
        assert repos.restore(repos.reopen(repo), name).startswith(repos.noise(2 + step, 300_000))


# -- what gc has removed ------------------------------------------------------------------------


def _collected() -> tuple[repository.Repository, str, str]:
    """Of three commits two are forgotten; the data of the first is gone, that of the second is needed by the third."""
    repo = repos.create()
    first = repos.commit(repo, ("vm", repos.noise(1, 100_000))).commit.id
    second = repos.commit(repo, ("vm", repos.noise(2, 100_000))).commit.id
    repos.commit(repo, ("vm", repos.noise(2, 100_000)), ("more", repos.noise(3, 9000)))
    repo.forget([first, second])
    repo.collect(collect.Options(force=True))
    return repos.reopen(repo), first, second


def test_data_is_gone() -> None:
    """Who wants the data of a forgotten commit is told when it was forgotten; what others need is still there."""
    repo, first, second = _collected()
    for find in (revisions.find_disk, revisions.find_stored):
        with pytest.raises(errors.NotFound, match=f"data of commit not found: {first[:12]}") as caught:
            find(repo, first)
        assert "forgotten on 2027-01-15T" in caught.value.hint
        assert find(repo, second)[0].id == second
    with pytest.raises(errors.NotFound):
        revisions.find_range(repo, f"{first}..{second}")
    with pytest.raises(errors.NotFound, match="data of commit"):
        revisions.find_commit(repo, first)
    assert repo.resolve(first).id == first
    assert repos.restore(repo, second) == repos.noise(2, 100_000)


def test_damage_is_no_fate() -> None:
    """What a tag brought back lives: when its data is lost that is damage, not what somebody wanted."""
    repo, _, second = _collected()
    repo.set_ref(reflog.TAG, "back", second, expect=None)
    for item in list(repo.backend.list("packs")):
        repo.backend.delete(item.name)
    repo = repos.reopen(repo)
    assert forgetting.fate(repo, repo.resolve(second)) is None
    with pytest.raises(errors.IntegrityError):
        repos.restore(repo, second)
    assert any(second[:12] in problem.object for problem in repo.verify("quick").problems)


@pytest.mark.parametrize("kind", [reflog.BRANCH, reflog.TAG])
def test_no_name_for_what_is_gone(kind: str) -> None:
    """No branch or tag is put where there is no data any more; where there is, it brings the commit back."""
    repo, first, second = _collected()
    with pytest.raises(errors.NotFound):
        repo.set_ref(kind, "back", first, expect=None)
    repo.set_ref(kind, "back", second, expect=None)
    assert second in live(repo)


@pytest.mark.parametrize("level", ["quick", "data"])
def test_verify_misses_nothing(level: str) -> None:
    """That a forgotten commit's data is gone is no problem."""
    assert _collected()[0].verify(level).problems == []


def test_verify_finds_damaged_records() -> None:
    """A record that is damaged is a problem, and named."""
    repo, first, _ = _collected()
    blob = bytearray(repo.backend.get(forgetting.name(first)))
    blob[70] ^= 4
    repo.backend.delete(forgetting.name(first))
    repo.backend.put(forgetting.name(first), [blob])
    assert [(item.kind, item.object) for item in repo.verify("quick").problems] == [("forgotten", first)]


def _stored(repo: repository.Repository) -> int:
    areas = ("keys", "packs", "index", "commits", "refs", "forgotten", "pins")
    return sum(item.size for area in areas for item in repo.backend.list(area))
