"""`vimgvc restore --in-place`: an image that exists becomes another state by writing what differs."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import restore, revisions, stamps
from vimgvc.images import in_place_target
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import disk as disks
from vimgvc.repo import repository, userfiles

_COMPARE = "leave --fast away: then it is compared, and what differs is written"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`base`: the revision that the target is at, if that is known; `as_raw`: it is raw whatever it looks like.

    `fast`: rely on what is remembered of the target. `state`: where the user's programs keep what
    they saw, None for a user without a home.
    """

    base: str | None = None
    fast: bool = False
    as_raw: bool = False
    threads: int | None = None
    state: pathlib.Path | None = None


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`base` is the commit that the target was known to be at, or remembered (`is_remembered`).

    `resumed` says that a run before was interrupted.
    """

    commit: commits.Commit
    disk: commits.Stored
    target: str
    base: commits.Commit | None
    is_remembered: bool
    resumed: bool
    done: disks.Rewritten


def run(repo: repository.Repository, revision: str, target: str | None, wanted: Wanted, monitor: Monitor) -> Rewritten:
    """Write to `target`, by default `<disk>.img` here, what the disk of `revision` has otherwise; durable on return.

    Raises `NotFound`, `UsageError`, `UnsafeImage`, `Busy`, `NoSpace`, `IntegrityError`.
    """
    found, facts = revisions.find_stored(repo, revision)
    path = restore.default_target(facts) if target is None else target
    markers = _marker_folder(path, wanted.state)
    seen = stamps.Stamps(wanted.state, repo, monitor)
    base, before_facts, known, before = None, None, None, None
    if wanted.fast:
        base, before_facts = _remembered(seen, path, markers)
    elif wanted.base is not None:
        base, before_facts = _base(repo, wanted.base, facts.name)
    stored = repo.open_disk(facts, monitor)
    if before_facts is not None:
        before = stored.another(before_facts)
        known = in_place_target.Known(wanted.base or "what is remembered", before.size)
    place = in_place_target.open_target(
        path,
        facts.size,
        known=known,
        as_raw=wanted.as_raw,
        forbidden=[repo.backend.url],
        devices=markers,
    )
    resumed = place.marked
    try:
        if wanted.fast:  # once more, now that nobody else writes
            _check_same(_remembered(seen, path, markers)[1], before_facts, path)
        done = stored.rewrite(place, monitor, wanted.threads, base=before)
    except BaseException as error:
        place.abort()
        if not in_place_target.is_marked(path, markers):
            raise
        way = "run this again without --base or --fast" if before else "run this again"
        monitor.problem(f"{path}: is a mixture of two states now; {way} to make it whole")
        if isinstance(error, KeyboardInterrupt):
            raise errors.Interrupted("interrupted", hint=f"{way} to make {path} whole") from error
        if isinstance(error, errors.NoSpace):
            error.hint = f"free some space, then {way}"
        raise
    seen.remember_file(path, found, facts)
    return Rewritten(found, facts, path, base, wanted.fast, resumed, done)


def _remembered(seen: stamps.Stamps, path: str, markers: str | None) -> tuple[commits.Commit, commits.Stored]:
    """What the target is, if its times say that it is what it was. Raises where they do not."""
    if in_place_target.is_marked(path, markers):
        raise errors.VimgvcError(
            f"{path}: writing to it was interrupted, so it is not what is remembered", hint=_COMPARE
        )
    origin = seen.recall(path)
    if origin is None and pathlib.Path(path).exists():
        raise errors.VimgvcError(f"{path}: nothing is remembered of it", hint=_COMPARE)
    if origin is None:
        raise errors.NotFound("target", path, hint="leave --in-place away to make a new file")
    if not origin.is_same:
        raise _unlike(path)
    return origin.commit, origin.disk


def _check_same(now: commits.Stored, before: commits.Stored | None, path: str) -> None:
    if now != before:
        raise _unlike(path)


def _unlike(path: str) -> errors.VimgvcError:
    return errors.VimgvcError(
        f"{path}: cannot be relied on to be what is remembered: its times or its size are others, the system "
        "was started since, or it is a device",
        hint=_COMPARE,
    )


def _base(repo: repository.Repository, revision: str, name: str) -> tuple[commits.Commit, commits.Stored]:
    """What `revision` names, by default what is called as the disk that is restored, or the only one."""
    _, disk_name = revisions.split(revision)
    found = repo.resolve(revision) if disk_name is None else None
    if found is not None and any(item.name == name for item in found.stored()):
        return revisions.find_stored(repo, f"{revision}:{name}")
    return revisions.find_stored(repo, revision)


def wanted(
    environment: Mapping[str, str],
    *,
    base: str | None = None,
    fast: bool = False,
    as_raw: bool = False,
    threads: int | None = None,
) -> Wanted:
    return Wanted(base, fast, as_raw, threads, userfiles.state_directory(environment))


def _marker_folder(target: str, state: pathlib.Path | None) -> str | None:
    """Where the marker of a device lies: with what the user's programs keep, because /dev does not last."""
    try:
        if not stat.S_ISBLK(os.lstat(target).st_mode):
            return None
        if state is None:
            raise errors.UsageError(
                "there is no place to note that the device is being written", hint="set HOME or XDG_STATE_HOME"
            )
        folder = state / "in-place"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise errors.from_os_error(error, target) from error
    return str(folder)
