"""`vimgvc clone --rekey`: a copy of a repository under other keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import access, clone, connect, opening
from vimgvc.monitor import Monitor
from vimgvc.remote import rekey
from vimgvc.repo import promises, remotes, repository


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """`resumed`: an interrupted copy was gone on with."""

    location: str
    id: str
    fingerprint: str
    url: str
    resumed: bool
    done: rekey.Rekeyed


def run(
    request: clone.Request,
    environment: Mapping[str, str],
    given: access.Secret | None,
    ask: Callable[[int], access.Secret],
    new: Callable[[], access.Secret],
    *,
    profile: access.KdfProfile,
    host: str,
    monitor: Monitor,
) -> Rekeyed:
    """`new` gives the secret of the copy; the same one again where an interrupted copy is gone on with.

    Raises `UsageError` where something else is, `NotFound` for a branch that is not there, and what opening, reading
    and writing raise.
    """
    url = connect.place(request.url)
    source = access.open_repository(url, environment, given, ask, monitor, wish=request.wish)
    if promises.Promises(source.backend, source.seals).ids():
        raise errors.UsageError(
            f"{source.backend.url} has only the metadata of some commits", hint="bring their data first: vimgvc fetch"
        )
    names = remotes.Remotes.of_user(environment, source.id).names()
    branches = {name: tip for name, tip in source.branches().items() if not remotes.is_tracking(name, names)}
    tags = source.tags()
    if request.branches:
        for name in request.branches:
            if name not in branches:
                raise errors.NotFound("branch", name, hint=f"there are: {', '.join([*branches][:10])}")
        branches, tags = {name: branches[name] for name in request.branches}, {}
    else:
        _check_readable(source, monitor)
    target, resumed = _target(request.location, source, environment, new(), profile, monitor)
    done = rekey.rekey(source, target, branches, tags, host=host, monitor=monitor)
    access.note_history(target, environment, monitor, new=not resumed)
    return Rekeyed(target.backend.url, target.id, target.fingerprint, source.backend.url, resumed, done)


def _check_readable(source: repository.Repository, monitor: Monitor) -> None:
    """Raises `IntegrityError` where it cannot be read what a branch or tag is: nobody would miss it in the copy."""
    ends = source.logs.ends()
    known = source.logs.last(monitor, ends)
    for blind, seq in ends.items():
        if blind not in known or known[blind].entry.seq != seq:
            raise errors.IntegrityError(
                f"ref log {blind[:12]}", "cannot be read to its end", hint="name what is to be copied with --branch"
            )


def _target(  # noqa: PLR0917 what a place is made from
    location: str,
    source: repository.Repository,
    environment: Mapping[str, str],
    secret: access.Secret,
    profile: access.KdfProfile,
    monitor: Monitor,
) -> tuple[repository.Repository, bool]:
    try:
        backend = opening.open_backend(location, environment, monitor)
    except errors.NoRepository:
        backend = opening.open_backend(location, environment, monitor, create=True)
        made = repository.Repository.create(backend, secret, average=source.config.average, profile=profile)
        return made, False
    try:
        target = repository.Repository.open(backend, [secret], monitor=monitor)
    except errors.NoKey as error:
        raise errors.UsageError(
            f"there is a repository in {backend.url} already, and the new key does not open it",
            hint="give the key that the interrupted copy was made with, or choose another place",
        ) from error
    if target.id == source.id:
        raise errors.UsageError(f"{backend.url} is a place of the same repository", hint="choose another place")
    return target, True
