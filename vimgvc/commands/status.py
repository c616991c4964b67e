"""`vimgvc status`: which recorded disk each image stands for, and what of it is different now.

What an image stands for is told by `branch`, else by its stamp (what it was when it was last seen),
else by its name as `commit` would take it: the branch of that name, or the first image's branch,
where the disk of that name is. What is different is told by a compare of all of it; only with `fast`
the stamp is relied on, and that is said (`Status.compared`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vimgvc import errors
from vimgvc.commands import commit as recording
from vimgvc.commands import diff, images, machines, revisions, stamps
from vimgvc.images import in_place_target
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import repository

CLEAN, CHANGED, UNKNOWN = "clean", "changed", "unknown"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`branch`: the one that all images are compared with; `fast`: rely on stamps that fit."""

    branch: str | None = None
    fast: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """`told_by` (branch, stamp, name) says how `commit` was found; None, and a `reason`, when it is unknown.

    `tip` is where the branch of that commit is now, None when it is gone. `compared` is False where
    the stamp was relied on. `interrupted`: a restore to it in place was. `disks` are those that were
    compared, `containers` those of the images.
    """

    image: str
    state: str
    reason: str = ""
    told_by: str | None = None
    commit: commits.Commit | None = None
    disk: str | None = None
    tip: str | None = None
    compared: bool = False
    interrupted: bool = False
    disks: tuple[diff.DiskDiff, ...] = ()
    containers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class _Meant:
    """A disk of a commit, None for all of them; or why there is none."""

    told_by: str | None = None
    commit: commits.Commit | None = None
    disk: str | None = None
    is_same: bool = False
    reason: str = ""


def run(
    repo: repository.Repository,
    environment: Mapping[str, str],
    arguments: Sequence[str],
    access: images.Access,
    wanted: Wanted,
    *,
    monitor: Monitor,
) -> Iterator[Status]:
    """The state of each IMAGE or NAME=IMAGE, as it is found. Never trusts times unless `wanted.fast`.

    Raises `NotFound` for a branch that was asked for, `UsageError`, `IntegrityError`, and what opening and
    reading an image raises: the first of that after all the others were looked at, which `monitor` is told of.
    """
    named = recording.name_images(arguments)
    work = _Work(repo, stamps.Stamps.of_user(environment, repo, monitor), access, wanted, monitor)
    if wanted.branch is not None:
        work.branch(wanted.branch)
    return _each(work, named, monitor)


def _each(work: _Work, named: Sequence[recording.Image], monitor: Monitor) -> Iterator[Status]:
    failure: errors.VimgvcError | None = None
    for image in named:
        try:
            yield work.status(image, named[0].name)
        except errors.VimgvcError as error:
            if failure is not None:
                monitor.problem(error.message)
            failure = failure or error
    if failure is not None:
        raise failure


class _Work:
    def __init__(
        self,
        repo: repository.Repository,
        seen: stamps.Stamps,
        access: images.Access,
        wanted: Wanted,
        monitor: Monitor,
    ) -> None:
        self._repo, self._seen, self._access, self._wanted, self._monitor = repo, seen, access, wanted, monitor
        self._branches = repo.branches()

    def branch(self, name: str) -> commits.Commit:
        """Where a branch is."""
        if name not in self._branches:
            raise errors.NotFound("branch", name, hint="'vimgvc branch' lists them")
        return revisions.find_commit(self._repo, self._branches[name])

    def status(self, image: recording.Image, first: str) -> Status:
        is_whole = machines.is_machine(image.path, self._access)
        meant = self._meant(image, first, is_whole=is_whole)
        if meant.commit is None:
            images.open_image(image.path, self._access).reader.close() if not is_whole else None
            return Status(image.path, UNKNOWN, meant.reason)
        interrupted = in_place_target.is_marked(image.path)
        tip = self._branches.get(meant.commit.branch)
        if meant.is_same and self._wanted.fast and self._access == images.Access() and not interrupted:
            return Status(image.path, CLEAN, "", meant.told_by, meant.commit, meant.disk, tip)
        found = self._compare(image, meant)
        return Status(
            image.path,
            CHANGED if found.differs else CLEAN,
            "",
            meant.told_by,
            meant.commit,
            meant.disk,
            tip,
            compared=True,
            interrupted=interrupted,
            disks=found.disks,
            containers=found.containers,
        )

    def _compare(self, image: recording.Image, meant: _Meant) -> diff.Diff:
        """All of the image; what is found to be clean is remembered as that."""
        assert meant.commit is not None
        with recording.open_images([image], self._access, self._monitor) as opened:
            states = [stamps.look_at(source.reader) for source in opened.disks]
            before = meant.commit, meant.disk
            found = diff.with_opened(self._repo, before, opened, self._monitor, self._wanted.threads)
        if not found.differs and meant.disk is not None:
            self._seen.remember(states[0], meant.commit, meant.commit.disk(meant.disk))
        return found

    def _meant(self, image: recording.Image, first: str, *, is_whole: bool) -> _Meant:
        if self._wanted.branch is not None:
            return _in_commit("branch", self.branch(self._wanted.branch), image.name, is_whole=is_whole)
        origin = None if is_whole else self._seen.recall(image.path)
        if origin is not None:
            return _Meant("stamp", origin.commit, origin.disk.name, origin.is_same)
        if image.name in self._branches:
            return _in_commit("name", self.branch(image.name), image.name, is_whole=is_whole)
        if first in self._branches and not is_whole:
            commit = self.branch(first)
            if any(disk.name == image.name for disk in commit.disks):
                return _Meant("name", commit, image.name)
        return _Meant(reason=f"there is no branch '{image.name}'")


def _in_commit(told_by: str, commit: commits.Commit, name: str, *, is_whole: bool) -> _Meant:
    """The disk of that name, or the only one."""
    names = [disk.name for disk in commit.disks]
    if is_whole:
        return _Meant(told_by, commit)
    if name in names or len(names) == 1:
        return _Meant(told_by, commit, name if name in names else names[0])
    return _Meant(reason=f"commit {commit.id[:12]} has no disk '{name}' but {', '.join(names)}")
