"""Giving names to commits beside collections: nothing that may be removed is ever published.

Nobody waits and no clock is believed (specs/repository.md §9). A writer looks what collections are about to remove
(`begin`), stores, pins its commit, looks again (`check`), and only then makes the ref entry (`publish`). A collector
announces what it removes before it looks at pins and then at names. So one of the two sees the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from vimgvc import errors
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import forgetting, gcrecords, pins, promises, refs

if TYPE_CHECKING:
    from vimgvc.model import commit as commits
    from vimgvc.repo.repository import Repository
    from vimgvc.store import mark

#: How often a listing is made again because records were removed meanwhile.
_LISTINGS = 3


class Swept(errors.Busy):
    """What was to be published relies on something that a collection may have removed: store it again.

    Nothing was published. Whoever cannot store it again lets this through.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was collected meanwhile", hint="run the command again; 'vimgvc gc' tells about collections"
        )


@dataclass(slots=True)
class Publication:
    """One writer's way from reading to a name. Made by `begin`; use it as a context manager, or call `end`.

    `avoid`: names of packs that nobody may rely on or put; `gone`: commits that nobody may rely on or put; `promised`:
    commits that may lack data (`repo.promises`), as they were at the last look.
    """

    repo: Repository
    monitor: Monitor
    host: str
    avoid: frozenset[str]
    gone: frozenset[str]
    promised: frozenset[str]
    _seen: gcrecords.Epochs
    _pins: dict[str, str] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)
    _packs: Iterable[str] | None = None
    _own: frozenset[str] = frozenset()

    @classmethod
    def begin(cls, repo: Repository, monitor: Monitor | None = None, *, host: str = "") -> Publication:
        """Before anything is read that the publication relies on: refs, packs, the index."""
        monitor = monitor or NullMonitor()
        records = gcrecords.Records(repo.backend, repo.seals)
        epochs, promised = records.listing()
        going = records.condemned(monitor, epochs)
        return cls(repo, monitor, host, going.packs, going.commits, promised, epochs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # After an unknown failure the ref entry may still come into being: then the pin holds the commit.
        if error is None or isinstance(error, Swept | errors.RefMoved | errors.NotFound | errors.UsageError):
            self.end()

    def pin(self, commit_id: str) -> None:
        """Have collections keep a commit that is there, with all it needs. Before `check`."""
        from vimgvc.repo import repository

        if commit_id not in self._pins:
            pin = pins.Pin(commit_id, repository.timestamp(self.repo.clock), self.host)
            self._pins[commit_id] = pins.Pins(self.repo.backend, self.repo.seals).put(pin)

    def check(self, packs: Iterable[str] | None = None, own: Collection[str] = ()) -> None:
        """Raise `Swept` when something that the pinned commits need may be gone.

        `packs`: names of all packs that were relied on or put (more are allowed, and only looked at when there is
        reason to); None: unknown, then the trees are walked. `own`: commits whose data these packs hold, besides the
        pinned ones. What is needed by their ancestors is looked after here.
        """
        self._packs, self._own = packs, frozenset(own)
        self._look(None, walk=False)
        self._checked.update(self._pins)

    def check_whole(self) -> None:
        """The same for commits that were there before, whose data may have been gone for long.

        Raises `NotFound` when it is.
        """
        self._packs = None
        self._look(None, walk=True)
        self._checked.update(self._pins)

    def publish(
        self, kind: str, name: str, commit_id: str | None, known: dict[str, refs.Ref], *, time: str, host: str
    ) -> refs.Ref:
        """Append an entry to a log as `known` shows it, durable on return; pins and checks unless that was done.

        Raises `RefMoved`, `Swept`.
        """
        if commit_id is None:
            return self.repo.logs.publish(kind, name, None, known, time=time, host=host)
        self.pin(commit_id)
        if commit_id not in self._checked:
            self.check(self._packs, self._own)
        try:
            ref = self.repo.logs.publish(kind, name, commit_id, known, time=time, host=host)
        except errors.RefMoved:
            self._checked.discard(commit_id)  # names have changed
            raise
        if not self._is_pinned(commit_id):
            self._look_after(ref, known)
        return ref

    @contextlib.contextmanager
    def disturbances(self) -> Iterator[None]:
        """What is not there because a collection went on meanwhile is told as `Swept`."""
        try:
            yield
        except (errors.IntegrityError, errors.NotFound) as error:
            if gcrecords.Records(self.repo.backend, self.repo.seals).epochs() == self._seen:
                raise
            raise Swept(f"what this needs ({error.message})") from error

    def end(self) -> None:
        """Remove the pins; where that cannot be done, collections do it."""
        names = [pins.name(pin_id) for pin_id in self._pins.values()]
        self._pins.clear()
        self._checked.clear()
        if names and self.repo.backend.capabilities.removes:
            with contextlib.suppress(errors.VimgvcError):
                self.repo.backend.delete_all(names)

    # -- looking ---------------------------------------------------------------------------------

    def _is_pinned(self, commit_id: str) -> bool:
        return pins.Pins(self.repo.backend, self.repo.seals).is_there(self._pins[commit_id])

    def _look_after(self, ref: refs.Ref, known: dict[str, refs.Ref]) -> None:
        """Somebody took this writer for dead and removed its pin: what is not safe is taken back at once."""
        try:
            self._look((ref, known.get(ref.blind)), walk=False)
        except Swept:
            before = known.get(ref.blind)
            value = before.entry.commit if before else None
            entry = ref.entry
            self.monitor.problem(
                f"{entry.kind} '{entry.name}' is taken back: the pin of commit {str(entry.commit)[:12]} was removed, "
                "and what it needs may be gone"
            )
            with contextlib.suppress(errors.RefMoved):  # somebody has gone on from it
                now = {**self.repo.last_refs(), ref.blind: ref}
                self.repo.logs.publish(entry.kind, entry.name, value, now, time=entry.time, host=entry.host)
            raise

    def _look(self, mine: tuple[refs.Ref, refs.Ref | None] | None, *, walk: bool) -> None:
        going = self._going()
        if not going and not walk:
            return
        hit = self._packs is None
        if not hit:
            self._packs = frozenset(self._packs or ())
            hit = not going.packs.isdisjoint(self._packs)
        trees = _Trees(self.repo, going)
        new = self._own | self._pins.keys() if self._packs is not None else self._own
        for commit in self._uncertain(going, self._living(mine), new):
            if hit or commit.id not in new:
                trees.check(commit)

    def _going(self) -> gcrecords.Condemned:
        """What collections may have removed that were unfinished when this began, or began later."""
        records = gcrecords.Records(self.repo.backend, self.repo.seals)
        before = max(self._seen, default=0)
        unfinished = {epoch for epoch, phases in self._seen.items() if gcrecords.DONE not in phases}
        for _ in range(_LISTINGS):
            epochs, self.promised = records.listing()
            later = {epoch for epoch in epochs if epoch > before}
            # Numbers have no gaps: records that are gone are of collections that ended meanwhile.
            if len(later) != max(epochs, default=0) - before or not epochs.keys() >= unfinished:
                break
            with contextlib.suppress(errors.NotFound):  # removed meanwhile: look again
                going = gcrecords.Condemned()
                for epoch in sorted(later | unfinished):
                    going |= self._swept(records, epoch, epochs[epoch])
                return going
        raise Swept("what this needs")

    def _swept(self, records: gcrecords.Records, epoch: int, phases: set[str]) -> gcrecords.Condemned:
        try:
            return records.swept(epoch, phases)
        except errors.IntegrityError as error:
            # Of a collector that held the lock which is held here: it is dead, and removes nothing any more.
            if not (self.repo.backend.capabilities.locks and records.is_locked(epoch, phases)):
                raise
            self.monitor.problem(str(error))
            return gcrecords.Condemned()

    def _living(self, mine: tuple[refs.Ref, refs.Ref | None] | None) -> frozenset[str]:
        """What branches and tags name now; `mine`: an entry that does not count, and the one before it."""
        ends = dict(self.repo.last_refs())
        if mine is not None and ends.get(mine[0].blind) == mine[0]:
            if mine[1] is None:
                del ends[mine[0].blind]
            else:
                ends[mine[0].blind] = mine[1]
        return frozenset(ref.entry.commit for ref in ends.values() if ref.entry.commit)

    def _uncertain(
        self, going: gcrecords.Condemned, tips: frozenset[str], new: Collection[str]
    ) -> Iterator[commits.Commit]:
        """The pinned commits and their ancestors whose data is wanted and that no name leads to, so far as known.

        What a branch or tag leads to now, and is not forgotten, is kept by whoever collects. Raises `Swept`,
        `NotFound` when one of them is not there.
        """
        forgotten: set[str] = set(forgetting.Records(self.repo.backend, self.repo.seals).ids())
        reached: set[str] | None = None
        seen = set(tips)
        todo = list(self._pins)
        while todo:
            commit_id = todo.pop()
            if commit_id in seen:
                continue
            seen.add(commit_id)
            if commit_id not in new:
                reached = self._reach(tips) if reached is None else reached
                if commit_id in reached and commit_id not in forgotten:
                    continue
            commit = self._find(commit_id, going)
            todo += commit.parents
            if commit_id in self._pins or commit_id not in forgotten:
                yield commit

    def _reach(self, tips: Iterable[str]) -> set[str]:
        found: set[str] = set()
        todo = list(tips)
        while todo:
            commit_id = todo.pop()
            if commit_id not in found:
                found.add(commit_id)
                with contextlib.suppress(errors.IntegrityError, errors.NotFound):
                    todo += self.repo.graph.load(commit_id).parents
        return found

    def _find(self, commit_id: str, going: gcrecords.Condemned) -> commits.Commit:
        """A commit that is there now, and not about to be removed."""
        try:
            if commit_id not in going.commits:
                self.repo.backend.size(f"commits/{commit_id}")
                return self.repo.graph.load(commit_id)
        except errors.NotFound:
            if not going:
                raise errors.NotFound("commit", commit_id[:12]) from None
        raise Swept(f"commit {commit_id[:12]}")


@dataclass(slots=True)
class _Trees:
    """The manifests of commits, walked without what may be gone."""

    repo: Repository
    going: gcrecords.Condemned
    _marker: mark.Marker | None = None
    _promised: frozenset[str] = frozenset()

    def check(self, commit: commits.Commit) -> None:
        """Raises `Swept`, or `NotFound` when no collection is at it."""
        marker = self._open()
        try:
            for item in commit.stored():
                marker.add_tree(bytes.fromhex(item.manifest), data=commit.id not in self._promised)
        except errors.IntegrityError as error:
            if self.going:
                raise Swept(f"data of commit {commit.id[:12]}") from error
            hint = f"{error.message}: gc has removed it, or 'vimgvc verify' knows more"
            raise errors.NotFound("data of commit", commit.id[:12], hint=hint) from error

    def _open(self) -> mark.Marker:
        if self._marker is None:
            from vimgvc.store import catalog, mark, objects

            repo = self.repo
            self._promised = promises.Promises(repo.backend, repo.seals).ids()
            found = catalog.open_catalog(
                repo.backend, repo.seals, repo.cache, NullMonitor(), condemned=self.going.packs
            )
            self._marker = mark.Marker(objects.Objects(repo.backend, repo.seals, found.index))
        return self._marker
