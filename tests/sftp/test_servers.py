"""What differs between servers: extensions that are missing, rights that are withheld, disks that are full."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests import devices
from tests.servers import s3_places, sshd
from tests.sftp.conftest import QUICK, TRIED, Open
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import probe, protocol, sftp, sftp_url


def make(server: sshd.Sshd, root: pathlib.Path, kind: str = "plain") -> sftp.SftpBackend:
    return sftp.open_backend(server.url(root, kind), create=True, environ=os.environ, patience=QUICK)


def temporaries(root: pathlib.Path) -> list[pathlib.Path]:
    return list(root.rglob(".tmp-*"))


class TestMaking:
    def test_areas(self, server: sshd.Sshd, tmp_path: pathlib.Path) -> None:
        """A new repository has its areas and shards and nothing else, all of it the user's alone; then it opens."""
        root = tmp_path / "deep" / "repository"
        place = make(server, root)
        assert sorted(path.name for path in root.iterdir()) == sorted([*protocol.AREAS, "lock"])
        assert len(list((root / "packs").iterdir())) == 256
        assert {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()} == {0o700}
        url = server.url(root)
        with pytest.raises(errors.NoRepository):
            sftp.open_backend(url, create=False, environ=os.environ)
        place.put(protocol.CONFIG, [b"config"])
        place.close()
        assert (root / "config").stat().st_mode & 0o777 == 0o600
        again = sftp.open_backend(url, create=False, environ=os.environ)
        assert (again.get("config"), again.url) == (b"config", url)
        again.close()

    def test_occupied(self, server: sshd.Sshd, tmp_path: pathlib.Path) -> None:
        """No repository is made in one, in a directory with other things, or in a file; an interrupted one goes on."""
        place = make(server, tmp_path / "a")
        place.put(f"keys/{'0' * 32}-0", [b"of an init that was interrupted"])
        place.close()
        make(server, tmp_path / "a").close()
        assert list((tmp_path / "a" / "keys").iterdir()) == []
        (tmp_path / "a" / "config").write_bytes(b"x")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "letter").write_bytes(b"x")
        (tmp_path / "c").write_bytes(b"x")
        for name, reason in (("a", "already"), ("b", "'letter'"), ("c", "not a directory")):
            with pytest.raises(errors.UsageError, match=reason):
                make(server, tmp_path / name)

    def test_two_at_once(self, server: sshd.Sshd, tmp_path: pathlib.Path) -> None:
        """Of two that make a repository in one place one is told Busy, until the other gives up or is done."""
        root = tmp_path / "repository"
        first = make(server, root)
        first.put(f"keys/{'0' * 32}-0", [b"slot"])
        with pytest.raises(errors.Busy, match="somebody else is making"):
            make(server, root)
        assert first.get(f"keys/{'0' * 32}-0") == b"slot"
        first.close()
        second = make(server, root)
        assert list(second.list("keys")) == []
        os.utime(root / "lock", (time.time() - 1000,) * 2)  # as if it had been killed
        third = make(server, root)
        third.put(protocol.CONFIG, [b"config"])
        assert not (root / "lock").exists()
        second.close()
        with pytest.raises(errors.UsageError, match="already"):
            make(server, root)
        third.close()
        assert temporaries(root) == []

    def test_missing_area(self, connect: Open, root: pathlib.Path) -> None:
        """N6: an area that is missing is an error, never an empty listing, and nobody makes it again."""
        (root / "index").rmdir()
        place = connect(root)
        for use in (lambda: list(place.list("index")), lambda: place.put(f"index/{'0' * 64}", [b"x"])):
            with pytest.raises(errors.BackendError, match="directory is missing") as raised:
                use()
            assert raised.value.kind == "ENOENT"
        (root / "gc").rmdir()
        assert list(place.list("gc")) == []
        assert place.put(f"gc/{'0' * 16}-done", [b"x"])


