"""One collection from reading to removing.

Nothing is removed before everything that is kept is durable in its new place, and nothing that was not announced in
a durable record before names were looked at a last time: so writers need not wait, nor be waited for.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import ledger, protocol
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import epochs, forgetting, gcrecords, names, pins, promises, roots
from vimgvc.store import catalog, mark, objects, pack, pack_table, reindex, repack, survey, writer

if TYPE_CHECKING:
    from vimgvc.model import commit as commits
    from vimgvc.repo import collect
    from vimgvc.repo.repository import Repository

#: Seconds after which a pin is told of. Nothing depends on it.
_DAY = 86_400
#: More than this share of all packs goes only when it is asked for.
_MOST = 0.5


class Mode(enum.Enum):
    """How much room is used: `ALL` writes new packs, `DEAD` only index objects, `BARE` nothing but records."""

    ALL = enum.auto()
    DEAD = enum.auto()
    BARE = enum.auto()


@dataclass(slots=True)
class Facts:
    """What one run found."""

    epoch: int | None = None
    commits: int = 0
    repacked: int = 0
    unneeded: int = 0
    needs_force: bool = False
    spared: int = 0
    pins: tuple[Pinned, ...] = ()


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin that is left; `old`: whoever put it had a day to name the commit."""

    pin: str
    commit: str
    host: str
    time: str
    old: bool


@dataclass(frozen=True, slots=True)
class Job:
    repo: Repository
    backend: ledger.Ledger
    options: collect.Options
    monitor: Monitor
    epoch: epochs.Epochs


