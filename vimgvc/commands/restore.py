"""`vimgvc restore`: a disk of a commit becomes a raw image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimgvc import errors
from vimgvc.commands import revisions, stamps
from vimgvc.images import in_place_target, raw
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import repository


@dataclass(frozen=True, slots=True)
class Restored:
    """`resumed` says that an interrupted restore was continued; `lost` are ranges filled with a pattern."""

    commit: commits.Commit
    disk: commits.Stored
    target: str
    bytes_written: int
    seconds: float
    resumed: bool
    lost: tuple[tuple[int, int], ...]


def run(
    repo: repository.Repository,
    revision: str,
    target: str | None,
    environment: Mapping[str, str],
    *,
    force: bool,
    salvage: bool,
    threads: int | None,
    monitor: Monitor,
) -> Restored:
    """Write the disk that `revision` (REV or REV:DISK) names to `target`, by default `<disk>.img` here.

    Raises `NotFound`, `UsageError`, `UnsafeImage`, `NoSpace`, `IntegrityError`.
    """
    found, disk = revisions.find_stored(repo, revision)
    if target is not None and Path(target).is_dir():
        hint = f"name a file, or write {target}/ to restore everything into it"
        raise errors.UnsafeImage(f"{target}: is a directory", hint=hint)
    path = default_target(disk) if target is None else target
    stored = repo.open_disk(disk, monitor, survive=salvage)
    writer = raw.RawWriter(
        path,
        disk.size,
        tag=disk.manifest[:16],
        force=force,
        forbidden=[repo.backend.url],
        data_bytes=stored.data_bytes(),
    )
    resumed = writer.resumed
    result = stored.restore(writer, monitor, threads)
    in_place_target.unmark(path)
    if not result.lost:
        stamps.Stamps.of_user(environment, repo, monitor).remember_file(path, found, disk)
    return Restored(found, disk, path, result.bytes_written, result.seconds, resumed, result.lost)


def default_target(disk: commits.Stored) -> str:
    """A file name made of the disk's; an attachment's is one."""
    return revisions.file_name(disk.name, "img" if isinstance(disk, commits.Disk) else "")


def with_disk(revision: str, names: Sequence[str]) -> str:
    """REV:DISK of REV and what was picked. Raises `UsageError` for more than one."""
    _, disk_name = revisions.split(revision)
    picked = [*names, *([disk_name] if disk_name else [])]
    if len(picked) > 1:
        raise errors.UsageError(
            f"{len(picked)} disks cannot be one image", hint="name a directory for them, ending with a slash: DIR/"
        )
    return f"{revision}:{names[0]}" if names else revision
