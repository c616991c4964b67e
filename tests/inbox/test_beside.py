"""What else happens in a repository with deliveries: collections, repairs, copies, other places."""

from __future__ import annotations

import pathlib

import pytest

from tests import repos
from tests.inbox import hosts
from vimgvc import errors
from vimgvc.backends import local, memory
from vimgvc.codec import keys
from vimgvc.remote import admission, seeding
from vimgvc.repo import collect, inbox, repair, repository

DISK = repos.noise(1, 50_000) + bytes(70_000) + repos.text(2, 30_000)


def _collect(repo: repository.Repository) -> None:
    repo.collect(collect.Options(max_unused=0, force=True, host=hosts.HOST))


def test_collections_and_repairs_leave_deliveries_alone() -> None:
    """Collections and repairs, while a delivery waits, and after its admission: nothing of either is lost."""
    repo = repos.create()
    repos.commit(repo, ("vm", DISK))
    host = hosts.host(repo)
    for number in range(3):
        host.deliver(("db", DISK + bytes([number]) * 4096), message=f"number {number}")
        waiting = {name: blob for name, blob in hosts.content(repo.backend).items() if name.startswith("inbox/")}
        _collect(repo)
        repo.repair(repair.Options())
        assert {name: hosts.content(repo.backend)[name] for name in waiting} == waiting
        assert hosts.states(hosts.admit(repo)) == ["admitted"]
        _collect(repo)
        assert repos.restore(repo, "web1/db") == DISK + bytes([number]) * 4096
    assert repo.verify("data").problems == []
    assert [item.message for item in repo.history("web1/db")] == ["number 2", "number 1", "number 0"]


def test_what_an_admission_left_behind_is_collected() -> None:
    """What a refused delivery had stored before it was refused is what no commit needs, and gc removes it."""
    repo = repos.create()
    repos.commit(repo, ("vm", DISK))
    host = hosts.host(repo)
    sent = host.deliver(("a", repos.noise(5, 100_000)), ("b", repos.noise(6, 100_000)))
    packs = [item for item in repo.backend.list(f"inbox/{sent.id}") if "/packs-" in item.name]
    largest = max(packs, key=lambda item: item.size)
    blob = repo.backend.get(largest.name)
    repo.backend.delete(largest.name)
    repo.backend.put(largest.name, [blob[: len(blob) // 2] + b"x" * (len(blob) - len(blob) // 2)])
    before = repo.stats().pack_bytes
    assert hosts.states(hosts.admit(repo)) == ["refused"]
    _collect(repo)
    assert repo.stats().pack_bytes <= before
    assert repo.verify("data").problems == []
    assert repos.restore(repo, "vm") == DISK


def test_statistics_count_what_waits() -> None:
    """What waits is counted apart from what is stored."""
    repo = repos.create()
    assert (repo.stats().waiting, repo.stats().waiting_bytes) == (0, 0)
    sent = hosts.host(repo).deliver(("db", DISK))
    found = repo.stats()
    assert (found.waiting, found.commits) == (1, 0)
    assert found.waiting_bytes == sum(item.size for item in repo.backend.list(f"inbox/{sent.id}"))
    hosts.admit(repo)
    assert (repo.stats().waiting, repo.stats().waiting_bytes) == (0, 0)


def test_copies_have_the_slots_and_not_the_inbox() -> None:
    """A copy of the repository believes the same write keys; deliveries are where they were put."""
    repo, place = repos.create(), memory.MemoryBackend()
    host = hosts.host(repo)
    host.deliver(("db", DISK))
    seeding.seed(repo, place)
    there = repository.Repository.open(place, unlocked=repo.unlocked, clock=repo.clock)
    assert inbox.listed(place) == []
    hosts.Host(place, host.key).deliver(("db", DISK), message="to the copy")
    assert hosts.states(hosts.admit(there)) == ["admitted"]
    kit = repo.keyring.export_kit(repo.id)
    there.keyring.remove(host.key.slot)
    assert [info.type for info in there.keyring.import_kit(kit, repo.id)] == [keys.WRITE]
    hosts.Host(place, host.key).deliver(("db", DISK), message="again")
    assert hosts.states(hosts.admit(there)) == ["admitted"]


def test_an_older_directory(tmp_path: pathlib.Path) -> None:
    """A directory that was made before there were deliveries gets its inbox with the first one."""
    repo = repos.create(local.LocalBackend.create(tmp_path / "repository"))
    (tmp_path / "repository" / "inbox").rmdir()
    assert hosts.admit(repo) == []
    with pytest.raises(errors.NotFound):
        admission.discard(repo, "ab", host=hosts.HOST)
    hosts.host(repo).deliver(("db", DISK))
    assert hosts.states(hosts.admit(repo)) == ["admitted"]
    assert repos.restore(repo, "web1/db") == DISK
