"""Rows of the catalogue of faults that are about collecting: D9, D10, D13, K3, K5, K10."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from tests import repos
from tests.crash import commits as crash_commits
from tests.crash import recorder
from tests.gc import hooked, past
from vimgvc import errors
from vimgvc.backends import local, memory, protocol
from vimgvc.repo import collect, gcrecords, repository

_ROOT = pathlib.Path(__file__).parents[2]
MIB = 1 << 20


@pytest.fixture(scope="module")
def original() -> past.Past:
    return past.build()


def moved(original: past.Past, backend: protocol.Backend) -> past.Past:
    return past.Past(backend, original.unlocked, dict(original.kept), list(original.gone))


def _full(name: str) -> errors.NoSpace:
    return errors.NoSpace(f"{name}: No space left on device")


# -- D9, D10 -----------------------------------------------------------------------------------------


def test_d9_nothing_is_removed_before_all_is_durable() -> None:
    """D9: new packs, then their index objects, then the two records are durable before the first file is removed."""
    recording = recorder.RecordingFiles(crash_commits.start())
    backend = local.LocalBackend.create(crash_commits.ROOT, recording)
    place = past.build(backend)
    start = len(recording.log)
    place.open().collect(past.FORCE)
    log = recording.log[start:]
    linked: list[tuple[int, str]] = [(at, op.target) for at, op in enumerate(log) if op.kind == "link"]
    removed = [at for at, op in enumerate(log) if op.kind == "unlink" and not re.search("/[.]tmp-|-reserve$", op.path)]
    kinds = [re.sub(rf"{crash_commits.ROOT}/(\w+)/.*?(-\w+)?$", r"\1\2", path) for _, path in linked]
    assert kinds.index("gc-reserve") == max(at for at, kind in enumerate(kinds) if kind in ("packs", "index")) + 1
    assert kinds[-4:] == ["gc-reserve", "gc-condemn", "gc-sweep", "gc-done"]
    for at, path in linked[:-1]:
        synced = [
            later for later, op in enumerate(log) if op.kind == "fsync_dir" and op.path == path.rpartition("/")[0]
        ]
        assert any(at < one < removed[0] for one in synced), path
    assert linked[-1][0] > removed[0]


@pytest.mark.parametrize("kind", ["packs", "index", "condemn", "sweep"])
def test_d9_full_at_each_step(original: past.Past, kind: str) -> None:
    """D9: whatever it is that cannot be written, no commit loses anything, and the next collection does all of it."""
    content = hooked.blobs(original)

    def refuse(operation: str, name: str) -> bool:
        return operation == "put" and (name.startswith(f"{kind}/") or name.endswith(kind))

    place = moved(original, hooked.Failing(content, refuse, _full))
    told = repos.Collector()
    try:
        done = place.open().collect(past.FORCE, told)
    except errors.NoSpace:
        assert kind in ("condemn", "sweep")
    else:
        assert not done.complete
        assert done.freed_bytes > 50_000
    past.check(place, healthy=kind != "index")
    place.backend = memory.MemoryBackend()
    place.backend._blobs = dict(content)
    assert place.open().collect(past.FORCE).complete
    past.check(place)


def test_d10_a_full_disk_can_be_collected(original: past.Past) -> None:
    """D10: with room for little more than the records, what no commit needs at all goes, and the rest the next time."""
    backend = hooked.Room(hooked.blobs(original), 8 << 10, _full)
    place = moved(original, backend)
    before = sum(past.content(backend).values())
    told = repos.Collector()
    done = place.open().collect(past.FORCE, told)
    assert not done.complete
    assert done.freed_bytes > 50_000
    assert before - sum(past.content(backend).values()) == done.freed_bytes
    assert len(told.notes) == 1
    past.check(place)
    backend.free = MIB
    assert place.open().collect(past.FORCE).complete
    past.check(place)


def test_d10_every_amount_of_room(original: past.Past) -> None:
    """D10: however much room there is, no commit loses anything; from 8 KiB on space is won."""
    for free in [0, 300, 600, 1200, 2400, 5000, *range(8 << 10, 300 << 10, 37 << 10)]:
        place = moved(original, hooked.Room(hooked.blobs(original), free, _full))
        freed = 0
        try:
            freed = place.open().collect(past.FORCE).freed_bytes
        except errors.NoSpace:
            assert free < 8 << 10
        past.check(place, healthy=free >= 8 << 10)
        assert freed > 50_000 or free < 8 << 10


class _Measured(hooked.Room):
    """Notes how much was taken at most up to the last blob of each kind."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(content, 1 << 40, _full)
        self.edges: dict[str, int] = {}

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        stored = super().put(name, parts)
        kind = name.partition("-")[2] or name.partition("/")[0]
        self.edges[kind] = max((1 << 40) - self.free, *self.edges.values(), 0)
        return stored


