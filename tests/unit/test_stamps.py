"""What is remembered of images: never relied on unless every fact fits, never needed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.commands import commit, images, restore_in_place, stamps, status
from vimgvc.images import in_place_target
from vimgvc.repo import repository

_SIZE = 1 << 20


@dataclasses.dataclass
class _Place:
    """A repository, an image that was committed to it once as `old` and once as `new`, and a home."""

    repo: repository.Repository
    image: pathlib.Path
    home: pathlib.Path
    old: bytes
    new: bytes
    told: repos.Collector = dataclasses.field(default_factory=repos.Collector)

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home)}

    @property
    def seen(self) -> stamps.Stamps:
        return stamps.Stamps.of_user(self.environment, self.repo, self.told)

    def commit(self, data: bytes) -> None:
        self.image.write_bytes(data)
        named = commit.name_images([str(self.image)])
        wanted = commit.request(named, branch=None, message=None, author="ann", host="host", allow_empty=False)
        with commit.open_images(named, images.Access(), self.told) as opened:
            commit.run(self.repo, self.environment, opened, wanted, effort=commit.Effort(threads=1), monitor=self.told)

    def status(self, *, fast: bool) -> status.Status:
        wanted = status.Wanted(fast=fast, threads=1)
        path = [str(self.image)]
        return next(status.run(self.repo, self.environment, path, images.Access(), wanted, monitor=self.told))

    def is_same(self) -> bool:
        origin = self.seen.recall(self.image)
        return origin is not None and origin.is_same

    def in_place(self, revision: str) -> restore_in_place.Rewritten:
        wanted = restore_in_place.wanted(self.environment, fast=True, threads=1)
        return restore_in_place.run(self.repo, revision, str(self.image), wanted, self.told)

    @property
    def stamp(self) -> pathlib.Path:
        (found,) = (self.home / ".local" / "state" / "vimgvc" / "stamps").iterdir()
        return found


@pytest.fixture
def place(tmp_path: pathlib.Path, seed: int) -> _Place:
    old = repos.noise(seed, _SIZE)
    new = old[: _SIZE // 2] + repos.noise(seed + 1, 4096) + old[_SIZE // 2 + 4096 :]
    made = _Place(repos.create(), tmp_path / "vm.img", tmp_path / "home", old, new)
    made.home.mkdir()
    made.commit(old)
    made.commit(new)
    return made


def _put_times_back(path: pathlib.Path, before: os.stat_result) -> None:
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_modification_time_alone_is_never_trusted(place: _Place) -> None:
    """Other content with the size and modification time of before is noticed, also with --fast."""
    before = place.image.stat()
    with place.image.open("r+b") as file:
        file.write(b"changed")
    _put_times_back(place.image, before)
    assert place.image.stat().st_mtime_ns == before.st_mtime_ns
    assert not place.is_same()
    for fast in (False, True):
        found = place.status(fast=fast)
        assert (found.state, found.compared) == (status.CHANGED, True)
        assert [next(iter(disk.changed.pairs()))[0] for disk in found.disks] == [0]


def test_only_fast_relies_on_the_stamp(place: _Place) -> None:
    """What was committed and not touched is clean either way; only --fast does not read it, and says so."""
    assert place.is_same()
    assert [(place.status(fast=fast).state, place.status(fast=fast).compared) for fast in (False, True)] == [
        (status.CLEAN, True),
        (status.CLEAN, False),
    ]


@pytest.mark.parametrize(
    "facts",
    [
        {"dev": 1},
        {"ino": 1},
        {"size": _SIZE + 1},
        {"mtime_ns": 1},
        {"ctime_ns": 1},
        {"boot": "another"},
        {"timed": False},
    ],
)
def test_every_fact_must_fit(place: _Place, facts: dict[str, object]) -> None:
    """A stamp with one fact that is another, or of another start of the system, is not relied on."""
    state = stamps.look(place.image)
    assert state is not None
    tip = place.repo.resolve("vm")
    place.seen.remember(dataclasses.replace(state, **facts), tip, tip.disks[0])  # type: ignore[arg-type]
    assert not place.is_same()
    assert place.status(fast=True).compared


def test_a_state_that_may_still_change_unseen_is_not_timed(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the clock has not ticked since the last change, or ran backwards, the state cannot be relied on."""
    changed = place.image.stat().st_ctime_ns
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for now, expected in ((changed + 1000, False), (changed - 10**12, False), (changed + 10**9, True)):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        state = stamps.look(place.image)
        assert state is not None
        assert state.timed is (expected and changed % 10**9 != 0)


