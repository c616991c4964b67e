"""Power cuts at every file operation of making, moving, renaming, deleting and bringing back branches and tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.crash import commits, recorder, states
from vimgvc import errors
from vimgvc.backends import local
from vimgvc.model import reflog
from vimgvc.repo import history, names, repository

HOST = "host"


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """From now on these are the branches and tags, by kind and name; values are messages of commits."""

    value: frozenset[tuple[str, str, str]]


Step = Callable[[repository.Repository, dict[str, str]], object]
_BRANCH, _TAG = reflog.BRANCH, reflog.TAG
#: What is done, and what is there afterwards.
STEPS: list[tuple[Step, set[tuple[str, str, str]]]] = [
    (
        lambda repo, ids: names.create(repo, _BRANCH, "test", ids["one"], force=False, host=HOST),
        {(_BRANCH, "vm", "two"), (_BRANCH, "test", "one")},
    ),
    (
        lambda repo, ids: names.create(repo, _TAG, "v1", ids["one"], force=False, host=HOST),
        {(_BRANCH, "vm", "two"), (_BRANCH, "test", "one"), (_TAG, "v1", "one")},
    ),
    (
        lambda repo, ids: names.create(repo, _BRANCH, "test", ids["two"], force=True, host=HOST),
        {(_BRANCH, "vm", "two"), (_BRANCH, "test", "two"), (_TAG, "v1", "one")},
    ),
    (
        lambda repo, _ids: names.rename(repo, _BRANCH, "vm", "web", force=False, host=HOST),
        {(_BRANCH, "web", "two"), (_BRANCH, "test", "two"), (_TAG, "v1", "one")},
    ),
    (
        lambda repo, _ids: names.delete(repo, _BRANCH, "test", host=HOST),
        {(_BRANCH, "web", "two"), (_TAG, "v1", "one")},
    ),
    (
        lambda repo, _ids: names.delete(repo, _TAG, "v1", host=HOST),
        {(_BRANCH, "web", "two")},
    ),
    (
        lambda repo, _ids: names.create(repo, _BRANCH, "vm", repo.resolve("vm@{1}").id, force=False, host=HOST),
        {(_BRANCH, "web", "two"), (_BRANCH, "vm", "two")},
    ),
]
AT_FIRST = {(_BRANCH, "vm", "two")}


def seen(repo: repository.Repository) -> set[tuple[str, str, str]]:
    """The names that are there; a name that leads nowhere raises."""
    ends = {_BRANCH: repo.branches(), _TAG: repo.tags()}
    return {(kind, name, repo.graph.load(end).message) for kind, found in ends.items() for name, end in found.items()}


def allowed(before: set[tuple[str, str, str]], after: set[tuple[str, str, str]]) -> list[set[tuple[str, str, str]]]:
    """What may be there while one becomes the other: a rename has both names for a moment, and never neither."""
    return [before, after, before | after] if len(before) == len(after) else [before, after]


class Life:
    """Two commits, then every step in a process of its own; `kind` lived it."""

    def __init__(self, kind: type[local.LocalBackend] = local.LocalBackend) -> None:
        disk = commits.start()
        self.unlocked = commits.create(disk).unlocked
        opened = commits.reopen(disk, self.unlocked)
        self.ids = {message: commits.commit(opened, message).commit.id for message in ("one", "two")}
        self.start = commits.few_shards(disk)
        recording = recorder.RecordingFiles(self.start.copy())
        recording.acknowledge(Names(frozenset(AT_FIRST)))
        for step, expected in STEPS:
            repo = commits.reopen(recording, self.unlocked, kind)
            step(repo, self.ids)
            assert seen(repo) == expected
            recording.acknowledge(Names(frozenset(expected)))
        self.log = recording.log

    def replay(self, *, seed: int, drawn: int, sample: int | None = None) -> int:
        return states.replay(self.log, self.start, self.check, seed=seed, drawn=drawn, sample=sample)

    def check(self, state: states.State) -> None:
        """What was acknowledged is so, or what was to come; every log is whole; what follows works and stays."""
        done = sum(isinstance(promise, Names) for promise in state.promises) - 1
        before = AT_FIRST if done == 0 else STEPS[done - 1][1]
        after = STEPS[done][1] if done < len(STEPS) else before
        repo = commits.reopen(state.files, self.unlocked)
        there = seen(repo)
        assert there in allowed(before, after), f"after {before}: {there}"
        for blind in repo.logs.ends():
            assert list(repo.logs.walk(blind)), "a log without entries"
        if state.kind in ("killed", "synced"):
            commits.check_commits(repo, {"two"})
            assert repo.verify("quick").problems == []
        for kind, name, _ in there:
            names.delete(repo, kind, name, host=HOST)
        names.create(repo, _TAG, "later", self.ids["one"], force=False, host=HOST)
        # A power cut after the recovery: what the recovery built on counts like what it made.
        later = commits.reopen(state.files.crash(states.Certain("synced")), self.unlocked)
        assert seen(later) == {(_TAG, "later", "one")}
        assert later.verify("quick").problems == []


@pytest.mark.slow
def test_d2_names(seed: int) -> None:
    """D1, D2: at no operation on a name does a power cut cost one that was acknowledged, or the next operation."""
    assert Life().replay(seed=seed, drawn=2, sample=60) > 300


class NoSyncAtAll(local.LocalBackend):
    """Leaves the names of files to chance."""

    def sync(self) -> None:
        return


@pytest.mark.slow
def test_rig_finds_names_that_were_not_synced(seed: int) -> None:
    """The replay fails when entries are not made durable before success is told."""
    with pytest.raises(AssertionError, match=r"^state \w+, seed \d+, after operation \d+ of \d+ \(.*\): .*"):
        Life(NoSyncAtAll).replay(seed=seed, drawn=2)


@pytest.mark.slow
def test_rig_finds_a_rename_that_deletes_first(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay fails when there is a moment in a rename without either name."""

    def rename(
        repo: repository.Repository, kind: str, old: str, new: str, *, force: bool, host: str
    ) -> list[names.Change]:
        commit_id = names.taken(repo, kind, old)
        return [
            names.delete(repo, kind, old, host=host),
            names.create(repo, kind, new, commit_id, force=force, host=host),
        ]

    monkeypatch.setattr(names, "rename", rename)
    with pytest.raises(AssertionError, match="vm"):
        Life().replay(seed=seed, drawn=0)


