"""Small repositories for tests: fast keys, disks of bytes, problems collected."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from vimgvc import monitor
from vimgvc.backends import memory, protocol
from vimgvc.codec import keys
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

SECRET = keys.Secret(keys.PASSPHRASE, b"correct horse")


@dataclass
class Collector:
    """A Monitor that keeps what it is told."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tasks: list[tuple[str, int]] = field(default_factory=list)
    done: int = 0

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self.tasks.append((f"{task} ({unit})", total))

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        self.done += amount

    def problem(self, message: str) -> None:
        self.problems.append(message)

    def note(self, message: str) -> None:
        self.notes.append(message)


def create(backend: protocol.Backend | None = None, average: int = 65536) -> repository.Repository:
    """A new repository in `backend` (in memory when None) that opens with SECRET; its clock counts seconds."""
    ticks = itertools.count(1_800_000_000)
    return repository.Repository.create(
        backend or memory.MemoryBackend(),
        SECRET,
        average=average,
        profile=keys.CHEAPEST,
        clock=lambda: float(next(ticks)),
    )


def reopen(repo: repository.Repository, progress: Collector | None = None) -> repository.Repository:
    """The same place opened afresh, without anything remembered."""
    return repository.Repository.open(repo.backend, [SECRET], monitor=progress, clock=repo.clock)


def commit(
    repo: repository.Repository,
    *disks: tuple[str, bytes],
    branch: str = "vm",
    allow_empty: bool = False,
    progress: Collector | None = None,
    threads: int | None = None,
) -> repository.CommitResult:
    sources = [ingest.Source(name, disk_memory.MemoryDisk.of(data), {"format": "raw"}) for name, data in disks]
    request = repository.CommitRequest(branch, f"state of {branch}", "tester", "host", allow_empty=allow_empty)
    return repo.commit(sources, request, repository.Effort(threads=threads), progress)


def restore(repo: repository.Repository, revision: str, name: str | None = None) -> bytes:
    disk = repo.resolve(revision).disk(name)
    target = disk_memory.MemoryDisk(disk.size)
    repo.open_disk(disk).restore(target, monitor.NullMonitor())
    return target.content()


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return np.random.default_rng(seed).bytes(size)


def text(seed: int, size: int) -> bytes:
    """Bytes that compress about 2:1, without repeated blocks."""
    return (np.frombuffer(noise(seed, size), np.uint8) & 15).tobytes()


def replaced(repo: repository.Repository, changes: dict[str, bytes | None]) -> repository.Repository:
    """The repository opened afresh with some blobs replaced, or removed where None is given."""
    place = memory.MemoryBackend()
    for area in ("config", "keys", "packs", "index", "commits", "refs"):
        names = ["config"] if area == "config" else [item.name for item in repo.backend.list(area)]
        for name in names:
            blob = changes.get(name, repo.backend.get(name))
            if blob is not None:
                place.put(name, [blob])
    return repository.Repository.open(place, [SECRET], clock=repo.clock)


def names(repo: repository.Repository, area: str) -> list[str]:
    return sorted(item.name for item in repo.backend.list(area))
