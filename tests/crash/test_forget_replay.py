"""Power cuts at every file operation of forgetting two of three commits, and a collection after each."""

from __future__ import annotations

import dataclasses

import pytest

from tests import repos
from tests.crash import commits, recorder, states
from tests.crash.test_repository_replay import NoSyncAtAll, TakesForDurableWhatItFinds
from vimgvc import errors
from vimgvc.backends import local
from vimgvc.repo import collect, repository


@dataclasses.dataclass(frozen=True, slots=True)
class Gone:
    """From now on the commit with this message is forgotten."""

    message: str


class Life:
    """Three commits, of which the first and then the second are forgotten; `later` goes on after the power cut."""

    def __init__(
        self, kind: type[local.LocalBackend] = local.LocalBackend, later: type[local.LocalBackend] = local.LocalBackend
    ) -> None:
        self.later = later
        disk = commits.start()
        self.unlocked = commits.create(disk).unlocked
        self.ids = {}
        for message in ("one", "two", "three"):
            self.ids[message] = commits.commit(commits.reopen(disk, self.unlocked), message).commit.id
        self.start = commits.few_shards(disk)
        recording = recorder.RecordingFiles(self.start.copy())
        for message in ("one", "two"):
            assert commits.reopen(recording, self.unlocked, kind).forget([self.ids[message]]) == [self.ids[message]]
            recording.acknowledge(Gone(message))
        self.log = recording.log

    def replay(self, *, seed: int, drawn: int) -> int:
        return states.replay(self.log, self.start, self.check, seed=seed, drawn=drawn)

    def check(self, state: states.State) -> None:
        """What was acknowledged is forgotten, what is forgotten is wanted no more, and all is whole until gc."""
        promised = {promise.message for promise in state.promises if isinstance(promise, Gone)}
        repo = commits.reopen(state.files, self.unlocked)
        commits.check_commits(repo, {"one", "two", "three"})
        self._check_records(repo, promised)
        if state.kind in ("killed", "synced"):
            assert repo.verify("quick").problems == []
        # Once more, and a power cut: a record that was found counts like one that was put.
        assert set(commits.reopen(state.files, self.unlocked, self.later).forget([self.ids["one"]])) <= {
            self.ids["one"]
        }
        after = state.files.crash(states.Certain("synced"))
        repo = commits.reopen(after, self.unlocked)
        self._check_records(repo, promised | {"one"})
        self._check_collection(repo)

    def _check_records(self, repo: repository.Repository, promised: set[str]) -> None:
        found = set(repo.forgotten())
        assert found <= {self.ids["one"], self.ids["two"]}
        assert found >= {self.ids[message] for message in promised}, "forgotten and not forgotten"
        assert {item.id for item in repo.live()} == set(self.ids.values()) - found

    def _check_collection(self, repo: repository.Repository) -> None:
        """What lives restores after a collection, and what does not says so."""
        live = {item.id for item in repo.live()}
        repo.collect(collect.Options(force=True, threads=1, verify=False))
        for message, commit_id in self.ids.items():
            disk = repo.resolve(commit_id).disk("vm")
            if commit_id in live:
                assert repos.restore(repo, commit_id, "vm") == commits.CONTENTS[message]["vm"]
            else:
                with pytest.raises(errors.IntegrityError):
                    repo.open_disk(disk)


@pytest.mark.slow
def test_d2_forget(seed: int) -> None:
    """D1, D2: at no operation of forgetting does a power cut cost a commit that lives, or bring one back."""
    assert Life().replay(seed=seed, drawn=1) > 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "later"),
    [
        pytest.param(NoSyncAtAll, local.LocalBackend, id="records not synced"),
        pytest.param(local.LocalBackend, TakesForDurableWhatItFinds, id="found is durable"),
    ],
)
def test_rig_finds(kind: type[local.LocalBackend], later: type[local.LocalBackend], seed: int) -> None:
    """The replay fails when a record is told before it is durable."""
    with pytest.raises(AssertionError, match=r"^state \w+, seed \d+, after operation \d+ of \d+ \(.*\): .*"):
        Life(kind, later).replay(seed=seed, drawn=1)
