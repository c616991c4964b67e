"""`vimgvc reflog`: every value that branches and tags had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.model import commit as model
from vimgvc.model import reflog
from vimgvc.repo import refs, repository


@dataclass(frozen=True, slots=True)
class Value:
    """What NAME@{`number`} is, since `time`.

    `id` None: the name was deleted; `commit` None: it cannot be read, or is `gone`.
    """

    kind: str
    name: str
    number: int
    id: str | None
    time: str
    host: str
    commit: model.Commit | None
    gone: bool = False


def run(repo: repository.Repository, name: str | None, *, accept: bool) -> list[Value]:
    """Of one name, or of all there ever were, the last value of each first.

    With `accept` what is left of a log that is cut or damaged; without it such a log raises `Rollback` or
    `IntegrityError`. Raises `NotFound`.
    """
    found = [
        value for kind, one in _names(repo, name) for value in _values(repo, repo.reflog(kind, one, accept=accept))
    ]
    if name is not None and not found:
        raise errors.NotFound("branch or tag", name, hint="'vimgvc reflog' lists all there ever were")
    return found


def _names(repo: repository.Repository, name: str | None) -> list[tuple[str, str]]:
    if name is None:
        ends = [ref.entry for ref in repo.last_refs().values()]
        return sorted([(entry.kind, entry.name) for entry in ends])
    there = repo.logs.ends()
    kinds = (reflog.BRANCH, reflog.TAG)
    return [(kind, name) for kind in kinds if repo.seals.blind(kind, name) in there]


def _values(repo: repository.Repository, log: list[refs.Ref]) -> Iterator[Value]:
    end = max((ref.seq for ref in log), default=0)
    for ref in log:
        entry = ref.entry
        commit, gone = _load(repo, entry.commit)
        yield Value(entry.kind, entry.name, end - ref.seq, entry.commit, entry.time, entry.host, commit, gone)


def _load(repo: repository.Repository, commit_id: str | None) -> tuple[model.Commit | None, bool]:
    """The commit, if it can be read; and whether it is not there."""
    if commit_id is None:
        return None, False
    try:
        return repo.graph.load(commit_id), False
    except errors.NotFound:
        return None, True
    except (errors.IntegrityError, errors.Unsupported):
        return None, False
