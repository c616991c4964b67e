"""Opening a repository with what the user has: a remembered key, or a secret."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import bundle, cached, protocol
from vimgvc.codec import deliveries, keys, recovery
from vimgvc.commands import opening
from vimgvc.monitor import Monitor
from vimgvc.repo import config, heads, keyfile, keyring, refs, remember, repository, trust, userfiles, views

if TYPE_CHECKING:
    from vimgvc.repo import inbox

    Outbox = inbox.Outbox

Repository = repository.Repository
Secret = keys.Secret
KdfProfile = keys.KdfProfile
#: How often a passphrase is asked for.
ATTEMPTS = 3
#: How many older entries of ref logs are read each time, until all that the last ones tell of others was compared.
LOOK_BACK = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What the user says of the state of a repository.

    `accept`: it is meant to be as it is, whatever was seen before. `head`: a fingerprint that was noted (`repo.heads`),
    which it must not be behind.
    """

    accept: bool = False
    head: str | None = None


def passphrase(value: bytes) -> Secret:
    """Raises `UsageError` for an empty or oversized one."""
    return keys.Secret(keys.PASSPHRASE, value)


def key_file(path: str, *, insecure_perms: bool) -> Secret:
    """Raises `UsageError` for a file that is missing, of a wrong size or readable by others."""
    return keyfile.load(pathlib.Path(path), insecure_perms=insecure_perms)


def only_adds(given: Secret) -> bool:
    """Whether this is a write key."""
    return given.kind == keys.WRITE


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
    wish: Wish | None = None,
    durable: bool = True,
    keep: bool = True,
) -> Repository:
    """Open with `given`, else with the remembered key, else with what `ask(attempt)` returns.

    Without `durable` nothing is synced, to measure what that costs; without `keep` everything is read from the place
    itself, and nothing that was kept of it on this machine.
    Raises `NoRepository`, `NoKey`, `IntegrityError`, `Unsupported`, `Rollback`, and what `ask` raises.
    """
    if given is not None and only_adds(given):
        raise errors.NoKey("this key can only add: it reads nothing", hint="use it with 'vimgvc commit'")
    wish = wish or Wish()
    if wish.head is not None:
        heads.parse(wish.head)
    backend = opening.open_backend(location, environment, monitor, durable=durable)
    unlocked = _unlock(backend, environment, given, ask, monitor)
    # the slot's word, not that of the public copy
    repo_id = config.decode(unlocked.config).id
    if keep:
        backend = keeping(backend, environment, repo_id)
    repo = Repository.open(backend, unlocked=unlocked, monitor=monitor, cache=cache_directory(environment, repo_id))
    check_history(repo, environment, monitor, wish)
    return repo


def open_outbox(
    location: str, environment: Mapping[str, str], given: Secret, monitor: Monitor, *, durable: bool = True
) -> inbox.Outbox:
    """What a write key opens. Raises `NoRepository`, `IntegrityError` for a damaged key, `NoKey` for a removed one."""
    from vimgvc.repo import inbox

    key = deliveries.parse_write_key(given.value)
    backend = opening.open_backend(location, environment, monitor, durable=durable)
    repo_id = _public_id(backend)
    if repo_id not in (None, key.repo):
        raise errors.NoKey(f"this write key is of another repository ({key.repo[:12]})", hint="check --repo")
    if not _is_there(backend, [f"keys/{key.slot}-{copy}" for copy in "01"]):
        raise errors.NoKey(
            f"this write key ({key.slot[:8]}) was removed from the repository",
            hint="ask for another one: vimgvc key add --write-only FILE",
        )
    return inbox.Outbox(backend, key, time.time, os.urandom)


def _is_there(backend: protocol.Backend, names: Iterable[str]) -> bool:
    """Whether one of the blobs is; who may not look takes it for there."""
    for name in names:
        with contextlib.suppress(errors.NotFound):
            try:
                backend.size(name)
            except errors.RemoteError:
                return True
            return True
    return False


def _unlock(
    backend: protocol.Backend,
    environment: Mapping[str, str],
    given: Secret | None,
    ask: Callable[[int], Secret],
    monitor: Monitor,
) -> keyring.Unlocked:
    repo_id = _public_id(backend)
    unlocked = None
    if given is None and repo_id:
        unlocked = remember.KeyMemory.of_user(environment).recall(repo_id, monitor)
    if unlocked is not None:
        return unlocked
    store = trust.TrustStore.of_user(environment, repo_id, backend.url, monitor) if repo_id else None
    secrets: Iterable[Secret] = [given] if given else (ask(attempt) for attempt in range(ATTEMPTS))
    try:
        return keyring.Keyring(backend, cached=store.cached_slots() if store else {}).unlock_any(secrets, monitor)
    except errors.NoKey as error:
        # That another repository lies there says more than that its slots do not open.
        raise (store.stranger() if store else None) or error from None


