"""The directory backend passes the suite of all backends, and keeps what it promises of its files."""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable

import pytest

from tests.crash import faults, model, mutants, recorder, states
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import files, local, protocol, skeleton


class OfDirectory(backend.BackendSuite):
    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        quarantine = pathlib.Path(backend.url, "quarantine")
        return {
            str(path.relative_to(quarantine)): path.read_bytes() for path in quarantine.rglob("*") if path.is_file()
        }


class TestLocalBackend(OfDirectory):
    def create(self, folder: pathlib.Path) -> local.LocalBackend:
        return local.LocalBackend.create(folder / "repository")


class TestWithoutDurability(OfDirectory):
    def create(self, folder: pathlib.Path) -> local.LocalBackend:
        return local.LocalBackend.create(folder, durable=False)


class WithoutLinks(mutants.Passing):
    """A file system that has no hard links."""

    def __init__(self, inner: files.Files) -> None:
        super().__init__(inner)
        self.link = self._refuse

    def _refuse(self, source: str, target: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), target)


class TestWithoutLinks(OfDirectory):
    def create(self, folder: pathlib.Path) -> local.LocalBackend:
        return local.LocalBackend.create(folder, WithoutLinks(files.RealFiles()))


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "repository"


@pytest.fixture
def place(root: pathlib.Path) -> local.LocalBackend:
    made = local.LocalBackend.create(root)
    made.put(protocol.CONFIG, [b"config"])
    return made


