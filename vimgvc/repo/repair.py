"""Mending what damage left, in the order of specs/repository.md §10.

What can still be read of a damaged pack is durable in new packs, and named, before anything is moved; what is moved
goes to `quarantine/` and stays there. Commits, ref entries and records are never touched: nothing more would restore.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import ledger
from vimgvc.codec import aead
from vimgvc.codec import slots as slot_codec
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import check, config, gcrecords
from vimgvc.store import catalog, index_object, objects, pack, reindex, repack, rescue, writer

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

Problem = check.Problem


@dataclass(frozen=True, slots=True)
class Options:
    """`data`: look for damage by opening every segment, too. zstd `level` of what has to be sealed again."""

    data: bool = False
    dry_run: bool = False
    level: int = 3


@dataclass(frozen=True, slots=True)
class Action:
    """Something that was done to an object; `kind` as of problems."""

    kind: str
    object: str
    detail: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was found, done, and is still wrong; after a dry run what would be done, with disks as they are now.

    Counts and bytes of blobs; segments of damaged packs: `saved` were moved, `lost` could not be read and are nowhere
    else.
    """

    problems: tuple[Problem, ...]
    actions: tuple[Action, ...]
    remaining: tuple[Problem, ...]
    packs_written: int
    index_written: int
    segments_saved: int
    segments_lost: int
    written_bytes: int
    set_aside: int
    set_aside_bytes: int
    seconds: float


def repair(repo: Repository, options: Options, monitor: Monitor) -> Repaired:
    """`Repository.repair`. Raises `Busy`, `NoSpace`, `BackendError` when something cannot be read for now."""
    started = time.monotonic()
    backend = ledger.Ledger(repo.backend, rehearse=options.dry_run)
    with repo.backend.lock_shared() if options.dry_run else _alone(repo):
        problems = check.verify(repo, check.DATA if options.data else check.DEFAULT, None, monitor).problems
        run = _Run(repo, backend, options, monitor, problems)
        run.run()
        if options.dry_run or not run.actions:
            remaining = [one for one in problems if one not in run.mended]
        else:
            remaining = check.verify(repo, check.QUICK, None, NullMonitor()).problems
            # The quick level does not see these.
            remaining += [one for one in run.left if one not in remaining]
    return Repaired(
        problems=tuple(problems),
        actions=tuple(run.actions),
        remaining=tuple(remaining),
        packs_written=_count(backend, "packs"),
        index_written=_count(backend, "index"),
        segments_saved=run.saved,
        segments_lost=run.lost,
        written_bytes=sum(backend.written.values()),
        set_aside=len(backend.aside),
        set_aside_bytes=sum(backend.aside.values()),
        seconds=time.monotonic() - started,
    )


def _alone(repo: Repository) -> contextlib.AbstractContextManager[None]:
    """Nobody adds or collects meanwhile; where there are no locks, no collection is under way when this begins.

    One that begins later finds that what it keeps was moved, and removes nothing (specs/repository.md §9).
    """
    if repo.backend.capabilities.locks:
        return repo.backend.lock_exclusive()
    if gcrecords.Records(repo.backend, repo.seals).unfinished():
        raise errors.Busy(f"{repo.backend.url} is being collected", hint="run the command again when that has ended")
    return repo.backend.lock_shared()


def _count(backend: ledger.Ledger, area: str) -> int:
    return sum(name.startswith(f"{area}/") for name in backend.written)


