"""Who can open the repository: `vimgvc key …`.

Nothing here returns a secret, but for the recovery code that has just been made.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import keys, recovery, slots
from vimgvc.commands import opening
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.repo import config, inbox, keyfile, remember, remotes, trust, userfiles
from vimgvc.repo import keyring as keyrings
from vimgvc.repo import repository as repositories

Slot = slots.SlotInfo


@dataclass(frozen=True, slots=True)
class Added:
    """A new slot; `removed` is the identifier of the one it took the place of."""

    slot: Slot
    removed: str | None = None


@dataclass(frozen=True, slots=True)
class AddedCode:
    """A new slot and the recovery code that opens it: to be shown once, and kept nowhere."""

    slot: Slot
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MayWrite:
    """Where a write key may write: to `branch`, to all below it when it ends with `/`; None: below its label."""

    label: str
    branch: str | None


@dataclass(frozen=True, slots=True)
class AddedWriter:
    """A new slot of a write key, and the branch that it may write (all below it, if that ends with `/`)."""

    slot: Slot
    branch: str


@dataclass(frozen=True, slots=True)
class Exported:
    """A recovery kit; `path` is None when it was not written to a file."""

    kit: bytes
    slots: int
    path: str | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """`where` says where the key is now: a path, or the system's keyring."""

    where: str


def add(
    repository: repositories.Repository,
    secret: keys.Secret,
    label: str,
    environment: Mapping[str, str],
    monitor: Monitor,
    *,
    profile: keys.KdfProfile = keys.DEFAULT,
) -> Added:
    """Let `secret` open the repository as well. Durable, and opened once, on return."""
    info = _add(repository, secret, label, profile)
    _cache(repository, environment, monitor)
    return Added(info)


def add_key_file(
    repository: repositories.Repository, path: str, label: str, environment: Mapping[str, str], monitor: Monitor
) -> Added:
    """Make a new key file at `path`, which must be free, and let it open the repository."""
    with contextlib.ExitStack() as undo:
        secret = keyfile.make(pathlib.Path(path), repository.rng)
        undo.callback(userfiles.remove, pathlib.Path(path))
        info = _add(repository, secret, label)
        undo.pop_all()
    _cache(repository, environment, monitor)
    return Added(info)


def add_recovery_code(
    repository: repositories.Repository, label: str, environment: Mapping[str, str], monitor: Monitor
) -> AddedCode:
    """Make a recovery code and let it open the repository."""
    code = recovery.make_recovery_code(repository.rng)
    info = _add(repository, recovery.parse_recovery_code(code), label)
    _cache(repository, environment, monitor)
    return AddedCode(info, code)


def add_write_only(
    repository: repositories.Repository,
    path: str,
    may: MayWrite,
    environment: Mapping[str, str],
    monitor: Monitor,
) -> AddedWriter:
    """Make a new write key at `path`, which must be free: its holder adds and reads nothing. Raises `UsageError`."""
    label = may.label
    if may.branch is None and not label:
        raise errors.UsageError("where may it write?", hint="give --label NAME (to NAME/...) or --branch BRANCH")
    wanted = f"{label}/" if may.branch is None else may.branch
    reflog.check_name(f"{wanted}x" if wanted.endswith("/") else wanted)
    first, slash, _ = wanted.partition("/")
    if slash and first in {item.name for item in remotes.Remotes.of_user(environment, repository.id).all()}:
        raise errors.UsageError(f"branches {first}/... follow the remote '{first}'", hint="give another --branch")
    if pathlib.Path(path).exists():
        raise errors.UsageError(f"{path} exists already", hint="give another name")
    key = inbox.add_key(repository, wanted, label)
    try:
        userfiles.create(pathlib.Path(path), key.encode())
    except BaseException:
        with contextlib.suppress(errors.VimgvcError):
            repository.keyring.remove(key.slot)
        raise
    _cache(repository, environment, monitor)
    found = [info for info in repository.keyring.slots(monitor) if info.id == key.slot]
    return AddedWriter(found[0], wanted)


