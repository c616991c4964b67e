"""The file system and its model do the same; what is said once on top of them holds."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import pytest

from tests.crash import faults, model
from vimgvc import errors
from vimgvc.backends import files


@pytest.fixture(params=["real", "model"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[files.Files, str]:
    """A file system and an empty directory in it."""
    if request.param == "real":
        return files.RealFiles(), str(tmp_path)
    return model.ModelFiles(["/a/b"]), "/a/b"


def write(system: files.Files, path: str, content: bytes = b"content") -> None:
    handle = system.create(path)
    files.write_all(system, handle, [content])
    system.fsync(handle)
    system.close(handle)


def read(system: files.Files, path: str) -> bytes:
    handle, size = system.open(path)
    try:
        return files.read_exactly(system, handle, size, 0)
    finally:
        system.close(handle)


def everything(_name: str) -> bool:
    return True


class TestFiles:
    def test_write_and_read(self, place: tuple[files.Files, str]) -> None:
        """Parts are appended in order; a range is read from anywhere, and nothing beyond the end."""
        system, root = place
        handle = system.create(f"{root}/a")
        files.write_all(system, handle, [b"0123", bytearray(b"45"), memoryview(b"x6789x")[1:5]])
        system.fsync(handle)
        system.close(handle)
        handle, size = system.open(f"{root}/a")
        assert size == 10
        assert system.pread(handle, 4, 3) == b"3456"
        assert system.pread(handle, 10, 8) == b"89"
        assert system.pread(handle, 10, 10) == b""
        system.close(handle)

    def test_names_are_given_once(self, place: tuple[files.Files, str]) -> None:
        """Nothing that makes a name takes one that is there, be it a file or a directory."""
        system, root = place
        write(system, f"{root}/file")
        write(system, f"{root}/other", b"other")
        system.mkdir(f"{root}/directory")
        for taken in ("file", "directory"):
            path = f"{root}/{taken}"
            makers: list[Callable[[], object]] = [
                lambda path=path: system.create(path),  # type: ignore[misc]
                lambda path=path: system.mkdir(path),  # type: ignore[misc]
                lambda path=path: system.link(f"{root}/other", path),  # type: ignore[misc]
                lambda path=path: system.rename_new(f"{root}/other", path),  # type: ignore[misc]
            ]
            for make in makers:
                with pytest.raises(FileExistsError):
                    make()
        assert read(system, f"{root}/file") == b"content"
        assert read(system, f"{root}/other") == b"other"

    def test_link_and_rename(self, place: tuple[files.Files, str]) -> None:
        """A link is a second name of the same file, a rename another name instead of the first."""
        system, root = place
        write(system, f"{root}/a")
        system.link(f"{root}/a", f"{root}/b")
        assert system.status(f"{root}/a").identity == system.status(f"{root}/b").identity
        system.unlink(f"{root}/a")
        system.rename_new(f"{root}/b", f"{root}/c")
        assert [entry.name for entry in system.scan(root, everything)] == ["c"]
        assert read(system, f"{root}/c") == b"content"

    def test_missing(self, place: tuple[files.Files, str]) -> None:
        """What is asked of a name that is not there says so; likewise in a directory that is not there."""
        system, root = place
        for path in (f"{root}/no", f"{root}/no/no"):
            for call in (system.open, system.status, system.unlink, system.fsync_dir):
                with pytest.raises(FileNotFoundError):
                    call(path)
            with pytest.raises(FileNotFoundError):
                system.scan(path, everything)
            with pytest.raises(FileNotFoundError):
                system.link(path, f"{root}/new")
        for make in (system.create, system.mkdir):
            with pytest.raises(FileNotFoundError):
                make(f"{root}/no/no")

    def test_wrong_kind(self, place: tuple[files.Files, str]) -> None:
        """A directory is not opened or unlinked, a file is not scanned or walked through."""
        system, root = place
        system.mkdir(f"{root}/directory")
        write(system, f"{root}/file")
        with pytest.raises(OSError, match="Errno") as raised:
            system.open(f"{root}/directory")
        assert raised.value.errno == errno.EINVAL
        with pytest.raises(IsADirectoryError):
            system.unlink(f"{root}/directory")
        with pytest.raises(NotADirectoryError):
            system.scan(f"{root}/file", everything)
        with pytest.raises(NotADirectoryError):
            system.status(f"{root}/file/x")

    def test_scan_and_status(self, place: tuple[files.Files, str]) -> None:
        """A scan has the names that are wanted, with their kind and size, as `status` says."""
        system, root = place
        system.mkdir(f"{root}/directory")
        write(system, f"{root}/file", bytes(5000))
        write(system, f"{root}/unwanted")
        found = {entry.name: entry for entry in system.scan(root, lambda name: name != "unwanted")}
        assert {name: (entry.is_directory, entry.size) for name, entry in found.items()} == {
            "directory": (True, 0),
            "file": (False, 5000),
        }
        status = system.status(f"{root}/file")
        assert (status.is_regular, status.is_directory, status.size) == (True, False, 5000)
        assert system.status(f"{root}/directory").is_directory
        assert system.writable(root)

    def test_sync(self, place: tuple[files.Files, str]) -> None:
        """Files and directories can be synced, again and again."""
        system, root = place
        write(system, f"{root}/a")
        system.fsync_dir(root)
        system.fsync_dir(root)
        assert read(system, f"{root}/a") == b"content"

    def test_locks(self, place: tuple[files.Files, str]) -> None:
        """Shared locks go together, an exclusive one with none; a closed handle holds nothing."""
        system, root = place
        path = f"{root}/lock"
        shared = [system.lock(path, exclusive=False) for _ in range(2)]
        with pytest.raises(BlockingIOError):
            system.lock(path, exclusive=True)
        for handle in shared:
            system.close(handle)
        exclusive = system.lock(path, exclusive=True)
        for wanted in (False, True):
            with pytest.raises(BlockingIOError):
                system.lock(path, exclusive=wanted)
        system.close(exclusive)
        system.close(system.lock(path, exclusive=False))


class TestRealFiles:
    def test_modes(self, tmp_path: pathlib.Path) -> None:
        """Files are made for their owner only, whatever the umask lets through."""
        system, before = files.RealFiles(), os.umask(0)
        try:
            write(system, f"{tmp_path}/file")
            system.mkdir(f"{tmp_path}/directory")
            system.close(system.lock(f"{tmp_path}/lock", exclusive=False))
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert modes == {"file": 0o600, "directory": 0o700, "lock": 0o600}

    def test_only_regular_files(self, tmp_path: pathlib.Path) -> None:
        """A symbolic link, a FIFO or a socket is neither opened nor listed, and nothing waits for one."""
        system = files.RealFiles()
        write(system, f"{tmp_path}/file")
        os.symlink(f"{tmp_path}/file", f"{tmp_path}/link")
        os.symlink("/", f"{tmp_path}/link-to-directory")
        os.mkfifo(f"{tmp_path}/fifo")
        for name in ("link", "fifo"):
            with pytest.raises(OSError, match="Errno"):
                system.open(f"{tmp_path}/{name}")
            assert not system.status(f"{tmp_path}/{name}").is_regular
        assert [entry.name for entry in system.scan(str(tmp_path), everything)] == ["file"]

    def test_descriptors_are_closed(self, tmp_path: pathlib.Path) -> None:
        """No call leaves a descriptor open, also when it fails; children inherit none."""
        system = files.RealFiles()
        before = set(os.listdir("/proc/self/fd"))
        write(system, f"{tmp_path}/file")
        held = system.lock(f"{tmp_path}/lock", exclusive=True)
        assert not os.get_inheritable(held)
        with pytest.raises(BlockingIOError):
            system.lock(f"{tmp_path}/lock", exclusive=True)
        with pytest.raises(OSError, match="Errno"):
            system.open(str(tmp_path))
        with pytest.raises(FileExistsError):
            system.create(f"{tmp_path}/file")
        system.fsync_dir(str(tmp_path))
        system.scan(str(tmp_path), everything)
        system.close(held)
        assert set(os.listdir("/proc/self/fd")) == before

    def test_lock_ends_with_the_process(self, tmp_path: pathlib.Path) -> None:
        """A killed process holds no lock: there is nothing to remove by hand."""
        system, path = files.RealFiles(), f"{tmp_path}/lock"
        hold = (
            "import sys; from vimgvc.backends import files;"
            "files.RealFiles().lock(sys.argv[1], exclusive=True); print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            with pytest.raises(BlockingIOError):
                system.lock(path, exclusive=False)
            child.kill()
            child.wait()
            system.close(system.lock(path, exclusive=True))


class Stingy:
    """Writes and reads so many bytes a call; notes what it was handed."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.written = bytearray()
        self.handed: list[memoryview] = []

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        self.handed.extend(parts)
        piece = b"".join(parts)[: self.most]
        self.written += piece
        return len(piece)

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        return bytes(self.written[offset : offset + min(length, self.most)])


