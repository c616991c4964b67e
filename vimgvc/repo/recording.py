"""Making a commit: packs, index, commit, ref, in this order (specs/repository.md)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.chunking import cut
from vimgvc.codec import segment
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, ingest, tree
from vimgvc.repo import names, publication, refs, repository
from vimgvc.store import catalog, index, objects, writer

if TYPE_CHECKING:
    from vimgvc.repo.repository import CommitRequest, CommitResult, Effort, Repository


#: How often disks are stored because collections remove what they rely on.
_TRIES = 5

_Fact = tuple[str, int, str]
_Stored = tuple[tuple[commits.Disk, ...], tuple[commits.Attachment, ...]]
#: What was stored, and the index that knows all packs it may rely on.
_Indexed = tuple[_Stored, index.Index]
#: Disks, and attachments.
_Sources = tuple[Sequence[ingest.Source], Sequence[ingest.Source]]


def record(
    repo: Repository, sources: _Sources, request: CommitRequest, effort: Effort, monitor: Monitor
) -> CommitResult:
    """`Repository.commit`."""
    started = time.monotonic()
    reflog.check_name(request.branch)
    _check_names([source.name for source in (*sources[0], *sources[1])])
    left = _TRIES
    with repo.writing():
        while True:
            left -= 1
            try:
                commit, created = _record(repo, sources, request, effort, monitor)
            except publication.Swept as error:
                if not left:
                    raise
                monitor.note(f"{error.message}; it is stored again")
            else:
                return repository.CommitResult(commit, time.monotonic() - started, created=created)


def record_alone(
    repo: Repository, sources: _Sources, request: CommitRequest, effort: Effort, monitor: Monitor
) -> CommitResult:
    """A commit without parents and without a name, in a place where nobody else adds and nothing is removed."""
    started = time.monotonic()
    reflog.check_name(request.branch)
    _check_names([source.name for source in (*sources[0], *sources[1])])
    stored, _ = _store((repo, monitor, frozenset()), sources, None, effort)
    for source in (*sources[0], *sources[1]):
        source.reader.check_unchanged()
    body = _body(stored, None, request, request.time or names.stamp(repo.clock()))
    commit = repo.graph.load(repo.graph.store(body))  # read back before anything leads to it
    return repository.CommitResult(commit, time.monotonic() - started, created=True)


def _record(
    repo: Repository, sources: _Sources, request: CommitRequest, effort: Effort, monitor: Monitor
) -> tuple[commits.Commit, bool]:
    """(the commit, whether it is new); raises `Swept` when the disks have to be stored again."""
    with publication.Publication.begin(repo, monitor, host=request.host) as pub:
        known = repo.last_refs(monitor)
        tip = names.value(repo, known, reflog.BRANCH, request.branch)
        names.warn_of_skew(known.get(repo.seals.blind(reflog.BRANCH, request.branch)), repo.clock(), monitor)
        parent = _load(repo, tip, monitor) if tip else None
        with pub.disturbances():
            stored, found = _store((repo, monitor, pub.avoid), sources, parent, effort)
        for source in (*sources[0], *sources[1]):
            source.reader.check_unchanged()
        same = None if parent is None or request.allow_empty else _same(repo, parent, stored, once=request.once)
        if same is not None:
            return same, False
        return _publish(pub, (stored, found), tip, request, known), True


def _load(repo: Repository, tip: str, monitor: Monitor) -> commits.Commit | None:
    """The commit to build on. One that is lost leaves a gap in the history, but stops nobody."""
    try:
        return repo.graph.load(tip)
    except (errors.IntegrityError, errors.NotFound) as error:
        monitor.problem(f"{error}; the new commit follows it all the same")
        return None


def _check_names(names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise errors.UsageError(
                f"two disks or attachments would be called '{name}'",
                hint="name one of them yourself: NAME=IMAGE, --attach NAME=FILE",
            )


def _content(disks: Sequence[commits.Disk], attachments: Sequence[commits.Attachment]) -> list[list[_Fact]]:
    return [[(item.name, item.size, item.manifest) for item in items] for items in (disks, attachments)]


def _same(repo: Repository, parent: commits.Commit, stored: _Stored, *, once: bool) -> commits.Commit | None:
    """The parent if it has the same content, with `once` any commit below it of which `CommitRequest` says so."""
    content, snapshots = _content(*stored), _snapshots(stored[0])
    if _content(parent.disks, parent.attachments) == content:
        return parent
    for commit in repo.graph.walk([parent.id]) if once else ():
        if _content(commit.disks, commit.attachments) == content:
            of = _snapshots(commit.disks)
            if of == snapshots or not any(of):
                return commit
    return None


def _snapshots(disks: Sequence[commits.Disk]) -> list[object]:
    """Which internal snapshot of its image each disk was; None for none."""
    return [disk.container.get("snapshot") for disk in disks]


def _store(
    there: tuple[Repository, Monitor, frozenset[str]], sources: _Sources, parent: commits.Commit | None, effort: Effort
) -> _Indexed:
    """Everything the disks and attachments need is durable, and in packs of the index, on return.

    `there`: the repository, who is told, and packs that nobody may rely on.
    """
    repo, monitor, avoid = there
    found = catalog.open_catalog(repo.backend, repo.seals, repo.cache, monitor, condemned=avoid)
    settings = ingest.Settings(
        repo.seals,
        cut.Cutter(repo.seals.keys.cut, repo.config.average),
        effort.level,
        effort.verify,
        effort.threads or crew.default_threads(),
    )
    work = _Work(objects.Objects(repo.backend, repo.seals, found.index), settings, monitor)
    try:
        return work.store(sources, parent), found.index
    except ingest.BaseDamagedError as error:
        monitor.problem(f"{error}; the manifests are stored again")
        trees = {item.name for item in found.index.packs() if item.kind == segment.TREE}
        found.index.drop_packs(trees)
        return work.store(sources, None), found.index


@dataclass(frozen=True, slots=True)
class _Work:
    store_objects: objects.Objects
    settings: ingest.Settings
    monitor: Monitor

    def store(self, sources: _Sources, parent: commits.Commit | None) -> _Stored:
        found = self.store_objects
        out = writer.Writer(found.backend, found.seals, found.index)
        try:
            disks = tuple([self._store_disk(source, parent, out) for source in sources[0]])
            attachments = tuple([self._store_attachment(source, parent, out) for source in sources[1]])
            out.finish()
        except BaseException as error:
            out.abort(keep=isinstance(error, KeyboardInterrupt))
            raise
        return disks, attachments

    def _store_disk(self, source: ingest.Source, parent: commits.Commit | None, out: writer.Writer) -> commits.Disk:
        result = self._ingest(source, parent.disks if parent else (), out)
        return commits.Disk(
            name=source.name,
            size=source.reader.size,
            manifest=result.root.hex(),
            container=source.container,
            allocated_bytes=result.counters.allocated,
            read_bytes=result.counters.read,
            changed_bytes=result.counters.changed,
            new_bytes=result.counters.new,
            stored_bytes=result.counters.stored,
        )

    def _store_attachment(
        self, source: ingest.Source, parent: commits.Commit | None, out: writer.Writer
    ) -> commits.Attachment:
        result = self._ingest(source, parent.attachments if parent else (), out)
        return commits.Attachment(
            name=source.name,
            size=source.reader.size,
            manifest=result.root.hex(),
            read_bytes=result.counters.read,
            new_bytes=result.counters.new,
            stored_bytes=result.counters.stored,
        )

    def _ingest(self, source: ingest.Source, before: Sequence[commits.Stored], out: writer.Writer) -> ingest.Result:
        return ingest.ingest(source, self._base(before, source.name), self.settings, out, self.monitor)

    def _base(self, before: Sequence[commits.Stored], name: str) -> tree.Tree | None:
        for item in before:
            if item.name == name:
                try:
                    return tree.Tree(self.store_objects, bytes.fromhex(item.manifest))
                except objects.UNREADABLE as error:
                    raise ingest.BaseDamagedError(f"manifest of {name}", str(error)) from error
        return None


def _publish(
    pub: publication.Publication,
    indexed: _Indexed,
    tip: str | None,
    request: CommitRequest,
    known: dict[str, refs.Ref],
) -> commits.Commit:
    repo, (stored, found) = pub.repo, indexed
    seconds = repo.clock()
    now = names.stamp(seconds)
    body = _body(stored, tip, request, request.time or now)
    while repo.seals.commit_id(body) in pub.gone:
        seconds += 1  # the same commit is about to be removed: it has to be another one
        now = names.stamp(seconds)
        body = _body(stored, tip, request, now)
    with pub.disturbances():
        commit = repo.graph.load(repo.graph.store(body))  # read back before a branch leads to it
    pub.pin(commit.id)
    pub.check(item.name for item in found.packs())
    try:
        pub.publish(reflog.BRANCH, request.branch, commit.id, known, time=now, host=request.host)
    except errors.RefMoved:
        names.keep(pub, request.branch, commit.id, time=now, host=request.host)
    return commit


def _body(stored: _Stored, tip: str | None, request: CommitRequest, made: str) -> bytes:
    return commits.Commit(
        id="",
        parents=(tip,) if tip else (),
        branch=request.branch,
        message=request.message,
        author=request.author,
        host=request.host,
        time=made,
        disks=stored[0],
        attachments=stored[1],
    ).encode()
