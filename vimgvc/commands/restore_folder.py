"""`vimgvc restore REV DIR/`: everything that a commit has, disks and files, in a directory."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimgvc import errors
from vimgvc.commands import file_names, revisions, stamps
from vimgvc.images import raw, target_rules
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import disk as disks
from vimgvc.repo import repository


@dataclass(frozen=True, slots=True)
class Wanted:
    """`names`: only these disks or attachments; none means all."""

    names: Sequence[str] = ()
    force: bool = False
    salvage: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """`kept`: it was there already, and right. `problem`: why it is not there."""

    facts: commits.Stored
    path: str
    kept: bool = False
    resumed: bool = False
    bytes_written: int = 0
    lost: tuple[tuple[int, int], ...] = ()
    problem: errors.VimgvcError | None = None

    @property
    def kind(self) -> str:
        return "disk" if isinstance(self.facts, commits.Disk) else "attachment"


@dataclass(frozen=True, slots=True)
class Folder:
    commit: commits.Commit
    path: str
    files: tuple[File, ...]
    seconds: float

    def check_complete(self) -> None:
        """Raise `IntegrityError` if something of it could not be restored."""
        failed = [file for file in self.files if file.problem is not None]
        if failed:
            names = ", ".join(file.facts.name for file in failed)
            raise errors.IntegrityError(
                f"{len(failed)} of {len(self.files)} were not restored ({names})", str(failed[0].problem)
            )


@dataclass(frozen=True, slots=True)
class _Item:
    facts: commits.Stored
    stored: disks.StoredDisk
    path: str


def run(
    repo: repository.Repository,
    revision: str,
    folder: str,
    wanted: Wanted,
    monitor: Monitor,
    *,
    environment: Mapping[str, str] | None = None,
) -> Folder:
    """Write what the commit has to `folder`, which is made if it is missing.

    Disks are called `<name>.img`, attachments as they are. Nothing is written if one of the files is
    there and is something else, or if there is no room for all. What is there and right is kept, so
    the same command goes on after an interruption. What is damaged does not stop the others: see
    `Folder.check_complete`. Raises `NotFound`, `UsageError`, `UnsafeImage`, `NoSpace`.
    """
    started = time.monotonic()
    name, disk_name = revisions.split(revision)
    found = revisions.find_commit(repo, name)
    chosen = [*wanted.names, *([disk_name] if disk_name else [])]
    _check_names(found, chosen)
    forbidden = [repo.backend.url]
    place = Path(folder)
    present = _look(place, forbidden)
    items = [
        _Item(facts, repo.open_disk(facts, monitor, survive=wanted.salvage), str(place / file))
        for facts, file in zip(found.stored(), names(found), strict=True)
        if not chosen or facts.name in chosen
    ]
    kept = set() if wanted.force or not present else {item.path for item in items if _is_there(item, wanted)}
    missing = [item for item in items if item.path not in kept]
    _make(place, sum(item.stored.data_bytes() for item in missing), present=present)
    files = [
        File(item.facts, item.path, kept=True) if item.path in kept else _write(item, wanted, forbidden, monitor)
        for item in items
    ]
    seen = stamps.Stamps.of_user(environment or {}, repo, monitor)
    for file in files:
        if not (file.kept or file.lost or file.problem):
            seen.remember_file(file.path, found, file.facts)
    return Folder(found, folder, tuple(files), time.monotonic() - started)


def names(found: commits.Commit) -> list[str]:
    """The file names of a commit's disks and attachments, in the order of `Commit.stored`."""
    return file_names.unique([(item.name, "img" if isinstance(item, commits.Disk) else "") for item in found.stored()])


def _check_names(found: commits.Commit, chosen: Sequence[str]) -> None:
    there = [item.name for item in found.stored()]
    for name in chosen:
        if name not in there:
            raise errors.NotFound("disk", name, hint=f"commit {found.id[:12]} has: {', '.join(there)}")


def _look(folder: Path, forbidden: Sequence[str]) -> bool:
    """Whether the directory is there. Raises where it may not be, or cannot be made."""
    parent = folder.resolve().parent
    try:
        present = stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        if not parent.is_dir():
            raise errors.NotFound("directory", str(parent), hint="create it first") from None
        target_rules.check_allowed(str(folder), str(parent), forbidden)
        return False
    except OSError as error:
        raise errors.from_os_error(error, str(folder)) from error
    if not present:
        raise errors.UsageError(f"{folder}: is not a directory", hint="name a directory for the files")
    target_rules.check_allowed(str(folder), str(folder), forbidden)
    return True


def _is_there(item: _Item, wanted: Wanted) -> bool:
    """Whether the file is there and right. Raises if something else is there."""
    try:
        present = os.lstat(item.path)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(present.st_mode) and present.st_size == item.facts.size:
        reader = raw.RawReader(item.path)
        try:
            item.stored.matches(reader, NullMonitor(), wanted.threads)
        except errors.IntegrityError:
            pass
        else:
            return True
        finally:
            reader.close()
    raise errors.VimgvcError(
        f"{item.path}: exists already, and is something else",
        hint="name another directory, or replace it with --force",
    )


def _make(folder: Path, needed: int, *, present: bool) -> None:
    """Make the directory unless it is `present`; raises `NoSpace` without room for `needed` bytes."""
    try:
        above = target_rules.open_folder(str(folder if present else folder.resolve().parent))
        try:
            target_rules.check_space(above, str(folder), needed)
            if not present:
                folder.mkdir(exist_ok=True)
                target_rules.sync_folder(above, str(folder))
        finally:
            os.close(above)
    except OSError as error:
        raise errors.from_os_error(error, str(folder)) from error


def _write(item: _Item, wanted: Wanted, forbidden: Sequence[str], monitor: Monitor) -> File:
    writer = raw.RawWriter(
        item.path,
        item.facts.size,
        tag=item.facts.manifest[:16],
        force=wanted.force,
        forbidden=forbidden,
        data_bytes=item.stored.data_bytes(),
    )
    resumed = writer.resumed
    try:
        done = item.stored.restore(writer, monitor, wanted.threads)
    except errors.IntegrityError as error:
        return File(item.facts, item.path, resumed=resumed, problem=error)
    return File(item.facts, item.path, resumed=resumed, bytes_written=done.bytes_written, lost=done.lost)
