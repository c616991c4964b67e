"""`vimgvc restore`: a disk of a commit becomes a raw image."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.images import raw
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import repository


@dataclass(frozen=True, slots=True)
class Restored:
    """`resumed` says that an interrupted restore was continued; `lost` are ranges filled with a pattern."""

    commit: commits.Commit
    disk: commits.Disk
    target: str
    bytes_written: int
    seconds: float
    resumed: bool
    lost: tuple[tuple[int, int], ...]


def run(
    repo: repository.Repository,
    revision: str,
    target: str | None,
    *,
    force: bool,
    salvage: bool,
    threads: int | None,
    monitor: Monitor,
) -> Restored:
    """Write the disk that `revision` (REV or REV:DISK) names to `target`, by default `<disk>.img` here.

    Raises `NotFound`, `UsageError`, `UnsafeImage`, `NoSpace`, `IntegrityError`.
    """
    name, colon, disk_name = revision.partition(":")
    if not name:
        raise errors.UsageError(f"not a revision: {revision}", hint="name the commit before the colon")
    if colon and not disk_name:
        raise errors.UsageError(
            f"not a revision: {revision}", hint="name the disk after the colon, or leave the colon away"
        )
    found = repo.resolve(name)
    disk = found.disk(disk_name or None)
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
    return Restored(found, disk, path, result.bytes_written, result.seconds, resumed, result.lost)


def default_target(disk: commits.Disk) -> str:
    """A file name made of the disk's; what somebody else committed does not choose the directory."""
    name = f"{disk.name}.img"
    if (
        pathlib.PurePath(name).name != name
        or name.startswith(".")
        or not name.isprintable()
        or len(os.fsencode(name)) > 255
    ):
        raise errors.UsageError(f"the disk's name is no file name: {disk.name}", hint="say where to restore it to")
    return name
