"""Healing: what one place of a repository has lost and another one still has, copied back.

Comes after `repo.repair`, which has taken what is damaged out of the way and told what stays lost. Packs that are
whole there come first, under their own names; then what commits still lack, as in any copy. Nothing is overwritten: a
damaged commit goes to `quarantine/` once the other place has shown a sound one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import ledger
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.remote import copying, graph, plan, transfer
from vimgvc.repo import check, forgetting, publication, repository
from vimgvc.store import catalog, objects, pack, writer

_UNREADABLE = (errors.NotFound, errors.IntegrityError, errors.Unsupported)


@dataclass(frozen=True, slots=True)
class Healed:
    """Commits and packs that came from the other place, and their bytes; `lost`: why something did not."""

    commits: int = 0
    packs: int = 0
    size: int = 0
    lost: tuple[str, ...] = ()


def heal(
    source: repository.Repository,
    target: repository.Repository,
    problems: Iterable[check.Problem],
    monitor: Monitor,
    *,
    dry_run: bool = False,
) -> Healed:
    """Bring back to `target` what `problems` say is lost there and `source` has; durable on return.

    After a dry run: what that takes, at most, as long as nothing is taken out of the way. Raises what the backends
    raise; what cannot be read at the source is left, and told.
    """
    far = copying.through(target, ledger.Ledger(target.backend, rehearse=dry_run))
    found = list(problems)
    damaged = frozenset(one.object for one in found if one.kind == "pack")
    with source.writing(), target.writing(), publication.Publication.begin(target, monitor) as pub:
        run = _Run(source, far, pub.avoid | damaged if dry_run else pub.avoid, monitor)
        if brought := run.bring(damaged - pub.avoid):
            found = _after(target, found, damaged - brought, dry_run=dry_run)
        wanted = run.load_all(_wanted(target, found))
        run.make_room([item.id for item in wanted if _is_damaged(found, item.id)])
        if brought and dry_run and brought >= damaged:
            run.suppose(wanted)
        else:
            with pub.disturbances():
                run.copy(wanted)
    written = far.backend.written if isinstance(far.backend, ledger.Ledger) else {}
    size = sum(size for name, size in written.items() if not name.startswith("index/"))
    return Healed(_count(written, "commits"), _count(written, "packs"), size, tuple(run.lost))


def _after(
    target: repository.Repository, problems: list[check.Problem], left: frozenset[str], *, dry_run: bool
) -> list[check.Problem]:
    """What is still lost when packs came back; of a dry run as far as that can be told, `left` being lost packs."""
    if dry_run:
        return [one for one in problems if left or one.kind not in ("disk", "attachment")]
    return check.verify(target, check.QUICK, None, NullMonitor()).problems


def _count(names: Iterable[str], area: str) -> int:
    return sum(name.startswith(f"{area}/") for name in names)


def _wanted(target: repository.Repository, problems: Sequence[check.Problem]) -> list[str]:
    """The commits that are known to be lost, or of which a disk or attachment is not whole."""
    stored, tips = set(target.graph.ids()), _tips(target)
    short = {one.object.partition(":")[0] for one in problems if one.kind in ("disk", "attachment")}
    broken = {one.object for one in problems if one.kind == "commit"}
    return sorted((tips - stored) | broken | {commit_id for commit_id in stored if commit_id[:12] in short})


def _tips(repo: repository.Repository) -> set[str]:
    return {ref.entry.commit for ref in repo.last_refs().values() if ref.entry.commit}


def _is_damaged(problems: Sequence[check.Problem], commit_id: str) -> bool:
    return any(one.kind == "commit" and one.object == commit_id for one in problems)


@dataclass(slots=True)
class _Run:
    source: repository.Repository
    target: repository.Repository
    avoid: Collection[str]
    monitor: Monitor
    lost: list[str] = dataclasses.field(default_factory=list)

    def bring(self, packs: Iterable[str]) -> frozenset[str]:
        """Packs that the source has whole come back under their own names, whatever needs them; which ones."""
        there = objects.pack_sizes(self.source.backend.list("packs"))
        backend, brought = self.target.backend, set()
        assert isinstance(backend, ledger.Ledger)
        for name in sorted(set(packs) & there.keys()):
            try:
                blob = transfer.read_whole(self.source.backend, name, there[name])
            except _UNREADABLE:
                continue  # parts of it may be sound all the same
            if backend.rehearse:
                backend.pretend(pack.blob_name(name), len(blob))
            else:
                backend.put(pack.blob_name(name), [blob])
            brought.add(name)
        if brought and not backend.rehearse:
            found = catalog.open_catalog(backend, self.target.seals, None, NullMonitor(), condemned=self.avoid)
            writer.Writer(backend, self.target.seals, found.index).finish()
        return frozenset(brought)

    def load_all(self, ids: Iterable[str]) -> list[commits.Commit]:
        """These, and what they build on that the target has not; what the source has not either is told."""
        stored = set(self.target.graph.ids())
        found: dict[str, commits.Commit] = {}
        todo = list(ids)
        seen = set(todo)
        while todo:
            commit_id = todo.pop()
            try:
                item = found[commit_id] = self.source.graph.load(commit_id)
            except _UNREADABLE as error:
                self.lost.append(f"commit {commit_id[:12]}: {error.message}")
                continue
            new = [parent for parent in item.parents if parent not in stored and parent not in seen]
            seen.update(new)
            todo += new
        return [found[commit_id] for commit_id in sorted(found)]

    def make_room(self, ids: Iterable[str]) -> None:
        for commit_id in ids:
            self.target.backend.set_aside(f"commits/{commit_id}")

    def suppose(self, wanted: Iterable[commits.Commit]) -> None:
        """In a rehearsal: with all packs there, commits are all that is missing."""
        for item in wanted:
            name = f"commits/{item.id}"
            self.target.backend.put(name, [self.source.backend.get(name)])

    def copy(self, wanted: Sequence[commits.Commit]) -> None:
        """All at once; where the source lacks something, one by one, so that the others come back."""
        if not wanted:
            return
        try:
            self._copy(wanted)
        except (errors.IntegrityError, errors.NotFound) as error:
            if len(wanted) == 1:
                self.lost.append(str(error))
                return
            for item in wanted:
                self.copy([item])

    def _copy(self, wanted: Sequence[commits.Commit]) -> None:
        # Of a forgotten commit that no name leads to nobody owes more than its place in the history.
        forgotten = set(forgetting.Records(self.target.backend, self.target.seals).ids()) - _tips(self.target)
        tips = [item.id for item in wanted if item.id not in forgotten]
        request = plan.Request(self.source, self.target, self.source, tips, (), everything=True)
        found = plan.Commits(request, graph.only(wanted))
        transfer.copy(found, self.target, frozenset(self.avoid), "healing", self.monitor)
