"""Opening a repository with what the user has: a remembered key, or a secret."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping

from vimgvc import errors
from vimgvc.backends import protocol, registry
from vimgvc.codec import keys, recovery
from vimgvc.monitor import Monitor
from vimgvc.repo import config, keyfile, keyring, remember, repository, trust, userfiles

Repository = repository.Repository
Secret = keys.Secret
KdfProfile = keys.KdfProfile
#: How often a passphrase is asked for.
ATTEMPTS = 3


def passphrase(value: bytes) -> Secret:
    """Raises `UsageError` for an empty or oversized one."""
    return keys.Secret(keys.PASSPHRASE, value)


def key_file(path: str, *, insecure_perms: bool) -> Secret:
    """Raises `UsageError` for a file that is missing, of a wrong size or readable by others."""
    return keyfile.load(pathlib.Path(path), insecure_perms=insecure_perms)


def recovery_code(typed: str) -> Secret:
    """Raises `UsageError` for a mistyped one."""
    return recovery.parse_recovery_code(typed)


def price(memory: int) -> keys.KdfProfile:
    """What guessing a passphrase is to cost, `memory` in bytes. Raises `UsageError` for what is not allowed."""
    least, most = keys.FLOOR_64.memory_kib, keys.MEMORY_KIB[-1]
    if not least << 10 <= memory <= most << 10:
        raise errors.UsageError(
            f"deriving a key cannot take {memory} bytes of memory",
            hint=f"choose from {least >> 10}MiB to {most >> 20}GiB",
        )
    return dataclasses.replace(keys.DEFAULT, name="chosen", memory_kib=memory >> 10)


def open_repository(
    location: str,
    environment: Mapping[str, str],
    given: Secret | None,
    ask: Callable[[int], Secret],
    monitor: Monitor,
    *,
    durable: bool = True,
) -> Repository:
    """Open with `given`, else with the remembered key, else with what `ask(attempt)` returns.

    Without `durable` nothing is synced, to measure what that costs.
    Raises `NoRepository`, `NoKey`, `IntegrityError`, `Unsupported`, `Rollback`, and what `ask` raises.
    """
    backend = _backend(location, durable=durable)
    repo_id = _public_id(backend)
    unlocked = None
    if given is None and repo_id:
        unlocked = remember.KeyMemory.of_user(environment).recall(repo_id, monitor)
    if unlocked is None:
        cached = trust.TrustStore.of_user(environment, repo_id, backend.url, monitor).cached_slots() if repo_id else {}
        secrets: Iterable[Secret] = [given] if given else (ask(attempt) for attempt in range(ATTEMPTS))
        unlocked = keyring.Keyring(backend, cached=cached).unlock_any(secrets, monitor)
    # the slot's word, not that of the public copy
    repo_id = config.decode(unlocked.config).id
    repo = Repository.open(backend, unlocked=unlocked, monitor=monitor, cache=cache_directory(environment, repo_id))
    _check_history(repo, environment, monitor)
    return repo


def _backend(location: str, *, durable: bool) -> protocol.Backend:
    backend = registry.open_backend(location)
    if durable:
        return backend
    from vimgvc.backends import local

    return local.LocalBackend(pathlib.Path(backend.url), durable=False)


def _check_history(repo: Repository, environment: Mapping[str, str], monitor: Monitor) -> None:
    """Compare the repository with what this user saw of it before, and remember that. Raises `Rollback`."""
    store, heads = _store(repo, environment, monitor), _heads(repo, monitor)
    store.check(repo.fingerprint, heads, lambda blind, seq: repo.logs.read(blind, seq).hash)
    store.update(repo.fingerprint, heads, repo.keyring.blobs(), settle=_settle(repo))


def note_history(repo: Repository, environment: Mapping[str, str], monitor: Monitor, *, new: bool = False) -> None:
    """Remember what the repository shows now; `new`: it was made just now, whatever was there before."""
    store = _store(repo, environment, monitor)
    store.update(repo.fingerprint, _heads(repo, monitor), repo.keyring.blobs(), new=new, settle=_settle(repo))


def _settle(repo: Repository) -> Callable[[], None] | None:
    """What makes durable what was read; nothing where nothing can be written, and so nobody was killed writing."""
    return None if repo.backend.capabilities.read_only else repo.backend.sync


def _store(repo: Repository, environment: Mapping[str, str], monitor: Monitor) -> trust.TrustStore:
    return trust.TrustStore.of_user(environment, repo.id, repo.backend.url, monitor)


def _heads(repo: Repository, monitor: Monitor) -> dict[str, trust.Now]:
    """The end of every log; a damaged entry is still there, which is no rollback."""
    there: dict[str, trust.Now] = {blind: (seq, None) for blind, seq in repo.logs.ends().items()}
    return there | {blind: ref.head for blind, ref in repo.last_refs(monitor).items()}


def _public_id(backend: protocol.Backend) -> str | None:
    """The identifier in the public configuration, which may be lost or damaged."""
    with contextlib.suppress(errors.NotFound, errors.IntegrityError):
        return config.decode(backend.get(config.NAME)).id
    return None


def cache_directory(environment: Mapping[str, str], repo_id: str) -> pathlib.Path | None:
    """Where this user's copies of index data of a repository live; None for a user without a home."""
    for base, below in ((environment.get("XDG_CACHE_HOME", ""), ""), (environment.get("HOME", ""), ".cache")):
        if base.startswith("/"):  # a relative one counts as unset (XDG base directory specification)
            return pathlib.Path(base, below, userfiles.PROGRAM, repo_id)
    return None
