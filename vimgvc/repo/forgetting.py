"""Commits that are not wanted any more: said by records, never by rewriting history (specs/repository.md §9).

A commit is live when a branch or tag reaches it, and it is not forgotten or a branch or tag names it directly.
What live commits need is what `gc` keeps. A forgotten commit itself stays where a branch or tag reaches it, so that
history stays connected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors, monitor
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import commit as commits
from vimgvc.model import forgotten, reflog
from vimgvc.pipeline import ordered
from vimgvc.repo import promises

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

AREA = "forgotten"
Forgotten = forgotten.Forgotten


class Records:
    """The records of one repository, as they are at the moment of each call."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals

    def ids(self) -> list[str]:
        """The commits that have a record, readable or not, sorted."""
        return sorted(item.name.partition("/")[2] for item in self._backend.list(AREA))

    def read(self, commit_id: str) -> Forgotten:
        """Raises `NotFound`, `IntegrityError`."""
        where = f"forgotten record {commit_id[:12]}"
        blob = self._backend.get(name(commit_id))
        record = forgotten.decode(self._seals.open(aead.FORGOTTEN, blob, where, bytes.fromhex(commit_id)), where)
        if record.commit != commit_id:
            raise errors.FormatError(where, "is about another commit")
        return record

    def all(self) -> dict[str, Forgotten]:
        """By commit; raises `IntegrityError` for one that cannot be read."""
        found = ordered.each(self.ids(), self.read, self._backend.capabilities.parallel)
        return {record.commit: record for record in found}

    def find(self, commit_id: str) -> Forgotten | None:
        """Raises `IntegrityError`."""
        try:
            return self.read(commit_id)
        except errors.NotFound:
            return None

    def put(self, record: Forgotten) -> bool:
        """Whether there was none yet. Durable after the backend's `sync`."""
        blob = self._seals.seal(aead.FORGOTTEN, record.encode(), bytes.fromhex(record.commit))
        return self._backend.put(name(record.commit), [blob])


def name(commit_id: str) -> str:
    """Of the blob of a commit's record."""
    return f"{AREA}/{commit_id}"


def read_all(backend: protocol.Backend, seals: sealing.Sealing) -> dict[str, Forgotten]:
    """Every record, by commit; raises `IntegrityError` for one that cannot be read."""
    return Records(backend, seals).all()


def forget(repo: Repository, ids: Iterable[str], reason: str, host: str) -> list[str]:
    """Record that commits are not wanted any more, durable on return; those that had no record before.

    Raises `UsageError` for one that a branch or tag names, `NotFound` for one that is not there, and then records
    nothing; `IntegrityError` when it cannot be known what branches and tags name.
    """
    wanted = list(dict.fromkeys(ids))
    with repo.writing():
        where = named(repo)
        stored = set(repo.graph.ids())
        for commit_id in wanted:
            if commit_id not in stored:
                raise errors.NotFound("commit", commit_id[:12])
            if commit_id in where:
                raise refused(where[commit_id][0])
        now = _stamp(repo)
        records = Records(repo.backend, repo.seals)
        new = [commit_id for commit_id in wanted if records.put(Forgotten(commit_id, now, host, reason))]
        repo.backend.sync()
    return new


def named(repo: Repository) -> dict[str, list[reflog.Entry]]:
    """What each living branch and tag names directly; raises `IntegrityError` for one that cannot be read."""
    found: dict[str, list[reflog.Entry]] = {}
    for blind, seq in sorted(repo.logs.ends().items()):
        entry = repo.logs.read(blind, seq).entry
        if entry.commit is not None:
            found.setdefault(entry.commit, []).append(entry)
    return found


def refused(entry: reflog.Entry) -> errors.UsageError:
    """What a branch or tag names is never forgotten."""
    if entry.kind == reflog.TAG:
        hint = "delete the tag first, if it is not wanted"
    else:
        hint = f"commit something newer first, or delete the branch: vimgvc branch -d {entry.name}"
    return errors.UsageError(f"commit {str(entry.commit)[:12]} is {entry.kind} '{entry.name}'", hint=hint)


@dataclass(frozen=True, slots=True)
class Fate:
    """Of a forgotten commit; `gone`: `gc` has removed its data, or part of it."""

    record: Forgotten
    gone: bool


def fate(repo: Repository, commit: commits.Commit) -> Fate | None:
    """None for a commit that is not forgotten, or that a branch or tag names. Raises `IntegrityError`."""
    record = Records(repo.backend, repo.seals).find(commit.id)
    if record is None or commit.id in named(repo):
        return None
    return Fate(record, not _is_whole(repo, commit))


def check_there(repo: Repository, commit: commits.Commit) -> None:
    """Raises `NotFound` for a forgotten commit whose data `gc` has removed, or part of it."""
    found = fate(repo, commit)
    if found is not None and found.gone:
        raise errors.NotFound(
            "data of commit",
            commit.id[:12],
            hint=f"it was forgotten on {found.record.time}, and gc has removed what no other commit needs",
        )


def _is_whole(repo: Repository, commit: commits.Commit) -> bool:
    from vimgvc.store import mark

    promised = promises.Promises(repo.backend, repo.seals).ids()
    marker = mark.Marker(repo.objects(monitor.NullMonitor()))
    try:
        for item in commit.stored():
            marker.add_tree(bytes.fromhex(item.manifest), data=commit.id not in promised)
    except errors.IntegrityError:
        return False
    return True


def _stamp(repo: Repository) -> str:
    from vimgvc.repo import repository

    return repository.timestamp(repo.clock)