@pytest.mark.parametrize("most", [1, 2, 3, 7, 1000])
def test_short_calls(most: int) -> None:
    """However little a call does, everything is written in order and read back."""
    stingy = Stingy(most)
    parts: list[bytes | bytearray | memoryview] = [b"", b"abc", bytearray(b"d"), b"", memoryview(b"efghijk"), b"l" * 30]
    files.write_all(stingy, 0, parts)  # type: ignore[arg-type]
    assert stingy.written == b"abcdefghijk" + b"l" * 30
    assert files.read_exactly(stingy, 0, 20, 5) == stingy.written[5:25]  # type: ignore[arg-type]
    assert files.read_exactly(stingy, 0, 100, 5) == stingy.written[5:]  # type: ignore[arg-type]


def test_parts_are_not_copied() -> None:
    """What reaches the system call are views of the caller's buffers."""
    stingy, parts = Stingy(3), [bytearray(b"abcdef"), bytearray(b"ghi")]
    files.write_all(stingy, 0, parts)  # type: ignore[arg-type]
    assert all(any(view.obj is part for part in parts) for view in stingy.handed)


def test_many_parts(tmp_path: pathlib.Path) -> None:
    """More parts than one system call takes are written all the same."""
    system = files.RealFiles()
    handle = system.create(f"{tmp_path}/file")
    files.write_all(system, handle, [b"%04d" % number for number in range(5000)])
    system.close(handle)
    assert read(system, f"{tmp_path}/file") == b"".join(b"%04d" % number for number in range(5000))