class TestExtensions:
    """N11: what a server has beyond version 3 of the protocol decides what is promised."""

    @pytest.mark.parametrize(
        ("kind", "durable"),
        [("plain", True), ("no_sync", False), ("bare", False), ("read_only", False)],
    )
    def test_n11_promises(self, connect: Open, root: pathlib.Path, kind: str, durable: bool) -> None:
        """N11: a place on a server without fsync does not promise to be durable."""
        found = connect(root, kind).capabilities
        assert (found.durable, found.read_only, found.locks) == (durable, False, False)
        assert found.exclusive_create
        assert found.parallel > 1
        assert temporaries(root) == []

    @pytest.mark.parametrize("kind", ["plain", "no_sync", "bare", "append_only"])
    def test_n11_trial(self, server: sshd.Sshd, root: pathlib.Path, kind: str) -> None:
        """N11: before the first blob a place is tried, and what was found is remembered and not asked again."""
        memory = s3_places.Remembered()
        address = sftp_url.parse(server.url(root, kind))
        for _ in range(2):
            place = sftp.SftpBackend(address, os.environ, memory, QUICK)
            place.put(backend.pack(1), [b"x"])
            place.close()
            left, removes = len(temporaries(root)), kind != "append_only"
            assert memory.answers == {address.url: probe.Answer(True, True, removes, kind in ("plain", "append_only"))}
            # Where nothing may be removed, what the trial made stays, and the temporary name of each blob.
            assert left <= (0 if removes else 3 + 2)

    def test_n11_one_channel(self, connect: Open, root: pathlib.Path) -> None:
        """A server that allows one channel for each connection gets one, and serves many threads."""
        place = connect(root, "one_channel")
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert all(threads.map(lambda number: place.put(backend.pack(number), [b"x"]), range(1, 60)))

    @pytest.mark.parametrize("kind", ["plain", "bare"])
    def test_nothing_is_left(self, connect: Open, root: pathlib.Path, kind: str) -> None:
        """After puts that won and puts that came second there is no temporary file."""
        place = connect(root, kind)
        for number in (1, 1, 2, 2):
            place.put(backend.pack(number), [bytes(600_000)])
        place.put(backend.pack(1), [b"x"])
        place.sync()
        place.close()
        assert temporaries(root) == []

    def test_stale(self, connect: Open, root: pathlib.Path) -> None:
        """What dead writers left is removed after a week, and nothing else."""
        old, young, foreign = (root / "packs" / "00" / name for name in (f".tmp-{1:016x}", f".tmp-{2:016x}", ".tmp-x"))
        for path in (old, young, foreign):
            path.write_bytes(b"x")
        now = time.time()
        os.utime(old, (now - 8 * 86400,) * 2)
        os.utime(foreign, (now - 8 * 86400,) * 2)
        assert connect(root).remove_stale(now) == 1
        assert [path.exists() for path in (old, young, foreign)] == [False, True, True]


class TestRights:
    def test_n24_append_only(self, connect: Open, root: pathlib.Path) -> None:
        """N24: with rights to add only, adding, reading and listing work; removing says which right is missing."""
        place = connect(root, "append_only")
        blob = os.urandom(700_000)
        assert place.put(backend.pack(1), [blob])
        assert not place.put(backend.pack(1), [b"other"])
        place.sync()
        assert place.get(backend.pack(1)) == blob
        assert backend.names(place.list("packs")) == [backend.pack(1)]
        assert place.capabilities.removes
        with pytest.raises(errors.RemoteError, match="does not let this user remove files") as raised:
            place.delete(backend.pack(1))
        assert raised.value.exit_code == 25
        assert place.get(backend.pack(1)) == blob
        assert not place.capabilities.removes

    def test_n24_read_only(self, connect: Open, root: pathlib.Path) -> None:
        """N24: whoever may only read can do that, and is told what else is missing."""
        connect(root).put(backend.pack(1), [b"x"])
        place = connect(root, "read_only")
        assert place.get(backend.pack(1)) == b"x"
        place.sync()
        with pytest.raises(errors.RemoteError, match="does not let this user write") as raised:
            place.put(backend.pack(2), [b"y"])
        assert raised.value.kind == "EACCES"

    def test_n24_no_write(self, connect: Open, root: pathlib.Path) -> None:
        """N24: a right that is missing in the middle of a put leaves no blob."""
        with pytest.raises(errors.RemoteError, match="does not let this user write"):
            connect(root, "no_files").put(backend.pack(1), [b"x"])
        assert list(connect(root).list("packs")) == []

    def test_locks(self, connect: Open, root: pathlib.Path) -> None:
        """Nobody can be kept out: the shared lock is nothing, the exclusive one an error with a way out."""
        place = connect(root)
        with place.lock_shared():
            pass
        with pytest.raises(errors.RemoteError, match="nobody can be kept out"), place.lock_exclusive():
            pass


