"""Promises of a commit and a restore that only a rare moment or a forger puts to the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from tests import repos
from vimgvc import errors, monitor
from vimgvc.backends import memory, protocol
from vimgvc.codec import segment
from vimgvc.disk import extents
from vimgvc.disk import memory as disk_memory
from vimgvc.model import commit as commits
from vimgvc.model import geometry, manifest
from vimgvc.pipeline import ingest, materialize, tree
from vimgvc.repo import repository
from vimgvc.store import catalog, pack, writer

KIB, MIB = 1 << 10, 1 << 20


class _Watched(memory.MemoryBackend):
    """Does something whenever a blob is put."""

    def __init__(self) -> None:
        super().__init__()
        self.on_put: Callable[[str], None] = lambda _: None

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        self.on_put(name)
        return super().put(name, parts)


@pytest.mark.parametrize("loss", ["gone", "cut"])
def test_pack_that_vanishes_while_it_is_relied_on(loss: str, seed: int) -> None:
    """When a pack that the new commit uses again is lost meanwhile, nothing is published."""
    place = _Watched()
    repo = repos.create(place)
    data = repos.noise(seed, MIB)
    repos.commit(repo, ("vm", data))
    old = [name for name in place._blobs if name.startswith("packs")]

    def lose(name: str) -> None:
        if name.startswith("packs"):
            for gone in old:
                blob = place._blobs.pop(gone, b"")
                if loss == "cut":
                    place._blobs[gone] = blob[:-1]

    place.on_put = lose
    with pytest.raises(errors.NotFound if loss == "gone" else errors.IntegrityError):
        repos.commit(repo, ("other", data + repos.noise(seed + 1, MIB)), branch="other")
    assert list(repo.branches()) == ["vm"]


def _segments(repo: repository.Repository, out: writer.Writer, count: int, seed: int) -> None:
    sealer = repo.seals.sealer(level=1, verify=False, capacity=256 * KIB)
    for number in range(count):
        data = repos.noise(seed + number, 256 * KIB)
        chunk = repo.seals.chunk_id(data)
        assert out.claim([chunk]) == [0]
        shape, stored = sealer.seal(segment.DATA, bytearray(data), len(data), chunk)
        out.add(shape, stored, chunk, [len(data)])


def test_long_commit_saves_what_it_has(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Index objects follow while packs still come, each after a barrier; what is stored is no longer remembered."""
    monkeypatch.setattr(writer, "INDEX_ENTRIES", 8)
    monkeypatch.setattr(pack, "TARGET_SIZE", MIB)
    repo = repos.create()
    assert isinstance(repo.backend, memory.MemoryBackend)
    found = catalog.open_catalog(repo.backend, repo.seals, None, repos.Collector())
    repo.backend.calls.clear()
    out = writer.Writer(repo.backend, repo.seals, found.index)
    _segments(repo, out, 20, seed)
    out.finish()
    areas = [name.partition("/")[0] or kind for kind, name in repo.backend.calls if kind in ("put", "sync")]
    assert areas == [
        "packs",
        "packs",
        "sync",
        "index",
        "packs",
        "packs",
        "sync",
        "index",
        "packs",
        "sync",
        "index",
        "sync",
    ]
    assert out._claimed == set()


def test_renamed_disk_is_a_change() -> None:
    """The same bytes under another name, or two disks that trade names, are a new commit."""
    repo = repos.create()
    one, two = b"one" * 5000, b"two" * 5000
    assert repos.commit(repo, ("a", one), ("b", two)).created
    assert not repos.commit(repo, ("a", one), ("b", two)).created
    assert repos.commit(repo, ("b", one), ("a", two)).created
    assert repos.commit(repo, ("c", one), ("a", two)).created


def _forged(repo: repository.Repository, claimed: Sequence[bytes], real: Sequence[bytes]) -> commits.Commit:
    """A commit of a disk with the chunks `claimed`, in whose places a holder of the key put the chunks `real`."""
    found = catalog.open_catalog(repo.backend, repo.seals, None, repos.Collector())
    out = writer.Writer(repo.backend, repo.seals, found.index)
    ids = [repo.seals.chunk_id(chunk) for chunk in claimed]
    plain = bytearray(b"".join(real))
    sealer = repo.seals.sealer(level=3, verify=True, capacity=len(plain))
    shape, stored = sealer.seal(segment.DATA, plain, len(plain), b"".join(ids))
    assert out.claim(ids) == list(range(len(ids)))
    out.add(shape, stored, b"".join(ids), [len(chunk) for chunk in real])
    runs = tuple((len(chunk) // geometry.BLOCK, False) for chunk in claimed)
    size = sum(map(len, claimed))

    def put(node: bytes) -> bytes:
        node_id = repo.seals.node_id(node)
        shape, stored = sealer.seal(segment.TREE, bytearray(node), len(node), node_id)
        out.add(shape, stored, node_id, [len(node)])
        return node_id

    builder = tree.Builder(size, put)
    builder.add(0, put(manifest.Leaf(runs, b"".join(ids)).encode()))
    root = builder.finish()
    out.finish()
    disk = commits.Disk("vm", size, root.hex(), {"format": "raw"}, 0, 0, 0, 0, 0)
    draft = commits.Commit("", (), "vm", "", "", "", "2027-01-15T08:00:00Z", (disk,))
    return repo.graph.load(repo.graph.store(draft.encode()))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 1, 1)])
