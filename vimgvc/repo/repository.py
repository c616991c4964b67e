"""The repository: the one object that commands receive."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, keys, sealing
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import config as config_module
from vimgvc.repo import forgetting, names, refs, revisions, views
from vimgvc.repo import history as history_module
from vimgvc.repo import keyring as keyring_module

if TYPE_CHECKING:
    import pathlib

    from vimgvc.pipeline import ingest
    from vimgvc.repo import check, collect, disk, statistics
    from vimgvc.repo import elsewhere as elsewhere_module
    from vimgvc.repo import repair as repair_module
    from vimgvc.store import index
    from vimgvc.store import objects as objects_module

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a commit is to say besides its disks. `message` and `author` are free text; `time` None: now.

    `allow_empty`: also if nothing changed. `once`: not if the history of the branch has the same content,
    of a snapshot of the same name or of no snapshot.
    """

    branch: str
    message: str
    author: str
    host: str
    allow_empty: bool = False
    time: str | None = None
    once: bool = False


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
    """An open repository. Made by `create` or `open`.

    `accepted`: entries of ref logs that may be missing, or be others, because the user said so. `elsewhere`: where
    data is read from that is promised to be in another place.
    """

    backend: protocol.Backend
    config: config_module.Config
    unlocked: keyring_module.Unlocked = field(repr=False)
    cache: pathlib.Path | None = None
    clock: Clock = time.time
    rng: aead.Rng = field(default=os.urandom, repr=False)
    accepted: views.Accepted = field(default_factory=dict)
    elsewhere: elsewhere_module.Elsewhere | None = field(default=None, repr=False)
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
            # Two began at once, where there are no locks. A slot of the one that lost would open to nothing.
            own = f"keys/{unlocked.slot_id}-"
            backend.delete_all([item.name for item in backend.list("keys") if item.name.startswith(own)])
            raise errors.UsageError(
                f"somebody else has just made a repository in {backend.url}",
                hint="use that one, or choose another place",
            )
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
        """Living branches: name → commit identifier."""
        return names.ends(self.last_refs().values(), reflog.BRANCH)

    def tags(self) -> dict[str, str]:
        return names.ends(self.last_refs().values(), reflog.TAG)

    def set_ref(self, kind: str, name: str, commit_id: str | None, *, expect: str | None, host: str = "") -> refs.Ref:
        """Let a branch or tag that is at `expect` be at `commit_id`; None: not there. Raises `RefMoved`."""
        return names.set_value(self, kind, name, commit_id, expect=expect, host=host)

    def reflog(self, kind: str, name: str, *, accept: bool = False) -> list[refs.Ref]:
        """Every value a branch or tag had, the last first. Raises `NotFound`, `IntegrityError`, `Rollback`."""
        return names.log(self, kind, name, accept=accept)

    def forgotten(self) -> dict[str, forgetting.Forgotten]:
        """Records of forgotten commits, by identifier; raises `IntegrityError` for one that cannot be read."""
        return forgetting.read_all(self.backend, self.seals)

    def forget(self, ids: Iterable[str], reason: str = "", *, host: str = "") -> list[str]:
        """Let `gc` remove what only these commits need; durable on return. Those that were not forgotten before.

        Raises `UsageError` for one that a branch or tag names, `NotFound`, `IntegrityError`, and then does nothing.
        """
        return forgetting.forget(self, ids, reason, host)

    def live(self) -> list[commits.Commit]:
        """The commits whose data is kept; raises for anything that cannot be read (see `repo.roots`)."""
        from vimgvc.repo import roots

        return list(roots.read(self.backend, self.seals, accepted=self.accepted).live)

    def resolve(self, revision: str) -> commits.Commit:
        """Raises `NotFound`, `UsageError`, `IntegrityError`, `Rollback`."""
        return revisions.resolve(self, revision)

    def resolve_disk(self, revision: str) -> tuple[commits.Commit, commits.Disk]:
        """The same for REV:DISK, or REV when it has one disk."""
        return revisions.resolve_disk(self, revision)

    def history(self, revision: str | None = None) -> Iterator[commits.Commit]:
        """Newest first; of all branches and tags when no revision is given."""
        tips = [*self.branches().values(), *self.tags().values()] if revision is None else [self.resolve(revision).id]
        return self.graph.walk(tips)

    def commit(
        self,
        sources: Sequence[ingest.Source],
        request: CommitRequest,
        effort: Effort | None = None,
        monitor: Monitor | None = None,
        *,
        attachments: Sequence[ingest.Source] = (),
    ) -> CommitResult:
        """Record the disks, and files beside them, as one commit on top of the branch; durable on return.

        Raises whatever the Readers raise, `UsageError` for a name that is there twice, `RefMoved`, `NoSpace`,
        `BackendError`, `IntegrityError`.
        """
        from vimgvc.repo import recording

        return recording.record(self, (sources, attachments), request, effort or Effort(), monitor or NullMonitor())

    def open_disk(
        self, facts: commits.Stored, monitor: Monitor | None = None, *, survive: bool = False
    ) -> disk.StoredDisk:
        """A disk or attachment of a commit, to be restored; with `survive` also when parts of it are lost.

        What is promised to be elsewhere is read from there. Raises `IntegrityError` when its manifest's root is lost,
        and what `elsewhere.store` raises.
        """
        from vimgvc.repo import disk, elsewhere

        store = elsewhere.store(self, facts, monitor or NullMonitor(), survive=survive)
        return disk.StoredDisk(store, facts, survive=survive)

    def verify(
        self, level: str = "default", subset: tuple[int, int] | None = None, monitor: Monitor | None = None
    ) -> check.VerifyResult:
        """Check what is stored; `level` is `quick`, `default` or `data` (see `repo.check`)."""
        from vimgvc.repo import check

        return check.verify(self, level, subset, monitor or NullMonitor())

    def stats(self, monitor: Monitor | None = None) -> statistics.Statistics:
        from vimgvc.repo import statistics

        return statistics.collect(self, monitor or NullMonitor())

    def collect(self, options: collect.Options | None = None, monitor: Monitor | None = None) -> collect.Collected:
        """Remove what no commit needs, and repack (see `repo.collect`)."""
        from vimgvc.repo import collect

        return collect.collect(self, options or collect.Options(), monitor or NullMonitor())

    def repair(
        self, options: repair_module.Options | None = None, monitor: Monitor | None = None
    ) -> repair_module.Repaired:
        """Mend what damage left; nothing is written where nothing is damaged (see `repo.repair`)."""
        from vimgvc.repo import repair as repair_module

        return repair_module.repair(self, options or repair_module.Options(), monitor or NullMonitor())

    def objects(self, monitor: Monitor) -> objects_module.Objects:
        """For reading what commits refer to."""
        from vimgvc.store import catalog, objects

        def read() -> index.Index:
            return catalog.open_catalog(self.backend, self.seals, self.cache, monitor).index

        return objects.Objects(self.backend, self.seals, read(), read)

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
    return names.stamp(clock())
