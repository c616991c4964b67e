"""A copy of a repository under another root key and identifier: every commit is recorded anew, the oldest first.

A commit keeps its times, author, host, message, branch, facts and counters; its parents are the copies of its parents.
So its body, and with it its identifier, depends on nothing but the original and the new key, and an interrupted copy is
gone on with: what has been recorded is found by all that a copy takes over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from vimgvc import errors
from vimgvc.chunking import cut
from vimgvc.model import commit as commits
from vimgvc.model import geometry, reflog
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.pipeline import crew, ingest, tree, treediff
from vimgvc.remote import graph
from vimgvc.repo import disk as disks
from vimgvc.repo import forgetting, publication, repository
from vimgvc.store import catalog, objects, pack_table, writer

_SILENT = NullMonitor()


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """`commits` that were recorded now; `ids`: of every commit, the old and the new identifier."""

    commits: int
    ids: dict[str, str]
    branches: tuple[str, ...]
    tags: tuple[str, ...]
    seconds: float


def rekey(
    source: repository.Repository,
    target: repository.Repository,
    branches: Mapping[str, str],
    tags: Mapping[str, str],
    *,
    host: str,
    monitor: Monitor,
) -> Rekeyed:
    """Durable on return: `branches` and `tags` (name → commit there) lead to the copies of what they lead to.

    Raises `UsageError` where the target has branches already, `IntegrityError` for what cannot be read, `Swept`.
    """
    started = time.monotonic()
    with source.writing(), target.writing(), publication.Publication.begin(target, monitor, host=host) as pub:
        known = target.last_refs(monitor)
        if known:
            raise errors.UsageError(f"{target.backend.url} has branches already", hint="choose another place")
        tips = [*branches.values(), *tags.values()]
        wanted = graph.paint(source.graph.load, tips, ()).missing()
        job = _Job(source, target, pub.avoid, monitor)
        job.run(wanted, dict.fromkeys(tips))
        for tip in dict.fromkeys(tips):
            pub.pin(job.ids[tip])
        pub.check((item.name for item in job.index_packs()), job.ids.values())
        now = repository.timestamp(target.clock)
        for kind, names in ((reflog.BRANCH, branches), (reflog.TAG, tags)):
            for name, tip in names.items():
                ref = pub.publish(kind, name, job.ids[tip], known, time=now, host=host)
                known[ref.blind] = ref
    return Rekeyed(job.recorded, job.ids, tuple(branches), tuple(tags), time.monotonic() - started)


@dataclass(slots=True)
class _Job:
    source: repository.Repository
    target: repository.Repository
    avoid: frozenset[str]
    monitor: Monitor
    #: Of every commit so far, the old and the new identifier.
    ids: dict[str, str] = field(default_factory=dict)
    recorded: int = 0
    here: objects.Objects = field(init=False)
    there: objects.Objects = field(init=False)

    def __post_init__(self) -> None:
        self.here = self.source.objects(self.monitor)
        found = catalog.open_catalog(
            self.target.backend, self.target.seals, self.target.cache, self.monitor, condemned=self.avoid
        )
        self.there = objects.Objects(self.target.backend, self.target.seals, found.index)

    def index_packs(self) -> Iterator[pack_table.Pack]:
        return self.there.index.packs()

    def run(self, wanted: list[commits.Commit], tips: Mapping[str, object]) -> None:
        """`wanted`: parents before children."""
        done = self._done()
        given_up = forgetting.Records(self.source.backend, self.source.seals).all()
        originals: dict[str, commits.Commit] = {}
        copies: dict[str, commits.Commit] = {}
        self.monitor.start("recording", len(wanted), "commits")
        for item in wanted:
            parents = tuple([self.ids[parent] for parent in item.parents])
            copy = done.get(_facts(item, parents))
            if copy is None:
                if item.id in given_up and item.id not in tips:
                    copy = self._give_up(item, parents, given_up[item.id])
                else:
                    copy = self._record(item, parents, originals, copies)
                self.recorded += 1
            self.ids[item.id] = copy.id
            if item.id not in given_up or item.id in tips:
                originals[item.id], copies[item.id] = item, copy
            self.monitor.advance(1)
        self.target.backend.sync()

    def _done(self) -> dict[str, commits.Commit]:
        """What an earlier run has recorded, by what a copy takes over; without what that does not tell apart."""
        found: dict[str, commits.Commit] = {}
        twice: set[str] = set()
        for commit_id in self.target.graph.ids():
            item = self.target.graph.load(commit_id)
            key = _facts(item, item.parents)
            twice.update([key] if key in found else [])
            found[key] = item
        return {key: item for key, item in found.items() if key not in twice}

    def _record(
        self,
        item: commits.Commit,
        parents: tuple[str, ...],
        originals: Mapping[str, commits.Commit],
        copies: Mapping[str, commits.Commit],
    ) -> commits.Commit:
        before = next((parent for parent in item.parents if parent in originals), None)
        bases = _Bases(self, originals[before], copies[before]) if before else None
        out = writer.Writer(self.target.backend, self.target.seals, self.there.index)
        try:
            stored = tuple([replace(disk, manifest=self._store(disk, bases, out)) for disk in item.disks])
            files = tuple([replace(one, manifest=self._store(one, bases, out)) for one in item.attachments])
            out.finish()
        except BaseException as error:
            out.abort(keep=isinstance(error, KeyboardInterrupt))
            raise
        return self._put(replace(item, parents=parents, disks=stored, attachments=files))

    def _give_up(self, item: commits.Commit, parents: tuple[str, ...], record: forgetting.Forgotten) -> commits.Commit:
        """A forgotten commit keeps its place in the history, and has no data: its manifests lead nowhere."""
        draft = replace(item, parents=parents)
        commit_id = self.target.seals.commit_id(draft.encode())
        forgetting.Records(self.target.backend, self.target.seals).put(replace(record, commit=commit_id))
        self.target.backend.sync()
        return self._put(draft)

    def _put(self, draft: commits.Commit) -> commits.Commit:
        return self.target.graph.load(self.target.graph.store(draft.encode()))

    def _store(self, stored: commits.Stored, bases: _Bases | None, out: writer.Writer) -> str:
        disk = disks.StoredDisk(self.here, stored)
        base, changed = bases.of(stored) if bases else (None, None)
        settings = ingest.Settings(
            self.target.seals,
            cut.Cutter(self.target.seals.keys.cut, self.target.config.average),
            3,
            verify=True,
            threads=crew.default_threads(self.source.backend.capabilities.parallel),
        )
        given = ingest.Source(stored.name, disks.Recorded(disk.reader(settings.threads)), {})
        return ingest.ingest(given, base, settings, out, _SILENT, changed=changed).root.hex()


@dataclass(frozen=True, slots=True)
class _Bases:
    """A commit and its copy, for what their children have in common with them."""

    job: _Job
    original: commits.Commit
    copy: commits.Commit

    def of(self, stored: commits.Stored) -> tuple[tree.Tree | None, frozenset[int] | None]:
        """(the copy's disk of the same name, the windows that differ between the originals); None: not known."""
        before = [item for item in self.original.stored() if item.name == stored.name]
        after = [item for item in self.copy.stored() if item.name == stored.name]
        if not (before and after):
            return None, None
        mine = tree.Tree(self.job.here, bytes.fromhex(stored.manifest))
        theirs = tree.Tree(self.job.here, bytes.fromhex(before[0].manifest))
        changed: set[int] = set()
        for ranges in treediff.changed_ranges(mine, theirs):
            changed.update(np.unique(ranges.starts // geometry.WINDOW).tolist())
        return tree.Tree(self.job.there, bytes.fromhex(after[0].manifest)), frozenset(changed)


def _facts(item: commits.Commit, parents: tuple[str, ...]) -> str:
    """Everything that a copy takes over, with its parents' identifiers at the target."""
    disks = tuple([replace(disk, manifest="") for disk in item.disks])
    files = tuple([replace(one, manifest="") for one in item.attachments])
    return replace(item, parents=parents, disks=disks, attachments=files).encode().decode()
