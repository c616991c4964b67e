"""Power cuts at every file operation of a repository's life: `init`, three commits, a key added and removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.crash import commits, recorder, states
from vimgvc import errors
from vimgvc.backends import local, protocol

pytestmark = pytest.mark.long


class Life:
    """A recorded life, and the checks of its states; `kind` lived it, `later` goes on after the power cut."""

    def __init__(
        self, kind: type[local.LocalBackend] = local.LocalBackend, later: type[local.LocalBackend] = local.LocalBackend
    ) -> None:
        self.later = later
        disk = commits.start()
        self.unlocked = commits.create(disk).unlocked
        self.start = commits.few_shards(disk)
        recording = recorder.RecordingFiles(self.start.copy())
        commits.live(recording, self.unlocked, kind)
        self.log = recording.log
        self.acknowledged = [at for at, operation in enumerate(self.log) if operation.kind == "acknowledge"]

    def replay(
        self,
        check: Callable[[states.State], None],
        first: int,
        last: int,
        *,
        seed: int,
        drawn: int,
        sample: int | None = None,
    ) -> int:
        log = self.log[: last + 1]
        return states.replay(log, self.start, check, seed=seed, drawn=drawn, first=first, sample=sample)

    def check(self, state: states.State) -> None:
        """What was acknowledged is there; what is there is right; the next commit works and stays."""
        promised = {promise.message for promise in state.promises if isinstance(promise, commits.Committed)}
        repo = commits.reopen(state.files, self.unlocked)
        commits.check_commits(repo, promised)
        if state.kind in ("killed", "synced"):
            assert repo.verify("quick").problems == []
        commits.commit(commits.reopen(state.files, self.unlocked, self.later), "next")
        # A power cut after the recovery: what the recovery built on counts like what it made.
        after = state.files.crash(states.Certain("synced"))
        commits.check_commits(commits.reopen(after, self.unlocked), promised | {"next"})

    def check_keys(self, state: states.State) -> None:
        """The secrets that were told to open do; while one is removed, the other does."""
        *_, opens = [promise for promise in state.promises if isinstance(promise, commits.Opens)]
        if len(opens.secrets) == 2:
            opens = commits.Opens((commits.SECOND,))
        commits.check_keys(state.files, opens)


@pytest.fixture(scope="module")
def life() -> Life:
    return Life()


def _check_unborn(state: states.State) -> None:
    """Until `init` has said that it is done, there is a whole repository, or one can be made."""
    try:
        repo = commits.create(state.files)
    except errors.UsageError:
        repo = commits.unlock(state.files, commits.FIRST)
    assert commits.commit(repo, "one").created
    after = state.files.crash(states.Certain("synced"))
    commits.check_commits(commits.unlock(after, commits.FIRST), {"one"})


@pytest.mark.slow
def test_d2_init(seed: int) -> None:
    """D1, D2: a power cut while a repository is made leaves one, or a place where one can be made."""
    recording = recorder.RecordingFiles(commits.start())
    commits.create(recording)
    first = next(at for at, operation in enumerate(recording.log) if "/keys/" in operation.path)
    log, start = recording.log, commits.start()
    assert states.replay(log, start, _check_unborn, seed=seed, drawn=2, first=first, sample=40) > 100


@pytest.mark.slow
def test_d2_commits(life: Life, seed: int) -> None:
    """D1, D2, D3: at no operation of three commits does a power cut cost what was acknowledged, or the next commit."""
    assert life.replay(life.check, life.acknowledged[0], life.acknowledged[3], seed=seed, drawn=1, sample=60) > 500


@pytest.mark.slow
def test_d2_keys(life: Life, seed: int) -> None:
    """C19, D2: at every operation of adding and removing a key the old one or the new one opens."""
    assert life.replay(life.check_keys, life.acknowledged[3], len(life.log), seed=seed, drawn=2, sample=40) > 100


class SyncAtTheEnd(local.LocalBackend):
    """Makes everything durable with the ref entry, in whatever order."""

    def sync(self) -> None:
        if any("/refs/" in directory for directory in self._unsynced):
            super().sync()


class NoSyncAtAll(local.LocalBackend):
    """Leaves the names to chance."""

    def sync(self) -> None:
        return


class TakesForDurableWhatItFinds(local.LocalBackend):
    """Syncs what it put, and nothing that was there."""

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        stored = super().put(name, parts)
        if stored:
            super()._rely_on(self._path(name))
        return stored

    def _rely_on(self, path: str) -> None:
        return


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "later"),
    [
        pytest.param(SyncAtTheEnd, local.LocalBackend, id="order left to the disk"),
        pytest.param(NoSyncAtAll, local.LocalBackend, id="names not synced", marks=pytest.mark.deep),
        pytest.param(local.LocalBackend, TakesForDurableWhatItFinds, id="found is durable"),
    ],
)
def test_rig_finds(kind: type[local.LocalBackend], later: type[local.LocalBackend], seed: int) -> None:
    """The replay of commits fails when the order of writing, or its durability, is left to chance."""
    life = Life(kind, later)
    with pytest.raises(AssertionError, match=r"^state \w+, seed \d+, after operation \d+ of \d+ \(.*\): .*"):
        life.replay(life.check, life.acknowledged[0], life.acknowledged[3], seed=seed, drawn=3)
