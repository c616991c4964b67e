"""Checking what is stored, at three depths, and saying what damage means.

`quick`: everything named exists with its size, every manifest leads to known chunks.
`default`: also the unkeyed hash of every pack, index object and metadata object.
`data`: also every segment opened and every identifier computed again.
Damage is first located in packs, then mapped to commits, disks and ranges.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.model import geometry, manifest
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.pipeline import crew, tree
from vimgvc.repo import config
from vimgvc.store import catalog, index, objects, pack

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

#: What reading a blob may raise; none of it stops the check of the others.
_UNREADABLE = (errors.IntegrityError, errors.NotFound, errors.BackendError)
QUICK, DEFAULT, DATA = "quick", "default", "data"
_READ = 4 << 20
_MAX_RANGES = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was stored.

    `kind` is what is damaged (pack, index, commit, ref, disk, key, config), `object` its name, `affected`
    the commits, disks and byte ranges that cannot be restored because of it.
    """

    kind: str
    object: str
    detail: str
    affected: tuple[str, ...] = ()


@dataclass(slots=True)
class VerifyResult:
    packs: int = 0
    segments: int = 0
    chunks: int = 0
    commits: int = 0
    problems: list[Problem] = field(default_factory=list)


class _Notes:
    """A Monitor that turns what is reported while something is opened into problems of one kind."""

    def __init__(self, kind: str, name: str, result: VerifyResult, inner: Monitor) -> None:
        self._kind, self._name, self._result, self._inner = kind, name, result, inner

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self._inner.start(task, total, unit)

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        self._inner.advance(amount, new=new, stored=stored)

    def problem(self, message: str) -> None:
        self._result.problems.append(Problem(self._kind, self._name, message))

    def note(self, message: str) -> None:
        self._inner.note(message)


def verify(repo: Repository, level: str, subset: tuple[int, int] | None, monitor: Monitor) -> VerifyResult:
    """Read-only. `subset` (n, t) hashes and opens only the n-th of t parts of the packs."""
    result = VerifyResult()
    repo.keyring.slots(_Notes("key", "keys", result, monitor))
    _check_config(repo, result)
    # Without the cache: it would hide an index object that was damaged since it was read.
    found = catalog.open_catalog(repo.backend, repo.seals, None, NullMonitor())
    _report_catalog(found, result)
    store = objects.Objects(repo.backend, repo.seals, found.index)
    bad = _check_packs(store, level, subset, result, monitor)
    _check_refs(repo, result, monitor)
    _Disks(store, bad, result, monitor).check(_commits(repo, result))
    return result


def _check_config(repo: Repository, result: VerifyResult) -> None:
    try:
        public = repo.backend.get(config.NAME)
    except _UNREADABLE as error:
        result.problems.append(Problem("config", config.NAME, _reason(error)))
    else:
        if public != repo.unlocked.config:
            result.problems.append(Problem("config", config.NAME, "differs from what the key slots say"))


def _report_catalog(found: catalog.Catalog, result: VerifyResult) -> None:
    result.problems += [
        Problem("index", name, "cannot be read; rebuilt from the packs") for name in found.index.damaged
    ]
    result.problems += [Problem("pack", name, reason) for name, reason in sorted(found.missing.items())]
    result.problems += [Problem("pack", name, reason) for name, reason in sorted(found.unreadable.items())]


def _in_subset(name: str, subset: tuple[int, int] | None) -> bool:
    return subset is None or int(name[:8], 16) % subset[1] == subset[0] - 1


def _check_packs(
    store: objects.Objects, level: str, subset: tuple[int, int] | None, result: VerifyResult, monitor: Monitor
) -> _Bad:
    """Count, and as deep as `level` says check, every pack; returns where damage is."""
    bad = _Bad()
    chosen = [(item.number, item.name, item.size) for item in store.index.packs() if _in_subset(item.name, subset)]
    result.packs = len(chosen)
    monitor.start("verifying packs", sum(size for _, _, size in chosen))
    job = _PackCheck(store, level, bad, result, monitor)
    crew.run(iter(chosen), lambda: job, crew.default_threads())
    return bad