def regular_files(root: pathlib.Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


class TestPut:
    def test_sequence(self, root: pathlib.Path) -> None:
        """A blob is created beside its name, written, synced and closed before it is named; once each."""
        recording = recorder.RecordingFiles(files.RealFiles())
        place = local.LocalBackend.create(root, recording, rng=bytes)
        recording.log.clear()
        name = backend.pack(1)
        path, temporary = f"{root}/{name}", f"{root}/{name.rpartition('/')[0]}/.tmp-{'0' * 16}"
        place.put(name, [b"ab", b"c"])
        assert [str(operation) for operation in recording.log] == [
            f"create {temporary} #0",
            "write #0 3 bytes",
            "fsync #0",
            "close #0",
            f"link {temporary} {path}",
            f"unlink {temporary}",
        ]

    def test_each_directory_is_synced_once(self, root: pathlib.Path) -> None:
        """`sync` syncs each directory with new names once, and then has nothing more to do."""
        recording = recorder.RecordingFiles(files.RealFiles())
        place = local.LocalBackend.create(root, recording)
        recording.log.clear()
        for number in (0x11, 0x111, 0x211, 0x22):
            place.put(backend.pack(number), [b"x"])
        for sequence in range(3):
            place.put(backend.entry(1, sequence), [b"x"])
        place.sync()
        place.sync()
        synced = [
            operation.path.removeprefix(f"{root}/") for operation in recording.log if operation.kind == "fsync_dir"
        ]
        assert synced == ["packs", "packs/11", "packs/22", "refs", f"refs/{1:032x}"]
        assert [operation.kind for operation in recording.log].count("fsync") == 7
        recording.log.clear()
        place.put(backend.pack(0x311), [b"x"])
        place.sync()
        assert [operation.path for operation in recording.log if operation.kind == "fsync_dir"] == [f"{root}/packs/11"]

    def test_directory_that_was_removed(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """A directory that somebody removed between two puts is as new as at first: its name is synced again."""
        recording = recorder.RecordingFiles(files.RealFiles())
        again = local.LocalBackend(root, recording)
        again.put(backend.entry(1, 1), [b"x"])
        again.sync()
        (root / backend.entry(1, 1)).unlink()
        (root / backend.entry(1, 1)).parent.rmdir()
        recording.log.clear()
        again.put(backend.entry(1, 1), [b"x"])
        again.sync()
        synced = [operation.path for operation in recording.log if operation.kind == "fsync_dir"]
        assert synced == [f"{root}/refs", f"{root}/refs/{1:032x}"]

    def test_not_durable_syncs_nothing(self, root: pathlib.Path) -> None:
        """The switch for measurements leaves out every sync of blobs and names, and is declared."""
        recording = recorder.RecordingFiles(files.RealFiles())
        place = local.LocalBackend.create(root, recording, durable=False)
        recording.log.clear()
        place.put(backend.pack(1), [b"x"])
        place.sync()
        place.delete(backend.pack(1))
        assert not {"fsync", "fsync_dir"} & {operation.kind for operation in recording.log}
        assert (place.capabilities.durable, local.LocalBackend(root).capabilities.durable) == (False, True)

    def test_d12_no_temporary_file_elsewhere(
        self, place: local.LocalBackend, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """D12: a missing or full directory for temporary files is none of our business."""
        monkeypatch.setenv("TMPDIR", f"{root}/does/not/exist")
        monkeypatch.setattr(tempfile, "tempdir", None)
        recording = recorder.RecordingFiles(files.RealFiles())
        local.LocalBackend(root, recording).put(backend.pack(1), [bytes(1 << 20)])
        paths = [operation.path for operation in recording.log if operation.path]
        assert paths
        assert all(path.startswith(f"{root}/packs/") for path in paths)

    def test_nothing_is_left_beside(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """After a put, won or lost, there are only final names."""
        for _ in range(2):
            place.put(backend.pack(1), [b"x"])
        assert regular_files(root) == {"config", "lock", backend.pack(1)}

    def test_taken_by_something_else(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """What is no regular file does not count as the blob: neither put nor get nor size is content with it."""
        makers: list[Callable[[str], None]] = [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/hostname", path)]
        for number, make in enumerate(makers):
            name = backend.pack(number)
            make(f"{root}/{name}")
            with pytest.raises(errors.BackendError) as put:
                place.put(name, [b"x"])
            with pytest.raises(errors.BackendError) as size:
                place.size(name)
            assert (put.value.kind, size.value.kind) == ("not a file", "not a file")
            with pytest.raises(errors.BackendError):
                place.get(name)
        assert list(place.list("packs")) == []

    def test_deleted_is_gone_for_good(self, root: pathlib.Path) -> None:
        """A blob that was deleted does not come back with the next power cut."""
        disk = model.ModelFiles([str(root.parent)])
        place = local.LocalBackend.create(root, disk)
        place.put(backend.pack(1), [b"x"])
        place.sync()
        place.delete(backend.pack(1))
        assert not disk.pending()
        assert list(place.list("packs")) == []

    def test_file_that_shrinks(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """A file that somebody cuts off while it is read is damage, not a short answer."""
        name = backend.pack(1)
        place.put(name, [b"0123456789"])
        with pytest.raises(errors.IntegrityError) as raised:
            local.LocalBackend(root, CutsOff(files.RealFiles())).get(name)
        assert raised.value.where == name

    def test_lost_reply(self, root: pathlib.Path) -> None:
        """A link that was made although the answer is that the name exists (NFS) was made by us."""
        disk = model.ModelFiles([str(root.parent)])
        place = local.LocalBackend.create(root, LostReply(disk))
        assert place.put(backend.pack(1), [b"x"])
        assert place.get(backend.pack(1)) == b"x"
        assert [path for path in disk.tree("/") if ".tmp-" in path] == []

    def test_neither_links_nor_exclusive_renames(self, root: pathlib.Path) -> None:
        """Where a name cannot be given exclusively nothing is stored."""
        disk = model.ModelFiles([str(root.parent)])
        local.LocalBackend.create(root, disk)
        unable = faults.FaultyFiles(disk, faults.Fault(0, errno.EINVAL, persistent=True, only="rename_new"))
        place = local.LocalBackend(root, WithoutLinks(unable))
        with pytest.raises(errors.BackendError):
            place.put(backend.pack(1), [b"x"])
        assert {path for path, content in disk.tree("/").items() if content is not None} == {f"{root}/lock"}

    def test_not_into_an_empty_mount_point(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """When the root or an area is gone nothing is made in its place, and nothing is taken for empty."""
        (root / "packs").rename(root / "elsewhere")
        for call in (lambda: place.put(backend.pack(1), [b"x"]), lambda: list(place.list("packs"))):
            with pytest.raises(errors.BackendError) as raised:
                call()
            assert raised.value.kind == "ENOENT"
        root.rename(root.with_name("moved"))
        with pytest.raises(errors.BackendError):
            place.put(protocol.CONFIG, [b"x"])
        assert not root.exists()


class CutsOff(mutants.Passing):
    """Makes every file shorter as soon as its size is known."""

    def __init__(self, inner: files.Files) -> None:
        super().__init__(inner)
        self.open = self._open

    def _open(self, path: str) -> tuple[int, int]:
        found = self.inner.open(path)
        os.truncate(path, 4)
        return found


class LostReply(mutants.Passing):
    """Does what it is asked to and says that somebody else had done it before."""

    def __init__(self, inner: files.Files) -> None:
        super().__init__(inner)
        self.link = self._link

    def _link(self, source: str, target: str) -> None:
        self.inner.link(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


def test_sync_waits_for_the_other(root: pathlib.Path) -> None:
    """A sync does not return while another thread is still syncing what was put before."""
    slow = SlowSync(files.RealFiles())
    place = local.LocalBackend.create(root, slow)
    place.put(backend.pack(1), [b"x"])
    slow.hold.clear()
    first = threading.Thread(target=place.sync)
    first.start()
    slow.reached.wait()
    returned: list[bool] = []

    def sync_too() -> None:
        place.sync()
        returned.append(slow.hold.is_set())

    second = threading.Thread(target=sync_too)
    second.start()
    slow.hold.set()
    first.join()
    second.join()
    assert returned == [True]


class SlowSync(mutants.Passing):
    """Holds up the sync of a directory while `hold` is not set."""

    def __init__(self, inner: files.Files) -> None:
        super().__init__(inner)
        self.hold, self.reached = threading.Event(), threading.Event()
        self.hold.set()

    def fsync_dir(self, path: str) -> None:
        if not self.hold.is_set():
            self.reached.set()
            self.hold.wait()
        super().fsync_dir(path)


class Picky(mutants.Passing):
    """Notes the names that are wanted of what is found."""

    def __init__(self, inner: files.Files) -> None:
        super().__init__(inner)
        self.accepted: list[str] = []
        self.scan = self._scan

    def _scan(self, path: str, keep: Callable[[str], bool]) -> list[files.Entry]:
        found = self.inner.scan(path, keep)
        self.accepted.extend(entry.name for entry in found)
        return found


class TestForeignNames:
    def test_r16_are_skipped(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """R16: whatever else lies in the directories is no blob, and costs no look at it."""
        name = backend.pack(0xAB)
        blob = name.rpartition("/")[2]
        place.put(name, [b"x"])
        place.put(backend.entry(1, 1), [b"y"])
        shard = (root / name).parent
        foreign = [
            ".tmp-0123456789abcdef",
            ".nfs000000000001",
            f"{blob}~",
            f"{blob}.bak",
            "Thumbs.db",
            blob[:-1],
            "README",
        ]
        for area in ("packs", name[:8], "refs", f"refs/{1:032x}", "index", "keys", "commits"):
            (root / area / "lost+found").mkdir()
            for junk in [*foreign, *(f"junk{number}" for number in range(50))]:
                (root / area / junk).write_bytes(b"junk")
        (shard / blob.upper()).write_bytes(b"junk")
        (shard / ("00" + blob[2:])).write_bytes(b"in the wrong shard")
        (root / "index" / blob).mkdir()
        os.symlink("/etc/hostname", root / "commits" / blob)
        assert list(place.list("packs")) == [protocol.Item(name, 1)]
        assert list(place.list("refs")) == [protocol.Item(backend.entry(1, 1), 1)]
        assert [item for area in ("index", "keys", "commits") for item in place.list(area)] == []

    def test_r16_junk_is_not_looked_at(self, root: pathlib.Path) -> None:
        """R16: of 100,000 junk names in an area not one is asked for its status or opened."""
        disk = model.ModelFiles([str(root.parent)])
        local.LocalBackend.create(root, disk)
        names = [f"junk-{number:05d}" for number in range(100_000)]
        disk.add_files(f"{root}/index", [*names, "ab" * 32])
        watched = faults.FaultyFiles(disk, None)
        picky = Picky(watched)
        assert len(list(local.LocalBackend(root, picky).list("index"))) == 1
        assert picky.accepted == ["ab" * 32]
        assert watched.seen == ["scan"]

    def test_d1_stale_temporary_files(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """D1: temporary files of a killed process are in nobody's way; only ours go, and only after a week."""
        now = 1_800_000_000.0
        place.put(backend.pack(1), [b"x"])
        place.put(backend.entry(1, 1), [b"x"])
        directories = [
            root,
            root / "packs" / "10",
            root / "refs" / f"{1:032x}",
            *(root / area for area in protocol.AREAS),
        ]
        names = [".tmp-" + "0" * 16, ".tmp-" + "1" * 16, ".tmp-mine", ".tmp-" + "2" * 17, "a.tmp-" + "3" * 16]
        for directory in directories:
            for name in names:
                (directory / name).write_bytes(b"part of a blob")
                age = skeleton.STALE_SECONDS + (1 if name != names[1] else -1)
                os.utime(directory / name, (now - age, now - age))
        (root / "packs" / (".tmp-" + "4" * 16)).mkdir()
        before = regular_files(root)
        reopened = local.LocalBackend.open(root)
        assert names_of(reopened) == {backend.pack(1), backend.entry(1, 1)}
        assert skeleton.remove_stale(files.RealFiles(), str(root), now=now) == len(directories)
        gone = before - regular_files(root)
        assert gone == {str((directory / names[0]).relative_to(root)) for directory in directories}


def names_of(place: local.LocalBackend) -> set[str]:
    return {item.name for area in protocol.AREAS for item in place.list(area)}


def test_a_repository_without_later_areas(place: local.LocalBackend, root: pathlib.Path) -> None:
    """One made before there were these areas lists them as empty, and gets them with the first blob."""
    for area in protocol.LATER:
        (root / area).rmdir()
    opened = local.LocalBackend.open(root)
    for area in protocol.LATER:
        assert list(opened.list(area)) == []
    assert skeleton.remove_stale(files.RealFiles(), str(root), now=2e9) == 0
    for name in (f"forgotten/{'a' * 64}", f"inbox/{'a' * 32}/key"):
        assert opened.put(name, [b"x"])
        opened.sync()
        assert [item.name for item in local.LocalBackend.open(root).list(name.partition("/")[0])] == [name]


def test_a_later_area_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An area that comes with its first blob is there after a power cut, when that was synced."""
    for name in (f"forgotten/{'a' * 64}", f"inbox/{'a' * 32}/key"):
        disk = model.ModelFiles(["/disk"])
        with monkeypatch.context() as before:
            before.setattr(
                protocol, "AREAS", {area: _ for area, _ in protocol.AREAS.items() if area != name[: name.index("/")]}
            )
            local.LocalBackend.create(pathlib.Path("/disk/place"), disk).put(protocol.CONFIG, [b"c"])
        place = local.LocalBackend(pathlib.Path("/disk/place"), disk)
        assert place.put(name, [b"x"])
        place.sync()
        after = local.LocalBackend(pathlib.Path("/disk/place"), disk.crash(states.Certain("synced")))
        assert after.get(name) == b"x"


def test_set_aside_again_after_a_kill(place: local.LocalBackend, root: pathlib.Path) -> None:
    """Killed between its two names, a blob has both; setting it aside again leaves one."""
    place.put(backend.pack(1), [b"x"])
    place.set_aside(backend.pack(1))
    aside = root / "quarantine" / backend.pack(1)
    os.link(aside, root / backend.pack(1))
    place.set_aside(backend.pack(1))
    assert list(aside.parent.iterdir()) == [aside]
    assert not (root / backend.pack(1)).exists()