def test_r24_slots_that_are_not_what_they_say(order: tuple[int, ...], seed: int) -> None:
    """A sealed segment whose slots hold other bytes than their identifiers say gives not one wrong byte."""
    repo = repos.create()
    chunks = [repos.noise(seed + number, 8192) for number in range(3)]
    made = _forged(repo, chunks, [chunks[number] for number in order])
    target = disk_memory.MemoryDisk(3 * 8192)
    with pytest.raises(errors.IntegrityError):
        repos.reopen(repo).open_disk(made.disk()).restore(target, monitor.NullMonitor())
    for number, chunk in enumerate(chunks):
        assert target.content()[number * 8192 :][:8192] in (chunk, bytes(8192))
    assert repos.reopen(repo).verify("data").problems


def test_slots_as_they_should_be(seed: int) -> None:
    """The forger of the test before, when honest, makes a disk that restores and verifies."""
    repo = repos.create()
    chunks = [repos.noise(seed + number, 8192) for number in range(3)]
    made = _forged(repo, chunks, chunks)
    assert repos.restore(repos.reopen(repo), made.id) == b"".join(chunks)
    assert repos.reopen(repo).verify("data").problems == []


class _Resumed(disk_memory.MemoryDisk):
    """A target that an earlier attempt filled; counts what is written."""

    written = 0

    @classmethod
    def holding(cls, content: bytes) -> _Resumed:
        disk = cls(len(content))
        disk._bytes[:] = content
        return disk

    @property
    def resumed(self) -> bool:
        return True

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.written += len(data)
        super().pwrite(offset, data)


def _resume(repo: repository.Repository, target: _Resumed) -> None:
    repo.open_disk(repo.resolve("vm").disk()).restore(target, monitor.NullMonitor())


