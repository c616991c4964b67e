"""One copy from beginning to end: what is missing, then the branches and tags that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.backends import ledger, protocol
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.remote import graph, plan, refs, transfer
from vimgvc.repo import names, promises, publication, repository
from vimgvc.repo import refs as logs

#: How often a copy begins again because collections remove what it relies on.
_TRIES = 5
_REJECTED = "fetch and look at what is there, or move it all the same with --force"


@dataclass(frozen=True, slots=True)
class Look:
    """The ref logs of a place at one moment: the number of each last entry, and those that can be read, by blind."""

    ends: dict[str, int]
    known: dict[str, logs.Ref]


def look(repo: repository.Repository, monitor: Monitor) -> Look:
    ends = repo.logs.ends()
    return Look(ends, repo.logs.last(monitor, ends))


@dataclass(frozen=True, slots=True)
class Result:
    """`size`: bytes that were stored at the target, or would have been; of them `pack_size` in packs.

    `known`: how the ref logs of the target end now.
    """

    changes: tuple[refs.Change, ...]
    commits: int
    packs: int
    size: int
    pack_size: int
    seconds: float
    known: dict[str, logs.Ref]

    def check(self, where: str) -> None:
        """Raises `RefMoved` for the first name that was rejected."""
        for change in self.changes:
            if change.state is refs.State.REJECTED:
                raise errors.RefMoved(
                    change.name,
                    change.after or "",
                    message=f"{change.kind} '{change.name}' was not changed: in {where} it {change.reason}",
                    hint=_REJECTED,
                )


def through(repo: repository.Repository, backend: protocol.Backend) -> repository.Repository:
    """The same repository by way of another backend object."""
    return repository.Repository(backend, repo.config, repo.unlocked, repo.cache, repo.clock, repo.rng)


@dataclass(frozen=True, slots=True)
class State:
    """Branches and tags of the target when a copy begins: what is asked of them is decided by this."""

    target: repository.Repository
    look: Look

    @property
    def known(self) -> dict[str, logs.Ref]:
        return self.look.known

    def value(self, kind: str, name: str) -> str | None:
        ref = self.known.get(self.target.seals.blind(kind, name))
        if ref is not None and ref.torn:
            raise names.torn(ref.entry)
        return names.value(self.target, self.known, kind, name, self.look.ends)

    def tips(self) -> frozenset[str]:
        """What living branches and tags name."""
        return frozenset(ref.entry.commit for ref in self.known.values() if ref.entry.commit)

    def decide(self, wish: refs.Wish, *, is_known: Callable[[str], bool], load: graph.Load) -> refs.Change:
        other = reflog.TAG if wish.kind == reflog.BRANCH else reflog.BRANCH
        return refs.decide(
            wish,
            self.value(wish.kind, wish.name),
            other=self.value(other, wish.name) is not None,
            is_known=is_known,
            builds=lambda old, new: graph.is_ancestor(load, old, new),
        )


#: What becomes of names, and the commits they need.
Decided = tuple[list[refs.Change], plan.Commits]


@dataclass(slots=True)
class Job:
    """Copies to `target`, whose backend is a `ledger.Ledger`; `host` is where the changes are made."""

    target: repository.Repository
    host: str
    monitor: Monitor
    look: Callable[[repository.Repository], Look] | None = None
    changes: list[refs.Change] = field(default_factory=list)
    known: dict[str, logs.Ref] = field(default_factory=dict)

    def run(self, decide: Callable[[State], Decided], verb: str) -> None:
        """Again from the beginning where a collection at the target came in between; raises `Swept` after some."""
        left = _TRIES
        while True:
            left -= 1
            try:
                self._run(decide, verb)
            except publication.Swept as error:
                if not left:
                    raise
                self.monitor.note(f"{error.message}; what is missing now is copied again")
            else:
                return

    def _run(self, decide: Callable[[State], Decided], verb: str) -> None:
        with publication.Publication.begin(self.target, self.monitor, host=self.host) as pub:
            seen = self.look(self.target) if self.look else look(self.target, self.monitor)
            known = self.known = seen.known
            self.changes, found = decide(State(self.target, seen))
            made = [change for change in self.changes if change.is_made]
            if found.request.tips:
                self._copy(pub, found, [change.after for change in made if change.after], verb)
            for change in made:
                self._publish(pub, change, known)

    def _copy(self, pub: publication.Publication, found: plan.Commits, tips: Sequence[str], verb: str) -> None:
        promised = found.promised = pub.promised
        for item in found.missing():
            if item.id in pub.gone:
                raise publication.Swept(f"commit {item.id[:12]}")
        with pub.disturbances():
            done = transfer.copy(found, self.target, pub.avoid, verb, self.monitor)
        for tip in dict.fromkeys(tips):
            pub.pin(tip)
        own = [item.id for item in done.commits if item.id not in done.dataless]
        pub.check((item.name for item in done.there.index.packs()), own)
        if found.request.promise:
            return
        if not pub.promised <= promised:  # somebody has just left data of what this builds on elsewhere
            raise publication.Swept("what this needs")
        promises.Promises(self.target.backend, self.target.seals).remove(promised.intersection(own))

    def _publish(self, pub: publication.Publication, change: refs.Change, known: dict[str, logs.Ref]) -> None:
        now = repository.timestamp(self.target.clock)
        try:
            ref = pub.publish(change.kind, change.name, change.after, known, time=now, host=self.host)
        except errors.RefMoved as error:
            raise names.moved(change.kind, change.name) from error
        known[ref.blind] = ref


def result(job: Job, seconds: float) -> Result:
    backend = job.target.backend
    assert isinstance(backend, ledger.Ledger)
    packs = [size for name, size in backend.written.items() if name.startswith("packs/")]
    commits = sum(name.startswith("commits/") for name in backend.written)
    size = sum(backend.written.values())
    return Result(tuple(job.changes), commits, len(packs), size, sum(packs), seconds, job.known)