def test_d10_room_for_all_but_the_last_byte(original: past.Past) -> None:
    """D10: whatever it is that does not fit by a byte, and stays when room was taken for nothing, space is won."""
    measured = _Measured(hooked.blobs(original))
    assert moved(original, measured).open().collect(past.FORCE).complete
    assert [*measured.edges] == ["begin", "packs", "index", "reserve", "condemn", "sweep", "done"]
    assert measured.edges["sweep"] == measured.edges["condemn"]
    for kind in ["packs", "index", "reserve", "condemn"]:
        place = moved(original, hooked.Room(hooked.blobs(original), measured.edges[kind] - 1, _full))
        done = place.open().collect(past.FORCE)
        assert not done.complete, kind
        assert done.freed_bytes > 50_000, kind
        past.check(place)


# -- D13 ---------------------------------------------------------------------------------------------

_LARGE = """
import pathlib, re
import numpy as np
from tests import repos
from tests.gc import past
from vimgvc.codec import segment
from vimgvc.model import commit, manifest, reflog
from vimgvc.pipeline import tree
from vimgvc.store import reindex, writer

SIZE = 10 << 40
LEAVES = 40_000

class Nodes:
    def __init__(self, repo):
        self.seals, self.out = repo.seals, writer.Writer(repo.backend, repo.seals, reindex.empty_index())
        self.sealer = repo.seals.sealer(level=1, verify=False, capacity=1 << 20)
        self.waiting, self.ids = [], []

    def put(self, node):
        self.waiting.append(node)
        self.ids.append(self.seals.node_id(node))
        if len(self.waiting) == 100:
            self.flush()
        return self.seals.node_id(node)

    def flush(self):
        plain, ids = b"".join(self.waiting), b"".join(self.ids)
        shape, stored = self.sealer.seal(segment.TREE, bytearray(plain), len(plain), ids)
        self.out.add(shape, stored, ids, [len(one) for one in self.waiting])
        self.waiting, self.ids = [], []

repo = repos.create()
small = repos.commit(repo, ("vm", b"x" * 4096)).commit
store = repo.objects(repos.Collector())
top = manifest.decode_root(store.nodes([bytes.fromhex(small.disks[0].manifest)])[0]).top
leaf = manifest.decode_leaf(store.nodes([top])[0], 1)
nodes = Nodes(repo)
builder = tree.Builder(SIZE, nodes.put)
for number in range(LEAVES):
    first, second = 1 + number % 500, 1 + number // 500
    runs = ((first, True), (1, False), (second, True), (1, False), (1022 - first - second, True))
    node = manifest.Leaf(runs, 2 * leaf.ids).encode()
    builder.add(number * (SIZE // (4 << 20) // LEAVES), nodes.put(node))
root = builder.finish()
nodes.flush()
nodes.out.finish()
disk = commit.Disk("vm", SIZE, root.hex(), {}, 0, 0, 0, 0, 0)
wide = commit.Commit("", (), "wide", "", "", "", "2027-01-15T08:00:00Z", (disk,))
past.point(repo, reflog.BRANCH, "wide", repo.graph.store(wide.encode()))
before = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
pathlib.Path("/proc/self/clear_refs").write_text("5")
repo.collect(past.FORCE)
assert repo.verify("quick").problems == []
print(int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
def test_d13_a_manifest_of_10_tib() -> None:
    """D13: a disk of 10 TiB whose data is spread all over it is marked in 512 MiB, repository in memory included."""
    done = subprocess.run(
        [sys.executable, "-c", _LARGE],
        cwd=_ROOT,
        env={"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 512


# -- K3, K5, K10 -------------------------------------------------------------------------------------


def test_k3_a_writer_keeps_the_collector_away(tmp_path: pathlib.Path) -> None:
    """K3: while a commit is being made nothing is collected, and the other way round; both are told at once."""
    place = past.build(local.LocalBackend.create(tmp_path / "repo"))
    repo, other = place.open(), place.open(local.LocalBackend(tmp_path / "repo"))
    with repo.writing(), pytest.raises(errors.Busy):
        other.collect(past.FORCE)
    with repo.backend.lock_exclusive(), pytest.raises(errors.Busy):
        past.commit(other, {"vm": b"x" * 5000}, "vm")
    with repo.writing():
        assert other.collect(collect.Options(dry_run=True)).freed_bytes > 0
    other.collect(past.FORCE)
    past.check(place)


def test_k5_the_number_is_taken_once(original: past.Past) -> None:
    """K5: of two collectors that come to the same number one is told that it came second, and has removed nothing."""
    content = hooked.blobs(original)
    place = moved(original, memory.MemoryBackend())

    def take(_: int, operation: str, name: str) -> None:
        if operation == "put" and name.endswith("-condemn") and name not in place.backend._blobs:  # type: ignore[attr-defined]
            place.backend.put(name, [b"of another one"])

    place.backend = hooked.Hooked(content, take)
    with pytest.raises(errors.Busy) as caught:
        place.open().collect(past.FORCE)
    assert caught.value.exit_code == 11
    assert set(content) - {"config"} <= set(past.stored(place.backend))
    past.check(place, healthy=False)


_HOLD = """
import sys, time
from vimgvc.backends import local
import pathlib
with local.LocalBackend(pathlib.Path(sys.argv[1])).lock_shared():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a writer."""
    past.build(local.LocalBackend.create(tmp_path / "repo"))
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "repo")],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_k10_a_writer_that_died_holds_nothing(tmp_path: pathlib.Path, holder: subprocess.Popen[str]) -> None:
    """K10: the lock of a killed writer is gone with it; its temporary files go when they are a week old."""
    backend = local.LocalBackend(tmp_path / "repo")
    with pytest.raises(errors.Busy):
        backend.lock_exclusive().__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    left = tmp_path / "repo" / "packs" / "00" / ".tmp-0123456789abcdef"
    left.write_bytes(b"half a pack")
    young = tmp_path / "repo" / "index" / ".tmp-0123456789abcdef"
    young.write_bytes(b"of somebody who is at it")
    os.utime(left, (1_790_000_000, 1_790_000_000))
    os.utime(young, (1_800_000_000, 1_800_000_000))
    repo = repository.Repository.open(backend, [repos.SECRET], clock=lambda: 1_800_001_000.0)
    assert repo.collect(past.FORCE).temporaries == 1
    assert (left.exists(), young.exists()) == (False, True)
    assert repo.verify("data").problems == []


class _NoLocks(local.LocalBackend):
    """A directory on a file system without locks."""

    def _take_lock(self, *, exclusive: bool) -> int:
        raise OSError(errno.ENOLCK, "No locks available")


def test_d19_a_directory_without_locks(tmp_path: pathlib.Path) -> None:
    """D19: it can be written and collected; a collection that was interrupted has to be taken over."""
    place = past.build(local.LocalBackend.create(tmp_path / "repo"))
    place.backend = _NoLocks(tmp_path / "repo")
    repo = place.open()
    records = gcrecords.Records(place.backend, repo.seals)
    records.put(gcrecords.Record(1, gcrecords.BEGIN, "2027-01-15T08:00:00Z", "elsewhere"))
    with pytest.raises(errors.Busy, match="by elsewhere since 2027-01-15T08:00:00Z"):
        repo.collect(past.FORCE)
    assert repo.collect(dataclasses.replace(past.FORCE, take_over=True)).freed_bytes > 100_000
    with repo.writing():
        assert repo.collect(past.FORCE).epoch is None
    past.check(place)


@pytest.mark.parametrize("known", [True, False])
def test_n24_nothing_may_be_deleted(original: past.Past, known: bool) -> None:
    """N24: gc says so before it changes anything, whether the place knows or finds out; all else works."""
    place = moved(original, _AppendOnly(hooked.blobs(original), known=known))
    repo = place.open()
    before = past.stored(place.backend)
    with pytest.raises(errors.RemoteError, match="right to delete") as caught:
        repo.collect(past.FORCE)
    assert caught.value.exit_code == 25
    assert past.stored(place.backend) == before
    made = past.commit(repo, {"vm": b"new" * 5000}, "vm")
    place.kept[made.id] = {"vm": b"new" * 5000}
    past.check(place)


class _AppendOnly(memory.MemoryBackend):
    """A place with credentials that may not delete; `known`: it says so."""

    def __init__(self, content: dict[str, bytes], *, known: bool) -> None:
        super().__init__(locks=False)
        self._blobs, self._known = dict(content), known

    @property
    def capabilities(self) -> protocol.Capabilities:
        return dataclasses.replace(super().capabilities, removes=not self._known)

    def delete(self, name: str) -> None:
        raise errors.RemoteError(self.url, "denied", "access denied")
