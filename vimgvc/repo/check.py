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
from vimgvc.pipeline import crew, ordered, tree
from vimgvc.repo import config, damage, forgetting, gcrecords, pins, promises, refs, views
from vimgvc.store import catalog, objects, pack

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

QUICK, DEFAULT, DATA = "quick", "default", "data"
_READ = 4 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was stored.

    `kind` is what is damaged (pack, index, commit, ref, promised, disk or attachment, key, config), `object` its name,
    `affected` the commits, disks and byte ranges that cannot be restored because of it.
    """

    kind: str
    object: str
    detail: str
    affected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """What is not here because `remotes` promise to have it: data of `commits`.

    `size` in bytes, at most: what several windows need counts for each that differs.
    """

    commits: int
    size: int
    remotes: tuple[str, ...]


@dataclass(slots=True)
class VerifyResult:
    """`elsewhere`: of commits whose data is promised; None when there are none."""

    packs: int = 0
    segments: int = 0
    chunks: int = 0
    commits: int = 0
    problems: list[Problem] = field(default_factory=list)
    elsewhere: Absent | None = None


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
    """Read-only. `subset` (n, t) hashes and opens only the n-th of t parts of the packs.

    Others may add meanwhile: what names something is read before what is named. Where a collection removed something
    meanwhile (K6) the check is made once more.
    """
    records = gcrecords.Records(repo.backend, repo.seals)
    before = records.epochs()
    result, found = _verify(repo, level, subset, monitor)
    if result.problems and (records.epochs() != before or _are_gone(repo, found)):
        monitor.note("something was collected meanwhile; what is there now is verified")
        result, _ = _verify(repo, level, subset, monitor)
    return result


def _are_gone(repo: Repository, found: catalog.Catalog) -> bool:
    """Whether packs that were there are not, and no index object names them any more."""
    now = catalog.open_catalog(repo.backend, repo.seals, None, NullMonitor())
    before, there = ({item.name for item in one.index.packs()} for one in (found, now))
    return bool(before - there - now.missing.keys())


def _verify(
    repo: Repository, level: str, subset: tuple[int, int] | None, monitor: Monitor
) -> tuple[VerifyResult, catalog.Catalog]:
    result = VerifyResult()
    if not repo.keyring.slots(_Notes("key", "keys", result, monitor)):
        result.problems.append(Problem("key", "keys", "no key slot can be used"))
    _check_config(repo, result)
    tips = _check_refs(repo, result)
    readable = _with_data(repo, _commits(repo, result, monitor), tips, result)
    promised = _promised(repo, result)  # before the index: they go when the data has come
    # Without the cache: it would hide an index object that was damaged since it was read.
    found = catalog.open_catalog(repo.backend, repo.seals, None, NullMonitor())
    _report_catalog(found, result)
    store = objects.Objects(repo.backend, repo.seals, found.index)
    bad = _check_packs(store, level, subset, result, monitor)
    _check_disks(store, bad, (readable, promised), result, monitor)
    return result, found


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
    crew.run(iter(chosen), lambda: job, crew.default_threads(store.backend.capabilities.parallel))
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


def _check_refs(repo: Repository, result: VerifyResult) -> set[str]:
    """Returns the commits that branches and tags name, as far as they can be read."""
    targets: list[refs.Ref] = []
    whole = views.Whole()
    blinds, parallel = sorted(repo.logs.ends()), repo.backend.capabilities.parallel
    # Either logs or entries of one are read at once.
    few = len(blinds) < parallel
    walks = ordered.each(
        blinds, lambda blind: _walk_twice(repo.logs, blind, parallel if few else 1), 1 if few else parallel
    )
    for blind, (sound, error) in zip(blinds, walks, strict=True):
        log = sound if error is None else repo.logs.readable(blind)
        if error is not None:
            name = log[-1].entry.name if log else blind[:12]
            result.problems.append(Problem("ref", name, str(error)))
        for ref in log:
            whole.add(ref)
        targets += log[-1:]
    _check_views(repo, whole, {ref.blind: (ref.entry.kind, ref.entry.name) for ref in targets}, result)
    stored = set(repo.graph.ids())
    for last in targets:
        target = last.entry.commit
        if target is not None and target not in stored:
            result.problems.append(Problem("ref", last.entry.name, f"points to the missing commit {target[:12]}"))
    return {last.entry.commit for last in targets if last.entry.commit is not None}


def _check_views(repo: Repository, whole: views.Whole, names: dict[str, tuple[str, str]], result: VerifyResult) -> None:
    """Logs that are not what entries of others tell of them: somebody cut them, or showed two to two writers."""
    for difference in views.worst(whole.differences(repo.logs, repo.accepted)):
        name = names[difference.blind][1] if difference.blind in names else difference.blind[:12]
        result.problems.append(Problem("ref", name, views.describe([difference], names)))


def _walk_twice(logs: refs.Refs, blind: str, parallel: int) -> tuple[list[refs.Ref], Exception | None]:
    """A sound log, or what is wrong. A listing made while somebody appends may have gaps: the second one counts."""
    failure: Exception | None = None
    for _ in range(2):
        try:
            return list(logs.walk(blind, parallel)), None
        except damage.UNREADABLE as error:
            failure = error
    return [], failure


def _commits(repo: Repository, result: VerifyResult, monitor: Monitor) -> list[commits.Commit]:
    """Every commit that can be read, reachable or not, but for those that a collection was about to remove."""
    readable = []
    going = gcrecords.Records(repo.backend, repo.seals).condemned(_Notes("gc", "gc", result, monitor)).commits
    stored = [commit_id for commit_id in repo.graph.ids() if commit_id not in going]
    repo.graph.read_ahead(stored)
    for commit_id in stored:
        try:
            readable.append(repo.graph.load(commit_id))
        except damage.UNREADABLE as error:
            result.problems.append(Problem("commit", commit_id, _reason(error)))
    children = {parent: commit.id for commit in readable for parent in commit.parents}
    missing = set(children).difference(stored)
    if missing:
        # A listing that is made while somebody commits may have the child only.
        missing.difference_update(repo.graph.ids())
    for parent in sorted(missing):
        detail = f"is missing (parent of {children[parent][:12]})"
        result.problems.append(Problem("commit", parent, detail))
    result.commits = len(readable)
    return readable


def _with_data(
    repo: Repository, found: list[commits.Commit], tips: set[str], result: VerifyResult
) -> list[commits.Commit]:
    """Those whose data has to be there.

    A forgotten commit has it for certain only where a name leads to it, and one that no name leads to only where
    nothing was ever collected: its writer may have stored it again meanwhile, as another one.
    """
    records = forgetting.Records(repo.backend, repo.seals)
    given_up = set()
    for commit_id in records.ids():
        try:
            records.read(commit_id)
        except damage.UNREADABLE as error:
            result.problems.append(Problem("forgotten", commit_id, _reason(error)))
        given_up.add(commit_id)
    _check_pins(repo, result)
    kept = [item for item in found if item.id in tips or item.id not in given_up]
    if not gcrecords.Records(repo.backend, repo.seals).epochs():
        return kept
    reached, todo = set[str](), list(tips)
    parents = {item.id: item.parents for item in found}
    while todo:
        if (commit_id := todo.pop()) not in reached:
            reached.add(commit_id)
            todo += parents.get(commit_id, ())
    return [item for item in kept if item.id in reached]


def _check_pins(repo: Repository, result: VerifyResult) -> None:
    found = pins.Pins(repo.backend, repo.seals)
    for pin_id in found.ids():
        try:
            found.read(pin_id)
        except errors.NotFound:  # its writer is done
            continue
        except damage.UNREADABLE as error:
            result.problems.append(Problem("pin", pin_id, _reason(error)))


def _promised(repo: Repository, result: VerifyResult) -> dict[str, str]:
    """The remotes that are to have the data of commits, by commit."""
    found = promises.Promises(repo.backend, repo.seals)
    remotes = {}
    for commit_id in sorted(found.ids()):
        remotes[commit_id] = ""
        try:
            remotes[commit_id] = found.read(commit_id).remote
        except errors.NotFound:  # it has just come true
            continue
        except damage.UNREADABLE as error:
            result.problems.append(Problem("promised", commit_id, _reason(error)))
    return remotes


def _check_disks(
    store: objects.Objects,
    bad: damage.Bad,
    found: tuple[list[commits.Commit], dict[str, str]],
    result: VerifyResult,
    monitor: Monitor,
) -> None:
    readable, promised = found
    monitor.start("verifying commits", len(readable), "commits")
    whole, partial = damage.Disks(store, bad), damage.Disks(store, bad, promised=True)
    for commit in readable:
        disks = partial if commit.id in promised else whole
        for item in commit.stored():
            result.problems += _check_disk(store, disks, f"{commit.id[:12]}:{item.name}", item)
        monitor.advance(1)
    some = [promised[commit.id] for commit in readable if commit.id in promised]
    if some:
        result.elsewhere = Absent(len(some), partial.absent, tuple(sorted(set(some) - {""})))


def _check_disk(store: objects.Objects, disks: damage.Disks, name: str, disk: commits.Stored) -> Iterator[Problem]:
    kind = "disk" if isinstance(disk, commits.Disk) else "attachment"
    try:
        source = tree.Tree(store, bytes.fromhex(disk.manifest))
    except damage.UNREADABLE as error:
        yield Problem(kind, name, str(error), (f"{name} 0+{disk.size}",))
        return
    if source.size != disk.size:
        yield Problem(kind, name, "has another size than its manifest")
    found = disks.examine(source)
    if found:
        affected = tuple(f"{name} {start}+{length}" for start, length in found.ranges)
        yield Problem(kind, name, "; ".join(sorted(found.reasons)), affected)
