"""`vimgvc blame`: which commit last wrote each part of a disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import log
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import changes, repository

Blamed = changes.Blamed


@dataclass(frozen=True, slots=True)
class Blame:
    """`parts` cover what was asked for of the disk, in order; those of no commit are zeros."""

    commit: commits.Commit
    disk: commits.Disk
    parts: list[Blamed]

    def by_commit(self) -> list[tuple[commits.Commit | None, int]]:
        """What each commit wrote of it, in bytes, the most first."""
        writers = {part.commit.id: part.commit for part in self.parts if part.commit}
        found: dict[str | None, int] = {}
        for part in self.parts:
            key = part.commit.id if part.commit else None
            found[key] = found.get(key, 0) + part.length
        ordered = sorted(found.items(), key=lambda item: (item[0] is None, -item[1], item[0]))
        return [(writers[key] if key else None, count) for key, count in ordered]


def run(repo: repository.Repository, revision: str, start: int, end: int | None, monitor: Monitor) -> Blame:
    """Who wrote `[start, end)` of the disk that REV:DISK names. Along first parents, without what is forgotten.

    Raises `NotFound`, `UsageError`, `IntegrityError`.
    """
    found, disk = repo.resolve_disk(revision)
    if start >= disk.size and disk.size:
        raise errors.UsageError(f"disk {disk.name} has {disk.size} bytes", hint="ask for a range inside it")
    parts = changes.Changes(repo, monitor).blame(_line(repo, found, monitor), disk.name, start, end)
    return Blame(found, disk, parts)


def _line(repo: repository.Repository, commit: commits.Commit, monitor: Monitor) -> Iterator[commits.Commit]:
    """The commit, the one before it, and so on, as `log` shows them."""
    known = log.run(repo, commit.id, None, monitor)
    next(known.commits, None)  # what is lost is known after the first
    following: list[commits.Commit] = [commit]
    while following:
        yield following[0]
        following = [known.source.load(parent) for parent in known.edges(following[0])[:1]]
