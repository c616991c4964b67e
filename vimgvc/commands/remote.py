"""`vimgvc remote`: the other places that a repository is copied to and from."""

from __future__ import annotations

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.commands import connect, opening
from vimgvc.model import reflog
from vimgvc.remote import seeding
from vimgvc.repo import names, remotes

Here = connect.Here
Remote = remotes.Remote


def listing(here: Here) -> list[Remote]:
    """By name. Raises `FormatError`."""
    return here.remotes.all()


def add(here: Here, name: str, location: str) -> tuple[Remote, bool]:
    """(the remote, whether a place was made there): an empty place becomes one for this repository.

    Raises `UsageError`, `Rollback` for a place that holds another repository, and what the place raises.
    """
    remotes.check_name(name)
    taken = [item.url for item in here.remotes.all() if item.name == name]
    if taken:
        raise errors.UsageError(f"there is a remote '{name}' already: {taken[0]}", hint="choose another name")
    where = connect.place(location)
    backend, made = _open_or_make(here, where)
    if backend.url == here.repo.backend.url:
        raise errors.UsageError(f"{where} is this repository itself", hint="give another place")
    there = connect.open_there(here, Remote(name, where), backend)
    if made:
        connect.note_new(here, there.repo)
    connect.look(here, there.repo)
    return here.remotes.add(name, there.url), made


def _open_or_make(here: Here, where: str) -> tuple[protocol.Backend, bool]:
    try:
        return opening.open_backend(where, here.environment, here.monitor), False
    except errors.NoRepository:
        backend = opening.open_backend(where, here.environment, here.monitor, create=True)
    seeding.seed(here.repo, backend)
    return backend, True


def show(here: Here, name: str) -> tuple[Remote, list[names.Name]]:
    """The remote and the branches here that follow it. Raises `NotFound`."""
    found = here.remotes.find(name)
    followed = [item for item in names.living(here.repo, reflog.BRANCH) if item.name.startswith(f"{name}/")]
    return found, followed


def rename(here: Here, old: str, new: str) -> tuple[Remote, list[names.Change]]:
    """With the branches that follow it. Raises `NotFound`, `UsageError`."""
    renamed = here.remotes.rename(old, new)
    changes = []
    for name in here.repo.branches():
        if name.startswith(f"{old}/"):
            after = remotes.tracking(new, name.removeprefix(f"{old}/"))
            changes += names.rename(here.repo, reflog.BRANCH, name, after, force=True, host=here.host)
    return renamed, changes


def remove(here: Here, name: str) -> tuple[Remote, list[names.Change]]:
    """With the branches that follow it; nothing happens at the place itself. Raises `NotFound`."""
    gone = here.remotes.remove(name)
    followed = [branch for branch in here.repo.branches() if branch.startswith(f"{name}/")]
    return gone, [names.delete(here.repo, reflog.BRANCH, branch, host=here.host) for branch in followed]
