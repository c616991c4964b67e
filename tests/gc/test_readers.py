"""Reading while a collection moves what is read (K6)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests.gc import hooked, past
from vimgvc import errors, monitor
from vimgvc.disk import memory
from vimgvc.model import commit as commits
from vimgvc.repo import collect, repository

#: Everything that can be is packed anew.
_ALL = collect.Options(force=True, threads=1, max_unused=0)

Read = Callable[[repository.Repository, commits.Commit], past.Disks]


@pytest.fixture(scope="module")
def original() -> past.Past:
    return past.build()


def _by_restoring(repo: repository.Repository, found: commits.Commit) -> past.Disks:
    return past.read(repo, found)


def _by_pieces(repo: repository.Repository, found: commits.Commit) -> past.Disks:
    """As an export or a server of network block devices reads: anywhere, a little at a time."""
    result = {}
    for item in found.stored():
        reader = repo.open_disk(item).reader(threads=1)
        buffer = bytearray(item.size)
        for at in range(0, item.size, 10_000):
            reader.pread_into(at, memoryview(buffer)[at : at + 10_000])
        result[item.name] = bytes(buffer)
    return result


@pytest.mark.parametrize("read", [_by_restoring, _by_pieces])
def test_k6_collected_while_it_is_read(original: past.Past, read: Read) -> None:
    """K6: whenever everything is packed anew, whoever reads goes on with what is there now, and has the right bytes."""
    for commit_id, disks in original.kept.items():

        def check(repo: repository.Repository, commit_id: str = commit_id, disks: past.Disks = disks) -> None:
            assert read(repo, repo.graph.load(commit_id)) == disks

        assert _at_every_call(original, check) > 8


def test_k6_collected_while_it_is_verified(original: past.Past) -> None:
    """K6: a collection at any moment of `verify` is no damage."""

    def check(repo: repository.Repository) -> None:
        assert repo.verify("data").problems == []

    assert _at_every_call(original, check) > 20


def test_k6_gone_for_good(original: past.Past) -> None:
    """K6: packs that are deleted, not moved, are an `IntegrityError`; the index is read once more, not again and again.

    `verify` tells of them as it does without a collection.
    """
    backend = hooked.Hooked(hooked.blobs(original))
    repo = original.open(backend)
    found = repo.graph.load(next(iter(original.kept)))
    disk = repo.open_disk(found.stored()[0])  # the root of its tree has been read
    for name in past.packs(backend):
        backend.delete(f"packs/{name[:2]}/{name}")
    backend.calls.clear()
    for _ in range(2):
        with pytest.raises(errors.IntegrityError):
            disk.reader(threads=1).pread_into(0, memoryview(bytearray(disk.size)))
        with pytest.raises(errors.IntegrityError):
            disk.restore(memory.MemoryDisk(disk.size), monitor.NullMonitor(), threads=1)
    assert backend.calls.count(("list", "index")) == 1
    assert repo.verify("data").problems != []


def _at_every_call(original: past.Past, check: Callable[[repository.Repository], None]) -> int:
    """Do `check` with a collection before each of its calls in turn; returns how many there are."""
    blobs, at = hooked.blobs(original), 0
    while True:
        backend = hooked.Hooked(blobs)
        repo = original.open(backend)
        done: list[collect.Collected] = []
        backend.let(functools.partial(_collect, original, backend, done, at))
        try:
            check(repo)
        except AssertionError as error:
            error.add_note(f"collected before call {at}")
            raise
        if not done:
            return at
        assert done[0].packs_deleted
        assert done[0].packs_written
        at += 1


def _collect(
    original: past.Past, backend: hooked.Hooked, done: list[collect.Collected], at: int, number: int, *_: str
) -> None:
    if number == at:
        done.append(original.open(backend).collect(_ALL, monitor.NullMonitor()))