def test_write_that_does_nothing_is_an_error() -> None:
    """A call that takes no byte and reports no error does not make the writer try for ever."""
    with pytest.raises(OSError, match="Errno") as raised:
        files.write_all(Stingy(0), 0, [b"abc"])  # type: ignore[arg-type]
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("error", "expected", "kind"),
    [
        (errno.ENOSPC, errors.NoSpace, None),
        (errno.EDQUOT, errors.NoSpace, None),
        (errno.EIO, errors.BackendError, "EIO"),
        (errno.EROFS, errors.BackendError, "EROFS"),
        (errno.ENOENT, errors.BackendError, "ENOENT"),
        (errno.EACCES, errors.BackendError, "EACCES"),
    ],
)
def test_door(error: int, expected: type[errors.VimgvcError], kind: str | None) -> None:
    """Behind the door every `OSError` is a typed error that tells the kind, and keeps its cause."""
    with pytest.raises(expected) as raised, files.door("/place"):
        raise OSError(error, os.strerror(error))
    assert type(raised.value) is expected
    assert raised.value.hint
    assert getattr(raised.value, "kind", None) == kind
    assert isinstance(raised.value.__cause__, OSError)


def test_interrupted_calls_are_repeated() -> None:
    """An interrupted call is repeated until it goes through; one that never does is an error in the end."""
    system = faults.FaultyFiles(model.ModelFiles(["/a"]), faults.Fault(0, errno.EINTR))
    files.again(system.mkdir, "/a/b")
    assert system.seen == ["mkdir", "mkdir"]
    system = faults.FaultyFiles(model.ModelFiles(["/a"]), faults.Fault(0, errno.EINTR, persistent=True))
    with pytest.raises(InterruptedError):
        files.again(system.mkdir, "/a/b")


def test_directory_that_cannot_be_synced() -> None:
    """Where directories cannot be synced, everything is; any other error is one."""
    disk = model.ModelFiles(["/a"])
    disk.mkdir("/a/b")
    unable = faults.FaultyFiles(disk, faults.Fault(0, errno.EINVAL, persistent=True, only="fsync_dir"))
    files.sync_directory(unable, "/a")
    assert unable.seen == ["fsync_dir", "sync_all"]
    assert not disk.pending()
    broken = faults.FaultyFiles(disk, faults.Fault(0, errno.EIO, only="fsync_dir"))
    with pytest.raises(OSError, match="Errno"):
        files.sync_directory(broken, "/a")


def test_real_files_are_shared_by_threads(tmp_path: pathlib.Path) -> None:
    """Of threads that create one file, one does."""
    system, won, start = files.RealFiles(), [], threading.Barrier(4)

    def create() -> None:
        start.wait()
        try:
            won.append(system.create(f"{tmp_path}/file"))
        except FileExistsError:
            return

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    system.close(won[0])
