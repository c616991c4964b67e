"""A repository and hosts that hold write keys for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests import repos
from vimgvc.backends import memory, protocol
from vimgvc.codec import aead, deliveries
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import ingest
from vimgvc.remote import admission
from vimgvc.repo import inbox, repository

HOST = "admitting"


@dataclass
class Host:
    """Its clock counts hours; `backend` is the place as it may use it."""

    backend: protocol.Backend
    key: deliveries.WriteKey
    name: str = "web1"
    rng: aead.Rng = os.urandom
    clock: itertools.count[int] = field(default_factory=lambda: itertools.count(1_700_000_000, 3600))

    def deliver(
        self,
        *disks: tuple[str, bytes],
        branch: str = "db",
        message: str = "delivered",
        files: Sequence[tuple[str, bytes]] = (),
    ) -> inbox.Delivered:
        sources = [ingest.Source(name, disk_memory.MemoryDisk.of(data), {"format": "raw"}) for name, data in disks]
        beside = [ingest.Source(name, disk_memory.MemoryDisk.of(data), {}) for name, data in files]
        request = repository.CommitRequest(branch, message, "root", self.name)
        return self.outbox().deliver((sources, beside), request, repository.Effort(threads=1), repos.Collector())

    def outbox(self) -> inbox.Outbox:
        return inbox.Outbox(self.backend, self.key, lambda: float(next(self.clock)), self.rng)


def host(repo: repository.Repository, name: str = "web1", branch: str | None = None) -> Host:
    """A new one, with a key of its own."""
    return Host(repo.backend, inbox.add_key(repo, f"{name}/" if branch is None else branch, name), name)


def admit(
    repo: repository.Repository, progress: repos.Collector | None = None, *, dry_run: bool = False
) -> list[admission.Outcome]:
    return admission.admit(repo, host=HOST, dry_run=dry_run, monitor=progress or repos.Collector())


def states(found: list[admission.Outcome]) -> list[str]:
    return [item.state for item in found]


def left(backend: protocol.Backend) -> set[str]:
    """The last parts of the names in the inbox."""
    return {item.name.rpartition("/")[2] for item in backend.list(inbox.AREA)}


def content(backend: protocol.Backend) -> dict[str, bytes]:
    """Every blob."""
    names = [item.name for area in protocol.AREAS for item in backend.list(area)]
    return {name: backend.get(name) for name in [*names, protocol.CONFIG]}


def copy(blobs: dict[str, bytes]) -> memory.MemoryBackend:
    backend = memory.MemoryBackend()
    for name, blob in blobs.items():
        backend.put(name, [blob])
    return backend
