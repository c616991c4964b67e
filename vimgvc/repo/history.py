"""Commits: stored one by one, found by branch, tag, identifier or relation."""

from __future__ import annotations

import contextlib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import commit as commits
from vimgvc.pipeline import ordered

# Turns the order of times round, which differ in nothing but digits.
_REVERSED = str.maketrans("0123456789", "9876543210")
_ID = re.compile(r"[0-9a-f]{64}")
#: Given the identifier of a commit that cannot be read, and why.
Lost = Callable[[str, errors.VimgvcError], None]
Load = Callable[[str], commits.Commit]


class History:
    """Commits by identifier, read once each."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals
        self._read: dict[str, commits.Commit] = {}

    def load(self, commit_id: str) -> commits.Commit:
        """Raises `NotFound`, `IntegrityError`."""
        if commit_id not in self._read:
            self._read[commit_id] = commits.decode(commit_id, self.body(commit_id))
        return self._read[commit_id]

    def read_ahead(self, ids: Iterable[str]) -> None:
        """Where reading has a long way, read these at once; whoever needs one that cannot be read is told then."""
        parallel = self._backend.capabilities.parallel
        if parallel > 1:
            for _ in ordered.each(sorted(set(ids) - self._read.keys()), self._try, parallel):
                pass

    def _try(self, commit_id: str) -> None:
        with contextlib.suppress(errors.NotFound, errors.IntegrityError, errors.Unsupported):
            self.load(commit_id)

    def body(self, commit_id: str) -> bytes:
        """The encoded commit, read now; its hash is the identifier. Raises as `load`."""
        where = f"commit {commit_id[:12]}"
        try:
            blob = self._backend.get(f"commits/{commit_id}")
        except errors.NotFound as error:
            raise errors.NotFound("commit", commit_id[:12]) from error
        body = self._seals.open(aead.COMMIT, blob, where, context=bytes.fromhex(commit_id))
        if self._seals.commit_id(body) != commit_id:
            raise errors.IntegrityError(where, "holds another commit")
        return body

    def store(self, body: bytes) -> str:
        """Put an encoded commit, durable on return; returns its identifier."""
        commit_id = self._seals.commit_id(body)
        blob = self._seals.seal(aead.COMMIT, body, context=bytes.fromhex(commit_id))
        if not self._backend.put(f"commits/{commit_id}", [blob]):
            self.body(commit_id)  # whatever has that name is relied on
        self._backend.sync()
        return commit_id

    def ids(self) -> list[str]:
        """Every stored commit, reachable or not."""
        names = (item.name.rpartition("/")[2] for item in self._backend.list("commits"))
        return sorted(name for name in names if _ID.fullmatch(name))

    def walk(self, tips: Iterable[str], lost: Lost | None = None, load: Load | None = None) -> Iterator[commits.Commit]:
        """Everything reachable: children before parents, newer before older.

        What cannot be read is told to `lost` and left out; without it a tip that cannot be read raises.
        `load` is another way to read a commit.
        """
        tips = list(dict.fromkeys(tips))
        if lost is None:
            for tip in tips:
                self.load(tip)
        reachable, children = _reach(tips, lost or _ignore, load or self.load)
        heap = [(_newest_first(item.time), item.id) for item in reachable.values() if not children[item.id]]
        heapq.heapify(heap)
        while heap:
            commit = reachable[heapq.heappop(heap)[1]]
            yield commit
            for parent in dict.fromkeys(commit.parents):
                children[parent] -= 1
                if not children[parent] and parent in reachable:
                    heapq.heappush(heap, (_newest_first(reachable[parent].time), parent))


def _reach(tips: list[str], lost: Lost, load: Load) -> tuple[dict[str, commits.Commit], dict[str, int]]:
    """The reachable commits that can be read, and how many of them are children of each."""
    reachable: dict[str, commits.Commit] = {}
    children = dict.fromkeys(tips, 0)
    todo = list(tips)
    while todo:
        commit_id = todo.pop()
        if commit_id in reachable:
            continue
        try:
            commit = load(commit_id)
        except (errors.NotFound, errors.IntegrityError, errors.Unsupported) as error:
            lost(commit_id, error)  # a gap: children stay complete without their parents
            continue
        reachable[commit_id] = commit
        for parent in dict.fromkeys(commit.parents):
            if parent not in children:
                children[parent] = 0
                todo.append(parent)
            children[parent] += 1
    return reachable, children


def _ignore(commit_id: str, error: errors.VimgvcError) -> None:
    """`verify` reports it."""


def _newest_first(time: str) -> str:
    return time.translate(_REVERSED)
