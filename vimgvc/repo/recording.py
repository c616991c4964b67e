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
from vimgvc.repo import refs, repository
from vimgvc.store import catalog, objects, writer

if TYPE_CHECKING:
    from vimgvc.repo.repository import CommitRequest, CommitResult, Effort, Repository


_OTHER_BRANCH = "run 'vimgvc verify', and commit to another branch meanwhile"


def record(
    repo: Repository, sources: Sequence[ingest.Source], request: CommitRequest, effort: Effort, monitor: Monitor
) -> CommitResult:
    """`Repository.commit`."""
    started = time.monotonic()
    reflog.check_name(request.branch)
    with repo.writing():
        known = repo.last_refs(monitor)
        tip = _tip(repo, request.branch, known)
        parent = _load(repo, tip, monitor) if tip else None
        disks = _store_disks(repo, sources, parent, effort, monitor)
        for source in sources:
            source.reader.check_unchanged()
        if parent and not request.allow_empty and _content(parent.disks) == _content(disks):
            return repository.CommitResult(parent, time.monotonic() - started, created=False)
        commit = _publish(repo, disks, tip, request, known)
    return repository.CommitResult(commit, time.monotonic() - started, created=True)


def _tip(repo: Repository, branch: str, known: dict[str, refs.Ref]) -> str | None:
    blind = repo.seals.blind(reflog.BRANCH, branch)
    if blind not in known and blind in repo.logs.ends():
        raise errors.IntegrityError(f"branch {branch}", "no entry of its log can be read", hint=_OTHER_BRANCH)
    return known[blind].entry.commit if blind in known else None


def _load(repo: Repository, tip: str, monitor: Monitor) -> commits.Commit | None:
    """The commit to build on. One that is lost leaves a gap in the history, but stops nobody."""
    try:
        return repo.graph.load(tip)
    except (errors.IntegrityError, errors.NotFound) as error:
        monitor.problem(f"{error}; the new commit follows it all the same")
        return None


def _content(disks: Sequence[commits.Disk]) -> list[tuple[str, int, str]]:
    return [(disk.name, disk.size, disk.manifest) for disk in disks]


def _store_disks(
    repo: Repository, sources: Sequence[ingest.Source], parent: commits.Commit | None, effort: Effort, monitor: Monitor
) -> tuple[commits.Disk, ...]:
    """Everything the disks need is durable and indexed on return."""
    found = catalog.open_catalog(repo.backend, repo.seals, repo.cache, monitor)
    settings = ingest.Settings(
        repo.seals,
        cut.Cutter(repo.seals.keys.cut, repo.config.average),
        effort.level,
        effort.verify,
        effort.threads or crew.default_threads(),
    )
    work = _Work(objects.Objects(repo.backend, repo.seals, found.index), settings, monitor)
    try:
        return work.store(sources, parent)
    except ingest.BaseDamagedError as error:
        monitor.problem(f"{error}; the manifests are stored again")
        trees = {item.name for item in found.index.packs() if item.kind == segment.TREE}
        found.index.drop_packs(trees)
        return work.store(sources, None)


@dataclass(frozen=True, slots=True)
class _Work:
    store_objects: objects.Objects
    settings: ingest.Settings
    monitor: Monitor

    def store(self, sources: Sequence[ingest.Source], parent: commits.Commit | None) -> tuple[commits.Disk, ...]:
        found = self.store_objects
        out = writer.Writer(found.backend, found.seals, found.index)
        try:
            disks = tuple([self._store_disk(source, parent, out) for source in sources])
            out.finish()
        except BaseException as error:
            out.abort(keep=isinstance(error, KeyboardInterrupt))
            raise
        return disks

    def _store_disk(self, source: ingest.Source, parent: commits.Commit | None, out: writer.Writer) -> commits.Disk:
        result = ingest.ingest(source, self._base(parent, source.name), self.settings, out, self.monitor)
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

    def _base(self, parent: commits.Commit | None, name: str) -> tree.Tree | None:
        for disk in parent.disks if parent else ():
            if disk.name == name:
                try:
                    return tree.Tree(self.store_objects, bytes.fromhex(disk.manifest))
                except objects.UNREADABLE as error:
                    raise ingest.BaseDamagedError(f"manifest of {name}", str(error)) from error
        return None


def _publish(
    repo: Repository,
    disks: tuple[commits.Disk, ...],
    tip: str | None,
    request: CommitRequest,
    known: dict[str, refs.Ref],
) -> commits.Commit:
    now = repository.timestamp(repo.clock)
    draft = commits.Commit(
        id="",
        parents=(tip,) if tip else (),
        branch=request.branch,
        message=request.message,
        author=request.author,
        host=request.host,
        time=now,
        disks=disks,
    )
    commit = repo.graph.load(repo.graph.store(draft.encode()))  # read back before a branch leads to it
    repo.logs.publish(reflog.BRANCH, request.branch, commit.id, known, time=now, host=request.host)
    return commit
