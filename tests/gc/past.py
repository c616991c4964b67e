"""Repositories with a past: some of what they hold is needed, some is not, and it shares packs."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

from tests import repos
from vimgvc import monitor
from vimgvc.backends import memory, protocol
from vimgvc.codec import aead, keys
from vimgvc.disk import memory as disk_memory
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.pipeline import ingest
from vimgvc.repo import collect, disk, forgetting, keyring, repository
from vimgvc.store import objects

FORCE = collect.Options(force=True, threads=1)
Disks = dict[str, bytes]


@dataclass
class Past:
    """`kept`: by commit, what must restore; `gone`: commits of which nothing needs to stay."""

    backend: protocol.Backend
    unlocked: keyring.Unlocked
    kept: dict[str, Disks] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def open(self, backend: protocol.Backend | None = None, progress: monitor.Monitor | None = None) -> (
        repository.Repository
    ):  # fmt: skip
        ticks = itertools.count(1_800_001_000)
        return repository.Repository.open(
            backend or self.backend, unlocked=self.unlocked, monitor=progress, clock=lambda: float(next(ticks))
        )


def contents() -> dict[str, Disks]:
    """By message, in the order of committing."""
    first = bytearray(repos.noise(1, 150_000) + bytes(40_000) + repos.text(2, 60_001))
    second, third = bytearray(first), bytearray(first)
    second[:50_000] = repos.noise(3, 50_000)
    third[20_000:90_000] = repos.noise(4, 70_000)
    last = bytearray(third)
    last[:8192] = repos.noise(5, 8192)
    return {
        "first": {"vm": bytes(first)},
        "second": {"vm": bytes(second)},
        "third": {"vm": bytes(third)},
        "last": {"vm": bytes(last)},
        "side": {"vm": bytes(first), "more": repos.noise(6, 60_000)},
        "web": {"a": repos.noise(7, 30_000), "b": bytes(last[:100_000])},
    }


BRANCHES = {"side": "side", "web": "web"}


def build(backend: protocol.Backend | None = None, rng: aead.Rng = os.urandom) -> Past:
    """Six commits: two of four of `vm` forgotten and one more that a tag keeps; `side` deleted; `web` as it is."""
    backend = backend or memory.MemoryBackend()
    ticks = itertools.count(1_800_000_000)
    repo = repository.Repository.create(
        backend,
        repos.SECRET,
        average=16384,
        profile=keys.CHEAPEST,
        clock=lambda: float(next(ticks)),
        rng=rng,
    )
    past = Past(backend, repo.unlocked)
    ids = {}
    for message, disks in contents().items():
        ids[message] = commit(repo, disks, BRANCHES.get(message, "vm"), message).id
    point(repo, reflog.TAG, "v2", ids["second"])
    point(repo, reflog.BRANCH, "side", None)
    forget(repo, ids["first"], ids["second"], ids["third"])
    past.kept = {ids[message]: contents()[message] for message in ("second", "last", "web")}
    past.gone = [ids[message] for message in ("first", "third", "side")]
    return past


def commit(
    repo: repository.Repository, disks: Disks, branch: str, message: str = "", attached: Disks | None = None
) -> commits.Commit:
    request = repository.CommitRequest(branch, message, "tester", "host", allow_empty=True)
    done = repo.commit(_sources(disks), request, repository.Effort(threads=1), attachments=_sources(attached or {}))
    return done.commit


def _sources(disks: Disks) -> list[ingest.Source]:
    return [ingest.Source(name, disk_memory.MemoryDisk.of(data), {"format": "raw"}) for name, data in disks.items()]


def point(repo: repository.Repository, kind: str, name: str, commit_id: str | None) -> None:
    """Append to the log of a branch or tag."""
    known = repo.last_refs()
    repo.logs.publish(kind, name, commit_id, known, time=repository.timestamp(repo.clock), host="host")


def forget(repo: repository.Repository, *ids: str) -> None:
    records = forgetting.Records(repo.backend, repo.seals)
    for commit_id in ids:
        records.put(forgetting.Forgotten(commit_id, repository.timestamp(repo.clock), "host", "test"))
    repo.backend.sync()


def read(repo: repository.Repository, found: commits.Commit, store: objects.Objects | None = None) -> Disks:
    """The disks and attachments of a commit, restored, from objects that were looked up before or are now."""
    store = store or repo.objects(monitor.NullMonitor())
    result = {}
    for item in found.stored():
        target = disk_memory.MemoryDisk(item.size)
        disk.StoredDisk(store, item).restore(target, monitor.NullMonitor(), threads=1)
        result[item.name] = target.content()
    return result


def check(past: Past, backend: protocol.Backend | None = None, *, healthy: bool = True) -> repository.Repository:
    """Everything that must restore does, and nothing is wrong with the rest; returns the repository afresh."""
    repo = past.open(backend)
    store = repo.objects(monitor.NullMonitor())
    for commit_id, disks in past.kept.items():
        assert read(repo, repo.graph.load(commit_id), store) == disks, f"wrong bytes in {commit_id[:12]}"
    if healthy:
        assert repo.verify("quick").problems == []
    return repo


def stored(backend: protocol.Backend) -> dict[str, int]:
    """Every blob with its size."""
    return {item.name: item.size for area in protocol.AREAS for item in backend.list(area)}


def content(backend: protocol.Backend) -> dict[str, int]:
    """The same but for what collections say of themselves."""
    return {name: size for name, size in stored(backend).items() if not name.startswith("gc/")}


def packs(backend: protocol.Backend) -> set[str]:
    return set(objects.pack_sizes(backend.list("packs")))