def list_slots(location: str, environment: Mapping[str, str], monitor: Monitor) -> list[Slot]:
    """What anyone can see of the key slots, oldest first; needs no key. What is damaged is reported."""
    return keyrings.Keyring(opening.open_backend(location, environment, monitor)).slots(monitor)


def remove(repository: repositories.Repository, slot_id: str, environment: Mapping[str, str], monitor: Monitor) -> str:
    """Remove a slot, given by the beginning of its identifier, which is returned in full. Never the last one."""
    removed = repository.keyring.remove(slot_id, monitor)
    _cache(repository, environment, monitor)
    return removed


def change(
    repository: repositories.Repository,
    slot_id: str | None,
    secret: keys.Secret,
    environment: Mapping[str, str],
    monitor: Monitor,
    *,
    profile: keys.KdfProfile = keys.DEFAULT,
) -> Added:
    """Put a slot for `secret` in the place of another one (None: the one that opened the repository)."""
    old = repository.keyring.find(slot_id or repository.unlocked.slot_id or _only_passphrase(repository, monitor))
    info = repository.keyring.change(
        repository.unlocked,
        old,
        secret,
        created=repositories.timestamp(repository.clock),
        rng=repository.rng,
        profile=profile,
        monitor=monitor,
    )
    _cache(repository, environment, monitor)
    return Added(info, old)


def export(location: str, path: str | None, environment: Mapping[str, str], monitor: Monitor) -> Exported:
    """All key slots as a recovery kit, into a new file unless `path` is None; needs no key."""
    backend = opening.open_backend(location, environment, monitor)
    ring = keyrings.Keyring(backend)
    kit = ring.export_kit(_config(backend).id, monitor)
    if path is not None:
        userfiles.create(pathlib.Path(path), kit)
    return Exported(kit, len(keyrings.parse_kit(kit)[1]), path)


def import_kit(location: str, path: str, environment: Mapping[str, str], monitor: Monitor) -> list[Slot]:
    """Put back the key slots of a recovery kit that are missing or damaged; needs no key."""
    kit = userfiles.read(pathlib.Path(path), forbidden=0, pipes=True)
    if kit is None:
        raise errors.UsageError(f"there is no recovery kit {path}", hint="check the path")
    backend = opening.open_backend(location, environment, monitor)
    try:
        repo_id = _config(backend).id
    except (errors.NotFound, errors.IntegrityError) as error:
        monitor.problem(f"whether the recovery kit belongs to this repository cannot be told: {error.message}")
        repo_id = None
    return keyrings.Keyring(backend).import_kit(kit, repo_id, monitor)


def remember_key(repository: repositories.Repository, environment: Mapping[str, str]) -> Remembered:
    """Keep the root key for this user, so that no passphrase is asked for."""
    memory = remember.KeyMemory.of_user(environment)
    return Remembered(memory.remember(repository.id, repository.unlocked))


def forget_key(location: str, environment: Mapping[str, str]) -> bool:
    """Whether there was a remembered key to forget; needs no key."""
    memory = remember.KeyMemory.of_user(environment)
    return memory.forget(_config(opening.open_backend(location, environment)).id)


def _add(
    repository: repositories.Repository, secret: keys.Secret, label: str, profile: keys.KdfProfile = keys.DEFAULT
) -> Slot:
    return repository.keyring.add(
        repository.unlocked,
        secret,
        label=label,
        created=repositories.timestamp(repository.clock),
        rng=repository.rng,
        profile=profile,
    )


def _only_passphrase(repository: repositories.Repository, monitor: Monitor) -> str:
    found = [info.id for info in repository.keyring.slots(monitor) if info.type == keys.PASSPHRASE]
    if len(found) != 1:
        raise errors.UsageError("which key slot is to be changed?", hint="give its identifier: vimgvc key list")
    return found[0]


def _cache(repository: repositories.Repository, environment: Mapping[str, str], monitor: Monitor) -> None:
    """Keep a copy of the slots for this user, in case somebody deletes them."""
    store = trust.TrustStore.of_user(environment, repository.id, repository.backend.url, monitor)
    store.update(repository.fingerprint, {}, repository.keyring.blobs(monitor), only_these_slots=True)


def _config(backend: protocol.Backend) -> config.Config:
    return config.decode(backend.get(config.NAME))
