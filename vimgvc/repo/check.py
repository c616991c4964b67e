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

from blake3 import blake3

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.pipeline import crew, tree
from vimgvc.repo import config, damage, refs
from vimgvc.store import catalog, objects, pack

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

QUICK, DEFAULT, DATA = "quick", "default", "data"
_READ = 4 << 20


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
    _check_refs(repo, result)
    _check_disks(store, bad, _commits(repo, result), result, monitor)
    return result


def _check_config(repo: Repository, result: VerifyResult) -> None:
    try:
        public = repo.backend.get(config.NAME)
    except damage.UNREADABLE as error:
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
) -> damage.Bad:
    """Count, and as deep as `level` says check, every pack; returns where damage is."""
    bad = damage.Bad()
    chosen = [(item.number, item.name, item.size) for item in store.index.packs() if _in_subset(item.name, subset)]
    result.packs = len(chosen)
    monitor.start("verifying packs", sum(size for _, _, size in chosen))
    job = _PackCheck(store, level, bad, result, monitor)
    crew.run(iter(chosen), lambda: job, crew.default_threads())
    return bad


class _PackCheck:
    def __init__(
        self, store: objects.Objects, level: str, bad: damage.Bad, result: VerifyResult, monitor: Monitor
    ) -> None:
        self._store, self._level, self._bad, self._result, self._monitor = store, level, bad, result, monitor
        self._lock = threading.Lock()

    def work(self, item: tuple[int, str, int]) -> None:
        number, name, size = item
        try:
            segments, chunks = self._check(number, name, size)
        except damage.UNREADABLE as error:
            with self._lock:
                self._bad.packs.add(number)
                self._result.problems.append(Problem("pack", name, _reason(error)))
            return
        with self._lock:
            self._result.segments += segments
            self._result.chunks += chunks

    def close(self) -> None:
        pass

    def _check(self, number: int, name: str, size: int) -> tuple[int, int]:
        whole = self._level == QUICK or self._hash(name, size)
        table = self._store.table(number)
        if not whole:
            self._report(name, "is damaged (its hash does not fit its name)")
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
        except damage.UNREADABLE as error:
            with self._lock:
                self._bad.segments.add((number, segment_number))
            self._report(name, f"segment {segment_number} {_reason(error)}")

    def _report(self, name: str, detail: str) -> None:
        with self._lock:
            self._result.problems.append(Problem("pack", name, detail))


def _reason(error: errors.VimgvcError) -> str:
    """Damage, loss and a place that does not let us read are told apart."""
    if isinstance(error, errors.IntegrityError):
        return error.reason
    if isinstance(error, errors.NotFound):
        return "is missing"
    return error.message if isinstance(error, errors.Unsupported) else f"cannot be read: {error.message}"


def _check_refs(repo: Repository, result: VerifyResult) -> None:
    stored = set(repo.graph.ids())
    for blind in sorted(repo.logs.ends()):
        last: refs.Ref | None = None
        try:
            for ref in repo.logs.walk(blind):
                last = ref
        except damage.UNREADABLE as error:
            last = _last_readable(repo, blind)
            name = last.entry.name if last else blind[:12]
            result.problems.append(Problem("ref", name, str(error)))
        target = last.entry.commit if last else None
        if last and target is not None and target not in stored:
            result.problems.append(Problem("ref", last.entry.name, f"points to the missing commit {target[:12]}"))


def _last_readable(repo: Repository, blind: str) -> refs.Ref | None:
    try:
        return repo.last_refs().get(blind)
    except damage.UNREADABLE:
        return None


def _commits(repo: Repository, result: VerifyResult) -> list[commits.Commit]:
    """Every commit that can be read, reachable or not."""
    readable = []
    stored = repo.graph.ids()
    for commit_id in stored:
        try:
            readable.append(repo.graph.load(commit_id))
        except damage.UNREADABLE as error:
            result.problems.append(Problem("commit", commit_id, _reason(error)))
    children = {parent: commit.id for commit in readable for parent in commit.parents}
    for parent in sorted(set(children).difference(stored)):
        detail = f"is missing (parent of {children[parent][:12]})"
        result.problems.append(Problem("commit", parent, detail))
    result.commits = len(readable)
    return readable


def _check_disks(
    store: objects.Objects, bad: damage.Bad, readable: list[commits.Commit], result: VerifyResult, monitor: Monitor
) -> None:
    monitor.start("verifying commits", len(readable), "commits")
    disks = damage.Disks(store, bad)
    for commit in readable:
        for disk in commit.disks:
            result.problems += _check_disk(store, disks, f"{commit.id[:12]}:{disk.name}", disk)
        monitor.advance(1)


def _check_disk(store: objects.Objects, disks: damage.Disks, name: str, disk: commits.Disk) -> Iterator[Problem]:
    try:
        source = tree.Tree(store, bytes.fromhex(disk.manifest))
    except damage.UNREADABLE as error:
        yield Problem("disk", name, str(error), (f"{name} 0+{disk.size}",))
        return
    if source.size != disk.size:
        yield Problem("disk", name, "has another size than its manifest")
    found = disks.examine(source)
    if found:
        affected = tuple(f"{name} {start}+{length}" for start, length in found.ranges)
        yield Problem("disk", name, "; ".join(sorted(found.reasons)), affected)
