"""What a copy moves: commits, and the packs that hold what they need.

Commits that the target's branches and tags reach are there, with everything they need. Of the others each disk is
compared with its state in a commit that is there (`needs`); what remains, less what the target's index knows, is
what moves. A pack of which nearly everything is needed moves as it is; of the others the needed part is packed anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.remote import graph, needs
from vimgvc.repo import forgetting, promises, repository
from vimgvc.store import catalog, index, mark, objects, pack_table, survey

#: So much of a pack may be unneeded (0 … 1) for it to move as it is.
_MOST_UNNEEDED = 0.02


@dataclass(frozen=True, slots=True)
class Request:
    """Copy what `tips` reach; `there` are the commits that the target's branches and tags name.

    `near` is the side whose commits cost nothing to read. `everything`: compare with nothing that is said to be
    there, only with what the target's index really has. `promise`: chunks do not move, the remote of this name is to
    have them.
    """

    source: repository.Repository
    target: repository.Repository
    near: repository.Repository
    tips: Sequence[str]
    there: Collection[str]
    everything: bool = False
    promise: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """`commits`: parents before children; those of `dataless` (identifiers) move without what they need.

    `whole` packs move as they are, of `partial` ones what is marked.
    """

    commits: tuple[commits.Commit, ...]
    dataless: frozenset[str]
    marker: mark.Marker
    there: catalog.Catalog
    whole: tuple[pack_table.Pack, ...]
    partial: tuple[pack_table.Pack, ...]

    @property
    def size(self) -> int:
        """Bytes of the packs that are read, at most."""
        return sum(item.size for item in (*self.whole, *self.partial))


@dataclass(slots=True)
class Commits:
    """The commits of a request, and which are there; of `promised` ones the target may have metadata only."""

    request: Request
    painting: graph.Painting
    _given_up: frozenset[str] | None = field(default=None)
    promised: frozenset[str] = frozenset()

    @classmethod
    def of(cls, request: Request, load: graph.Load) -> Commits:
        there = () if request.everything else request.there
        return cls(request, graph.paint(load, request.tips, there))

    def missing(self) -> list[commits.Commit]:
        """Parents before children; also tips that are there and may have lost their data, because it was given up."""
        found = self.painting.missing()
        old = [tip for tip in dict.fromkeys(self.request.tips) if self.painting.is_there(tip)]
        return [self.painting.read[tip] for tip in old if not self.is_whole_there(tip)] + found

    def is_whole_there(self, commit_id: str) -> bool:
        """Whether the target has all that this commit needs."""
        if not self.request.promise and commit_id in self.promised:
            return False
        if commit_id in self.request.there:
            return True
        return self.painting.is_there(commit_id) and commit_id not in self.given_up()

    def given_up(self) -> frozenset[str]:
        """Commits that the target has a record for that they were forgotten."""
        if self._given_up is None:
            self._given_up = frozenset(forgetting.Records(self.request.target.backend, self.request.target.seals).ids())
        return self._given_up


def make(found: Commits, avoid: Collection[str], damaged: Collection[str], monitor: Monitor) -> Plan:
    """Packs of `avoid` (names) are neither relied on nor put; of `damaged` ones of the source other copies are used.

    Raises `IntegrityError` where the source lacks what is needed.
    """
    request = found.request
    source, target = request.source, request.target
    there = catalog.open_catalog(target.backend, target.seals, target.cache, monitor, condemned=avoid)
    here = catalog.open_catalog(source.backend, source.seals, source.cache, monitor)
    store = objects.Objects(source.backend, source.seals, here.index)
    marker = mark.Marker(store, damaged)
    # Where something is lost, what is said to be there may not be.
    compare = not (request.everything or there.missing or there.unreadable or there.index.damaged)
    base = store if request.near is source else objects.Objects(target.backend, target.seals, there.index)
    missing = found.missing()
    dataless = _forgotten(source, missing, request.tips)
    run = _Marking(marker, base, there.index, found, promises.Promises(source.backend, source.seals).ids(), compare)
    run.mark([item for item in missing if item.id not in dataless], monitor)
    _subtract(marker, there.index)
    taken = set(avoid) | {item.name for item in there.index.packs()} | there.missing.keys() | there.unreadable.keys()
    whole, partial = _sort_packs(marker, taken | set(damaged), monitor)
    return Plan(tuple(missing), dataless, marker, there, tuple(whole), tuple(partial))


def _forgotten(source: repository.Repository, missing: Sequence[commits.Commit], tips: Sequence[str]) -> frozenset[str]:
    """Commits whose data may be gone at the source: only their place in the history moves."""
    if not missing:
        return frozenset()
    records = forgetting.Records(source.backend, source.seals)
    return frozenset(records.ids()) & {item.id for item in missing} - set(tips)


@dataclass(slots=True)
class _Marking:
    """What commits need, oldest first, beside what is `there`; of `elsewhere` ones the source may lack chunks.

    With `compare` trees are compared with those of parents that are there, which are read from `base`.
    """

    marker: mark.Marker
    base: objects.Objects
    there: index.Index
    found: Commits
    elsewhere: frozenset[str]
    compare: bool
    _done: dict[str, commits.Commit] = field(default_factory=dict)

    def mark(self, missing: Sequence[commits.Commit], monitor: Monitor) -> None:
        monitor.start("comparing", len(missing), "commits")
        for item in missing:
            bases = dict(self._before(item))
            chunks = needs.Chunks(not self.found.request.promise, self.there if item.id in self.elsewhere else None)
            for stored in item.stored():
                try:
                    needs.add(self.marker, bytes.fromhex(stored.manifest), bases.get(stored.name), chunks)
                except errors.IntegrityError as error:
                    self._check_promise(item.id)
                    raise errors.IntegrityError(f"{item.id[:12]}:{stored.name}", str(error)) from error
            self._done[item.id] = item
            monitor.advance(1)

    def _before(self, item: commits.Commit) -> Iterator[tuple[str, needs.Base]]:
        """By name the disks of parents that are marked already or, to `compare` with, there."""
        painting = self.found.painting
        for parent in reversed(item.parents):
            if parent in self._done:
                known, store = self._done[parent], self.marker.store
            elif self.compare and self.found.is_whole_there(parent) and parent in painting.read:
                known, store = painting.read[parent], self.base
            else:
                continue
            yield from ((stored.name, (store, bytes.fromhex(stored.manifest))) for stored in known.stored())

    def _check_promise(self, commit_id: str) -> None:
        """Raises `NotFound` for a commit whose data is not to be expected at the source."""
        if commit_id in self.elsewhere:
            source = self.found.request.source
            remote = promises.Promises(source.backend, source.seals).read(commit_id).remote
            raise errors.NotFound(
                "data of commit",
                commit_id[:12],
                hint=f"{source.backend.url} has only its metadata, its data is in remote '{remote}': "
                f"'vimgvc fetch {remote}' there brings it",
            )


def _subtract(marker: mark.Marker, there: index.Index) -> None:
    """Unmark what the target has."""
    for records in marker.store.index.records():
        bits = marker.layout.bits(records[:, 4])
        wanted = np.flatnonzero(marker.live[bits])
        if wanted.size:
            known = there.contains(np.ascontiguousarray(records[wanted, :4]).view(np.uint8))
            marker.live[bits[wanted[known]]] = False


def _sort_packs(
    marker: mark.Marker, taken: Collection[str], monitor: Monitor
) -> tuple[list[pack_table.Pack], list[pack_table.Pack]]:
    """(packs that move as they are, packs of which a part moves), in the order of their numbers."""
    whole: list[pack_table.Pack] = []
    partial: list[pack_table.Pack] = []
    for item in marker.layout.packs:
        flags = marker.live[marker.layout.range(item.number)]
        if not flags.any():
            continue
        if item.name in taken:
            partial.append(item)
        elif flags.all() or survey.unused_bytes(marker, item, monitor) <= _MOST_UNNEEDED * item.size:
            whole.append(item)
        else:
            partial.append(item)
    return whole, partial