class Run:
    """One collection from reading to removing."""

    def __init__(self, job: Job, mode: Mode) -> None:
        self._repo, self._backend, self._options, self._monitor = job.repo, job.backend, job.options, job.monitor
        self._mode, self._epoch = mode, job.epoch
        self._roots = roots.Reader(job.backend, job.repo.seals, accepted=job.repo.accepted, trusting=job.options.force)
        self._promises = promises.Promises(job.backend, job.repo.seals)
        self._promised: frozenset[str] = frozenset()
        self._condemned = self._removing = False
        self._facts = Facts()
        self._going = epochs.Going()
        self._doubt: frozenset[str] = frozenset()

    def run(self) -> Facts:
        before = set(self._backend.written)
        if self._backend.rehearse:
            self._epoch.look()
        else:
            self._epoch.begin()
        try:
            self._run()
        except errors.NoSpace:
            if not self._condemned:
                self._undo(set(self._backend.written) - before)
            raise
        except epochs.TakenOver as error:
            self._give_up(error)
            raise
        except (errors.IntegrityError, errors.NotFound) as error:
            self._explain(error)
            raise
        except BaseException as error:
            # What was begun to be removed may still go; then the next collection has to be told to take over.
            if not self._removing:
                self._give_up(error)
            raise
        return self._facts

    def _explain(self, error: errors.VimgvcError) -> None:
        """Whoever took over may have removed what this one reads: then that is told."""
        try:
            if not self._backend.rehearse:
                self._epoch.check_mine()
        except epochs.TakenOver as taken:
            self._give_up(taken)
            raise taken from error
        if not self._removing:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if not self._backend.rehearse:
            try:
                self._epoch.end(self._going if self._removing else epochs.Going())
            except errors.VimgvcError as another:
                error.add_note(another.message)

    def _undo(self, names: set[str]) -> None:
        """Make room: copies of what stays, of no use when nothing is condemned. Otherwise the next one removes them."""
        try:
            self._epoch.free()
            for area in ("index/", "packs/"):
                self._backend.delete_all(sorted(name for name in names if name.startswith(area)))
        except errors.VimgvcError as error:
            self._monitor.note(f"what was written stays until the next collection: {error.message}")

    def _run(self) -> None:
        if not self._backend.rehearse:
            self._expire()
        found = self._roots.read(self._options.forgotten)
        self._facts.pins = tuple(
            [self._pinned(pin_id, pin) for pin_id, pin in found.pins.items() if pin_id not in found.done_pins]
        )
        self._promised = self._promises.ids()  # before the index: they go when the data has come
        index = catalog.open_catalog(self._backend, self._repo.seals, self._repo.cache, self._monitor)
        marker = self._mark(objects.Objects(self._backend, self._repo.seals, index.index), found)
        plan = self._survey(marker)
        stay: set[str] = set()
        if self._mode is Mode.ALL:
            stay = self._repack(marker, plan)
            if not stay.isdisjoint(self._doubt):
                stay |= self._doubt
        going = [item for item in (*plan.dead, *plan.rewritten) if item.name not in stay]
        packs = {item.name for item in going}
        kept = [item for item in marker.layout.packs if item.name not in packs]
        indexes = reindex.Reindexed()
        if self._mode is not Mode.BARE:
            absent = {name for name, reason in index.missing.items() if reason == catalog.ABSENT}
            indexes = reindex.reindex(marker.store, self._indexes(), self._load_index, packs | absent, kept)
        orphans = tuple(found.unreachable) if self._mode is not Mode.BARE else ()
        records = tuple(sorted(found.recorded - found.reachable))
        self._going = epochs.Going(tuple(sorted(packs)), tuple(sorted(indexes.replaced)), orphans, records)
        self._remove(found, kept)

    def _expire(self) -> None:
        """Remove pins of writers that were declared dead; durable before any pin is read."""
        found = pins.Pins(self._backend, self._repo.seals)
        chosen = set(self._options.expire)
        if self._options.expire_old:
            chosen.update(pin_id for pin_id in found.ids() if self._is_old(found, pin_id))
        if chosen:
            self._backend.delete_all([pins.name(pin_id) for pin_id in sorted(chosen)])

    def _is_old(self, found: pins.Pins, pin_id: str) -> bool:
        try:
            return self._pinned(pin_id, found.read(pin_id)).old
        except errors.NotFound:
            return False

    def _pinned(self, pin_id: str, pin: pins.Pin) -> Pinned:
        old = pin.time < names.stamp(self._repo.clock() - _DAY)
        return Pinned(pin_id, pin.commit, pin.host, pin.time, old)

    def _indexes(self) -> dict[str, int]:
        """The index objects from before, with their sizes."""
        listed = {item.name: item.size for item in self._backend.list("index")}
        return {name.partition("/")[2]: size for name, size in listed.items() if name not in self._backend.written}

    def _load_index(self, name: str) -> bytes:
        return catalog.load_index(self._backend, self._repo.seals, name)

    def _mark(self, store: objects.Objects, found: roots.Roots) -> mark.Marker:
        # What another collection was about to remove has a copy elsewhere, if it was needed.
        marker = mark.Marker(store, self._epoch.avoid(self._monitor))
        # Older ones first: what a commit added is together, what it shares with later ones is all over the packs.
        self._mark_all(marker, found.live[::-1], found.held)
        return marker

    def _mark_all(self, marker: mark.Marker, live: Sequence[commits.Commit], held: Sequence[commits.Commit]) -> None:
        self._monitor.start("marking", len(live) + len(held), "commits")
        marked: set[str] = set()
        for whole, commit in [*((True, commit) for commit in live), *((False, commit) for commit in held)]:
            for item in commit.stored():
                if item.manifest in marked:  # it did not change from commit to commit
                    continue
                marked.add(item.manifest)
                try:
                    marker.add_tree(bytes.fromhex(item.manifest), whole=whole, data=commit.id not in self._promised)
                except errors.IntegrityError as error:
                    raise errors.IntegrityError(
                        f"{commit.id[:12]}:{item.name}",
                        f"{error}; nothing is removed while a commit is not whole",
                        hint="run 'vimgvc repair', or forget that commit",
                    ) from error
            self._monitor.advance(1)

    def _survey(self, marker: mark.Marker) -> survey.Survey:
        """What goes, when everything that stays can be read as well as before."""
        max_unused = self._options.max_unused if self._mode is Mode.ALL else 1.0
        doubt = self._doubt = self._epoch.doubt(NullMonitor())
        while True:
            plan = survey.survey(marker, max_unused, self._monitor, doubt)
            if self._mode is not Mode.ALL:
                # Where nothing can be copied, all copies stay that somebody else may remove: one will be spared.
                dead = tuple([item for item in plan.dead if item.name not in doubt])
                plan = survey.Survey(dead, (), plan.unused, plan.total)
            if not marker.shadows([item.number for item in (*plan.dead, *plan.rewritten)]):
                break
        self._facts.unneeded = plan.unused
        self._facts.needs_force = plan.unused > _MOST * plan.total
        if self._facts.needs_force and not (self._options.force or self._options.dry_run):
            raise errors.VimgvcError(
                f"no commit needs {plan.unused:,} of the {plan.total:,} bytes in packs: that is most of what is stored",
                hint="look at it with --dry-run; to remove it, give --force",
            )
        return plan

    def _repack(self, marker: mark.Marker, plan: survey.Survey) -> set[str]:
        if not plan.rewritten:
            return set()
        options = self._options
        effort = repack.Effort(options.level, options.verify, options.threads or len(os.sched_getaffinity(0)))
        fresh = reindex.empty_index()
        out = writer.Writer(self._backend, self._repo.seals, fresh)
        try:
            stay = repack.repack(marker, plan.rewritten, out, effort, self._monitor)
            out.finish()
        except BaseException:
            out.abort(keep=False)
            raise
        self._facts.repacked = sum(item.size for item in plan.rewritten)
        if options.verify and not self._backend.rehearse:
            repack.check_packs(marker.store, list(fresh.packs()))
        return stay

    # -- removing --------------------------------------------------------------------------------

    def _remove(self, found: roots.Roots, kept: list[pack_table.Pack]) -> None:
        """`kept` packs are relied on by what stays."""
        if self._going.count:
            self._facts.epoch = self._epoch.number
            if self._backend.rehearse:
                self._epoch.say(gcrecords.BEGIN)
            # A full disk is to be met now, while nobody relies on any copy, and not between the two that follow.
            self._epoch.reserve(self._going, found.heads)
            self._epoch.say(gcrecords.CONDEMN, self._going, found.heads)
            self._condemned = True
            self._epoch.free()
            self._epoch.say(gcrecords.SWEEP, self._going, found.heads)
            if not self._backend.rehearse:
                self._spare(found, kept)
            going = self._going
            self._facts.commits = len(going.commits)
            self._monitor.start("removing", going.count, "files")
            # A commit goes before its data, what leads to a pack before the pack.
            self._delete([f"index/{name}" for name in going.index])
            self._delete([f"commits/{name}" for name in going.commits])
            self._delete([promises.name(name) for name in sorted(self._promises.ids().intersection(going.commits))])
            self._delete([forgetting.name(name) for name in going.forgotten])
            self._delete([pack.blob_name(name) for name in going.packs])
        if found.done_pins:
            self._backend.delete_all([pins.name(pin_id) for pin_id in found.done_pins])
        if self._going.count or not self._backend.rehearse:
            self._epoch.end(self._going, found.heads)

    def _delete(self, names: list[str]) -> None:
        if not names:
            return
        if not self._backend.rehearse:
            self._epoch.check_mine()
        self._removing = True
        self._backend.delete_all(names)
        self._monitor.advance(len(names))

    def _spare(self, found: roots.Roots, kept: list[pack_table.Pack]) -> None:
        """Whoever named or pinned something since has either read what goes, or is seen here: that stays."""
        self._check_kept(kept)
        again = self._roots.read(self._options.forgotten, since=found.heads)
        known = {item.id for item in (*found.live, *found.held)}
        live, held = ([item for item in some if item.id not in known] for some in (again.live, again.held))
        packs: set[str] = set()
        if live or held:
            packs = self._needed_after_all(live, held)
        going, spared = self._going, again.reachable.intersection(self._going.commits)
        self._going = replace(
            going,
            packs=tuple([name for name in going.packs if name not in packs]),
            commits=tuple([name for name in going.commits if name not in spared]),
            forgotten=tuple([name for name in going.forgotten if name not in again.reachable]),
        )
        if packs or spared:
            self._facts.spared = len(packs)
            self._epoch.say(gcrecords.SPARED, epochs.Going(tuple(sorted(packs)), (), tuple(sorted(spared))))

    def _needed_after_all(self, live: Sequence[commits.Commit], held: Sequence[commits.Commit]) -> set[str]:
        """Of the packs that go, those that hold something of these commits that no other pack does."""
        self._promised = self._promises.ids()
        index = catalog.open_catalog(self._backend, self._repo.seals, self._repo.cache, NullMonitor()).index
        store = objects.Objects(self._backend, self._repo.seals, index)
        # Its own announcement is among those of unfinished collections.
        marker = mark.Marker(store, self._epoch.avoid(NullMonitor()))
        self._mark_all(marker, live, held)
        going = [item for item in marker.layout.packs if item.name in self._going.packs]
        while marker.shadows([item.number for item in going]):
            pass
        needed = marker.needed()
        spared = [item for item in going if item.name in needed]
        # The index objects that named them go. What other packs hold counts from now on, so it has to be durable.
        reindex.reindex(store, {}, self._load_index, (), spared)
        return {item.name for item in spared}

    def _check_kept(self, kept: list[pack_table.Pack]) -> None:
        there = objects.pack_sizes(self._backend.list("packs"))
        wanted = {item.name: item.size for item in kept}
        new = (item for item in self._backend.written.items() if item[0] not in self._backend.removed)
        wanted |= objects.pack_sizes(protocol.Item(*item) for item in new)
        lost = sorted(name for name, size in wanted.items() if there.get(name) != size)
        if lost:
            raise errors.IntegrityError(f"pack {lost[0][:12]}", "is gone since the collection began")
