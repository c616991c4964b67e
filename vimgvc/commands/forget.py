"""`vimgvc forget`: commits that are not wanted, named one by one or left over by a policy (specs/retention.md).

Nothing is removed here; `gc` does that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.model import reflog, retention
from vimgvc.monitor import Monitor
from vimgvc.repo import collect, forgetting, repository

Policy = retention.Policy


@dataclass(frozen=True, slots=True)
class Kept:
    """A commit that stays, and why."""

    commit: commits.Commit
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """What a policy means for a branch, newest first; `forgotten` only what no other branch keeps."""

    name: str
    kept: tuple[Kept, ...]
    forgotten: tuple[commits.Commit, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be forgotten, and how a policy came to it, by branch.

    `drastic`: branches of which more than half would go, each with how many of how many.
    """

    forgotten: tuple[commits.Commit, ...]
    branches: tuple[Branch, ...]
    drastic: tuple[tuple[str, int, int], ...]


def by_name(repo: repository.Repository, revisions: Sequence[str]) -> Plan:
    """To forget the commits that `revisions` name; those that are forgotten already are left out.

    Raises `NotFound`, and `UsageError` for what a branch or tag names, or nothing leads to.
    """
    history = _History(repo)
    chosen: dict[str, commits.Commit] = {}
    for revision in revisions:
        commit = repo.resolve(revision)
        if commit.id in history.named:
            raise forgetting.refused(history.named[commit.id][0])
        if not history.leads_to(commit.id):
            raise errors.UsageError(
                f"no branch or tag leads to commit {commit.id[:12]}", hint="'vimgvc gc' removes it in any case"
            )
        if commit.id not in history.records:
            chosen[commit.id] = commit
    return Plan(tuple(chosen.values()), (), history.drastic(set(chosen)))


def by_policy(repo: repository.Repository, policy: Policy, only: Iterable[str], hosts: Collection[str] = ()) -> Plan:
    """To forget what `policy` does not keep of the branches `only`, or of all when there are none.

    A policy is applied to each branch by itself, and on a branch to what each host committed by itself, and to that
    of `hosts` alone if there are any. A commit stays when any branch keeps it, or one that is not among them leads to
    it. Raises `NotFound`, `UsageError`.
    """
    if not policy:
        raise errors.UsageError("nothing to forget", hint="name commits, or say what to keep: --keep-daily 7")
    history = _History(repo)
    wanted = list(dict.fromkeys(only)) or sorted(history.branches)
    for name in wanted:
        if name not in history.branches:
            hint = f"branches: {', '.join(sorted(history.branches)[:10])}" if history.branches else "there is none"
            raise errors.NotFound("branch", name, hint=hint)
    history.check_hosts(wanted, hosts)
    now = int(repo.clock())
    verdicts = {name: history.judge(name, policy, hosts, now) for name in wanted}
    kept = {commit_id for verdict in verdicts.values() for commit_id, reasons in verdict.items() if reasons}
    for name, reached in history.branches.items():
        if name not in verdicts:
            kept.update(reached)
    branches = []
    gone: dict[str, commits.Commit] = {}
    for name, verdict in verdicts.items():
        reached = history.branches[name]
        going = [reached[commit_id] for commit_id in verdict if commit_id not in kept]
        gone |= {commit.id: commit for commit in going}
        staying = tuple(Kept(reached[item], verdict[item] or (_ELSEWHERE,)) for item in verdict if item in kept)
        branches.append(Branch(name, staying, tuple(going)))
    return Plan(tuple(gone.values()), tuple(branches), history.drastic(set(gone)))


_ELSEWHERE, _NOT_ASKED = "another branch", "another host"


def by_host(
    policy: Policy, items: Mapping[str, Sequence[retention.Item]], only: Collection[str], now: int
) -> dict[str, tuple[str, ...]]:
    """Of each commit why it is kept, by what each host committed; all that hosts did that are not among `only`."""
    verdict: dict[str, tuple[str, ...]] = {}
    for host, committed in items.items():
        if only and host not in only:
            verdict |= {item.id: (_NOT_ASKED,) for item in committed}
        else:
            verdict |= retention.choose(policy, committed, now)
    return verdict


