"""Who needs how much of what is stored: alone, and together with others.

Memory: 9 bytes for each slot of the packs, and what marking takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.repo import forgetting, promises
from vimgvc.store import mark, objects, pack, pack_table

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

_Weights = npt.NDArray[np.uint32]
#: In `_owners`: nobody, and more than one.
_NOBODY, _SEVERAL = 0, -1


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes as they are stored, without the tables of packs.

    `logical_bytes`: the sizes of all disks and attachments; `unique_bytes`: what nothing else that lives needs;
    `shared_bytes`: what others need as well.
    """

    commits: int
    logical_bytes: int
    unique_bytes: int
    shared_bytes: int

    @property
    def stored_bytes(self) -> int:
        return self.unique_bytes + self.shared_bytes


def of_branches(repo: Repository, monitor: Monitor) -> dict[str, Share]:
    """Of each living branch, by name; what tags lead to counts as others. Raises as `Repository.live`."""
    live = {commit.id: commit for commit in repo.live()}
    named = [entry for entries in forgetting.named(repo).values() for entry in entries]
    tips = {entry.name: [str(entry.commit)] for entry in named if entry.kind == reflog.BRANCH}
    tags = [str(entry.commit) for entry in named if entry.kind == reflog.TAG]
    names = sorted(tips)
    sets = [
        [commit for commit in repo.graph.walk(ends) if commit.id in live]
        for ends in (*(tips[name] for name in names), tags)
    ]
    return dict(zip(names, _shares(repo, sets, monitor), strict=False))


def of_commits(repo: Repository, wanted: Sequence[commits.Commit], monitor: Monitor) -> list[Share]:
    """Of each commit by itself; others are all that live, and each other. Raises as `Repository.live`."""
    ids = {commit.id for commit in wanted}
    others = [commit for commit in repo.live() if commit.id not in ids]
    each = {commit.id: commit for commit in wanted}
    found = _shares(repo, [*([commit] for commit in each.values()), others], monitor)
    shares = dict(zip(each, found, strict=False))
    return [shares[commit.id] for commit in wanted]


def _shares(repo: Repository, sets: Sequence[Sequence[commits.Commit]], monitor: Monitor) -> list[Share]:
    monitor.start("looking who needs what", sum(map(len, sets)), "commits")
    promised = promises.Promises(repo.backend, repo.seals).ids()
    marker = mark.Marker(repo.objects(monitor))
    weights = _weigh(marker, monitor)
    owners = np.full(marker.layout.total, _NOBODY, np.int32)
    stored = []
    for number, members in enumerate(sets, 1):
        marker.live[:] = False
        _mark(marker, members, promised, monitor)
        first = marker.live & (owners == _NOBODY)
        owners[marker.live] = _SEVERAL
        owners[first] = number
        stored.append(int(weights[marker.live].sum(dtype=np.int64)))
    result = []
    for number, members in enumerate(sets, 1):
        unique = int(weights[owners == number].sum(dtype=np.int64))
        logical = sum(item.size for commit in members for item in commit.stored())
        result.append(Share(len(members), logical, unique, stored[number - 1] - unique))
    return result


def _mark(marker: mark.Marker, members: Iterable[commits.Commit], promised: Collection[str], monitor: Monitor) -> None:
    marked: set[str] = set()
    for commit in members:
        for item in commit.stored():
            if item.manifest in marked:
                continue
            marked.add(item.manifest)
            try:
                marker.add_tree(bytes.fromhex(item.manifest), data=commit.id not in promised)
            except errors.IntegrityError as error:
                raise errors.IntegrityError(f"{commit.id[:12]}:{item.name}", str(error)) from error
        monitor.advance(1)


def _weigh(marker: mark.Marker, monitor: Monitor) -> _Weights:
    """How many stored bytes each slot stands for: its part of its segment, by plain bytes."""
    weights = np.zeros(marker.layout.total, np.uint32)
    for item in marker.layout.packs:
        try:
            table = marker.store.table(item.number)
        except objects.UNREADABLE as error:
            monitor.problem(f"{error}; what is in pack {item.name[:12]} counts for nothing")
            continue
        for where, part in _places(marker, item, table, _parts(table)):
            weights[where] = part
    return weights


def _parts(table: pack.Table) -> _Weights:
    """Of each slot of a pack; those of a segment are together what it takes."""
    counts = table.segments["slots"].astype(np.int64)
    number = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(table.lengths.astype(np.int64))
    starts = ends - table.lengths
    base = starts[table.first_slot][number]
    stored = table.segments["stored"].astype(np.int64)[number]
    plain = table.segments["plain"].astype(np.int64)[number]
    parts: _Weights = (stored * (ends - base) // plain - stored * (starts - base) // plain).astype(np.uint32)
    return parts


def _places(
    marker: mark.Marker, item: pack_table.Pack, table: pack.Table, parts: _Weights
) -> Iterator[tuple[slice, _Weights]]:
    """Where in the numbering of `marker` the slots of a pack are."""
    whole = marker.layout.range(item.number)
    if whole.stop - whole.start == len(parts):
        yield whole, parts
        return
    for number, (first, count) in enumerate(
        zip(table.first_slot.tolist(), table.segments["slots"].tolist(), strict=True)
    ):
        where = marker.layout.segment_range(item.number, number)
        known = min(count, where.stop - where.start)
        yield slice(where.start, where.start + known), parts[first : first + known]
