"""`vimgvc show`: every fact of one commit."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc.commands import log
from vimgvc.model import commit as commits
from vimgvc.repo import forgetting, repository

Fate = forgetting.Fate


@dataclass(frozen=True, slots=True)
class Shown:
    """`branches` are those that end at the commit; `fate` is that of a forgotten one."""

    commit: commits.Commit
    branches: list[str]
    fate: Fate | None


def run(repo: repository.Repository, revision: str) -> Shown:
    """Raises `NotFound`, `UsageError`, `IntegrityError`."""
    found = repo.resolve(revision)
    return Shown(found, log.tips(repo).get(found.id, []), forgetting.fate(repo, found))
