"""What the commits of a history changed: `log --stat`, and `log REV:DISK@START..END`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import log, revisions
from vimgvc.model import commit as model
from vimgvc.monitor import Monitor
from vimgvc.repo import changes, repository

DiskStat = changes.DiskStat
FileDiff = changes.FileDiff


@dataclass(frozen=True, slots=True)
class Part:
    """`[start, end)` of a disk; an end of None: to its end."""

    disk: str
    start: int
    end: int | None


def part_of(repo: repository.Repository, typed: str, found: tuple[int, int | None] | None) -> tuple[str, Part | None]:
    """The revision in REV or REV:DISK, and which part of a disk is meant by it and the range `found`.

    Raises `NotFound`, `UsageError` when it is not one disk.
    """
    name, wanted = revisions.split(typed)
    if wanted is None and found is None:
        return typed, None
    _, disk = repo.resolve_disk(typed)
    return name, Part(disk.name, *(found or (0, None)))


def touching(
    repo: repository.Repository, history: log.History, part: Part, limit: int | None, monitor: Monitor
) -> log.History:
    """Only the commits that changed something in `part`. One that cannot be compared is told of, and shown."""
    work = changes.Changes(repo, monitor)

    def touched(commit: model.Commit) -> bool:
        try:
            return work.touched(commit, _before(history, commit), part.disk, part.start, part.end)
        except (errors.IntegrityError, errors.NotFound) as error:
            monitor.problem(f"commit {commit.id[:12]} cannot be compared: {error}")
            return True

    shown: Iterator[model.Commit] = (commit for commit in history.commits if touched(commit))
    return dataclasses.replace(history, commits=itertools.islice(shown, limit))


class Stats:
    """What each commit of a history changed of its disks since the one that is shown before it."""

    def __init__(self, repo: repository.Repository, history: log.History, monitor: Monitor) -> None:
        self._changes, self._history, self._monitor = changes.Changes(repo, monitor), history, monitor

    def of(self, commit: model.Commit) -> list[changes.DiskStat]:
        """Empty where it cannot be told, which is a problem for the monitor."""
        try:
            return self._changes.stat(commit, next(iter(_before(self._history, commit)), None))
        except (errors.IntegrityError, errors.NotFound) as error:
            self._monitor.problem(f"commit {commit.id[:12]} cannot be compared: {error}")
            return []

    def files(self, commit: model.Commit) -> list[changes.FileDiff]:
        """The attachments that are not what they were in the commit that is shown before."""
        before = next(iter(_before(self._history, commit)), None)
        return [one for one in changes.files(before, commit) if one.state != "equal"]


def _before(history: log.History, commit: model.Commit) -> Sequence[model.Commit]:
    return [history.source.load(parent) for parent in history.edges(commit)]
