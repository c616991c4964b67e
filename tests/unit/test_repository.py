"""Disks into commits and back, over a backend in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import keys
from vimgvc.disk import extents
from vimgvc.disk import memory as disk_memory
from vimgvc.model import geometry
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

MIB = 1 << 20
SIZES = [0, 1, 511, 512, 4095, 4096, 4097, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 12345]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_any_size_comes_back(size: int, threads: int) -> None:
    """A disk of any size is restored byte for byte, and its commit names that size."""
    repo = repos.create()
    data = repos.noise(size, size)
    result = repos.commit(repo, ("vm", data), threads=threads)
    assert result.commit.disk().size == size
    assert repos.restore(repos.reopen(repo), "vm") == data


@pytest.mark.parametrize("average", geometry.AVERAGES)
def test_random_edits_come_back(average: int, seed: int) -> None:
    """After each of many random edits (writes, zeros, growth, shrinking) every state so far is restored."""
    rng = np.random.default_rng(seed)
    repo = repos.create(average=average)
    data = bytearray(repos.text(seed, 6 * MIB + 777))
    states = []
    for _ in range(8):
        kind = rng.integers(4)
        at, length = int(rng.integers(len(data))), int(rng.integers(1, MIB))
        if kind == 0:
            data[at : at + length] = rng.bytes(len(data[at : at + length]))
        elif kind == 1:
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif kind == 2:
            data += rng.bytes(length)
        else:
            del data[max(at, MIB) :]
        repos.commit(repo, ("vm", bytes(data)), allow_empty=True)
        states.append(bytes(data))
    opened = repos.reopen(repo)
    for back, state in enumerate(reversed(states)):
        assert repos.restore(opened, f"vm~{back}") == state


def test_equal_content_has_equal_manifest(seed: int) -> None:
    """The manifest depends on the bytes alone: not on history, holes, threads or branch."""
    data = repos.noise(seed, 5 * MIB) + bytes(5 * MIB) + repos.noise(seed + 1, MIB)
    one, two = repos.create(), repos.create()
    first = repos.commit(one, ("vm", data))
    repos.commit(one, ("vm", data[:-MIB] + repos.noise(seed + 2, MIB)), branch="other", threads=1)
    again = repos.commit(one, ("vm", data), branch="other", threads=3)
    assert again.commit.disk().manifest == first.commit.disk().manifest
    kinds = [
        extents.Extent(0, 5 * MIB, extents.Kind.DATA),
        extents.Extent(5 * MIB, 5 * MIB, extents.Kind.HOLE),
        extents.Extent(10 * MIB, MIB, extents.Kind.DATA),
    ]
    sparse = ingest.Source("vm", disk_memory.MemoryDisk.of(data, kinds), {"format": "raw"})
    request = repository.CommitRequest("sparse", "", "", "")
    assert one.commit([sparse], request).commit.disk().manifest == first.commit.disk().manifest
    # Identifiers are keyed: nobody can tell from them that two repositories hold the same disk.
    assert repos.commit(two, ("vm", data)).commit.disk().manifest != first.commit.disk().manifest


def test_unchanged_disk_records_nothing() -> None:
    """A second commit of the same bytes names the first and puts nothing, unless empty commits are asked for."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    data = repos.noise(1, 3 * MIB)
    first = repos.commit(repo, ("vm", data))
    backend.calls.clear()
    second = repos.commit(repo, ("vm", data))
    assert not second.created
    assert second.commit == first.commit
    assert [call for call in backend.calls if call[0] == "put"] == []
    third = repos.commit(repo, ("vm", data), allow_empty=True)
    assert third.created
    assert third.commit.parents == (first.commit.id,)
    puts = [name.partition("/")[0] for kind, name in backend.calls if kind == "put"]
    assert puts == ["commits", "pins", "refs"]


