"""`vimgvc stats`: what a repository holds and what it saves, and who needs how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vimgvc.commands import revisions
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import repository, shares, statistics

Result = statistics.Statistics
Share = shares.Share


@dataclass(frozen=True, slots=True)
class CommitShare:
    commit: commits.Commit
    share: Share


def run(repo: repository.Repository, monitor: Monitor) -> Result:
    """Raises what reading raises."""
    return repo.stats(monitor)


def of_branches(repo: repository.Repository, monitor: Monitor) -> dict[str, Share]:
    """By name. Raises what reading raises."""
    return shares.of_branches(repo, monitor)


def of_commits(repo: repository.Repository, named: Sequence[str], monitor: Monitor) -> list[CommitShare]:
    """Of each commit that a revision, or a range A..B, names. Raises `NotFound`, `UsageError`, what reading raises."""
    found: list[commits.Commit] = []
    for typed in named:
        found += reversed(revisions.find_range(repo, typed)) if ".." in typed else [revisions.find_commit(repo, typed)]
    found = list({commit.id: commit for commit in found}.values())
    return [CommitShare(*pair) for pair in zip(found, shares.of_commits(repo, found, monitor), strict=True)]