def test_resumed_restore_keeps_nothing_that_is_wrong(seed: int) -> None:
    """Over any old content a resumed restore gives the disk, gaps and ends included; over itself it writes nothing."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    gap = bytes(700 * KIB)
    data = gap + repos.noise(seed, 600 * KIB) + gap + repos.noise(seed + 1, 5 * MIB + 77) + gap + b"end" * 1000 + gap
    for content in (data, data[:-300_000]):
        repos.commit(repo, ("vm", content))
        for old in (rng.bytes(len(content)), bytes(len(content)), content):
            target = _Resumed.holding(old)
            _resume(repo, target)
            assert target.content() == content
            assert (target.written == 0) == (old == content)
        damaged = bytearray(content)
        for at in (0, len(gap) + 5, len(content) - 1):
            damaged[at] ^= 1
        target = _Resumed.holding(bytes(damaged))
        _resume(repo, target)
        assert target.content() == content
    repo2 = repos.create()
    content = repos.noise(seed, 400 * KIB + 77)
    repos.commit(repo2, ("vm", content))
    target = _Resumed.holding(content)
    _resume(repo2, target)
    assert target.written == 0, "the last block is compared with its padding"


def test_neighbours_in_a_segment_far_apart_on_disk(seed: int) -> None:
    """Chunks that lie side by side in their pack, but not on the disk, go where they belong."""
    repo = repos.create()
    one, two = repos.noise(seed, 64 * KIB), repos.noise(seed + 1, 64 * KIB)
    data = one + bytes(64 * KIB) + two + bytes(5 * MIB) + one + two + one + bytes(4096) + two[: 20 * KIB]
    repos.commit(repo, ("vm", data))
    assert repos.restore(repo, "vm") == data


def test_dirty_buffers_do_not_leak_into_windows(seed: int) -> None:
    """What a worker read before never shows in gaps between extents, at the start or the end of a later window."""
    size = 12 * MIB + 1234
    content = bytearray(repos.noise(seed, size))
    data = extents.Kind.DATA
    kinds: list[extents.Extent] = []
    at = 0
    for start, length in [
        (0, 4 * MIB),
        (5 * MIB, 1000),
        (5 * MIB + 9000, 70_000),
        (8 * MIB + 4096, 500),
        (size - 9, 9),
    ]:
        if start > at:
            content[at:start] = bytes(start - at)
            kinds.append(extents.Extent(at, start - at, extents.Kind.HOLE))
        kinds.append(extents.Extent(start, length, data))
        at = start + length
    repo = repos.create()
    source = ingest.Source("vm", disk_memory.MemoryDisk.of(bytes(content), kinds), {})
    request = repository.CommitRequest("vm", "", "", "")
    repo.commit([source], request, repository.Effort(threads=1))
    assert repos.restore(repo, "vm") == content


@pytest.mark.parametrize("windows", [1, 2, 63, 64, 65, 4095, 4096, 4097])
def test_trees_of_every_height(windows: int) -> None:
    """A disk with data in its first and last window only comes back at sizes around every power of the fanout."""

    class Sparse(disk_memory.MemoryDisk):
        size = windows * geometry.WINDOW - 5

        def __init__(self) -> None:
            super().__init__(0)

        def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
            ends = [extents.Extent(0, 4096, extents.Kind.DATA), extents.Extent(self.size - 9, 9, extents.Kind.DATA)]
            return extents.cover(ends, offset, length, extents.Kind.HOLE)

        def pread_into(self, offset: int, buffer: memoryview) -> None:
            buffer[:] = bytes([1 + (offset > 0)]) * len(buffer)

    repo = repos.create()
    made = repo.commit([ingest.Source("vm", Sparse(), {})], repository.CommitRequest("vm", "", "", "")).commit
    found = tree.Tree(repo.objects(repos.Collector()), bytes.fromhex(made.disk().manifest))
    assert sorted({window.number for window in found.windows()}) == sorted({0, windows - 1})
    [span] = list(materialize.references(found))
    last = (Sparse.size - 9) // 4096 * 4096
    assert span.offsets.tolist() == [0, last]
    assert [window.number for window in found.windows(1)] == [windows - 1] * (windows > 1)
    assert [window.number for window in found.windows(0, windows - 1)] == [0] * (windows > 1)
    store = repo.objects(repos.Collector())
    assert store.chunk(span.ids[0].tobytes()) == b"\1" * 4096
    assert (store.chunk(span.ids[1].tobytes()) or b"").strip(b"\0") == b"\2" * 9
    assert repo.verify("data").problems == []


@pytest.mark.parametrize("at", [0, 5 * MIB, 8 * MIB - 4096])
def test_zeros_that_become_data(at: int, seed: int) -> None:
    """One byte written where the parent has zeros is in the next commit, though no chunk of the parent changed."""
    repo = repos.create()
    data = bytearray(bytes(MIB) + repos.noise(seed, 3 * MIB) + bytes(2 * MIB) + repos.noise(seed + 1, MIB) + bytes(MIB))
    repos.commit(repo, ("vm", bytes(data)))
    data[at + 4095] = 7
    made = repos.commit(repo, ("vm", bytes(data)))
    assert made.created
    assert made.commit.disk().changed_bytes >= 4096
    assert repos.restore(repo, "vm") == data


def test_windows_that_are_done_out_of_order(seed: int) -> None:
    """A window that takes longer than the 150 after it ends up in its place."""

    class Slow(disk_memory.MemoryDisk):
        size = 150 * geometry.WINDOW
        last = threading.Event()

        def __init__(self) -> None:
            super().__init__(0)

        def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
            starts = range(0, self.size, geometry.WINDOW)
            data = [extents.Extent(start, 4096, extents.Kind.DATA) for start in starts]
            return extents.cover(data, offset, length, extents.Kind.HOLE)

        def pread_into(self, offset: int, buffer: memoryview) -> None:
            number = offset // geometry.WINDOW
            if number == 0:
                self.last.wait()
            buffer[:] = repos.noise(seed + number, 4096)
            if number == 149:
                self.last.set()

    repo = repos.create()
    request = repository.CommitRequest("vm", "", "", "")
    made = repo.commit([ingest.Source("vm", Slow(), {})], request, repository.Effort(threads=2)).commit
    found = tree.Tree(repo.objects(repos.Collector()), bytes.fromhex(made.disk().manifest))
    [span] = list(materialize.references(found))
    assert span.offsets.tolist() == list(range(0, Slow.size, geometry.WINDOW))
    wanted = [repo.seals.chunk_id(repos.noise(seed + number, 4096)) for number in range(150)]
    assert [item.tobytes() for item in span.ids] == wanted


def test_data_that_becomes_a_hole_is_a_change(seed: int) -> None:
    """Windows of the parent that are holes now count as changed, before, between and behind what still has data."""
    data = repos.noise(seed, 12 * MIB)
    for first, last in [(0, 4), (4, 8), (8, 12), (4, 12)]:
        repo = repos.create()
        repos.commit(repo, ("vm", data))
        content = data[: first * MIB] + bytes((last - first) * MIB) + data[last * MIB :]
        kinds = [
            extents.Extent(0, first * MIB, extents.Kind.DATA),
            extents.Extent(first * MIB, (last - first) * MIB, extents.Kind.HOLE),
            extents.Extent(last * MIB, (12 - last) * MIB, extents.Kind.DATA),
        ]
        disk = disk_memory.MemoryDisk.of(content, [kind for kind in kinds if kind.length])
        made = repo.commit([ingest.Source("vm", disk, {})], repository.CommitRequest("vm", "", "", "")).commit
        facts = made.disk()
        assert (facts.changed_bytes, facts.new_bytes) == ((last - first) * MIB, 0)
        assert facts.read_bytes == (12 - last + first) * MIB
        assert repos.restore(repo, "vm") == content
