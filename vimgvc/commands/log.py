"""`vimgvc log`: what was recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vimgvc.model import commit as commits
from vimgvc.repo import repository


@dataclass(frozen=True, slots=True)
class History:
    """`commits` newest first, children before parents; `tips` names the branches that end at a commit."""

    commits: Iterator[commits.Commit]
    tips: Mapping[str, list[str]]


def run(repo: repository.Repository, revision: str | None, limit: int | None) -> History:
    """Raises `NotFound`, `UsageError`."""
    ends = tips(repo)
    commits = repo.graph.walk(ends) if revision is None else repo.history(revision)
    return History(itertools.islice(commits, limit), ends)


def tips(repo: repository.Repository) -> dict[str, list[str]]:
    """Commit identifier → names of the branches that end there, sorted."""
    found: dict[str, list[str]] = {}
    for name, commit_id in sorted(repo.branches().items()):
        found.setdefault(commit_id, []).append(name)
    return found