def test_what_cannot_be_relied_on_is_not_even_if_it_fits(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is not timed, as of a device, and is the same when it is asked for: not relied on."""
    changed = place.image.stat().st_ctime_ns
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "time_ns", lambda: changed + 1000)
    tip = place.repo.resolve("vm")
    place.seen.remember_file(str(place.image), tip, tip.disks[0])
    origin = place.seen.recall(place.image)
    assert origin is not None
    assert (origin.commit, origin.is_same) == (tip, False)


def test_devices_are_never_timed() -> None:
    """A device does not tell when it was written: its state is never relied on."""
    state = stamps.look("/dev/null")
    assert state is not None
    assert not state.timed


def test_damage_costs_a_compare(place: _Place, seed: int) -> None:
    """Whatever stands in the file, the answer is right and nothing is raised; what is not used is noted."""
    good = place.stamp.read_bytes()
    half = good[: len(good) // 2]
    flipped = bytearray(good)
    flipped[seed % len(good)] ^= 1
    for damaged in (b"", b"{}", b"[]", half, bytes(100), repos.noise(seed, 100_000), bytes(flipped)):
        place.stamp.write_bytes(damaged)
        found = place.status(fast=True)
        assert found.state == status.CLEAN
        place.image.write_bytes(place.old)
        place.stamp.write_bytes(damaged)
        assert place.status(fast=True).state == status.CHANGED
        place.image.write_bytes(place.new)
    assert place.told.notes


def test_without_a_place_to_write(place: _Place) -> None:
    """A user without a home, or whose home cannot be written, gets the same answers; nothing fails."""
    place.stamp.unlink()
    stamps_folder = place.home / ".local" / "state" / "vimgvc" / "stamps"
    stamps_folder.rmdir()
    stamps_folder.write_bytes(b"")
    assert place.status(fast=True).state == status.CLEAN
    assert any("cannot be remembered" in note for note in place.told.notes)
    assert stamps.Stamps.of_user({}, place.repo, place.told).recall(place.image) is None


def test_in_place_from_what_is_remembered(place: _Place) -> None:
    """Known by its stamp nothing is compared, the result is right, and it is remembered for the next time."""
    for revision, content in (("vm~1", place.old), ("vm", place.new)):
        done = place.in_place(revision)
        assert (done.is_remembered, done.done.compared) == (True, 0)
        assert 0 < done.done.written < _SIZE
        assert place.image.read_bytes() == content
        assert place.status(fast=True).commit == done.commit


def test_in_place_is_refused_where_the_stamp_does_not_fit(place: _Place) -> None:
    """With other content behind old times, with the marker, or a stamp of another state nothing is written."""
    before = place.image.stat()
    place.image.write_bytes(place.old)
    _put_times_back(place.image, before)
    with pytest.raises(errors.VimgvcError, match="cannot be relied on"):
        place.in_place("vm~1")
    place.commit(place.old)
    marker = pathlib.Path(in_place_target.marker_path(str(place.image)))
    marker.touch()
    with pytest.raises(errors.VimgvcError, match="was interrupted"):
        place.in_place("vm~1")
    marker.unlink()
    place.stamp.unlink()
    with pytest.raises(errors.VimgvcError, match="nothing is remembered"):
        place.in_place("vm~1")
    assert place.image.read_bytes() == place.old


def test_the_stamp_is_asked_again_once_nobody_else_can_write(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written between the first look and the moment the target is taken is noticed, and kept."""
    opened = in_place_target.open_target

    def late(*arguments: object, **named: object) -> object:
        place.image.write_bytes(place.old)
        return opened(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(in_place_target, "open_target", late)
    with pytest.raises(errors.VimgvcError, match="cannot be relied on"):
        place.in_place("vm~1")
    assert place.image.read_bytes() == place.old


def test_what_changed_while_it_was_read_is_not_remembered(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp of a commit holds the times from before the image was read."""
    record = repository.Repository.commit

    def then_write(self: repository.Repository, *arguments: object, **named: object) -> repository.CommitResult:
        result = record(self, *arguments, **named)  # type: ignore[arg-type]
        with place.image.open("r+b") as file:
            file.write(b"changed")
        return result

    monkeypatch.setattr(repository.Repository, "commit", then_write)
    place.commit(place.old)
    assert place.status(fast=True).state == status.CHANGED


def test_a_stamp_must_say_what_the_commit_says(place: _Place) -> None:
    """A stamp whose disk, manifest or commit is not that of the repository leads nowhere, though the times fit."""
    origin, good = place.seen.recall(place.image), place.stamp.read_bytes()
    assert origin is not None
    old = place.repo.resolve("vm~1")
    for told, wrong in (
        (origin.disk.manifest, old.disks[0].manifest),
        (origin.commit.id, old.id),
        (origin.commit.id, "0" * 64),
        ('"disk":"vm"', '"disk":"other"'),
    ):
        place.stamp.write_bytes(good.replace(told.encode(), wrong.encode()))
        assert place.seen.recall(place.image) is None
    place.stamp.write_bytes(good)
    assert place.is_same()
