"""Files that are committed beside the disks."""

from __future__ import annotations

import dataclasses
import pathlib

import independent_reader
import pytest

from tests import repos
from tests.damage import damaged
from tests.suites import reader
from vimgvc import errors, monitor
from vimgvc.backends import local, memory
from vimgvc.cli import documents, render, text
from vimgvc.disk import memory as disk_memory
from vimgvc.model import commit
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

_OVF = b"<Envelope>" * 1000
Files = dict[str, bytes]


def _sources(files: Files) -> list[ingest.Source]:
    return [ingest.Source(name, disk_memory.MemoryDisk.of(data), {"format": "raw"}) for name, data in files.items()]


def _commit(repo: repository.Repository, disks: Files, attachments: Files) -> repository.CommitResult:
    request = repository.CommitRequest("vm", "message", "ann", "host")
    return repo.commit(_sources(disks), request, attachments=_sources(attachments))


def _restored(repo: repository.Repository, facts: commit.Stored) -> bytes:
    target = disk_memory.MemoryDisk(facts.size)
    repo.open_disk(facts).restore(target, monitor.NullMonitor())
    return target.content()


def test_attachments_come_back(seed: int, tmp_path: pathlib.Path) -> None:
    """Attachments are restored byte for byte, in their order, by both readers, and can be read anywhere."""
    repo = repos.create(local.LocalBackend.create(tmp_path / "repo"))
    files = {"z.ovf": _OVF, "a.mf": b"", "nvram": repos.noise(seed, 300_000)}
    made = _commit(repo, {"vm": repos.noise(seed + 1, 100_000)}, files).commit
    found = repos.reopen(repo).resolve("vm")
    assert found == made
    assert [item.name for item in found.attachments] == list(files)
    other = independent_reader.Repository(tmp_path / "repo", repos.SECRET.kind, repos.SECRET.value)
    for name, content in files.items():
        facts = found.attachment(name)
        assert facts.size == len(content)
        assert _restored(repo, facts) == content
        assert reader.read(repo.open_disk(facts).reader().pread_into, 0, len(content)) == content
        other.restore(other.resolve("vm"), name, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    assert [item.name for item in found.disks] == ["vm"]
    with pytest.raises(errors.NotFound, match="attachment not found: vm"):
        found.attachment("vm")


def test_change_of_an_attachment_makes_a_commit() -> None:
    """A commit is made when only an attachment changed, came or went, and none when nothing did."""
    repo = repos.create()
    disks = {"vm": b"disk"}
    assert _commit(repo, disks, {"a": b"one"}).created
    assert not _commit(repo, disks, {"a": b"one"}).created
    assert _commit(repo, disks, {"a": b"two"}).created
    assert _commit(repo, disks, {"a": b"two", "b": b""}).created
    assert _commit(repo, disks, {}).created
    assert not _commit(repo, disks, {}).created


def test_equal_attachments_are_stored_once(seed: int) -> None:
    """An attachment that was there before, or that equals a disk, takes no new data."""
    repo = repos.create()
    data = repos.noise(seed, 500_000)
    first = _commit(repo, {"vm": data}, {"same": data, "other": repos.noise(seed + 1, 10_000)}).commit
    second = _commit(repo, {"vm": data + b"more"}, {"same": data, "other": repos.noise(seed + 1, 10_000)}).commit
    assert first.attachment("same").new_bytes == 0
    assert first.attachment("same").manifest == first.disk().manifest
    assert [item.new_bytes for item in second.attachments] == [0, 0]
    assert second.attachments[0].manifest == first.attachments[0].manifest


@pytest.mark.parametrize(("disks", "attachments"), [(["a", "a"], []), (["a"], ["a"]), (["a"], ["b", "b"])])
def test_names_are_unique(disks: list[str], attachments: list[str]) -> None:
    """Nothing is recorded in which a name would mean two things."""
    repo = repos.create()
    request = repository.CommitRequest("vm", "", "", "")
    pairs = [[source for name in names for source in _sources({name: b"x"})] for names in (disks, attachments)]
    with pytest.raises(errors.UsageError, match="two disks or attachments would be called"):
        repo.commit(pairs[0], request, attachments=pairs[1])
    assert repo.branches() == {}


def test_damage_is_found(seed: int) -> None:
    """A damaged attachment is a problem of its commit, with its name and range, and restores to no wrong byte."""
    repo = repos.create()
    _commit(repo, {"vm": b"disk"}, {"nvram": repos.noise(seed, 400_000)})
    place = repo.backend
    assert isinstance(place, memory.MemoryBackend)
    largest = max(place.list("packs"), key=lambda item: item.size).name
    broken = damaged.open_repository(damaged.flip(place._blobs, largest, 200_000), repo.unlocked)
    found = broken.resolve("vm")
    problems = [problem for problem in broken.verify("data").problems if problem.kind == "attachment"]
    assert [problem.object for problem in problems] == [f"{found.id[:12]}:nvram"]
    assert all(told.startswith(f"{found.id[:12]}:nvram ") for problem in problems for told in problem.affected)
    with pytest.raises(errors.IntegrityError):
        _restored(broken, found.attachment("nvram"))
    assert repo.verify("data").problems == []


def test_statistics_count_them() -> None:
    """What attachments hold and cost is in the sums."""
    repo = repos.create()
    _commit(repo, {"vm": repos.noise(1, 8192)}, {"a": repos.noise(2, 4096), "b": bytes(100)})
    found = repo.stats()
    assert (found.logical_bytes, found.new_bytes, found.read_bytes) == (12388, 12288, 12388)
    assert found.disks == 1


def test_show_tells_them() -> None:
    """Text and JSON of a commit name its attachments with size and manifest; a hostile name is escaped."""
    facts = commit.Attachment("a\x1b[31m.ovf", 5, "ab" * 32, 5, 4096, 77)
    made = commit.Commit("cd" * 32, (), "vm", "m", "ann", "h", "2026-01-02T03:04:05Z", (), (facts,))
    shown = "\n".join(render.show(made, [], text.Style()))
    assert "attachment a\\x1b[31m.ovf" in shown
    assert facts.manifest in shown
    assert documents.commit_facts(made)["attachments"] == [dataclasses.asdict(facts)]
