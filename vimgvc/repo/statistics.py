"""What a repository holds, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import inbox, promises
from vimgvc.store import catalog

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class Statistics:
    """Bytes and counts.

    `objects`: chunks and manifest nodes; `logical_bytes`: the sizes of all disks and attachments of all
    commits;
    `read_bytes`: what those commits read; `new_bytes`: what of it was not known before;
    `stored_bytes`: everything in the repository, but for deliveries that wait to be admitted (`waiting`);
    `promised`: commits whose data is in a remote.
    """

    commits: int
    branches: int
    disks: int
    packs: int
    objects: int
    logical_bytes: int
    read_bytes: int
    new_bytes: int
    pack_bytes: int
    metadata_bytes: int
    stored_bytes: int
    promised: int
    waiting: int
    waiting_bytes: int


def _readable(repo: Repository, monitor: Monitor) -> Iterator[commits.Commit]:
    for commit_id in repo.graph.ids():
        try:
            yield repo.graph.load(commit_id)
        except (errors.IntegrityError, errors.NotFound) as error:
            monitor.problem(f"{error}; it is not counted")


def collect(repo: Repository, monitor: Monitor) -> Statistics:
    found = catalog.open_catalog(repo.backend, repo.seals, repo.cache, monitor)
    packs = [item for item in found.index.packs() if item.name not in found.missing]
    readable = list(_readable(repo, monitor))
    recorded = [item for commit in readable for item in commit.stored()]
    metadata = sum(item.size for area in ("keys", "index", "commits", "refs") for item in repo.backend.list(area))
    waiting = inbox.waiting(repo.backend)
    pack_bytes = sum(item.size for item in packs)
    return Statistics(
        commits=len(readable),
        branches=len(repo.branches()),
        disks=len({(commit.branch, disk.name) for commit in readable for disk in commit.disks}),
        packs=len(packs),
        objects=len(found.index),
        logical_bytes=sum(item.size for item in recorded),
        read_bytes=sum(item.read_bytes for item in recorded),
        new_bytes=sum(item.new_bytes for item in recorded),
        pack_bytes=pack_bytes,
        metadata_bytes=metadata,
        stored_bytes=pack_bytes + metadata,
        promised=len(promises.Promises(repo.backend, repo.seals).ids()),
        waiting=len(waiting),
        waiting_bytes=sum(item.size for item in waiting),
    )
