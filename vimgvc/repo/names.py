"""Branches and tags as people use them: what is there, made, moved, renamed, deleted and brought back.

Each change is one entry more in a log (`repo.refs`), made only when the log still ends where the caller saw
it end. What a name was stays in its log, so nothing that is done here loses a commit before gc.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.repo import forgetting, refs

if TYPE_CHECKING:
    from vimgvc.repo import publication
    from vimgvc.repo.repository import Repository

#: How much two clocks may differ before it is worth a word, in seconds.
SKEW = 300
_UNREADABLE = (errors.IntegrityError, errors.NotFound, errors.Unsupported)
_OTHER_NAME = {
    reflog.BRANCH: "run 'vimgvc verify', and commit to another branch meanwhile",
    reflog.TAG: "run 'vimgvc verify', and use another tag meanwhile",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A living branch or tag; `time` is of its last change. `commit` None: `broken` says why it cannot be read."""

    kind: str
    name: str
    id: str
    time: str
    commit: commits.Commit | None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A name was at `before` and is at `after`; None: it was not there."""

    kind: str
    name: str
    before: str | None
    after: str | None


def stamp(seconds: float) -> str:
    """A time in UTC, as commits spell it; the nearest that can be spelled."""
    seconds = min(max(seconds, -62135596800.0), 253402300799.0)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=int(seconds // 1))
    return moment.isoformat()[:19] + "Z"


def ends(known: Iterable[refs.Ref], kind: str) -> dict[str, str]:
    """Living names: name → commit identifier, by name."""
    living = [ref.entry for ref in known if ref.entry.kind == kind]
    return {entry.name: entry.commit for entry in sorted(living, key=lambda entry: entry.name) if entry.commit}


def living(repo: Repository, kind: str) -> list[Name]:
    """Every living branch or tag, by name; one that leads to nothing readable is there, and broken."""
    found = [ref.entry for ref in repo.last_refs().values() if ref.entry.kind == kind and ref.entry.commit]
    return [_look(repo, entry) for entry in sorted(found, key=lambda entry: entry.name)]


def _look(repo: Repository, entry: reflog.Entry) -> Name:
    commit_id = str(entry.commit)
    try:
        return Name(entry.kind, entry.name, commit_id, entry.time, repo.graph.load(commit_id))
    except _UNREADABLE as error:
        return Name(entry.kind, entry.name, commit_id, entry.time, None, error.message)


def value(
    repo: Repository, known: dict[str, refs.Ref], kind: str, name: str, ends: Collection[str] | None = None
) -> str | None:
    """Where a name is, None when it is not there. Raises `IntegrityError` when nothing of its log can be read.

    `ends`: the logs there are, if they were listed just now.
    """
    blind = repo.seals.blind(kind, name)
    if blind not in known:
        check_readable(known, repo.logs.ends() if ends is None else ends, blind, kind, name)
    return known[blind].entry.commit if blind in known else None


def check_readable(known: Container[str], ends: Container[str], blind: str, kind: str, name: str) -> None:
    """Raises `IntegrityError` when a log is there (`ends`) of which nothing can be read (`known`)."""
    if blind in ends and blind not in known:
        raise errors.IntegrityError(f"{kind} {name}", "no entry of its log can be read", hint=_OTHER_NAME[kind])


def broken(known: Mapping[str, refs.Ref], ends: Iterable[str]) -> tuple[str, ...]:
    """The logs that end with something that cannot be read, in words.

    One of which nothing can be read counts when an entry tells of it: anybody can put a name there.
    """
    found = [f"{ref.entry.kind} '{ref.entry.name}'" for _, ref in sorted(known.items()) if ref.torn]
    told = {blind for ref in known.values() for blind in ref.entry.seen}
    lost = [blind for blind in sorted(ends) if blind not in known and (blind in told or not known)]
    return (*found, *(f"ref log {blind[:12]}" for blind in lost))


def torn(entry: reflog.Entry) -> errors.IntegrityError:
    """`entry` is the last that can be read, and one came after it: where the name is now is not known."""
    return errors.IntegrityError(
        f"{entry.kind} {entry.name}",
        "the last entry of its log cannot be read",
        hint=f"'vimgvc reflog {entry.name} --accept' shows what it was before: name one of these commits",
    )


def set_value(
    repo: Repository, kind: str, name: str, commit_id: str | None, *, expect: str | None, host: str
) -> refs.Ref:
    """Let a name that is at `expect` be at `commit_id` (None: not be there); durable on return.

    Raises `RefMoved` when it is not at `expect`, `NotFound` and `IntegrityError` for a commit that cannot be read or
    whose data is gone, `Swept` while it is being removed.
    """
    from vimgvc.repo import publication

    with repo.writing(), publication.Publication.begin(repo, host=host) as pub:
        known = repo.last_refs()
        if value(repo, known, kind, name) != expect:
            raise moved(kind, name)
        if commit_id is not None:
            # A writer that was killed may have left it without its barrier (specs/repository.md §4).
            repo.graph.body(commit_id)
            forgetting.check_there(repo, repo.graph.load(commit_id))
            repo.backend.sync()
            pub.pin(commit_id)
            pub.check_whole()
        try:
            return pub.publish(kind, name, commit_id, known, time=stamp(repo.clock()), host=host)
        except errors.RefMoved as error:
            raise moved(kind, name) from error


def moved(kind: str, name: str) -> errors.RefMoved:
    return errors.RefMoved(
        name, "", message=f"{kind} '{name}' moved meanwhile", hint=f"'vimgvc reflog {name}' shows where it is now"
    )


def create(repo: Repository, kind: str, name: str, commit_id: str, *, force: bool, host: str) -> Change:
    """A name for a commit; with `force` also one that is taken. Raises `UsageError`, and as `set_value`."""
    reflog.check_name(name, kind)
    before = _free(repo, kind, name, force=force)
    if before != commit_id:
        set_value(repo, kind, name, commit_id, expect=before, host=host)
    return Change(kind, name, before, commit_id)


def _free(repo: Repository, kind: str, name: str, *, force: bool) -> str | None:
    known = repo.last_refs()
    other = reflog.TAG if kind == reflog.BRANCH else reflog.BRANCH
    if value(repo, known, other, name) is not None:
        raise errors.UsageError(f"there is a {other} called '{name}'", hint="choose another name")
    before = value(repo, known, kind, name)
    if before is not None and not force:
        raise errors.UsageError(
            f"{kind} '{name}' exists already, at {before[:12]}", hint="choose another name, or move it with --force"
        )
    return before


def delete(repo: Repository, kind: str, name: str, *, host: str) -> Change:
    """Raises `NotFound`, and as `set_value`."""
    before = taken(repo, kind, name)
    set_value(repo, kind, name, None, expect=before, host=host)
    return Change(kind, name, before, None)


def taken(repo: Repository, kind: str, name: str) -> str:
    """Where a name is that has to be there; raises `NotFound`."""
    known = repo.last_refs()
    before = value(repo, known, kind, name)
    if before is None:
        there = list(ends(known.values(), kind))
        hint = f"there are: {', '.join(there[:10])}" if there else f"there is no {kind}"
        raise errors.NotFound(kind, name, hint=hint)
    return before


def rename(repo: Repository, kind: str, old: str, new: str, *, force: bool, host: str) -> list[Change]:
    """First the new name, then the old one's end: at no moment is there neither.

    Raises as `create` and `delete`; `RefMoved` when the old one moved meanwhile, and then both are there.
    """
    reflog.check_name(new, kind)
    if old == new:
        raise errors.UsageError(f"{kind} '{old}' has that name already", hint="give another new name")
    commit_id = taken(repo, kind, old)
    before = _free(repo, kind, new, force=force)
    if before != commit_id:
        set_value(repo, kind, new, commit_id, expect=before, host=host)
    set_value(repo, kind, old, None, expect=commit_id, host=host)
    return [Change(kind, new, before, commit_id), Change(kind, old, commit_id, None)]


def log(repo: Repository, kind: str, name: str, *, accept: bool) -> list[refs.Ref]:
    """Every entry of a name's log, the last first; with `accept` what is left of one that is cut or damaged.

    Raises `NotFound`, `IntegrityError`, `Rollback`.
    """
    blind = repo.seals.blind(kind, name)
    if blind not in repo.logs.ends():
        raise errors.NotFound(kind, name, hint="'vimgvc reflog' lists all names there ever were")
    if accept:
        return repo.logs.readable(blind)[::-1]
    try:
        return list(repo.logs.back(blind))
    except refs.Broken as error:
        raise cut(error, reflog.Entry(kind, name, 0, None, None, "", "", {})) from error


def cut(error: refs.Broken, entry: reflog.Entry) -> errors.Rollback:
    """A log whose entries do not follow each other: somebody removed some, or put others there (R13)."""
    return errors.Rollback(
        f"the log of {entry.kind} '{entry.name}' is not whole: {error}",
        hint=f"'vimgvc reflog {entry.name} --accept' shows what is left; commits are still found by their identifiers",
    )


def keep(pub: publication.Publication, branch: str, commit_id: str, *, time: str, host: str) -> None:
    """After a lost race for `branch`: keep the commit as a branch of its own, and raise `RefMoved` that names it.

    Nothing is to be done when `branch` leads to the same commit now.
    """
    repo = pub.repo
    known = repo.last_refs()
    if value(repo, known, reflog.BRANCH, branch) == commit_id:
        return
    name = conflict(branch, commit_id)
    if value(repo, known, reflog.BRANCH, name) != commit_id:
        pub.publish(reflog.BRANCH, name, commit_id, known, time=time, host=host)
    raise errors.RefMoved(
        branch, commit_id, hint=f"your commit is kept as branch '{name}'; commit again to add the present state on top"
    )


def conflict(branch: str, commit_id: str) -> str:
    """The branch that keeps a commit which came second."""
    try:
        return reflog.check_name(f"conflict/{branch}/{commit_id[:12]}")
    except errors.UsageError:  # too long
        return f"conflict/{commit_id[:12]}"


def warn_of_skew(ref: refs.Ref | None, now: float, monitor: Monitor) -> None:
    """Tell that this clock, or that of whoever wrote the last entry, is wrong. Nothing depends on either (D15, K13)."""
    if ref is not None and ref.entry.time > stamp(now + SKEW):
        monitor.problem(
            f"{ref.entry.kind} '{ref.entry.name}' was last changed on {ref.entry.time}, which is in the future here: "
            "check the clocks; only the dates that are shown depend on them"
        )