class Orphan:
    """A commit whose writer was killed before its barrier, and a tag that somebody gives to it afterwards."""

    def __init__(self) -> None:
        recording = recorder.RecordingFiles(commits.start())
        self.unlocked = commits.create(recording).unlocked
        made = commits.commit(commits.reopen(recording, self.unlocked), "one").commit
        writer = commits.reopen(recording, self.unlocked)
        writer.backend.sync = lambda: None  # type: ignore[method-assign]
        self.id = history.History(writer.backend, writer.seals).store(
            dataclasses.replace(made, parents=(made.id,), message="one", author="killed").encode()
        )
        self.first = len(recording.log)
        commits.reopen(recording, self.unlocked).set_ref(_TAG, "kept", self.id, expect=None)
        recording.acknowledge(Names(frozenset()))
        self.log = recording.log

    def check(self, state: states.State) -> None:
        repo = commits.reopen(state.files, self.unlocked)
        for end in repo.tags().values():
            try:
                assert repo.graph.load(end).author == "killed"
            except errors.NotFound:
                raise AssertionError("V2: a name without its commit") from None
        assert repo.tags() or not state.promises

    def replay(self, *, seed: int) -> int:
        return states.replay(self.log, commits.start(), self.check, seed=seed, drawn=30, first=self.first)


@pytest.mark.slow
def test_v2_name_for_a_commit_of_a_killed_writer(seed: int) -> None:
    """V2: a commit that is found is durable before a name leads to it."""
    assert Orphan().replay(seed=seed) > 100


@pytest.mark.slow
def test_rig_finds_names_for_what_is_not_durable(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay fails when the barrier before the name is left out."""

    def set_value(
        repo: repository.Repository, kind: str, name: str, commit_id: str | None, *, expect: str | None, host: str
    ) -> object:
        return repo.logs.publish(kind, name, commit_id, repo.last_refs(), time=names.stamp(0), host=host)

    monkeypatch.setattr(names, "set_value", set_value)
    with pytest.raises(AssertionError, match="V2"):
        Orphan().replay(seed=seed)