def test_what_the_history_has_is_recorded_once() -> None:
    """With `once` the state of a snapshot is looked for in the history: by its name, or as a present state."""
    repo = repos.create()
    states = {name: disk_memory.MemoryDisk.of(name.encode() * 2000) for name in ("old", "new", "both")}

    def commit(
        content: str, snapshot: str | None, *, once: bool = False, allow_empty: bool = False
    ) -> repository.CommitResult:
        facts = {"format": "qcow2"} if snapshot is None else {"format": "qcow2", "snapshot": snapshot}
        request = repository.CommitRequest("vm", "", "", "", allow_empty=allow_empty, once=once)
        return repo.commit([ingest.Source("vm", states[content], facts)], request)

    first = commit("old", "a", once=True)
    second = commit("new", None)
    third = commit("both", "b", once=True)
    assert [first.created, second.created, third.created] == [True] * 3
    again = [commit("old", "a", once=True), commit("new", "c", once=True), commit("both", "b", once=True)]
    assert [(one.created, one.commit.id) for one in again] == [
        (False, first.commit.id),
        (False, second.commit.id),
        (False, third.commit.id),
    ]
    assert commit("old", "d", once=True).created  # another snapshot's state
    assert commit("new", "a", once=True).created is False
    assert commit("both", "a", once=True).created  # the name, but not the content
    assert commit("old", "a").created
    assert commit("new", "c", once=True, allow_empty=True).created


class _MostlyHole:
    """A Source of `size` bytes: data at the start, then one hole. Counts what is read."""

    def __init__(self, size: int, data: bytes) -> None:
        self.size, self._data, self.read = size, data, 0
        self.allocated_bytes = len(data)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self.read += len(buffer)
        buffer[:] = self._data[offset : offset + len(buffer)]

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        data = extents.Extent(0, len(self._data), extents.Kind.DATA)
        hole = extents.Extent(data.end, self.size - data.end, extents.Kind.HOLE)
        return extents.clip([data, hole], offset, length)

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_holes_are_not_read() -> None:
    """Only data extents are read from a disk; a hole costs neither reading nor storing."""
    disk = _MostlyHole(64 << 30, repos.noise(3, 100_000))
    request = repository.CommitRequest("big", "", "", "")
    facts = repos.create().commit([ingest.Source("big", disk, {})], request).commit.disk()
    assert (facts.size, facts.read_bytes, facts.allocated_bytes) == (64 << 30, 100_000, 100_000)
    assert disk.read == 100_000
    assert facts.stored_bytes < 103_000 + 2000


def test_equal_data_is_stored_once(seed: int) -> None:
    """The same window twice, on one disk, on two disks or in a later commit, is new only once."""
    block = repos.noise(seed, 4 * MIB)
    repo = repos.create()
    first = repos.commit(repo, ("a", block * 3), ("b", bytes(4 * MIB) + block)).commit
    assert [disk.new_bytes for disk in first.disks] == [4 * MIB, 0]
    later = repos.commit(repo, ("c", block + repos.noise(seed + 1, MIB)), branch="other").commit
    assert later.disk().new_bytes == MIB
    assert repos.restore(repo, "vm", "a") == block * 3
    assert repos.restore(repo, "vm", "b") == bytes(4 * MIB) + block


def test_counters_tell_the_change() -> None:
    """A change of one block is changed, new and stored in proportion; the rest is only read."""
    repo = repos.create()
    data = bytearray(repos.noise(7, 12 * MIB))
    repos.commit(repo, ("vm", bytes(data)))
    data[5 * MIB : 5 * MIB + 4096] = repos.noise(8, 4096)
    facts = repos.commit(repo, ("vm", bytes(data))).commit.disk()
    assert facts.read_bytes == 12 * MIB
    assert 4096 <= facts.new_bytes <= 2 * 262144
    assert facts.changed_bytes == facts.new_bytes
    assert facts.new_bytes <= facts.stored_bytes <= facts.new_bytes + 8192


def test_zeroed_data_is_a_change() -> None:
    """Data that becomes zeros counts as changed, is stored as nothing, and comes back as zeros."""
    repo = repos.create()
    data = repos.noise(9, 8 * MIB)
    repos.commit(repo, ("vm", data))
    facts = repos.commit(repo, ("vm", data[: 4 * MIB] + bytes(4 * MIB))).commit.disk()
    assert (facts.changed_bytes, facts.new_bytes) == (4 * MIB, 0)
    assert repos.restore(repo, "vm") == data[: 4 * MIB] + bytes(4 * MIB)


