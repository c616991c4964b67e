"""`vimgvc init`: a new repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.codec import keys
from vimgvc.commands import access, opening
from vimgvc.model import geometry
from vimgvc.monitor import Monitor
from vimgvc.repo import remember


@dataclass(frozen=True, slots=True)
class Created:
    """`remembered` says where the key is kept for this user, empty when it is not."""

    location: str
    id: str
    fingerprint: str
    remembered: str


def check_average(average: int) -> None:
    """Raises `UsageError` for an average size of chunks, in bytes, that is not allowed."""
    if average not in geometry.AVERAGES:
        allowed = ", ".join(f"{one >> 10}K" for one in geometry.AVERAGES)
        raise errors.UsageError(f"chunks cannot have an average of {average} bytes", hint=f"choose one of {allowed}")


def run(
    location: str,
    environment: Mapping[str, str],
    secret: access.Secret,
    *,
    average: int,
    profile: keys.KdfProfile,
    label: str,
    remembered: bool,
    monitor: Monitor,
) -> Created:
    """Make a repository that `secret` opens. Raises `UsageError` when something is there already."""
    if access.only_adds(secret):
        raise errors.UsageError("a write key opens nothing", hint="give a passphrase or another key file")
    backend = opening.open_backend(location, environment, monitor, create=True)
    repo = access.Repository.create(backend, secret, average=average, label=label, profile=profile)
    access.note_history(repo, environment, monitor, new=True)
    where = remember.KeyMemory.of_user(environment).remember(repo.id, repo.unlocked) if remembered else ""
    return Created(backend.url, repo.id, repo.fingerprint, where)