@dataclass(slots=True)
class _Run:
    """One repair, after everything was checked."""

    repo: Repository
    backend: ledger.Ledger
    options: Options
    monitor: Monitor
    problems: list[Problem]
    actions: list[Action] = field(default_factory=list)
    mended: list[Problem] = field(default_factory=list)
    left: list[Problem] = field(default_factory=list)
    saved: int = 0
    lost: int = 0

    def run(self) -> None:
        self._keys()
        self._config()
        self._packs_and_index()
        self.backend.sync()

    # -- keys and configuration ------------------------------------------------------------------

    def _keys(self) -> None:
        """Both copies of each slot that has a sound one."""
        found: list[str] = []
        for slot_id, blob in self.repo.keyring.blobs().items():
            for copy in (0, 1):
                name = f"keys/{slot_id}-{copy}"
                if self._mend_copy(name, slot_id, blob):
                    self.actions.append(Action("key", slot_id, f"copy {copy + 1} of 2 written again"))
                    found.append(f"key slot {slot_id[:8]}, copy {copy + 1} of 2: ")
        self.mended += [
            one for one in self.problems if one.kind == "key" and one.detail.startswith(tuple(found) or ("\0",))
        ]

    def _mend_copy(self, name: str, slot_id: str, blob: bytes) -> bool:
        try:
            there = self.backend.get(name)
        except errors.NotFound:
            return self.backend.put(name, [blob])
        except (errors.IntegrityError, errors.BackendError) as error:
            if not rescue.is_damage(error):
                raise
        else:
            if there == blob or _may_be_slot(there, slot_id):
                return False
        self.backend.set_aside(name)
        self.backend.put(name, [blob])
        return True

    def _config(self) -> None:
        wrong = [one for one in self.problems if one.kind == "config"]
        # Without it a directory is a repository only as long as it has a key slot.
        if not wrong or not self.repo.keyring.blobs():
            return
        self.backend.sync()
        self.backend.set_aside(config.NAME)
        self.backend.put(config.NAME, [self.repo.unlocked.config])
        self.actions.append(Action("config", config.NAME, "written again from the key slot"))
        self.mended += wrong

    # -- packs and index objects -----------------------------------------------------------------

    def _packs_and_index(self) -> None:
        backend, seals = self.backend, self.repo.seals
        going = gcrecords.Records(backend, seals).condemned(NullMonitor()).packs
        found = catalog.open_catalog(backend, seals, None, NullMonitor(), condemned=going)
        there = objects.pack_sizes(backend.list("packs"))
        suspects = {one.object for one in self.problems if one.kind == "pack"}
        unreadable = [name for name in found.index.damaged if not self._is_later(name)]
        if not (suspects or unreadable or found.adopted):
            return
        tables, gone = self._examine(suspects, there)
        found.index.drop_packs(gone)
        store = objects.Objects(backend, seals, found.index)
        details = self._save(store, tables)
        sizes = {item.name.partition("/")[2]: item.size for item in backend.list("index")}
        done = reindex.reindex(
            store,
            {name: size for name, size in sizes.items() if f"index/{name}" not in backend.written},
            lambda name: catalog.load_index(backend, seals, name),
            gone,
            list(found.index.packs()),
            merge_small=False,
        )
        self._told_packs(gone, there, details)
        self._told_index(unreadable, done)
        # What leads to a pack goes before the pack.
        for name in sorted({*unreadable, *done.replaced}):
            backend.set_aside(f"index/{name}")
        for name in sorted(gone & there.keys()):
            backend.set_aside(pack.blob_name(name))

    def _is_later(self, name: str) -> bool:
        """Whether an index object is sound, but of a version that this one does not know."""
        try:
            self.repo.seals.open(aead.INDEX, self.backend.get(f"index/{name}"), name)
        except errors.Unsupported:
            return True
        except (errors.IntegrityError, errors.BackendError) as error:
            if not rescue.is_damage(error):
                raise
        return False

    def _examine(self, suspects: set[str], there: dict[str, int]) -> tuple[dict[str, pack.Table | None], set[str]]:
        """(tables of the packs that are damaged, these and the packs that are missing)."""
        known = self._known(suspects)
        tables: dict[str, pack.Table | None] = {}
        for name in sorted(suspects & there.keys()):
            try:
                table = rescue.find_table(self.backend, self.repo.seals, name, sorted(known.get(name, ())))
            except errors.Unsupported:
                self.left += self._problems_of("pack", name)
                continue
            if table is not None and not self._has_damage(name):
                self.left += self._problems_of("pack", name)
                continue
            tables[name] = table
        return tables, {*tables, *(suspects - there.keys())}

    def _has_damage(self, name: str) -> bool:
        """Not where all that is wrong with a pack is that a later version wrote part of it."""
        if not rescue.is_whole(self.backend, name):
            return True
        return any("unsupported" not in one.detail for one in self._problems_of("pack", name))

    def _known(self, names: set[str]) -> dict[str, set[tuple[int, int]]]:
        """What index objects say of packs: size and length of the table."""
        known: dict[str, set[tuple[int, int]]] = {}
        for item in self.backend.list("index") if names else ():
            try:
                body = catalog.load_index(self.backend, self.repo.seals, item.name.partition("/")[2])
                rows = index_object.decode(body, item.name).packs
            except (errors.IntegrityError, errors.NotFound):
                continue
            for row in rows:
                name = row["name"].tobytes().hex()
                if name in names:
                    known.setdefault(name, set()).add((int(row["size"]), int(row["table_length"])))
        return known

    def _save(self, store: objects.Objects, tables: dict[str, pack.Table | None]) -> dict[str, str]:
        """Move what is left into new packs, durable on return; returns what to tell, by pack."""
        if not tables:
            return {}
        fresh = reindex.empty_index()
        out = writer.Writer(self.backend, self.repo.seals, fresh)
        self.monitor.start("saving what is left", len(tables), "packs")
        try:
            details = dict(self._rescue(rescue.Rescue(store, out, level=self.options.level), tables))
            out.finish()
        except BaseException:
            out.abort(keep=False)
            raise
        if not self.backend.rehearse:
            repack.check_packs(store, list(fresh.packs()))
        return details

    def _rescue(self, job: rescue.Rescue, tables: dict[str, pack.Table | None]) -> Iterator[tuple[str, str]]:
        for name, table in tables.items():
            if table is None:
                yield name, "set aside; its table is lost, and with it what it held"
            else:
                done = job.save(name, table)
                self.saved += done.saved
                self.lost += done.lost
                parts = [f"{done.saved} of {len(table.segments)} segments saved"]
                parts += [f"{done.elsewhere} stored elsewhere"] if done.elsewhere else []
                parts += [f"{done.lost} lost"] if done.lost else []
                yield name, f"set aside; {', '.join(parts)}"
            self.monitor.advance(1)

    # -- what is told ----------------------------------------------------------------------------

    def _problems_of(self, kind: str, name: str) -> list[Problem]:
        return [one for one in self.problems if (one.kind, one.object) == (kind, name)]

    def _told_packs(self, gone: set[str], there: dict[str, int], details: dict[str, str]) -> None:
        for name in sorted(gone):
            self.mended += self._problems_of("pack", name)
            if name in there:
                self.actions.append(Action("pack", name, details[name]))
            else:
                self.actions.append(Action("pack", name, "is missing; no index object names it any more"))

    def _told_index(self, unreadable: list[str], done: reindex.Reindexed) -> None:
        for name in unreadable:
            self.mended += self._problems_of("index", name)
            self.actions.append(Action("index", name, "set aside; it cannot be read"))
        for name in done.replaced:
            self.actions.append(Action("index", name, "set aside; it named packs that are not there any more"))
        for name in done.written:
            self.actions.append(Action("index", name, "written"))


def _may_be_slot(blob: bytes, slot_id: str) -> bool:
    """Whether this is a sound slot, or one that a later version may know."""
    try:
        return slot_codec.describe_slot(blob).id == slot_id
    except errors.Unsupported:
        return True
    except errors.IntegrityError:
        return False
