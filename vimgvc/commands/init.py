"""`vimgvc init`: a new repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import registry
from vimgvc.codec import keys
from vimgvc.commands import access
from vimgvc.model import geometry
from vimgvc.monitor import Monitor
from vimgvc.repo import remember

AVERAGES = geometry.AVERAGES
DEFAULT_MEMORY = keys.DEFAULT.memory_kib << 10


@dataclass(frozen=True, slots=True)
class Created:
    """`remembered` says where the key is kept for this user, empty when it is not."""

    location: str
    id: str
    fingerprint: str
    remembered: str


def check(average: int, memory: int) -> keys.KdfProfile:
    """The price of guessing a passphrase, `memory` in bytes. Raises `UsageError` for what is not allowed."""
    if average not in AVERAGES:
        allowed = ", ".join(f"{one >> 10}K" for one in AVERAGES)
        raise errors.UsageError(f"chunks cannot have an average of {average} bytes", hint=f"choose one of {allowed}")
    least, most = keys.FLOOR_64.memory_kib, keys.MEMORY_KIB[-1]
    if not least << 10 <= memory <= most << 10:
        raise errors.UsageError(
            f"deriving a key cannot take {memory} bytes of memory",
            hint=f"choose from {least >> 10}MiB to {most >> 20}GiB",
        )
    return dataclasses.replace(keys.DEFAULT, name="chosen", memory_kib=memory >> 10)


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
    backend = registry.open_backend(location, create=True)
    repo = access.Repository.create(backend, secret, average=average, label=label, profile=profile)
    access.note_history(repo, environment, monitor, new=True)
    where = remember.KeyMemory.of_user(environment).remember(repo.id, repo.unlocked) if remembered else ""
    return Created(backend.url, repo.id, repo.fingerprint, where)
