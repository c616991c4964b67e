"""Stamps: as which recorded disk this user's images were last seen, and how the system told them then.

Each is a file `stamps/<hash of repository and path>.json` in the user's state directory. A stamp is
never a source of truth: it says what an image is to be compared with, and only where the user asks
for it (`--fast`) that it is that still. What is lost, damaged or cannot be written costs a compare.

A stamp can be relied on (`State.timed`) only for a regular file whose change time was over when it
was taken, so that every later write moves it, and until the next start of the system: a power cut
may keep data and lose the times. A device does not tell when it was written.
"""

from __future__ import annotations

import os
import pathlib
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blake3 import blake3

from vimgvc import errors
from vimgvc.commands import revisions
from vimgvc.disk import protocol
from vimgvc.images import raw
from vimgvc.model import commit as commits
from vimgvc.model import encoding
from vimgvc.monitor import Monitor
from vimgvc.repo import repository, userfiles

_WHERE = "stamp"
_LIMIT = 64 << 10
#: The kernel stamps with a clock that ticks every 1 to 10 ms.
_TICK_NS = 20_000_000
_SECOND_NS = 1_000_000_000
_BOOT = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class State:
    """How the system tells the file `path`, an absolute one without links."""

    path: str
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    boot: str
    timed: bool


@dataclass(frozen=True, slots=True)
class Stamp:
    """An image in `state` was the disk called `disk` of a commit."""

    state: State
    commit: str
    disk: str
    manifest: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What a stamp leads to. `is_same`: as far as times tell, the image is that disk still."""

    commit: commits.Commit
    disk: commits.Disk
    is_same: bool


def look(path: str | os.PathLike[str]) -> State | None:
    """The state of an image now, None where there is none. Waits until a change that was just made is over."""
    real = pathlib.Path(os.path.realpath(path))
    try:
        first = found = real.stat()
        if 0 <= time.time_ns() - found.st_ctime_ns < _TICK_NS:
            time.sleep(_TICK_NS / _SECOND_NS)
            found = real.stat()
    except OSError:
        return None
    boot = _boot()
    is_over = time.time_ns() - found.st_ctime_ns >= _TICK_NS and found.st_ctime_ns == first.st_ctime_ns
    is_fine = found.st_ctime_ns % _SECOND_NS != 0  # else the file system counts whole seconds
    timed = bool(boot) and stat.S_ISREG(found.st_mode) and is_over and is_fine
    name = os.fsencode(real).decode("utf-8", "backslashreplace")
    facts = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return State(name, *facts, boot, timed)


def _boot() -> str:
    try:
        return pathlib.Path(_BOOT).read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def look_at(source: protocol.Source) -> State | None:
    """The state of what is read, None unless that is the file itself and read without concessions."""
    return look(source.path) if isinstance(source, raw.RawReader) else None


class Stamps:
    """Those of one user and one repository; `directory` None: none, ever."""

    def __init__(self, directory: pathlib.Path | None, repo: repository.Repository, monitor: Monitor) -> None:
        self._directory, self._repo, self._monitor = directory, repo, monitor

    @classmethod
    def of_user(cls, environ: Mapping[str, str], repo: repository.Repository, monitor: Monitor) -> Stamps:
        return cls(userfiles.state_directory(environ), repo, monitor)

    def remember(self, state: State | None, commit: commits.Commit, disk: commits.Stored) -> None:
        """An image was that disk in `state`, which was taken before it was read, or after it was written."""
        if state is None or self._directory is None or not isinstance(disk, commits.Disk):
            return
        stamp = Stamp(state, commit.id, disk.name, disk.manifest)
        try:
            userfiles.replace(self._path(state.path), _encode(stamp, self._repo.id))
        except (errors.BackendError, errors.NoSpace) as error:
            self._monitor.note(f"the state of {state.path} cannot be remembered: {error.message}")

    def remember_file(self, path: str, commit: commits.Commit, disk: commits.Stored) -> None:
        """The file was just written."""
        self.remember(look(path), commit, disk)

    def remember_read(self, read: Iterable[tuple[State | None, commits.Stored]], commit: commits.Commit) -> None:
        """Images were read completely, and unchanged, since their states were taken."""
        for state, disk in read:
            self.remember(state, commit, disk)

    def recall(self, path: str | os.PathLike[str]) -> Origin | None:
        """What the image at `path` was when it was last seen; None where nothing is known, or not any more."""
        now = look(path)
        stamp = self._load(now.path) if now else None
        if now is None or stamp is None:
            return None
        try:
            commit = revisions.find_commit(self._repo, stamp.commit)
        except (errors.NotFound, errors.UsageError):
            return None
        disk = next((disk for disk in commit.disks if (disk.name, disk.manifest) == (stamp.disk, stamp.manifest)), None)
        if disk is None or commit.id != stamp.commit:
            return None
        return Origin(commit, disk, now.timed and now == stamp.state and now.size == disk.size)

    def _path(self, path: str) -> pathlib.Path:
        assert self._directory is not None
        key = blake3(f"{self._repo.id}\0{path}".encode()).hexdigest(16)
        return self._directory / "stamps" / f"{key}.json"

    def _load(self, path: str) -> Stamp | None:
        if self._directory is None:
            return None
        try:
            data = userfiles.read(self._path(path), forbidden=userfiles.WRITABLE, limit=_LIMIT)
            return None if data is None else _decode(data, self._repo.id, path)
        except errors.VimgvcError as error:
            self._monitor.note(f"what is remembered of {path} is not used: {error.message}")
            return None


def _encode(stamp: Stamp, repo_id: str) -> bytes:
    state = stamp.state
    return encoding.dumps_canonical(
        {
            "boot": state.boot,
            "commit": stamp.commit,
            "ctime_ns": state.ctime_ns,
            "dev": state.dev,
            "disk": stamp.disk,
            "ino": state.ino,
            "manifest": stamp.manifest,
            "mtime_ns": state.mtime_ns,
            "path": state.path,
            "repository": repo_id,
            "size": state.size,
            "timed": state.timed,
            "v": 1,
        }
    )


def _decode(data: bytes, repo_id: str, path: str) -> Stamp:
    members = encoding.Members(encoding.loads_canonical(data, _WHERE), _WHERE)
    if members.number("v") != 1 or members.text("repository") != repo_id or members.text("path") != path:
        raise errors.FormatError(_WHERE, "is of another version, repository or image")
    numbers = [members.get(name, int) for name in ("dev", "ino", "size", "mtime_ns", "ctime_ns")]
    dev, ino, size, mtime_ns, ctime_ns = numbers
    state = State(path, dev, ino, size, mtime_ns, ctime_ns, members.text("boot"), members.get("timed", bool))
    commit = encoding.check_hex(members.text("commit"), 32, _WHERE)
    stamp = Stamp(state, commit, members.text("disk"), encoding.check_hex(members.text("manifest"), 32, _WHERE))
    members.end()
    return stamp
