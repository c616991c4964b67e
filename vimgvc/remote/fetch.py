"""Fetch: commits that another place has, into this one, with branches that follow that place."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import ledger
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.remote import copying, graph, plan, reading, refs
from vimgvc.repo import names, promises, remotes, repository
from vimgvc.repo import refs as logs


@dataclass(frozen=True, slots=True)
class Options:
    """`prune`: delete branches here that follow ones that are gone there.

    `force`: also move tags. `everything`: compare with what is really here, to bring back what was lost here.
    `metadata`: no chunks, which the remote promises to have.
    """

    dry_run: bool = False
    prune: bool = False
    force: bool = False
    everything: bool = False
    metadata: bool = False
    host: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch: `branches` there (None: all), and `tags`.

    Branches here are called `remote/…` and follow; without `remote` they have the names they have there, and only go
    forward.
    """

    remote: str
    branches: Sequence[str] | None = None
    tags: bool = True


@dataclass(frozen=True, slots=True)
class Fetched:
    """`tips`: where the branches there are, by their names there; `broken`: logs there whose ends cannot be read."""

    result: copying.Result
    tips: dict[str, str]
    broken: tuple[str, ...] = ()

    def check(self, where: str) -> None:
        """Raises `IntegrityError` where it is not known what a branch or tag there is."""
        if self.broken:
            raise errors.IntegrityError(
                where,
                f"it cannot be read where these are now: {', '.join(self.broken)}",
                hint=f"the rest was fetched; 'vimgvc verify --repo {where}' shows what is damaged",
            )


def fetch(
    source: repository.Repository,
    target: repository.Repository,
    wanted: Wanted,
    options: Options,
    monitor: Monitor,
    *,
    look: copying.Look | None = None,
) -> Fetched:
    """Durable on return. What is rejected is told, the rest is done. `look` is how the ref logs of `source` are.

    Raises `NotFound` for a branch that is not there, `RefMoved`, `IntegrityError`, and what the backends raise.
    """
    started = time.monotonic()
    near = copying.through(target, ledger.Ledger(target.backend, rehearse=options.dry_run))
    with target.writing(), source.writing():
        seen = look or copying.look(source, monitor)
        options = _depth(source, target, options)
        broken = names.broken(seen.known, seen.ends)
        theirs = [ref for ref in seen.known.values() if not ref.torn]
        branches = _chosen(names.ends(theirs, reflog.BRANCH), wanted, [ref for ref in seen.known.values() if ref.torn])
        if broken:
            options = dataclasses.replace(options, prune=False)  # what cannot be read is not gone
        tags = names.ends(theirs, reflog.TAG) if wanted.tags else {}
        decision = _Decision(source, target, wanted, options, branches, tags)
        job = copying.Job(near, options.host, monitor)
        job.run(decision.decide, "fetching")
    return Fetched(copying.result(job, time.monotonic() - started), branches, broken)


def _depth(source: repository.Repository, target: repository.Repository, options: Options) -> Options:
    """Where data was promised until now, all of it is brought; raises `UsageError` for a promise of a promise."""
    if not options.metadata:
        partial = promises.Promises(target.backend, target.seals).ids()
        return dataclasses.replace(options, everything=options.everything or bool(partial))
    if promises.Promises(source.backend, source.seals).ids():
        raise errors.UsageError(
            f"{source.backend.url} itself has only the metadata of some commits",
            hint="fetch from the place that has their data",
        )
    return options


def _chosen(there: dict[str, str], wanted: Wanted, torn: Sequence[logs.Ref]) -> dict[str, str]:
    if wanted.branches is None:
        return there
    for name in wanted.branches:
        for ref in torn:
            if (ref.entry.kind, ref.entry.name) == (reflog.BRANCH, name):
                raise names.torn(ref.entry)
        if name not in there:
            listed = ", ".join(list(there)[:10])
            raise errors.NotFound("branch", name, hint=f"there are: {listed}" if listed else "there is none")
    return {name: there[name] for name in wanted.branches}


@dataclass(frozen=True, slots=True)
class _Decision:
    """What becomes of the branches and tags here."""

    source: repository.Repository
    target: repository.Repository
    wanted: Wanted
    options: Options
    branches: dict[str, str]
    tags: dict[str, str]

    def decide(self, state: copying.State) -> copying.Decided:
        loader = reading.Loader(self.target, self.source)
        changes = [state.decide(wish, is_known=bool, load=loader.load) for wish in self._wishes(state)]
        there = state.tips()
        for name, commit_id in self._chosen_tags(loader, there).items():
            wish = refs.Wish(reflog.TAG, name, name, commit_id, self.options.force)
            changes.append(state.decide(wish, is_known=bool, load=loader.load))
        tips = refs.tips(changes, unchanged=self.options.everything)
        promise = self.wanted.remote if self.options.metadata else ""
        request = plan.Request(self.source, state.target, self.target, tips, there, self.options.everything, promise)
        return changes, plan.Commits.of(request, loader.load)

    def _wishes(self, state: copying.State) -> list[refs.Wish]:
        remote = self.wanted.remote
        if not remote:
            return [refs.Wish(reflog.BRANCH, name, name, tip) for name, tip in self.branches.items()]
        found = [
            refs.Wish(reflog.BRANCH, name, remotes.tracking(remote, name), tip, force=True)
            for name, tip in self.branches.items()
        ]
        if self.options.prune and self.wanted.branches is None:
            followed = [
                name for name in names.ends(state.known.values(), reflog.BRANCH) if name.startswith(f"{remote}/")
            ]
            lost = [name for name in followed if name.removeprefix(f"{remote}/") not in self.branches]
            found += [refs.Wish(reflog.BRANCH, "", name, None) for name in lost]
        return found

    def _chosen_tags(self, loader: reading.Loader, there: frozenset[str]) -> dict[str, str]:
        """All of them, or with named branches those that lead to what is fetched or here."""
        if self.wanted.branches is None:
            return self.tags
        painting = graph.paint(loader.load, self.branches.values(), there)
        new = {item.id for item in painting.missing()}
        return {name: tip for name, tip in self.tags.items() if tip in new or _is_here(self.target, tip)}


def _is_here(target: repository.Repository, commit_id: str) -> bool:
    try:
        target.graph.load(commit_id)
    except (errors.NotFound, errors.IntegrityError, errors.Unsupported):
        return False
    return True