@pytest.fixture
def small(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    with devices.small(tmp_path / "small", 4 << 20) as folder:
        yield folder


class TestFull:
    def test_n12_full(self, server: sshd.Sshd, small: pathlib.Path) -> None:
        """N12: a full disk is told as such, exit code 24, and leaves nothing; what fits is stored."""
        root = small / "repository"
        place = make(server, root)
        with pytest.raises(errors.NoSpace, match="no space left on the server") as raised:
            place.put(backend.pack(1), [bytes(6 << 20)])
        assert raised.value.exit_code == 24
        assert place.put(backend.pack(1), [bytes(1 << 20)])
        assert backend.names(place.list("packs")) == [backend.pack(1)]
        place.close()
        assert temporaries(root) == []

    def test_n12_read_only_mount(self, server: sshd.Sshd, small: pathlib.Path) -> None:
        """A file system that is mounted read-only is told as such, and known before anything is written."""
        root = small / "repository"
        place = make(server, root)
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        with pytest.raises(errors.RemoteError, match="read-only") as raised:
            place.put(backend.pack(1), [b"x"])
        assert raised.value.kind == "EROFS"
        place.close()
        place = sftp.SftpBackend(place._address, os.environ, None, QUICK)
        assert place.capabilities.read_only
        place.close()


class TestPowerCut:
    """The kernel's own power cuts, of file systems below the server."""

    @pytest.mark.parametrize(("kind", "size"), [("ext4", 32 << 20), ("xfs", 300 << 20)])
    @pytest.mark.parametrize("flag", [devices.FLUSH, devices.NO_FLUSH])
    def test_d2_power_cuts(self, server: sshd.Sshd, tmp_path: pathlib.Path, kind: str, size: int, flag: int) -> None:
        """What `sync` confirmed is there, what was not confirmed is whole or absent, what was deleted is gone."""
        with devices.disk(tmp_path, size, kind) as disk:
            root = disk.folder / "repository"
            make(server, root).close()
            place = self._cut(disk, server, root, 0)
            blobs = {backend.pack(number): os.urandom(1000 * number) for number in range(1, 12)}
            blobs |= {backend.entry(number, 1): os.urandom(100) for number in range(1, 6)}
            for name, blob in blobs.items():
                assert place.put(name, [blob])
            place.sync()
            place = self._cut(disk, server, root, flag, place)
            assert self._found(place) == blobs
            gone = (backend.pack(3), backend.entry(2, 1))
            place.delete_all(gone)
            place = self._cut(disk, server, root, flag, place)
            assert self._found(place) == {name: blob for name, blob in blobs.items() if name not in gone}
            more = {backend.pack(number): os.urandom(1000 * number) for number in range(100, 120)}
            for name, blob in more.items():
                assert place.put(name, [blob])
            place = self._cut(disk, server, root, flag, place)
            found = self._found(place)
            assert found.items() <= (blobs | more).items()
            assert flag == devices.NO_FLUSH or found.keys() >= more.keys()
            place.close()

    def _cut(
        self,
        disk: devices.Disk,
        server: sshd.Sshd,
        root: pathlib.Path,
        flag: int,
        place: sftp.SftpBackend | None = None,
    ) -> sftp.SftpBackend:
        """The place after a power cut."""
        if flag:
            disk.cut(flag)
        if place is not None:
            place.close()
        if flag:
            disk.reboot()
        return sftp.SftpBackend(sftp_url.parse(server.url(root)), os.environ, TRIED, QUICK)

    def _found(self, place: sftp.SftpBackend) -> dict[str, bytes]:
        return {item.name: place.get(item.name) for area in ("packs", "refs") for item in place.list(area)}
