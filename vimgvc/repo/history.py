"""Commits: stored one by one, found by branch, tag, identifier or relation."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.repo import refs

_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_REVISION = re.compile(r"(?P<base>[^~^]+)(?P<steps>(?:[~^][0-9]{0,9})*)")
_STEP = re.compile(r"([~^])([0-9]*)")
_CANDIDATES = 5


class History:
    """Commits by identifier, read once each."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals
        self._read: dict[str, commits.Commit] = {}

    def load(self, commit_id: str) -> commits.Commit:
        """Raises `NotFound`, `IntegrityError`."""
        if commit_id not in self._read:
            where = f"commit {commit_id[:12]}"
            try:
                blob = self._backend.get(f"commits/{commit_id}")
            except errors.NotFound as error:
                raise errors.NotFound("commit", commit_id[:12]) from error
            body = self._seals.open(aead.COMMIT, blob, where, context=bytes.fromhex(commit_id))
            if self._seals.commit_id(body) != commit_id:
                raise errors.IntegrityError(where, "holds another commit")
            self._read[commit_id] = commits.decode(commit_id, body)
        return self._read[commit_id]

    def store(self, body: bytes) -> str:
        """Put an encoded commit, durable on return; returns its identifier."""
        commit_id = self._seals.commit_id(body)
        blob = self._seals.seal(aead.COMMIT, body, context=bytes.fromhex(commit_id))
        self._backend.put(f"commits/{commit_id}", [blob])
        self._backend.sync()
        return commit_id

    def ids(self) -> list[str]:
        """Every stored commit, reachable or not."""
        names = (item.name.rpartition("/")[2] for item in self._backend.list("commits"))
        return sorted(name for name in names if _ID.fullmatch(name))

    def walk(self, tips: Iterable[str]) -> Iterator[commits.Commit]:
        """Everything reachable: children before parents, newer before older."""
        reachable, children = self._reach(tips)
        heap = [(_newest_first(item.time), item.id) for item in reachable.values() if not children[item.id]]
        heapq.heapify(heap)
        while heap:
            commit = reachable[heapq.heappop(heap)[1]]
            yield commit
            for parent in dict.fromkeys(commit.parents):
                children[parent] -= 1
                if not children[parent] and parent in reachable:
                    heapq.heappush(heap, (_newest_first(reachable[parent].time), parent))

    def _reach(self, tips: Iterable[str]) -> tuple[dict[str, commits.Commit], dict[str, int]]:
        """The reachable commits that can be read, and how many of them are children of each."""
        reachable: dict[str, commits.Commit] = {}
        children: dict[str, int] = {}
        todo = list(dict.fromkeys(tips))
        for tip in todo:
            self.load(tip)
        while todo:
            commit_id = todo.pop()
            children.setdefault(commit_id, 0)
            try:
                commit = self.load(commit_id)
            except (errors.NotFound, errors.IntegrityError):
                continue  # a gap: children stay complete without their parents (verify reports it)
            if commit_id in reachable:
                continue
            reachable[commit_id] = commit
            for parent in dict.fromkeys(commit.parents):
                children[parent] = children.get(parent, 0) + 1
                if parent not in reachable:
                    todo.append(parent)
        return reachable, children

    def resolve(self, revision: str, known: Iterable[refs.Ref]) -> commits.Commit:
        """The commit that `revision` names: branch, tag or unique prefix, then any of `~N`, `^`.

        Raises `NotFound`, `UsageError`.
        """
        match = _REVISION.fullmatch(revision)
        if match is None:
            raise errors.UsageError(f"not a revision: {revision!r}", hint="use a branch, a commit id, or one with ~N")
        commit = self.load(self._base(match["base"], {ref.entry.name: ref for ref in known}))
        for kind, digits in _STEP.findall(match["steps"]):
            commit = self._step(commit, kind, int(digits or 1), revision)
        return commit

    def _base(self, name: str, names: dict[str, refs.Ref]) -> str:
        if name in names and names[name].entry.commit:
            return str(names[name].entry.commit)
        found = [item for item in self.ids() if item.startswith(name)] if _PREFIX.fullmatch(name) else []
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(item[:12] for item in found[:_CANDIDATES])
            raise errors.UsageError(f"revision '{name}' is ambiguous", hint=f"candidates: {listed}")
        living = sorted(ref.entry.name for ref in names.values() if ref.entry.commit)
        hint = f"branches: {', '.join(living[:10])}" if living else "nothing is committed yet"
        raise errors.NotFound("revision", name, hint=hint)

    def _step(self, commit: commits.Commit, kind: str, count: int, revision: str) -> commits.Commit:
        if kind == "^":
            if count == 0:
                return commit
            if count > len(commit.parents):
                raise errors.NotFound("revision", revision, hint=f"commit {commit.id[:12]} has no parent {count}")
            return self.load(commit.parents[count - 1])
        for _ in range(count):
            if not commit.parents:
                raise errors.NotFound("revision", revision, hint=f"commit {commit.id[:12]} is the first")
            commit = self.load(commit.parents[0])
        return commit


def _newest_first(time: str) -> tuple[int, ...]:
    return tuple(-ord(char) for char in time)


def branches(known: Iterable[refs.Ref]) -> dict[str, str]:
    """Living branches: name → commit identifier."""
    return {
        ref.entry.name: ref.entry.commit
        for ref in sorted(known, key=lambda ref: ref.entry.name)
        if ref.entry.kind == reflog.BRANCH and ref.entry.commit
    }
