"""Power cuts at every file operation of a repair, of the one that follows it, and of setting a file aside."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

import pytest

from tests import repos
from tests.crash import commits, model, mutants, recorder, states
from tests.crash.test_repository_replay import NoSyncAtAll, TakesForDurableWhatItFinds
from tests.gc import past
from tests.repair import left
from vimgvc import monitor
from vimgvc.backends import files, local, protocol
from vimgvc.repo import repository

pytestmark = pytest.mark.long

_RIG = r"^state \w+, seed \d+, after operation \d+ of \d+ \(.*\): .*"


def replace(disk: model.ModelFiles, name: str, content: bytes | None) -> None:
    """Put something else in the place of a blob, or nothing."""
    path = str(commits.ROOT / name)
    disk.unlink(path)
    if content is not None:
        handle = disk.create(path)
        disk.write(handle, [memoryview(content)])
        disk.close(handle)


class Mending:
    """A recorded repair by `kind`; `later` repairs after the power cut."""

    def __init__(
        self, kind: type[local.LocalBackend] = local.LocalBackend, later: type[local.LocalBackend] = local.LocalBackend
    ) -> None:
        self.later = later
        disk = commits.start()
        repo = commits.create(disk)
        self.unlocked = repo.unlocked
        past.commit(repo, {"vm": repos.noise(1, 1_300_000)}, "vm", "lost in part")
        # The pack of the first of these gets longer: only the repair brings it back.
        self.whole: list[tuple[str, past.Disks]] = []
        for number, size in enumerate((50_000, 40_000), 2):
            disks = {"vm": repos.noise(number, size)}
            self.whole.append((past.commit(repo, disks, "web").id, disks))
        self._damage(disk, repo.backend)
        # Everything from before is on the medium.
        self.start = commits.few_shards(disk)
        self.slots = left.readable(self.open(self.start))
        recording = recorder.RecordingFiles(self.start.copy())
        done = self.open(recording, kind).repair()
        assert {one.kind for one in done.actions} == {"pack", "index", "key", "config"}
        assert (done.segments_saved, done.segments_lost) == (2, 1)
        self.log = recording.log

    @staticmethod
    def _damage(disk: model.ModelFiles, backend: protocol.Backend) -> None:
        """One segment of the largest pack, the tail of another pack, an index object, a key copy, `config`."""
        packs = sorted(backend.list("packs"), key=lambda item: item.size)
        blob = bytearray(backend.get(packs[-1].name))
        blob[500_000] ^= 1
        replace(disk, packs[-1].name, bytes(blob))
        replace(disk, packs[-2].name, backend.get(packs[-2].name) + b"junk")
        indexes = sorted(item.name for item in backend.list("index"))
        replace(disk, indexes[0], backend.get(indexes[0])[:-1])
        keys = sorted(item.name for item in backend.list("keys"))
        replace(disk, keys[0], b"?")
        replace(disk, protocol.CONFIG, b"?")

    def open(self, target: files.Files, kind: type[local.LocalBackend] = local.LocalBackend) -> repository.Repository:
        return commits.reopen(target, self.unlocked, kind)

    def replay(self, *, seed: int, drawn: int, first: int = 0, sample: int | None = None) -> int:
        return states.replay(self.log, self.start, self.check, seed=seed, drawn=drawn, first=first, sample=sample)

    @property
    def saved(self) -> int:
        """The operation with which the first file of the areas of packs and index objects is set aside."""
        return next(at for at, operation in enumerate(self.log) if "/quarantine/index/" in operation.target)

    def check(self, state: states.State) -> None:
        """What could be read can be, now and after the next repair, and that one leaves nothing to do."""
        self.intact(state.files, self.whole[1:])
        if state.kind in ("all", "data"):
            return
        self.open(state.files, self.later).repair()
        # What it relied on counts like what it made.
        after = state.files.crash(states.Certain("synced"))
        self.intact(after, self.whole)
        if state.kind not in ("killed", "synced"):
            return
        # An old name that was gone, but not for certain, may be there again.
        assert {one.kind for one in self.open(after).repair().actions} <= {"pack", "index"}
        before = after.tree("/")
        assert self.open(after).repair().actions == ()
        assert after.tree("/") == before
        # Its secret, too: the slots are there.
        assert len(self.open(after).keyring.blobs()) == 1

    def intact(self, disk: model.ModelFiles, whole: list[tuple[str, past.Disks]]) -> None:
        repo = self.open(disk)
        assert left.readable(repo) >= self.slots
        store = repo.objects(monitor.NullMonitor())
        for item, content in whole:
            assert past.read(repo, repo.graph.load(item), store) == content


@pytest.mark.slow
def test_d2_repairs(seed: int) -> None:
    """D1, D2, R26: at no operation of a repair does a power cut cost anything; the next one finishes it."""
    assert Mending().replay(seed=seed, drawn=1, sample=30) > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "later"),
    [
        pytest.param(NoSyncAtAll, local.LocalBackend, id="new packs not synced", marks=pytest.mark.deep),
        pytest.param(local.LocalBackend, TakesForDurableWhatItFinds, id="found is durable"),
    ],
)
def test_rig_finds(kind: type[local.LocalBackend], later: type[local.LocalBackend], seed: int) -> None:
    """The replay of repairs fails when what was saved is not durable before the original is set aside."""
    broken = Mending(kind, later)
    first = broken.saved if kind is NoSyncAtAll else 0
    with pytest.raises(AssertionError, match=_RIG):
        broken.replay(seed=seed, drawn=2, first=first)


# -- one file ------------------------------------------------------------------------------------

Make = Callable[[pathlib.Path, files.Files], local.LocalBackend]
_PACK = "packs/ab/" + "ab" * 32
_BLOBS = {_PACK: b"a pack", "index/" + "cd" * 32: b"an index object", protocol.CONFIG: b"{}"}


def _aside(make: Make, seed: int) -> int:
    """Sets each blob aside, the pack twice; checks all states."""
    disk = commits.start()
    place = local.LocalBackend.create(commits.ROOT, disk)
    place.put("keys/" + "0" * 32 + "-0", [b"a key"])
    for name, blob in _BLOBS.items():
        place.put(name, [blob])
    start = disk.crash(states.Certain("all"))
    recording = recorder.RecordingFiles(start.copy())
    backend = make(commits.ROOT, recording)
    for name in _BLOBS:
        backend.set_aside(name)
        recording.acknowledge(name)
    backend.put(_PACK, [b"another"])
    backend.sync()
    backend.set_aside(_PACK)
    recording.acknowledge("another")
    return states.replay(recording.log, start, _check_aside, seed=seed, drawn=4)


def _check_aside(state: states.State) -> None:
    root = str(commits.ROOT)
    tree = state.files.tree(root)
    for name, blob in _BLOBS.items():
        places = [tree.get(f"{root}/{name}"), tree.get(f"{root}/quarantine/{name}")]
        assert blob in places, f"{name} is lost"
        if name in state.promises:
            assert places[1] == blob, f"{name} is not in quarantine"
            assert places[0] != blob, f"{name} is still there"
    again = state.files.copy()
    backend = local.LocalBackend.open(commits.ROOT, again)
    for name in _BLOBS:
        backend.set_aside(name)
    kept = again.crash(states.Certain("synced")).tree(root)
    for name, blob in _BLOBS.items():
        assert f"{root}/{name}" not in kept
        assert blob in [content for path, content in kept.items() if path.startswith(f"{root}/quarantine/{name}")]
    if "another" in state.promises:
        assert kept[f"{root}/quarantine/{_PACK}.1"] == b"another"


@pytest.mark.slow
def test_d2_set_aside(seed: int) -> None:
    """D1, D2: a power cut while a file is set aside leaves it in one place or both, and promises are kept."""
    assert _aside(local.LocalBackend.open, seed) > 60


class FolderNotSynced(local.LocalBackend):
    """Makes the folders of the quarantine without making them durable."""

    def _make_aside(self, area: str) -> str:
        path = self._root
        for part in ("quarantine", *area.split("/")):
            path = f"{path}/{part}"
            with contextlib.suppress(FileExistsError):
                self._files.mkdir(path)
        return path


class OldNameFirst(local.LocalBackend):
    """Removes the old name before the new one is durable."""

    def set_aside(self, name: str) -> None:
        source = self._path(name)
        folder = self._make_aside(name.rpartition("/")[0])
        targets = (f"{folder}/{free.rpartition('/')[2]}" for free in protocol.aside_names(name))
        next(target for target in targets if self._claim(source, target))
        self._files.unlink(source)
        self._sync_directory(source.rpartition("/")[0])
        self._sync_directory(folder)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(FolderNotSynced.open, id="folder not synced"),
        pytest.param(OldNameFirst.open, id="old name first"),
        pytest.param(
            lambda root, target: local.LocalBackend.open(root, mutants.NoDirectorySync(target)), id="nothing synced"
        ),
    ],
)
def test_rig_finds_what_is_lost_on_the_way(make: Make, seed: int) -> None:
    """The replay of setting aside fails when the new name is not durable before the old one goes."""
    with pytest.raises(AssertionError, match=_RIG):
        _aside(make, seed)
