"""`vimgvc clone`: a place of its own for a repository that is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import access, connect, opening
from vimgvc.commands import fetch as fetch_command
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.remote import copying, fetch, seeding
from vimgvc.repo import remotes, repository


@dataclass(frozen=True, slots=True)
class Cloned:
    """`resumed`: the place was one of this repository already; `branches` are those made here."""

    location: str
    id: str
    remote: str
    url: str
    resumed: bool
    done: copying.Result
    branches: tuple[str, ...]
    found: fetch.Fetched

    def check(self) -> None:
        """Raises `IntegrityError` where it cannot be read what a branch or tag is."""
        self.found.check(self.url)


@dataclass(frozen=True, slots=True)
class Request:
    """Copy what is at `url` into `location`; `branches`: only these; `wish`: what the user says of what is there.

    `metadata`: data stays there.
    """

    url: str
    location: str
    branches: Sequence[str] = ()
    wish: access.Wish | None = None
    metadata: bool = False


def run(
    request: Request,
    environment: Mapping[str, str],
    given: access.Secret | None,
    ask: Callable[[int], access.Secret],
    *,
    host: str,
    monitor: Monitor,
) -> Cloned:
    """What was interrupted goes on. Raises `UsageError` where something else is, and what opening and copying raise."""
    url = connect.place(request.url)
    source = access.open_repository(url, environment, given, ask, monitor, wish=request.wish)
    target, resumed = _target(request.location, source, environment, monitor)
    here = connect.Here(target, environment, host, monitor)
    if not resumed:
        connect.note_here(here, new=True)
    remote = _remote(here, source.backend.url)
    wanted = fetch.Wanted(remote.name, list(dict.fromkeys(request.branches)) or None)
    there = connect.There("", source.backend.url, source)
    found = fetch_command.bring(here, there, wanted, fetch.Options(metadata=request.metadata, host=host))
    made = _branches(here, found.tips)
    connect.note_here(here)
    return Cloned(target.backend.url, target.id, remote.name, source.backend.url, resumed, found.result, made, found)


def _target(
    location: str, source: repository.Repository, environment: Mapping[str, str], monitor: Monitor
) -> tuple[repository.Repository, bool]:
    try:
        backend, resumed = opening.open_backend(location, environment, monitor), True
        connect.check_id(source, backend)
    except errors.NoRepository:
        backend, resumed = opening.open_backend(location, environment, monitor, create=True), False
        seeding.seed(source, backend)
    if backend.url == source.backend.url:
        raise errors.UsageError(f"{location} is what is to be cloned", hint="name another directory")
    cache = access.cache_directory(environment, source.id)
    return repository.Repository(backend, source.config, source.unlocked, cache), resumed


def _remote(here: connect.Here, url: str) -> remotes.Remote:
    """The remote of this URL; `origin` when that is free."""
    known = here.remotes.all()
    for item in known:
        if item.url == url:
            return item
    taken = {item.name for item in known}
    names = [remotes.ORIGIN, *(f"{remotes.ORIGIN}{number}" for number in range(2, len(taken) + 3))]
    return here.remotes.add(next(name for name in names if name not in taken), url)


def _branches(here: connect.Here, tips: dict[str, str]) -> tuple[str, ...]:
    """A branch here for each one there that is not here yet."""
    own, tags = here.repo.branches(), here.repo.tags()
    new = {name: tip for name, tip in tips.items() if name not in own and name not in tags}
    for name, tip in new.items():
        here.repo.set_ref(reflog.BRANCH, name, tip, expect=None, host=here.host)
    return tuple(new)