def test_commit_writes_in_order() -> None:
    """Packs are durable before the index names them, the index before the commit, the commit before the ref."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    backend.calls.clear()
    repos.commit(repo, ("vm", repos.noise(2, MIB)))
    writes = [(kind, name.partition("/")[0]) for kind, name in backend.calls if kind in ("put", "sync")]
    order = [area for kind, area in writes if kind == "put"]
    assert sorted(order, key=["packs", "index", "commits", "pins", "refs"].index) == order
    for before, after in [("packs", "index"), ("index", "commits"), ("commits", "pins"), ("commits", "refs")]:
        between = writes[_last(writes, before) : writes.index(("put", after))]
        assert ("sync", "") in between
    assert writes[-1] == ("sync", "")


def _last(writes: list[tuple[str, str]], area: str) -> int:
    return max(at for at, item in enumerate(writes) if item == ("put", area))


def test_log_reads_no_packs() -> None:
    """History is read from commits and ref logs alone."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    for step in range(5):
        repos.commit(repo, ("vm", repos.noise(step, 5000)))
    opened = repos.reopen(repo)
    backend.calls.clear()
    assert len(list(opened.history("vm"))) == 5
    assert {name.partition("/")[0] for _, name in backend.calls} <= {"refs", "commits"}
    assert sum(kind == "get" for kind, _ in backend.calls) == 6


def test_two_writers_of_one_branch() -> None:
    """Whoever publishes second is told so; its commit is stored, can be restored, and the branch is the first's."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"base"))
    before = repo.last_refs()
    winner = repos.commit(repo, ("vm", b"one")).commit
    loser = repo.graph.store(repo.resolve("vm~1").encode().replace(b"state of vm", b"the other"))
    with pytest.raises(errors.RefMoved) as caught:
        repo.logs.publish("branch", "vm", loser, before, time="2027-01-15T08:00:00Z", host="h")
    assert caught.value.commit == loser
    assert repo.branches() == {"vm": winner.id}
    assert repos.restore(repo, loser[:12]) == b"base"


def test_source_that_changed_is_not_committed() -> None:
    """When a Reader says that its disk changed while it was read, nothing is published."""

    class Changing(disk_memory.MemoryDisk):
        def check_unchanged(self) -> None:
            raise errors.VimgvcError("disk changed while it was read")

    repo = repos.create()
    source = ingest.Source("vm", Changing.of(b"x" * 9999), {"format": "raw"})
    with pytest.raises(errors.VimgvcError, match="changed while"):
        repo.commit([source], repository.CommitRequest("vm", "", "", ""))
    assert repo.branches() == {}


def test_failing_source_keeps_the_repository(seed: int) -> None:
    """A read error in the middle fails the commit with its own class; the next try works and stores less."""

    class Failing(disk_memory.MemoryDisk):
        def pread_into(self, offset: int, buffer: memoryview) -> None:
            if offset >= 48 * MIB:
                raise errors.BackendError("disk", "EIO", "bad sector")
            super().pread_into(offset, buffer)

    data = repos.noise(seed, 64 * MIB)
    repo = repos.create()
    request = repository.CommitRequest("vm", "", "", "")
    with pytest.raises(errors.BackendError, match="bad sector"):
        repo.commit([ingest.Source("vm", Failing.of(data), {"format": "raw"})], request)
    assert repo.branches() == {}
    retry = repos.commit(repos.reopen(repo), ("vm", data))
    assert retry.commit.disk().new_bytes < 40 * MIB, "the pack that was full before the failure is found again"
    assert repos.restore(repo, "vm") == data


def test_wrong_secret_and_root() -> None:
    """A repository opens with its secret or what was unlocked before, and with nothing else."""
    repo = repos.create()
    with pytest.raises(errors.NoKey):
        repository.Repository.open(repo.backend, [keys.Secret(keys.PASSPHRASE, b"wrong")])
    assert repository.Repository.open(repo.backend, unlocked=repo.unlocked).fingerprint == repo.fingerprint
    assert "root" not in repr(repo)
    assert repo.unlocked.root.hex() not in repr(repo)


def test_two_begin_a_repository_at_once() -> None:
    """Where nothing is locked the second one that makes a repository in a place fails, and leaves no key there."""
    place = memory.MemoryBackend()
    first = repos.create(place)
    slots = [item.name for item in place.list("keys")]
    with pytest.raises(errors.UsageError) as raised:
        repos.create(place)
    assert raised.value.hint
    assert sorted(item.name for item in place.list("keys")) == sorted(slots)
    assert repos.reopen(first).id == first.id
