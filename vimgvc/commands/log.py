"""`vimgvc log`: what was recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.model import commit as model
from vimgvc.model import reflog
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import forgetting, history, names, recalled, repository


@dataclass(frozen=True, slots=True)
class History:
    """`commits` newest first, children before parents; `tips` names the branches and tags that end at a commit.

    `forgotten` are commits that a record says so of, and no branch or tag names. `lost` ones cannot be read; all
    of them are known once the first commit is.
    """

    commits: Iterator[model.Commit]
    tips: Mapping[str, list[str]]
    forgotten: frozenset[str]
    hidden: frozenset[str]
    source: recalled.Recalled
    lost: dict[str, str] = field(default_factory=dict)

    def edges(self, commit: model.Commit) -> list[str]:
        """The parents, those that are not shown replaced by what comes before them."""
        found, todo, seen = [], list(commit.parents), set(commit.parents)
        while todo:
            parent = todo.pop(0)
            if parent in self.hidden and parent not in self.lost:
                above = [item for item in self.source.load(parent).parents if item not in seen]
                seen.update(above)
                todo[:0] = above
            elif parent not in self.lost:
                found.append(parent)
        return found

    def notes(self, commit: model.Commit) -> list[str]:
        """What is special about it."""
        gaps = [f"what came before, {parent[:12]}, cannot be read" for parent in commit.parents if parent in self.lost]
        return ["forgotten", *gaps] if commit.id in self.forgotten else gaps


def run(
    repo: repository.Repository,
    revision: str | None,
    limit: int | None,
    monitor: Monitor | None = None,
    *,
    everything: bool = False,
) -> History:
    """The commits that `revision`, or any branch or tag, leads to; forgotten ones only with `everything`.

    What cannot be read is told to `monitor` and left out; a `revision` that cannot be read raises `IntegrityError`.
    Raises `NotFound`, `UsageError`.
    """
    monitor = monitor or NullMonitor()
    known = repo.logs.lately(NullMonitor()).values()
    ends = {kind: names.ends(known, kind) for kind in (reflog.BRANCH, reflog.TAG)}
    begin = [*ends[reflog.BRANCH].values(), *ends[reflog.TAG].values()]
    direct = frozenset(begin)
    if revision is not None:
        begin = [repo.resolve(revision).id]
    forgotten = _forgotten(repo, monitor) - direct
    source = recalled.Recalled(repo.graph, repo.seals, repo.cache)
    lost: dict[str, str] = {}

    def note(commit_id: str, error: errors.VimgvcError) -> None:
        lost[commit_id] = error.message
        names_there = [f"{kind} '{name}'" for kind, found in ends.items() for name in found if found[name] == commit_id]
        broken = f"{', '.join(names_there)} is broken: " if names_there else ""
        monitor.problem(f"{broken}{error.message}; what came before it is not shown")

    hidden = frozenset() if everything else forgotten
    walked = _walk(repo, begin, note, source)
    shown = itertools.islice((item for item in walked if item.id not in hidden), limit)
    return History(shown, _decorations(ends), forgotten, hidden, source, lost)


def _forgotten(repo: repository.Repository, monitor: Monitor) -> frozenset[str]:
    """The commits with a record that can be read; without one a commit is shown."""
    records = forgetting.Records(repo.backend, repo.seals)
    found = set()
    for commit_id in records.ids():
        try:
            found.add(records.read(commit_id).commit)
        except (errors.IntegrityError, errors.NotFound, errors.Unsupported) as error:
            monitor.problem(f"{error.message}; the commit is shown")
    return frozenset(found)


def _walk(
    repo: repository.Repository,
    begin: list[str],
    note: history.Lost,
    source: recalled.Recalled,
) -> Iterator[model.Commit]:
    walked = repo.graph.walk(begin, note, source.load)
    for number, commit in enumerate(walked):
        if number == 0:
            source.save()  # everything has been read by now
        yield commit


def _decorations(ends: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, prefix in ((reflog.BRANCH, ""), (reflog.TAG, "tag: ")):
        for name, commit_id in ends[kind].items():
            found.setdefault(commit_id, []).append(prefix + name)
    return found


def tips(repo: repository.Repository) -> dict[str, list[str]]:
    """Commit identifier → names of the branches that end there, sorted."""
    found: dict[str, list[str]] = {}
    for name, commit_id in sorted(repo.branches().items()):
        found.setdefault(commit_id, []).append(name)
    return found