@dataclass(slots=True)
class _Bad:
    """Packs whose table is lost, and single slots: (pack, segment, slot)."""

    packs: dict[int, str] = field(default_factory=dict)
    segments: dict[tuple[int, int], str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.packs or self.segments)

    def has(self, number: int, segment_number: int) -> bool:
        return number in self.packs or (number, segment_number) in self.segments


class _PackCheck:
    def __init__(self, store: objects.Objects, level: str, bad: _Bad, result: VerifyResult, monitor: Monitor) -> None:
        self._store, self._level, self._bad, self._result, self._monitor = store, level, bad, result, monitor
        self._lock = threading.Lock()

    def work(self, item: tuple[int, str, int]) -> None:
        number, name, size = item
        try:
            segments, chunks = self._check(number, name, size)
        except _UNREADABLE as error:
            with self._lock:
                self._bad.packs[number] = name
                self._result.problems.append(Problem("pack", name, _reason(error)))
            return
        with self._lock:
            self._result.segments += segments
            self._result.chunks += chunks

    def close(self) -> None:
        pass

    def _check(self, number: int, name: str, size: int) -> tuple[int, int]:
        whole = self._level == QUICK or self._hash(name, size)
        if whole:
            table = self._store.table(number)
        else:
            self._report(name, "is damaged (its hash does not fit its name)")
            table = self._store.table(number)
        if self._level == QUICK:
            self._monitor.advance(size)
        if self._level == DATA or not whole:
            for segment_number in range(len(table.segments)):
                self._open(number, name, segment_number)
        return len(table.segments), len(table.ids)

    def _hash(self, name: str, size: int) -> bool:
        hasher = blake3()
        for offset in range(0, size, _READ):
            hasher.update(self._store.backend.get(pack.blob_name(name), offset, min(_READ, size - offset)))
            self._monitor.advance(min(_READ, size - offset))
        return hasher.hexdigest() == name

    def _open(self, number: int, name: str, segment_number: int) -> None:
        where = f"pack {name[:12]} segment {segment_number}"
        try:
            table, plain = self._store.read_segment(number, segment_number)
            ids, offsets, lengths = table.slots(segment_number)
            for slot, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
                data = memoryview(plain)[offset : offset + length]
                self._store.seals.check_slot(table.kind, data, ids[slot * 32 : slot * 32 + 32], where)
        except _UNREADABLE as error:
            with self._lock:
                self._bad.segments[number, segment_number] = name
            self._report(name, f"segment {segment_number} {_reason(error)}")

    def _report(self, name: str, detail: str) -> None:
        with self._lock:
            self._result.problems.append(Problem("pack", name, detail))


def _reason(error: errors.VimgvcError) -> str:
    """Damage, loss and a place that does not let us read are told apart."""
    if isinstance(error, errors.IntegrityError):
        return error.reason
    return "is missing" if isinstance(error, errors.NotFound) else f"cannot be read: {error.message}"


def _check_refs(repo: Repository, result: VerifyResult, monitor: Monitor) -> None:
    stored = set(repo.graph.ids())
    for blind, ref in repo.last_refs(_Notes("ref", "refs", result, monitor)).items():
        try:
            for _ in repo.logs.walk(blind):
                pass
        except _UNREADABLE as error:
            result.problems.append(Problem("ref", ref.entry.name, str(error)))
        target = ref.entry.commit
        if target is not None and target not in stored:
            result.problems.append(Problem("ref", ref.entry.name, f"points to the missing commit {target[:12]}"))


def _commits(repo: Repository, result: VerifyResult) -> list[commits.Commit]:
    """Every commit that can be read, reachable or not."""
    readable = []
    stored = repo.graph.ids()
    for commit_id in stored:
        try:
            readable.append(repo.graph.load(commit_id))
        except _UNREADABLE as error:
            result.problems.append(Problem("commit", commit_id, _reason(error)))
    for commit in readable:
        for parent in commit.parents:
            if parent not in stored:
                detail = f"is missing (parent of {commit.id[:12]})"
                result.problems.append(Problem("commit", parent, detail))
    result.commits = len(readable)
    return readable