def check_history(
    repo: Repository, environment: Mapping[str, str], monitor: Monitor, wish: Wish, *, slots: bool = True
) -> Look:
    """Compare the repository with what this user saw of it before, and remember that. Raises `Rollback`.

    Without `slots` its key slots are not read, nor remembered.
    """
    if isinstance(repo.backend, bundle.BundleBackend):
        return _look(repo, monitor)  # the next one in its place has logs of its own
    store = _store(repo, environment, monitor)
    if wish.accept:
        store.accept_identity(repo.fingerprint)
    store.check_identity(repo.fingerprint)
    with store.hold():
        look = _look(repo, monitor)
        differences, checked = _differences(repo, store, look)
    if differences:
        refusal = store.refusal(differences, look.names)
        if not wish.accept:
            raise refusal
        store.accept(
            repo.fingerprint,
            look.ends,
            [*differences, *_all_told(repo, store)],
            time=repository.timestamp(repo.clock),
            settle=_settle(repo),
        )
        monitor.note(f"accepted: {refusal.message}")
    repo.accepted = store.accepted()
    if wish.head is not None:
        heads.check(repo, heads.parse(wish.head))
    opened = {repo.unlocked.slot_id: repo.unlocked.slot} if repo.unlocked.slot_id else {}
    details = trust.Details(look.names, checked, opened)
    blobs = repo.keyring.blobs() if slots else None
    store.update(repo.fingerprint, look.ends, blobs, details=details, settle=_settle(repo))
    return look


def _differences(
    repo: Repository, store: trust.TrustStore, look: Look
) -> tuple[list[views.Difference], dict[str, int]]:
    """What differs from what this user saw, or else from what entries tell; and which of these were compared."""
    found = store.compare(look.ends, _hash_at(repo, look.known))
    if found:
        return found, {}
    told = views.check(
        repo.logs,
        look.known,
        store.facts(look.ends),
        store.checked(),
        accepted=store.accepted(),
        budget=LOOK_BACK if store.remembers else 0,
    )
    return told.differences, told.done


def _hash_at(repo: Repository, known: Mapping[str, refs.Ref]) -> Callable[[str, int], str]:
    """Looks at entries that others follow.

    An entry that was kept on this machine is what the place holds only if the next one follows it; else what counts is
    there, not here.
    """
    place = refs.Refs(repo.backend.inner, repo.seals) if isinstance(repo.backend, cached.Cached) else None

    def look(blind: str, seq: int) -> str:
        kept = repo.logs.read(blind, seq).hash
        if place is None:
            return kept
        last = known.get(blind)
        after = last if last and last.entry.seq == seq + 1 else repo.logs.read(blind, seq + 1)
        return kept if after.entry.prev == kept else place.read(blind, seq).hash

    return look


def _all_told(repo: Repository, store: trust.TrustStore) -> list[views.Difference]:
    """Whatever any entry tells that is not so; asked only when it is to be accepted."""
    whole = views.Whole()
    for blind in sorted(repo.logs.ends()):
        for ref in repo.logs.readable(blind):
            whole.add(ref)
    return whole.differences(repo.logs, store.accepted())


def note_history(
    repo: Repository, environment: Mapping[str, str], monitor: Monitor, *, new: bool = False, slots: bool = True
) -> None:
    """Remember what the repository shows now; `new`: it was made just now, whatever was there before."""
    store, look = _store(repo, environment, monitor), _look(repo, monitor)
    if isinstance(repo.backend, bundle.BundleBackend):
        return
    details = trust.Details(look.names)
    blobs = repo.keyring.blobs() if slots else None
    store.update(repo.fingerprint, look.ends, blobs, details=details, new=new, settle=_settle(repo))


def note_ends(
    repo: Repository, environment: Mapping[str, str], monitor: Monitor, known: Mapping[str, refs.Ref]
) -> None:
    """Remember that ref logs end as `known` says."""
    names = {blind: (ref.entry.kind, ref.entry.name) for blind, ref in known.items()}
    ends = {blind: ref.head for blind, ref in known.items()}
    _store(repo, environment, monitor).update(repo.fingerprint, ends, details=trust.Details(names))


def _settle(repo: Repository) -> Callable[[], None] | None:
    """What makes durable what was read; nothing where nothing can be written, and so nobody was killed writing."""
    return None if repo.backend.capabilities.read_only else repo.backend.sync


def _store(repo: Repository, environment: Mapping[str, str], monitor: Monitor) -> trust.TrustStore:
    return trust.TrustStore.of_user(environment, repo.id, repo.backend.url, monitor)


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """The ref logs at one moment. A damaged last entry is still there, which is no rollback."""

    ends: dict[str, trust.Now]
    known: dict[str, refs.Ref]

    @property
    def names(self) -> dict[str, tuple[str, str]]:
        return {blind: (ref.entry.kind, ref.entry.name) for blind, ref in self.known.items()}


def _look(repo: Repository, monitor: Monitor) -> Look:
    listed = repo.logs.ends()
    there: dict[str, trust.Now] = {blind: (seq, None) for blind, seq in listed.items()}
    known = repo.logs.last(monitor, listed)
    return Look(there | {blind: ref.head for blind, ref in known.items()}, known)


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


def place_cache(environment: Mapping[str, str], repo_id: str, place: str) -> pathlib.Path | None:
    """The same of another place of the repository, whose index objects are others."""
    base = cache_directory(environment, repo_id)
    return base / "places" / blake3(place.encode("utf-8", "backslashreplace")).hexdigest(16) if base else None


def keeping(backend: protocol.Backend, environment: Mapping[str, str], repo_id: str) -> protocol.Backend:
    """`backend`, with copies of its small blobs on this machine where a call costs a round trip."""
    directory = place_cache(environment, repo_id, backend.url)
    if directory is None or backend.capabilities.parallel == 1:
        return backend
    kept = cached.Cached(backend, directory / "blobs")
    kept.trim()
    return kept
