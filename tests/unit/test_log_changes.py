"""What the commits of a history changed: with forgotten ones and damage between them."""

from __future__ import annotations

import itertools

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.commands import blame, diff, images, log, log_changes
from vimgvc.model import geometry
from vimgvc.repo import repository

WINDOW = geometry.WINDOW


def _history(repo: repository.Repository, count: int) -> list[str]:
    """Commits of a disk of `count` windows that each fill one more."""
    content = bytearray(count * WINDOW)
    found = []
    for at in range(count):
        content[at * WINDOW : (at + 1) * WINDOW] = repos.noise(at, WINDOW)
        found.append(repos.commit(repo, ("vm", bytes(content))).commit.id)
    return found


def _log(repo: repository.Repository, progress: repos.Collector | None = None) -> log.History:
    return log.run(repo, "vm", None, progress)


def test_what_is_forgotten_is_counted_where_it_shows() -> None:
    """The commit after forgotten ones changed what they changed too: in the numbers, in ranges and for blame."""
    repo = repos.create()
    ids = _history(repo, 5)
    repo.forget(ids[1:3], "not wanted")
    progress = repos.Collector()
    shown = _log(repo)
    stats = log_changes.Stats(repo, shown, progress)
    told = {commit.id: [one.changed_bytes // WINDOW for one in stats.of(commit)] for commit in shown.commits}
    assert told == {ids[4]: [1], ids[3]: [3], ids[0]: [1]}
    for at, owner in enumerate([ids[0], ids[3], ids[3], ids[3], ids[4]]):
        part = log_changes.Part("vm", at * WINDOW, (at + 1) * WINDOW)
        touching = log_changes.touching(repo, _log(repo), part, None, progress)
        assert {commit.id for commit in touching.commits} == {owner, ids[0]}
    found = blame.run(repo, "vm", 0, None, progress)
    owners = [part.commit.id for part in found.parts if part.commit]
    assert [key for key, _ in itertools.groupby(owners)] == [ids[0], ids[3], ids[4]]
    assert sum(count for _, count in found.by_commit()) == 5 * WINDOW
    assert not progress.problems


def test_what_cannot_be_compared_is_shown() -> None:
    """Commits whose manifests are lost are told of; none is left out for that."""
    repo = repos.create()
    ids = _history(repo, 3)
    for item in list(repo.backend.list("packs")):
        repo.backend.delete(item.name)
    progress = repos.Collector()
    part = log_changes.Part("vm", 0, 1)
    found = log_changes.touching(repo, _log(repo), part, None, progress)
    assert [commit.id for commit in found.commits] == ids[::-1]
    assert len(progress.problems) >= 3
    assert log_changes.Stats(repo, _log(repo), progress).of(repo.graph.load(ids[2])) == []


def test_only_the_range_is_looked_at() -> None:
    """The limit counts what is shown, and a range that nothing wrote is touched by the first commit alone."""
    repo = repos.create()
    ids = _history(repo, 4)
    part = log_changes.Part("vm", 0, None)
    found = log_changes.touching(repo, _log(repo), part, 2, repos.Collector())
    assert [commit.id for commit in found.commits] == ids[:1:-1]
    assert log_changes.part_of(repo, "vm", None) == ("vm", None)
    assert log_changes.part_of(repo, "vm:vm", (1, 2)) == ("vm", log_changes.Part("vm", 1, 2))
    with pytest.raises(errors.NotFound):
        log_changes.part_of(repo, "vm:other", None)


def test_partitions_that_cannot_be_read() -> None:
    """A difference is told even when the disk's first blocks are lost: only its partitions are not."""
    repo = repos.create()
    _history(repo, 2)
    progress = repos.Collector()
    for item in list(repo.backend.list("packs")):
        if item.size > 1 << 20:
            repo.backend.delete(item.name)
    found = diff.run(repo, "vm~1", "vm", images.Access(), progress)
    assert found.disks[0].changed_bytes == WINDOW
    assert found.disks[0].parts == ()
    assert [problem for problem in progress.problems if "partitions" in problem]