class _Disks:
    """Walks the manifests; what is sound once is not walked again."""

    def __init__(self, store: objects.Objects, bad: _Bad, result: VerifyResult, monitor: Monitor) -> None:
        self._store, self._bad, self._result, self._monitor = store, bad, result, monitor
        self._sound: set[bytes] = set()

    def check(self, readable: list[commits.Commit]) -> None:
        self._monitor.start("verifying commits", len(readable), "commits")
        for commit in readable:
            for disk in commit.disks:
                self._check_disk(commit, disk)
            self._monitor.advance(1)

    def _check_disk(self, commit: commits.Commit, disk: commits.Disk) -> None:
        name = f"{commit.id[:12]}:{disk.name}"
        try:
            source = tree.Tree(self._store, bytes.fromhex(disk.manifest))
        except _UNREADABLE as error:
            self._result.problems.append(Problem("disk", name, str(error), (f"{name} 0+{disk.size}",)))
            return
        if source.size != disk.size:
            self._result.problems.append(Problem("disk", name, "has another size than its manifest"))
        ranges: list[tuple[int, int, str]] = []
        if source.root.top != geometry.ZERO_ID:
            self._walk(source, source.root.level, 0, source.root.top, ranges)
        if ranges:
            reasons = sorted({reason for _, _, reason in ranges})
            affected = tuple(f"{name} {start}+{length}" for start, length in _merge(ranges)[:_MAX_RANGES])
            self._result.problems.append(Problem("disk", name, "; ".join(reasons), affected))

    def _walk(
        self, source: tree.Tree, level: int, start: int, node_id: bytes, ranges: list[tuple[int, int, str]]
    ) -> None:
        if node_id in self._sound:
            return
        before = len(ranges)
        try:
            if level == 0:
                [(_, leaf)] = source.leaves([tree.Window(start, node_id)])
                self._check_leaf(start, leaf, ranges)
            else:
                for child, child_id in source.inner(level, start, node_id).children.items():
                    self._walk(source, level - 1, start + child * geometry.span(level - 1), child_id, ranges)
        except _UNREADABLE as error:
            end = min((start + geometry.span(level)) * geometry.WINDOW, source.size)
            ranges.append((start * geometry.WINDOW, end - start * geometry.WINDOW, str(error)))
        if len(ranges) == before:
            self._sound.add(node_id)

    def _check_leaf(self, number: int, leaf: manifest.Leaf, ranges: list[tuple[int, int, str]]) -> None:
        ids = np.frombuffer(leaf.ids, np.uint8).reshape(-1, geometry.ID_SIZE)
        places = self._store.index.lookup(ids)
        if places.found.all() and not self._bad:
            return
        lost = dict(self._lost(leaf, places))
        at, chunk = number * geometry.WINDOW, 0
        for blocks, zero in leaf.runs:
            length = blocks * geometry.BLOCK
            if not zero:
                if chunk in lost:
                    ranges.append((at, length, lost[chunk]))
                chunk += 1
            at += length

    def _lost(self, leaf: manifest.Leaf, places: index.Places) -> Iterator[tuple[int, str]]:
        """(number of the chunk in the leaf, reason) of those that no sound pack has."""
        for chunk, chunk_id in enumerate(leaf.chunk_ids()):
            if not places.found[chunk]:
                yield chunk, "chunks are missing"
                continue
            number, segment_number = int(places.pack[chunk]), int(places.segment[chunk])
            if self._bad.has(number, segment_number) and self._store.chunk(chunk_id) is None:
                yield chunk, f"chunks are lost in pack {self._store.index.pack(number).name[:12]}"


def _merge(ranges: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, length, _ in sorted(ranges):
        if merged and merged[-1][0] + merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], max(merged[-1][1], start + length - merged[-1][0]))
        else:
            merged.append((start, length))
    return merged
