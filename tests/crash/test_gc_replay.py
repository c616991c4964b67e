"""Power cuts at every file operation of a collection, and of the one that follows an interrupted one."""

from __future__ import annotations

import pytest

from tests.crash import commits, model, recorder, states
from tests.crash.test_repository_replay import NoSyncAtAll, TakesForDurableWhatItFinds
from tests.gc import past
from vimgvc.backends import files, local
from vimgvc.repo import repository

pytestmark = pytest.mark.long

_AGAIN = {"vm": past.contents()["side"]["vm"], "more": past.contents()["side"]["more"]}


class Collection:
    """A recorded collection by `kind`; `later` collects and commits after the power cut."""

    def __init__(
        self, kind: type[local.LocalBackend] = local.LocalBackend, later: type[local.LocalBackend] = local.LocalBackend
    ) -> None:
        self.later = later
        disk = commits.start()
        self.place = past.build(local.LocalBackend.create(commits.ROOT, disk), rng=commits.repeatable())
        # Everything from before is on the medium.
        self.start = commits.few_shards(disk)
        recording = recorder.RecordingFiles(self.start.copy())
        self.open(recording, kind).collect(past.FORCE)
        self.log = recording.log
        self.size = _size(local.LocalBackend.open(commits.ROOT, recording))

    def open(self, target: files.Files, kind: type[local.LocalBackend] = local.LocalBackend) -> repository.Repository:
        return self.place.open(kind.open(commits.ROOT, target))

    def replay(self, *, seed: int, drawn: int, first: int = 0, sample: int | None = None) -> int:
        return states.replay(self.log, self.start, self.check, seed=seed, drawn=drawn, first=first, sample=sample)

    @property
    def condemned(self) -> int:
        """The operation with which the record of what will go gets its name."""
        return next(at for at, operation in enumerate(self.log) if operation.target.endswith("-condemn"))

    def check(self, state: states.State) -> None:
        """What is kept restores, now and after the next collection, which does all that is left; commits work."""
        self.intact(state.files)
        disk = state.files.copy()
        self.open(disk, self.later).collect(past.FORCE)
        self.intact(disk)
        assert _size(local.LocalBackend.open(commits.ROOT, disk)) <= 1.02 * self.size
        # A power cut after the recovery: what it relied on counts like what it made.
        self.intact(disk.crash(states.Certain("synced")))
        if state.kind in ("all", "names", "data"):
            return
        again = past.commit(self.open(state.files, self.later), _AGAIN, "vm", "again")
        self.open(state.files, self.later).collect(past.FORCE)
        after = state.files.crash(states.Certain("synced"))
        self.intact(after)
        repo = self.open(after)
        assert past.read(repo, repo.graph.load(again.id)) == _AGAIN

    def intact(self, disk: model.ModelFiles) -> None:
        past.check(self.place, local.LocalBackend.open(commits.ROOT, disk))


def _size(backend: local.LocalBackend) -> int:
    return sum(past.stored(backend).values())


@pytest.fixture(scope="module")
def collection() -> Collection:
    return Collection()


@pytest.mark.slow
def test_d2_collections(collection: Collection, seed: int) -> None:
    """D1, D2: at no operation of a collection does a power cut cost what is kept; the next one ends as small."""
    assert collection.replay(seed=seed, drawn=1, sample=30) > 150


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "later"),
    [
        pytest.param(NoSyncAtAll, local.LocalBackend, id="new packs not synced"),
        pytest.param(local.LocalBackend, TakesForDurableWhatItFinds, id="found is durable", marks=pytest.mark.deep),
    ],
)
def test_rig_finds(kind: type[local.LocalBackend], later: type[local.LocalBackend], seed: int) -> None:
    """The replay of collections fails when the copies of what is kept are not durable before the originals go."""
    broken = Collection(kind, later)
    first = broken.condemned if kind is NoSyncAtAll else 0
    with pytest.raises(AssertionError, match=r"^state \w+, seed \d+, after operation \d+ of \d+ \(.*\): .*"):
        broken.replay(seed=seed, drawn=3, first=first)
