"""Another place of the repository at hand: found, known to be the right one, and opened with the same key."""

from __future__ import annotations

import contextlib
import os.path
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import protocol, registry
from vimgvc.commands import access, opening
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.remote import copying
from vimgvc.repo import config, keyring, refs, remotes, repository, trust


@dataclass(frozen=True, slots=True)
class Here:
    """The repository at hand, whose user and host do something.

    `accept`: the user says that other places are meant to be as they are, whatever was seen there before.
    """

    repo: repository.Repository
    environment: Mapping[str, str]
    host: str
    monitor: Monitor
    accept: bool = False

    @property
    def remotes(self) -> remotes.Remotes:
        return remotes.Remotes.of_user(self.environment, self.repo.id)


@dataclass(frozen=True, slots=True)
class There:
    """`name` of the remote, empty for a place that has none."""

    name: str
    url: str
    repo: repository.Repository

    @property
    def label(self) -> str:
        return self.name or self.url


def find(here: Here, given: str | None) -> remotes.Remote:
    """What is meant by the name of a remote, a URL or path, or nothing. Raises `NotFound`, `UsageError`."""
    if given is None:
        return here.remotes.default()
    with contextlib.suppress(errors.NotFound):
        return here.remotes.find(given)
    if is_place(given):
        where = place(given)
        named = [item for item in here.remotes.all() if item.url == where]
        return named[0] if named else remotes.Remote("", where)
    return here.remotes.find(given)


def is_place(given: str) -> bool:
    """Whether this is a URL, or a path, rather than a name."""
    return "/" in given or pathlib.Path(given).exists()


def place(given: str) -> str:
    """A URL as it is, a path from the root."""
    if registry.scheme_of(given):
        return given
    return str(pathlib.Path(os.path.normpath(pathlib.Path(given).absolute())))


def connect(here: Here, given: str | None, *, keep: bool = True, looks: bool = False) -> There:
    """Raises `NoRepository`, `RemoteError`, and `Rollback` for a place that holds another repository.

    Its ref logs are not looked at yet (`look`). Without `keep` nothing counts that was kept of it on this machine.
    `looks`: the caller looks at them next, which shows whether a place that was known is still there.
    """
    remote = find(here, given)
    looks = looks and not here.accept
    backend = opening.open_backend(remote.url, here.environment, here.monitor, look=not looks)
    if backend.url == here.repo.backend.url:
        raise errors.UsageError(f"{remote.name or remote.url} is this repository itself", hint="name another place")
    if looks and not _is_expected(here, backend):
        registry.check(backend)
    return open_there(here, remote, backend, keep=keep)


def connect_unkept(here: Here, given: str) -> repository.Repository:
    """A place whose ref logs were looked at, read as it is. Raises what `connect` and `look` raise."""
    far = connect(here, given, keep=False).repo
    look(here, far)
    return far


def open_there(here: Here, remote: remotes.Remote, backend: protocol.Backend, *, keep: bool = True) -> There:
    """As `connect`, with a backend that is open already."""
    repo = here.repo
    if not _is_expected(here, backend):
        check_id(repo, backend)
    cache = access.place_cache(here.environment, repo.id, backend.url)
    kept = access.keeping(backend, here.environment, repo.id) if keep else backend
    far = repository.Repository(kept, repo.config, repo.unlocked, cache, repo.clock, repo.rng)
    return There(remote.name, backend.url, far)


def _is_expected(here: Here, backend: protocol.Backend) -> bool:
    return trust.TrustStore.of_user(here.environment, here.repo.id, backend.url).is_expected


def check_id(repo: repository.Repository, backend: protocol.Backend) -> None:
    """Raises `Rollback` unless the place holds this repository, as far as its public facts tell (N20, C7)."""
    with contextlib.suppress(errors.NotFound, errors.IntegrityError):
        found = config.decode(backend.get(config.NAME)).id
        if found != repo.id:
            raise errors.Rollback(
                f"{backend.url} holds another repository ({found[:12]}, this one is {repo.id[:12]})",
                hint="nothing is ever mixed: make a copy under other keys with 'vimgvc clone --rekey'",
            )


def look(here: Here, far: repository.Repository) -> copying.Look:
    """The ref logs of a place, compared with what this user saw there.

    Raises `Rollback`, also when nothing there opens with this key, `NoRepository` when nothing is there at all.
    """
    try:
        seen = access.check_history(far, here.environment, here.monitor, access.Wish(here.accept), slots=False)
        if not seen.known:
            _check_key(here.repo, far, has_refs=bool(seen.ends))
    except errors.Rollback:
        registry.check(far.backend)
        raise
    return copying.Look({blind: seq for blind, (seq, _) in seen.ends.items()}, seen.known)


def note_here(here: Here, *, new: bool = False) -> None:
    """Remember what the repository at hand shows now."""
    access.note_history(here.repo, here.environment, here.monitor, new=new)


def note_there(here: Here, far: repository.Repository, known: Mapping[str, refs.Ref]) -> None:
    """Remember where the ref logs of a place are now."""
    access.note_ends(far, here.environment, NullMonitor(), known)


def note_new(here: Here, far: repository.Repository) -> None:
    """Remember a place that was made just now, whatever was there before."""
    access.note_history(far, here.environment, NullMonitor(), new=True, slots=False)


def _check_key(repo: repository.Repository, far: repository.Repository, *, has_refs: bool) -> None:
    """A place without a readable ref log shows by its key slots whether it is this repository's."""
    theirs = keyring.Keyring(far.backend).blobs()
    ours = repo.keyring.blobs()
    if has_refs or not any(ours.get(slot_id) == blob for slot_id, blob in theirs.items()):
        raise errors.Rollback(
            f"{far.backend.url} says that it is this repository, and nothing there opens with its key",
            hint="it was damaged or put there by somebody else: look at it with 'vimgvc verify --repo URL'",
        )
