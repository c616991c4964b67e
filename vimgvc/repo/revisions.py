"""What names a commit: branch, tag, identifier, what a branch was before, and steps from there (specs/cli.md §8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.repo import moments, names, refs

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

_REVISION = re.compile(r"(?P<name>[^~^]+?)(?:@\{(?P<at>[^{}]{1,64})\})?(?P<steps>(?:[~^][0-9]{0,9})*)")
_STEP = re.compile(r"([~^])([0-9]*)")
_PREFIX = re.compile(r"[0-9a-fA-F]{4,64}")
_TOO_SHORT = re.compile(r"[0-9a-fA-F]{1,3}")
_COLON = re.compile(r":(?![^{]*\})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_CANDIDATES, _LISTED = 5, 10
_PLURAL = {reflog.BRANCH: "branches", reflog.TAG: "tags"}
_LISTS = "'vimgvc branch' and 'vimgvc tag' list what there is"
_FORMS = "use a branch, a tag or a commit id, with ~N, ^ or @{N} behind it"


def split(typed: str) -> tuple[str, str | None]:
    """The commit and, if it is named, the disk of REV:DISK. Raises `UsageError`."""
    name, *rest = _COLON.split(typed, maxsplit=1)
    if not name:
        raise errors.UsageError(f"not a revision: {typed}", hint="name the commit before the colon")
    if rest and not rest[0]:
        raise errors.UsageError(
            f"not a revision: {typed}", hint="name the disk after the colon, or leave the colon away"
        )
    return name, rest[0] if rest else None


def resolve(repo: Repository, revision: str) -> commits.Commit:
    """The commit that `revision` names.

    Raises `NotFound`, `UsageError`; `IntegrityError` for one that is damaged, `Rollback` where
    `@{...}` leads through a log that somebody has cut.
    """
    match = _REVISION.fullmatch(revision)
    if match is None or "@{" in match["name"]:
        hint = "name the branch: BRANCH@{1}" if revision.startswith("@{") else _FORMS
        raise errors.UsageError(f"not a revision: {revision!r}", hint=hint)
    found = _Known(repo, revision, repo.last_refs())
    name, at = match["name"], match["at"]
    commit = found.load(name) if at is None else _earlier(repo, found.before(name, at))
    for kind, digits in _STEP.findall(match["steps"]):
        commit = _step(repo, commit, kind, int(digits or 1), revision)
    return commit


def resolve_disk(repo: Repository, revision: str) -> tuple[commits.Commit, commits.Disk]:
    """The disk that REV:DISK names, or REV if it is the only one. Raises as `resolve`."""
    name, disk_name = split(revision)
    found = repo.resolve(name)
    return found, found.disk(disk_name)


def _earlier(repo: Repository, commit_id: str) -> commits.Commit:
    """What a name once was may be gone."""
    try:
        return repo.graph.load(commit_id)
    except errors.NotFound as error:
        hint = "it is not there any more: gc removes what no branch or tag leads to"
        raise errors.NotFound(error.what, error.name, hint=hint) from error


class _Known:
    """The names of a repository at one moment."""

    def __init__(self, repo: Repository, revision: str, known: dict[str, refs.Ref]) -> None:
        self._repo, self._revision, self._refs = repo, revision, known

    def load(self, name: str) -> commits.Commit:
        """The commit of `base`."""
        commit_id = self.base(name)
        try:
            return self._repo.graph.load(commit_id)
        except errors.NotFound as error:
            raise errors.IntegrityError(f"commit {commit_id[:12]}", "is missing") from error

    def base(self, name: str) -> str:
        """Where a branch or tag is, or the only commit whose identifier begins like that."""
        prefix = name.lower() if _PREFIX.fullmatch(name) else ""
        # A whole identifier means that commit, whatever somebody called a branch.
        ids = [item for item in self._repo.graph.ids() if item.startswith(prefix)] if prefix else []
        if prefix in ids:
            return prefix
        ref = self._ref(name)
        if ref and ref.torn:
            raise names.torn(ref.entry)
        if ref and ref.entry.commit:
            return ref.entry.commit
        if len(ids) == 1:
            return ids[0]
        if ref is None:
            self._check_readable(name)
        if ids:
            raise errors.UsageError(f"revision '{name}' is ambiguous", hint=f"candidates: {self._candidates(ids)}")
        if ref:
            raise self._deleted(ref)
        raise self._unknown(name)

    def before(self, name: str, at: str) -> str:
        """Where a branch or tag was, `at` changes ago or at a time."""
        ref = self._ref(name)
        if ref is None:
            self._check_readable(name)
            raise self._unknown(name)
        try:
            entry = self._counted(ref, int(at)) if _NUMBER.fullmatch(at) else self._dated(ref, at)
        except refs.Broken as error:
            raise names.cut(error, ref.entry) from error
        if entry.commit is None:
            raise self._absent(f"{entry.kind} '{name}' was deleted then, on {entry.time}")
        return entry.commit

    def _counted(self, ref: refs.Ref, count: int) -> reflog.Entry:
        for number, older in enumerate(self._repo.logs.back(ref.blind)):
            if number == count:
                return older.entry
        raise self._absent(
            f"{ref.entry.kind} '{ref.entry.name}' has had {ref.seq} values: @{{0}} to @{{{ref.seq - 1}}}"
        )

    def _dated(self, ref: refs.Ref, at: str) -> reflog.Entry:
        now = self._repo.clock()
        moment = moments.parse(at, now)
        entries = [older.entry for older in self._repo.logs.back(ref.blind)][::-1]
        times = moments.believed([entry.time for entry in entries], names.stamp(now))
        wanted = names.stamp(moment)
        found = [entry for entry, time in zip(entries, times, strict=True) if time <= wanted]
        if not found:
            raise self._absent(f"{ref.entry.kind} '{ref.entry.name}' was made later, on {times[0]}")
        return found[-1]

    def _ref(self, name: str) -> refs.Ref | None:
        """A branch before a tag, one that lives before one that is deleted."""
        found = [self._refs.get(self._repo.seals.blind(kind, name)) for kind in (reflog.BRANCH, reflog.TAG)]
        there = [ref for ref in found if ref]
        return next((ref for ref in there if ref.entry.commit), there[0] if there else None)

    def _check_readable(self, name: str) -> None:
        """Raises `IntegrityError` for a name of whose log nothing can be read."""
        ends = self._repo.logs.ends()
        for kind in (reflog.BRANCH, reflog.TAG):
            names.check_readable(self._refs, ends, self._repo.seals.blind(kind, name), kind, name)

    def _candidates(self, ids: list[str]) -> str:
        digits = next(size for size in range(12, 65) if len({item[:size] for item in ids}) == len(ids))
        listed = [self._candidate(item, digits) for item in ids[:_CANDIDATES]]
        more = len(ids) - len(listed)
        return ", ".join([*listed, f"and {more} more"] if more else listed)

    def _candidate(self, commit_id: str, digits: int) -> str:
        try:
            commit = self._repo.graph.load(commit_id)
        except (errors.IntegrityError, errors.NotFound, errors.Unsupported):
            return f"{commit_id[:digits]} (damaged)"
        return f"{commit_id[:digits]} ({commit.branch}, {commit.time[:10]})"

    def _deleted(self, ref: refs.Ref) -> errors.NotFound:
        name, kind = ref.entry.name, ref.entry.kind
        return self._absent(f"{kind} '{name}' was deleted on {ref.entry.time}; until gc '{name}@{{1}}' is what it was")

    def _unknown(self, name: str) -> errors.NotFound:
        if _TOO_SHORT.fullmatch(name):
            return self._absent("a commit is named by 4 or more of its digits")
        living = {kind: list(names.ends(self._refs.values(), kind)) for kind in (reflog.BRANCH, reflog.TAG)}
        everything = living[reflog.BRANCH] + living[reflog.TAG]
        if len(everything) > _LISTED:
            import difflib

            near = difflib.get_close_matches(name, everything, 3)
            return self._absent(f"did you mean {' or '.join(near)}?" if near else _LISTS)
        parts = [f"{_PLURAL[kind]}: {', '.join(ends)}" for kind, ends in living.items() if ends]
        return self._absent("; ".join(parts) or "nothing is committed yet")

    def _absent(self, hint: str) -> errors.NotFound:
        return errors.NotFound("revision", self._revision, hint=hint)


def _step(repo: Repository, commit: commits.Commit, kind: str, count: int, revision: str) -> commits.Commit:
    if kind == "^":
        if count == 0:
            return commit
        if count > len(commit.parents):
            raise errors.NotFound("revision", revision, hint=f"commit {commit.id[:12]} has no parent {count}")
        return repo.graph.load(commit.parents[count - 1])
    for _ in range(count):
        if not commit.parents:
            raise errors.NotFound("revision", revision, hint=f"commit {commit.id[:12]} is the first")
        commit = repo.graph.load(commit.parents[0])
    return commit
