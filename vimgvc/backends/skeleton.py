"""The directories of a repository: making them, knowing them, keeping them clean.

A repository directory holds the areas of `protocol.AREAS`, the 256 shards of `packs`, `lock` and,
once it is one, `config`. Temporary files may be beside any blob.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection

from vimgvc import errors
from vimgvc.backends import files as files_module
from vimgvc.backends import protocol
from vimgvc.backends.files import Files, again

#: Temporary files begin with this; sixteen random hex digits follow.
TEMPORARY = ".tmp-"

#: Locked with the kernel's file lock; that it exists says nothing.
LOCK = "lock"

#: A temporary file is dead when its last write is longer ago: no commit takes a week.
STALE_SECONDS = 7 * 86400

TEMPORARY_NAME = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}")

SHARDS = tuple(f"packs/{shard:02x}" for shard in range(256))


def make_root(files: Files, root: str) -> None:
    """The directory `root` and those above it, durable. Raises `UsageError` unless `root` is free.

    Free is what is empty, or holds nothing but what an interrupted `init` leaves.
    """
    with files_module.door(root):
        missing, path = [], root
        while not _exists(files, path):
            missing.append(path)
            path = _parent(path)
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                again(files.mkdir, path)
            files_module.sync_directory(files, _parent(path))
        if not missing:
            _refuse_occupied(files, root)
            # It may be here because of an `init` that was killed before this same call. Whoever may
            # not read the directory above has not made an entry in it either.
            with contextlib.suppress(PermissionError):
                files_module.sync_directory(files, _parent(root))


def make_areas(files: Files, root: str) -> None:
    """The areas and shards, durable: no commit has to make and sync a directory for a pack."""
    with files_module.door(root):
        for area in (*protocol.AREAS, *SHARDS):
            with contextlib.suppress(FileExistsError):
                again(files.mkdir, f"{root}/{area}")
        files_module.sync_directory(files, f"{root}/packs")
        files_module.sync_directory(files, root)


def remove_unfinished(backend: protocol.Backend) -> None:
    """Remove the key slots of an `init` that never put its `config`; the caller holds the lock.

    Left there they would open with the same passphrase, to another root key.
    Raises `UsageError` when there is more: a repository.
    """
    for area in protocol.AREAS:
        if area != "keys" and any(True for _ in backend.list(area)):
            raise _occupied(backend.url)
    with contextlib.suppress(errors.NotFound):
        backend.size(protocol.CONFIG)
        raise _occupied(backend.url)
    backend.delete_all([item.name for item in backend.list("keys")])


def require(backend: protocol.Backend) -> None:
    """Raises `NoRepository` where there is none."""
    if not is_repository(backend):
        raise errors.NoRepository(f"no repository at {backend.url}", hint=f"make one with 'vimgvc init {backend.url}'")


def is_repository(backend: protocol.Backend) -> bool:
    """One that lost its `config` counts as long as it has a key slot, which repeats it."""
    try:
        backend.size(protocol.CONFIG)
    except errors.NotFound:
        return _has_keys(backend)
    except errors.BackendError as error:
        if error.kind == "ENOTDIR":
            return False
        raise
    return True


def _has_keys(backend: protocol.Backend) -> bool:
    try:
        return any(True for _ in backend.list("keys"))
    except errors.BackendError as error:
        if error.kind == "ENOENT":
            return False
        raise


def remove_stale(files: Files, root: str, *, now: float) -> int:
    """Remove temporary files that were last written a week before `now`; returns how many.

    `now` in seconds since 1970. Nothing depends on this: nobody ever reads a temporary file.
    """
    removed = 0
    with files_module.door(root):
        for directory in _directories(files, root):
            for entry in again(files.scan, directory, _matcher(TEMPORARY_NAME)):
                if not entry.is_directory and entry.modified < now - STALE_SECONDS:
                    with contextlib.suppress(FileNotFoundError):
                        again(files.unlink, f"{directory}/{entry.name}")
                        removed += 1
    return removed


def _directories(files: Files, root: str) -> list[str]:
    """Every directory that may hold a temporary file."""
    found = [root]
    for area, patterns in protocol.AREAS.items():
        if area in protocol.LATER and not _exists(files, f"{root}/{area}"):
            continue
        found.append(f"{root}/{area}")
        if len(patterns) > 1:
            entries = again(files.scan, f"{root}/{area}", _matcher(patterns[0]))
            found.extend(f"{root}/{area}/{entry.name}" for entry in entries if entry.is_directory)
    return found


def _matcher(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda name: pattern.fullmatch(name) is not None


def _refuse_occupied(files: Files, root: str) -> None:
    names: list[str] = []

    def note(name: str) -> bool:
        names.append(name)
        return False

    try:
        again(files.scan, root, note)
    except NotADirectoryError:
        raise errors.UsageError(f"{root} is not a directory", hint="choose another place") from None
    refuse_occupied(root, names)


def refuse_occupied(root: str, names: Collection[str]) -> None:
    """Raise `UsageError` if a directory with these names is a repository, or holds anything else."""
    if protocol.CONFIG in names:
        raise _occupied(root)
    ours = {*protocol.AREAS, LOCK, "lost+found"}
    others = sorted(name for name in names if name not in ours and not TEMPORARY_NAME.fullmatch(name))
    if others:
        raise errors.UsageError(
            f"{root} is not empty: it holds {others[0]!r}", hint="choose an empty or a new directory for the repository"
        )


def _occupied(where: str) -> errors.UsageError:
    return errors.UsageError(
        f"there is a repository in {where} already", hint="choose another directory, or use this one"
    )


def _exists(files: Files, path: str) -> bool:
    try:
        again(files.status, path)
    except FileNotFoundError:
        return False
    return True


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
