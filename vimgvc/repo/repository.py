"""The repository: the one object that commands receive."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, keys, sealing
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import config as config_module
from vimgvc.repo import history as history_module
from vimgvc.repo import keyring as keyring_module
from vimgvc.repo import refs

if TYPE_CHECKING:
    import pathlib

    from vimgvc.pipeline import ingest
    from vimgvc.repo import check, disk, statistics
    from vimgvc.store import objects as objects_module

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a commit is to say besides its disks. `message` and `author` are free text."""

    branch: str
    message: str
    author: str
    host: str
    allow_empty: bool = False


@dataclass(frozen=True, slots=True)
class Effort:
    """How the work is done, not what: zstd level, reading new segments back, threads (None: one a core)."""

    level: int = 3
    verify: bool = True
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    """`created` is False when nothing had changed; then `commit` is the one that was there."""

    commit: commits.Commit
    seconds: float
    created: bool


@dataclass(slots=True)
class Repository:
    """An open repository. Made by `create` or `open`."""

    backend: protocol.Backend
    config: config_module.Config
    unlocked: keyring_module.Unlocked = field(repr=False)
    cache: pathlib.Path | None = None
    clock: Clock = time.time
    rng: aead.Rng = field(default=os.urandom, repr=False)
    seals: sealing.Sealing = field(init=False, repr=False)
    keyring: keyring_module.Keyring = field(init=False, repr=False)
    graph: history_module.History = field(init=False, repr=False)
    logs: refs.Refs = field(init=False, repr=False)

    def __post_init__(self) -> None:
        purpose = keys.PurposeKeys(self.unlocked.root)
        self.seals = sealing.Sealing(purpose, bytes.fromhex(self.config.id), self.rng)
        self.keyring = keyring_module.Keyring(self.backend)
        self.graph = history_module.History(self.backend, self.seals)
        self.logs = refs.Refs(self.backend, self.seals)

    @classmethod
    def create(
        cls,
        backend: protocol.Backend,
        secret: keys.Secret,
        *,
        average: int = 65536,
        label: str = "",
        profile: keys.KdfProfile = keys.DEFAULT,
        clock: Clock = time.time,
        rng: aead.Rng = os.urandom,
        cache: pathlib.Path | None = None,
    ) -> Repository:
        """Fill an empty place with a repository; `config` comes last and makes it one."""
        config = config_module.Config(aead.random_bytes(rng, 16).hex(), average)
        root = aead.random_bytes(rng, 32)
        unlocked = keyring_module.Keyring(backend).create(
            root, config.encode(), secret, label=label, created=timestamp(clock), rng=rng, profile=profile
        )
        backend.sync()
        if not backend.put(config_module.NAME, [config.encode()]):
            raise errors.VimgvcError(f"a repository exists at {backend.url}")
        backend.sync()
        return cls(backend, config, unlocked, cache, clock, rng)

    @classmethod
    def open(
        cls,
        backend: protocol.Backend,
        secrets: Iterable[keys.Secret] | None = None,
        *,
        unlocked: keyring_module.Unlocked | None = None,
        monitor: Monitor | None = None,
        clock: Clock = time.time,
        rng: aead.Rng = os.urandom,
        cache: pathlib.Path | None = None,
    ) -> Repository:
        """Open with the first of `secrets` that a slot accepts, or with what was `unlocked` before.

        Raises `NoRepository`, `NoKey`, `IntegrityError`, `Unsupported`.
        """
        monitor = monitor or NullMonitor()
        if unlocked is None:
            unlocked = keyring_module.Keyring(backend).unlock_any(secrets or (), monitor)
        return cls(backend, _config(backend, unlocked, monitor), unlocked, cache, clock, rng)

    @property
    def id(self) -> str:
        return self.config.id

    @property
    def fingerprint(self) -> str:
        return self.seals.keys.fingerprint

    def last_refs(self, monitor: Monitor | None = None) -> dict[str, refs.Ref]:
        """Every ref log's last entry, by blind."""
        return self.logs.last(monitor or NullMonitor())

    def branches(self) -> dict[str, str]:
        return history_module.branches(self.last_refs().values())

    def resolve(self, revision: str) -> commits.Commit:
        return self.graph.resolve(revision, self.last_refs().values())

    def history(self, revision: str | None = None) -> Iterator[commits.Commit]:
        """Newest first; of all branches when no revision is given."""
        tips = self.branches().values() if revision is None else [self.resolve(revision).id]
        return self.graph.walk(tips)

    def commit(
        self,
        sources: Sequence[ingest.Source],
        request: CommitRequest,
        effort: Effort | None = None,
        monitor: Monitor | None = None,
    ) -> CommitResult:
        """Record the disks as one commit on top of the branch; durable on return.

        Raises whatever the Readers raise, `RefMoved`, `NoSpace`, `BackendError`, `IntegrityError`.
        """
        from vimgvc.repo import recording

        return recording.record(self, sources, request, effort or Effort(), monitor or NullMonitor())

    def open_disk(
        self, facts: commits.Disk, monitor: Monitor | None = None, *, survive: bool = False
    ) -> disk.StoredDisk:
        """A disk of a commit, to be restored; with `survive` also when parts of it are lost.

        Raises `IntegrityError` when its manifest's root is lost.
        """
        from vimgvc.repo import disk

        return disk.StoredDisk(self.objects(monitor or NullMonitor()), facts, survive=survive)

    def verify(
        self, level: str = "default", subset: tuple[int, int] | None = None, monitor: Monitor | None = None
    ) -> check.VerifyResult:
        """Check what is stored; `level` is `quick`, `default` or `data` (see `repo.check`)."""
        from vimgvc.repo import check

        return check.verify(self, level, subset, monitor or NullMonitor())

    def stats(self, monitor: Monitor | None = None) -> statistics.Statistics:
        from vimgvc.repo import statistics

        return statistics.collect(self, monitor or NullMonitor())

    def objects(self, monitor: Monitor) -> objects_module.Objects:
        """For reading what commits refer to."""
        from vimgvc.store import catalog, objects

        found = catalog.open_catalog(self.backend, self.seals, self.cache, monitor)
        return objects.Objects(self.backend, self.seals, found.index)

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Held while something is added: keeps `gc` away, lets other writers in."""
        return self.backend.lock_shared()


def _config(backend: protocol.Backend, unlocked: keyring_module.Unlocked, monitor: Monitor) -> config_module.Config:
    """What the key slot says; the public copy is only compared."""
    config = config_module.decode(unlocked.config)
    try:
        same = backend.get(config_module.NAME) == unlocked.config
    except (errors.NotFound, errors.IntegrityError):
        same = False
    if not same:
        monitor.problem("the file 'config' differs from what the key slot says; the key slot is believed")
    return config


def timestamp(clock: Clock) -> str:
    """The time in UTC, as commits spell it."""
    return dt.datetime.fromtimestamp(clock(), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
