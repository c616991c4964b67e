"""`vimgvc log`: what it leaves out, what it does when something cannot be read, and its copy of the commits."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.cli import render, text
from vimgvc.commands import log
from vimgvc.model import commit as commits
from vimgvc.model import forgotten
from vimgvc.repo import forgetting, recalled, repository


def _chain(repo: repository.Repository, count: int, branch: str = "vm") -> list[str]:
    """Identifiers of so many commits, the first one first."""
    return [repos.commit(repo, (branch, f"{branch} {step}".encode()), branch=branch).commit.id for step in range(count)]


def _shown(found: log.History) -> list[str]:
    return [item.id for item in found.commits]


def _forget(repo: repository.Repository, *ids: str) -> None:
    for commit_id in ids:
        assert forgetting.Records(repo.backend, repo.seals).put(
            forgotten.Forgotten(commit_id, "2027-02-01T00:00:00Z", "h", "test")
        )


def test_forgotten_commits_are_left_out() -> None:
    """What was forgotten is not shown, and what is beyond it hangs together all the same; --all shows and marks it."""
    repo = repos.create()
    ids = _chain(repo, 5)
    _forget(repo, ids[1], ids[2], ids[4])
    found = log.run(repo, None, None)
    assert _shown(found) == [ids[4], ids[3], ids[0]], "a tip is never forgotten"
    assert found.edges(repo.resolve(ids[3])) == [ids[0]]
    assert found.edges(repo.resolve(ids[4])) == [ids[3]]
    assert _shown(log.run(repo, ids[2], None)) == [ids[0]]
    everything = log.run(repo, "vm", None, everything=True)
    assert _shown(everything) == ids[::-1]
    assert [everything.notes(repo.resolve(item)) for item in ids] == [[], ["forgotten"], ["forgotten"], [], []]
    repo.set_ref("tag", "back", ids[2], expect=None)
    assert _shown(log.run(repo, None, None)) == [ids[4], ids[3], ids[2], ids[0]], "a tag brings it back"


def test_damaged_record_hides_nothing() -> None:
    """A record that cannot be read is told of, and its commit is shown with the others."""
    repo = repos.create()
    ids = _chain(repo, 4)
    _forget(repo, ids[1])
    repo.backend.put(f"forgotten/{ids[2]}", [b"x" * 300])
    told = repos.Collector()
    assert _shown(log.run(repo, None, None, told)) == [ids[3], ids[2], ids[0]]
    assert len(told.problems) == 1
    assert ids[2][:12] in told.problems[0]


def test_drawn_without_the_forgotten() -> None:
    """A merge with a forgotten side is drawn with the same base once."""
    repo = repos.create()
    base, side, main = _chain(repo, 3)
    template = repo.graph.load(base)
    left = repo.graph.store(dataclasses.replace(template, parents=(base,), message="left").encode())
    merge = repo.graph.store(dataclasses.replace(template, parents=(main, left), message="merge").encode())
    repo.set_ref("branch", "vm", merge, expect=main)
    _forget(repo, side, main, left)
    found = log.run(repo, None, None)
    lines = list(render.log(found.commits, found.tips, text.Style(), oneline=True, graphed=True, edges=found.edges))
    assert lines == [f"* {merge[:12]} (vm) merge", f"* {base[:12]} state of vm"]


def test_r12_gap() -> None:
    """R12: a commit that is lost is told of, and shown as a gap; what is after it is shown and restores."""
    repo = repos.create()
    ids = _chain(repo, 4)
    repo.backend.delete(f"commits/{ids[1]}")
    opened, told = repos.reopen(repo), repos.Collector()
    found = log.run(opened, None, None, told)
    listed = list(found.commits)
    assert [item.id for item in listed] == [ids[3], ids[2]]
    assert found.notes(listed[1]) == [f"what came before, {ids[1][:12]}, cannot be read"]
    assert found.edges(listed[1]) == []
    assert told.problems == [f"commit not found: {ids[1][:12]}; what came before it is not shown"]
    assert repos.restore(opened, "vm") == b"vm 3"
    assert repos.restore(opened, ids[0]) == b"vm 0"


@pytest.mark.parametrize("stored", [None, b"", b"x" * 300])
def test_r14_tip_that_cannot_be_read(stored: bytes | None) -> None:
    """R14: a branch whose commit is lost is named as broken, everything else is shown; asked for, it is an error."""
    repo = repos.create()
    ids = _chain(repo, 2)
    [lost] = _chain(repo, 1, "other")
    repo.backend.delete(f"commits/{lost}")
    if stored is not None:
        repo.backend.put(f"commits/{lost}", [stored])
    opened, told = repos.reopen(repo), repos.Collector()
    assert _shown(log.run(opened, None, None, told)) == ids[::-1]
    assert len(told.problems) == 1
    assert told.problems[0].startswith("branch 'other' is broken: ")
    assert _shown(log.run(opened, "vm", None, told)) == ids[::-1]
    with pytest.raises((errors.NotFound, errors.IntegrityError)):
        log.run(opened, "other", None)
    assert repos.commit(opened, ("other", b"next"), branch="other").created


def test_branches_and_tags_are_named() -> None:
    """The names that end at a commit stand beside it, tags told from branches."""
    repo = repos.create()
    ids = _chain(repo, 2)
    repo.set_ref("tag", "v1", ids[0], expect=None)
    repo.set_ref("branch", "old", ids[0], expect=None)
    assert log.run(repo, None, None).tips == {ids[1]: ["vm"], ids[0]: ["old", "tag: v1"]}


def _long(place: memory.MemoryBackend, cache: pathlib.Path) -> repository.Repository:
    """A history of 300 commits."""
    repo = repos.create(place)
    first = commit = repos.commit(repo, ("vm", b"x")).commit
    for number in range(299):
        body = dataclasses.replace(first, parents=(commit.id,), message=f"number {number}").encode()
        commit = commits.decode(repo.graph.store(body), body)
    repo.set_ref("branch", "vm", commit.id, expect=first.id)
    return _opened(repo, cache)


def _opened(repo: repository.Repository, cache: pathlib.Path) -> repository.Repository:
    return repository.Repository.open(repo.backend, unlocked=repo.unlocked, clock=repo.clock, cache=cache)


def _reads(place: memory.MemoryBackend) -> int:
    """How many commits were read since the last time."""
    count = sum(kind == "get" and name.startswith("commits/") for kind, name in place.calls)
    place.calls.clear()
    return count


def test_copy_of_the_commits(tmp_path: pathlib.Path) -> None:
    """A long history is read one by one only once; what came since is read, and everything is shown alike."""
    place = memory.MemoryBackend()
    repo = _long(place, tmp_path)
    place.calls.clear()
    before = list(log.run(repo, None, None).commits)
    assert _reads(place) == 300
    assert list(log.run(_opened(repo, tmp_path), None, None).commits) == before
    assert _reads(place) == 0
    assert repos.commit(repo, ("vm", b"next")).created
    place.calls.clear()
    after = list(log.run(_opened(repo, tmp_path), None, None).commits)
    assert after[1:] == before
    assert _reads(place) == 1


def test_copy_is_no_source_of_truth(tmp_path: pathlib.Path) -> None:
    """A commit that the repository does not have any more is gone, and what acts on commits reads them itself."""
    place = memory.MemoryBackend()
    repo = _long(place, tmp_path)
    ids = _shown(log.run(repo, None, None))
    place.delete(f"commits/{ids[100]}")
    assert _shown(log.run(_opened(repo, tmp_path), None, None)) == ids[:100]
    place.put(f"commits/{ids[100]}", [b"damaged"])
    opened = _opened(repo, tmp_path)
    assert _shown(log.run(opened, None, None))[:100] == ids[:100]
    with pytest.raises(errors.IntegrityError):
        opened.graph.load(ids[100])
    with pytest.raises(errors.IntegrityError):
        opened.set_ref("tag", "v1", ids[100], expect=None)


@pytest.mark.parametrize("what", ["cut", "changed", "empty", "other key", "a directory", "no permission"])
def test_damaged_copy(tmp_path: pathlib.Path, what: str) -> None:
    """A copy that is not exactly what was written is not there, and is replaced; it is private and holds no text."""
    place = memory.MemoryBackend()
    repo = _long(place, tmp_path)
    before = list(log.run(repo, None, None).commits)
    path = tmp_path / "commits"
    content = bytearray(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"state of vm" not in content
    assert b"number 1" not in content
    if what == "a directory":
        path.unlink()
        path.mkdir()
    elif what == "no permission":
        path.chmod(0o666)
    else:
        content[len(content) // 2] ^= what == "changed"
        other = repos.create().seals.seal(b"c", b"", b"commits 1")
        path.write_bytes({"cut": bytes(content[:-1]), "empty": b"", "other key": other}.get(what, bytes(content)))
    place.calls.clear()
    assert list(log.run(_opened(repo, tmp_path), None, None).commits) == before
    assert _reads(place) == 300
    list(log.run(_opened(repo, tmp_path), None, None).commits)
    assert _reads(place) == (300 if what == "a directory" else 0)


def test_recalled_is_what_was_decoded() -> None:
    """What is taken from the copy without a check equals what the checking decoder makes."""
    repo = repos.create()
    commit = repos.commit(repo, ("vm", b"x"), ("data", b"y")).commit
    full = dataclasses.replace(
        commit, parents=(commit.id, "ab" * 32), attachments=(commits.Attachment("a.xml", 1, "cd" * 32, 1, 2, 3),)
    )
    body = full.encode()
    assert commits.recall("ef" * 32, body) == commits.decode("ef" * 32, body)


def test_without_a_cache_directory() -> None:
    """A user without a home has no copy, and the same history."""
    repo = repos.create()
    ids = _chain(repo, 2)
    source = recalled.Recalled(repo.graph, repo.seals, None)
    assert source.load(ids[0]) == repo.resolve(ids[0])
    source.save()