class _History:
    """What branches lead to that is not forgotten, read without leniency."""

    def __init__(self, repo: repository.Repository) -> None:
        self._repo = repo
        self.named = forgetting.named(repo)
        self.records = frozenset(repo.forgotten())
        entries = [entry for named in self.named.values() for entry in named if entry.kind == reflog.BRANCH]
        #: By name: the commits that live, children before parents.
        self.branches = {entry.name: self._live(str(entry.commit)) for entry in entries}

    def _live(self, tip: str) -> dict[str, commits.Commit]:
        dead = self.records - self.named.keys()
        return {commit.id: commit for commit in self._repo.graph.walk([tip], _refuse) if commit.id not in dead}

    def leads_to(self, commit_id: str) -> bool:
        """Whether any branch or tag does."""
        return any(commit.id == commit_id for commit in self._repo.graph.walk(self.named, _refuse))

    def check_hosts(self, branches: Iterable[str], hosts: Iterable[str]) -> None:
        """Raises `NotFound` for a host that committed nothing there."""
        there = sorted({commit.host for name in branches for commit in self.branches[name].values()})
        for host in hosts:
            if host not in there:
                hint = f"there are commits of: {', '.join(there[:10])}" if there else "there is no commit"
                raise errors.NotFound("host", host, hint=hint)

    def judge(self, name: str, policy: Policy, hosts: Collection[str], now: int) -> dict[str, tuple[str, ...]]:
        """Of each commit of a branch why it is kept, newest first."""
        reached = self.branches[name]
        items: dict[str, list[retention.Item]] = {}
        for commit in reached.values():
            items.setdefault(commit.host, []).append(self._item(commit))
        verdict = by_host(policy, items, hosts, now)
        order = {commit_id: at for at, commit_id in enumerate(reached)}
        return {commit_id: verdict[commit_id] for commit_id in sorted(verdict, key=order.__getitem__)}

    def _item(self, commit: commits.Commit) -> retention.Item:
        names: dict[str, list[str]] = {reflog.BRANCH: [], reflog.TAG: []}
        for entry in self.named.get(commit.id, ()):
            names[entry.kind].append(entry.name)
        return retention.Item(commit.id, commit.time, tuple(names[reflog.BRANCH]), tuple(names[reflog.TAG]))

    def drastic(self, going: set[str]) -> tuple[tuple[str, int, int], ...]:
        """The branches that lose more than half of their commits: how many of how many."""
        found = []
        for name in sorted(self.branches):
            reached = self.branches[name]
            lost = len(going & reached.keys())
            if 2 * lost > len(reached):
                found.append((name, lost, len(reached)))
        return tuple(found)


def _refuse(_: str, error: errors.VimgvcError) -> None:
    """What is not seen would be taken for what nobody needs."""
    raise error


def check_drastic(plan: Plan) -> None:
    """Raises `UsageError` unless every branch keeps at least half of its commits."""
    for name, lost, total in plan.drastic:
        raise errors.UsageError(
            f"{lost} of the {total} commits of branch '{name}' would be forgotten, which is more than half",
            hint="look at them with --dry-run; if that is what you want, give --force",
        )


def would_free(repo: repository.Repository, plan: Plan, monitor: Monitor) -> int:
    """By how many bytes `gc` would make the repository smaller if the plan were carried out before it."""
    ids = frozenset(commit.id for commit in plan.forgotten)
    return repo.collect(collect.Options(dry_run=True, forgotten=ids), monitor).freed_bytes


def carry_out(repo: repository.Repository, plan: Plan, reason: str, host: str) -> list[str]:
    """The identifiers of what was forgotten now, durable on return. Raises as `Repository.forget`."""
    if not plan.forgotten:
        return []
    return repo.forget([commit.id for commit in plan.forgotten], reason, host=host)
