"""`vimgvc show`: every fact of one commit."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc.commands import log
from vimgvc.model import commit as commits
from vimgvc.repo import repository


@dataclass(frozen=True, slots=True)
class Shown:
    """`branches` are those that end at the commit."""

    commit: commits.Commit
    branches: list[str]


def run(repo: repository.Repository, revision: str) -> Shown:
    """Raises `NotFound`, `UsageError`."""
    found = repo.resolve(revision)
    return Shown(found, log.tips(repo).get(found.id, []))
