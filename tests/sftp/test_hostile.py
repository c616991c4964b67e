"""Servers that are broken or lie. They are asyncssh's own server with one thing changed."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncssh
import pytest

from tests.servers import faulty_sftp, sshd
from tests.sftp.conftest import Open
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import protocol, sftp, sftp_list

Lying = Callable[[type[faulty_sftp.Server]], sftp.SftpBackend]


@pytest.fixture
def lying(server: sshd.Sshd, connect: Open, root: pathlib.Path) -> Iterator[Lying]:
    """A backend at `root` behind a server of the class that is given."""
    with contextlib.ExitStack() as serving:

        def make(kind: type[faulty_sftp.Server]) -> sftp.SftpBackend:
            return connect(root, port=serving.enter_context(faulty_sftp.serving(server, kind)))

        yield make


class TestReading:
    def test_n3_short_answers(self, lying: Lying, root: pathlib.Path) -> None:
        """N3: a server that answers less than was asked for is asked for the rest."""

        class Short(faulty_sftp.Server):
            def read(self, file_obj: Any, offset: int, size: int) -> Any:
                return super().read(file_obj, offset, min(size, 7_001))

        blob = os.urandom(300_000)
        place = lying(Short)
        place.put(backend.pack(1), [blob])
        assert place.get(backend.pack(1)) == blob
        assert place.get(backend.pack(1), 290_001, 9_999) == blob[290_001:]

    @pytest.mark.parametrize("always", [False, True])
    def test_n3_ends_too_soon(self, lying: Lying, root: pathlib.Path, always: bool) -> None:
        """N3: a file that ends before its size is read once more; then it is damage, and never a short answer."""
        ended: list[int] = []

        class Ends(faulty_sftp.Server):
            def read(self, file_obj: Any, offset: int, size: int) -> Any:
                if offset >= 261_120 and (always or not ended):
                    ended.append(offset)
                    return b""
                return super().read(file_obj, offset, size)

        blob = os.urandom(300_000)
        place = lying(Ends)
        place.put(backend.pack(1), [blob])
        if not always:
            assert place.get(backend.pack(1)) == blob
            return
        with pytest.raises(errors.IntegrityError) as raised:
            place.get(backend.pack(1))
        assert raised.value.where == backend.pack(1)
        assert len(ended) == 2

    def test_n3_longer_answers(self, lying: Lying, root: pathlib.Path) -> None:
        """N3, N14: a server that sends more than it was asked for is not listened to any longer."""

        class Long(faulty_sftp.Server):
            def read(self, file_obj: Any, offset: int, size: int) -> Any:
                return bytes(size + 1)

        (root / backend.entry(1, 1)).parent.mkdir()
        (root / backend.entry(1, 1)).write_bytes(b"0123456789")
        place = lying(Long)
        place._link._patience = type(place._link._patience)(give_up=0.1, pause=0.01)
        with pytest.raises(errors.RemoteError, match="more than it was asked for"):
            place.get(backend.entry(1, 1))

    def test_n7_missing_for_a_moment(self, lying: Lying, root: pathlib.Path) -> None:
        """N7: what was just listed is looked for once more before it is believed to be missing."""
        missed: list[bytes] = []

        class Forgetful(faulty_sftp.Server):
            def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
                if pflags == asyncssh.FXF_READ and len(missed) < 1:
                    missed.append(path)
                    raise asyncssh.SFTPNoSuchFile("not there")
                return super().open(path, pflags, attrs)

        place = lying(Forgetful)
        place.put(backend.pack(1), [b"blob"])
        assert [item.name for item in place.list("packs")] == [backend.pack(1)]
        assert place.get(backend.pack(1)) == b"blob"
        assert len(missed) == 1
        with pytest.raises(errors.NotFound):
            place.get(backend.pack(2))

    def test_n14_impossible_size(self, lying: Lying, root: pathlib.Path) -> None:
        """N14: a blob that claims to have a TiB is refused before anything is asked for or allocated."""
        reads: list[int] = []

        class Huge(faulty_sftp.Server):
            def lstat(self, path: bytes) -> Any:
                found = asyncssh.SFTPAttrs.from_local(os.lstat(self.map_path(path)))
                found.size = 1 << 40
                return found

            def read(self, file_obj: Any, offset: int, size: int) -> Any:
                reads.append(size)
                return super().read(file_obj, offset, size)

        (root / "packs" / "10").mkdir(exist_ok=True)
        (root / backend.pack(1)).write_bytes(b"x")
        with pytest.raises(errors.IntegrityError, match="impossible size"):
            lying(Huge).get(backend.pack(1))
        assert reads == []


class TestWriting:
    def test_n5_truncated(self, lying: Lying, root: pathlib.Path) -> None:
        """N5: if what was acknowledged is not there in full, the blob gets no name and the put fails."""

        class Truncates(faulty_sftp.Server):
            def fsync(self, file_obj: Any) -> Any:
                os.truncate(file_obj.fileno(), 10)

            def fstat(self, file_obj: Any) -> Any:
                file_obj.flush()
                os.truncate(file_obj.fileno(), 10)
                return super().fstat(file_obj)

        place = lying(Truncates)
        with pytest.raises(errors.RemoteError, match="100 bytes were acknowledged, 10 are there"):
            place.put(backend.pack(1), [bytes(100)])
        assert list(place.list("packs")) == []

    def test_n5_absent(self, lying: Lying, root: pathlib.Path) -> None:
        """N5: a name that was acknowledged and is not there makes the put fail."""

        class Absent(faulty_sftp.Server):
            def link(self, oldpath: bytes, newpath: bytes) -> None:
                pass

        with pytest.raises(errors.IntegrityError, match="is not there"):
            lying(Absent).put(backend.pack(1), [b"x"])

    def test_n5_answers_out_of_order(self, lying: Lying, root: pathlib.Path) -> None:
        """N5: a server that looks for a name before it gives it is asked again."""
        looked: list[bytes] = []

        class Hasty(faulty_sftp.Server):
            def lstat(self, path: bytes) -> Any:
                looked.append(path)
                if len(looked) == 1:
                    raise asyncssh.SFTPNoSuchFile("not yet")
                return super().lstat(path)

        assert lying(Hasty).put(backend.pack(1), [b"x"])
        assert [os.path.basename(path) for path in looked] == [os.path.basename(backend.pack(1)).encode()] * 2

    @pytest.mark.parametrize("broken", ["open", "write", "fsync"])
    def test_a_channel_that_helps_fails(self, lying: Lying, root: pathlib.Path, broken: str) -> None:
        """Where a file cannot be opened a second time one channel writes it; what fails then makes the put fail."""
        second: set[int] = set()

        class Fails(faulty_sftp.Server):
            def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
                is_second = pflags & asyncssh.FXF_WRITE and not pflags & asyncssh.FXF_CREAT
                if is_second and broken == "open":
                    raise asyncssh.SFTPPermissionDenied("once is enough")
                file = super().open(path, pflags, attrs)
                if is_second:
                    second.add(id(file))
                return file

            def write(self, file_obj: Any, offset: int, data: bytes) -> Any:
                if id(file_obj) in second and broken == "write":
                    raise asyncssh.SFTPFailure("no")
                return super().write(file_obj, offset, data)

            def fsync(self, file_obj: Any) -> Any:
                if id(file_obj) in second and broken == "fsync":
                    raise asyncssh.SFTPFailure("no")
                return super().fsync(file_obj)

        place, blob = lying(Fails), os.urandom(17 << 20)
        if broken == "open":
            assert place.put(backend.pack(1), [blob])
            assert place.get(backend.pack(1)) == blob
            return
        with pytest.raises(errors.RemoteError):
            place.put(backend.pack(1), [blob])
        assert second
        assert list(place.list("packs")) == []

    def test_d6_fsync_fails(self, lying: Lying, root: pathlib.Path) -> None:
        """D6: a file whose fsync failed gets no name, whatever a second fsync would say; the next put is a new file."""
        failed: list[str] = []

        class Fails(faulty_sftp.Server):
            def fsync(self, file_obj: Any) -> Any:
                if not failed:
                    failed.append(file_obj.name)
                    raise asyncssh.SFTPFailure("EIO")

        place = lying(Fails)
        with pytest.raises(errors.RemoteError, match="failed to write"):
            place.put(backend.pack(1), [b"x"])
        assert list(place.list("packs")) == []
        assert place.put(backend.pack(1), [b"x"])

    def test_d6_sync_fails(self, lying: Lying, root: pathlib.Path) -> None:
        """D6: once `sync` has failed it fails for good."""
        broken: list[bool] = []

        class Fails(faulty_sftp.Server):
            def fsync(self, file_obj: Any) -> Any:
                if broken:
                    broken.pop()
                    raise asyncssh.SFTPFailure("EIO")

        place = lying(Fails)
        place.put(backend.pack(1), [b"x"])
        broken.append(True)
        for _ in range(2):
            with pytest.raises(errors.RemoteError, match="failed to sync"):
                place.sync()

    def test_n12_no_word_for_it(self, lying: Lying, root: pathlib.Path) -> None:
        """N12: a failure is a full disk if the server has no room left, and not if it has."""
        room = [0]

        class Full(faulty_sftp.Server):
            def write(self, file_obj: Any, offset: int, data: bytes) -> Any:
                raise asyncssh.SFTPFailure("Failure")

            def statvfs(self, path: bytes) -> Any:
                return asyncssh.SFTPVFSAttrs(bsize=4096, frsize=4096, bavail=room[0])

        place = lying(Full)
        with pytest.raises(errors.NoSpace):
            place.put(backend.pack(1), [b"x"])
        room[0] = 1 << 20
        with pytest.raises(errors.RemoteError, match="failed to write") as raised:
            place.put(backend.pack(1), [b"x"])
        assert raised.value.kind == "failure"

    @pytest.mark.parametrize("rename", [False, True])
    def test_d19_replaces(self, server: sshd.Sshd, tmp_path: pathlib.Path, rename: bool) -> None:
        """D19: no repository is made on a server that gives one name to two files."""

        class Replaces(faulty_sftp.Server):
            def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
                return super().open(path, pflags if rename else pflags & ~asyncssh.FXF_EXCL, attrs)

            def link(self, oldpath: bytes, newpath: bytes) -> None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.map_path(newpath))
                os.link(self.map_path(oldpath), self.map_path(newpath))

        with faulty_sftp.serving(server, Replaces) as port:
            url = f"sftp://127.0.0.1:{port}{tmp_path}/repository"
            with pytest.raises(errors.RemoteError, match="one would lose its work") as raised:
                sftp.open_backend(url, create=True, environ=os.environ)
        assert raised.value.kind == "unsafe"
        assert list((tmp_path / "repository").iterdir()) == []


class TestListing:
    def test_n13_foreign(self, lying: Lying, root: pathlib.Path) -> None:
        """N13: names with `../`, NUL or 64 KiB, links and directories are never listed, looked at or followed."""
        looked: list[bytes] = []
        good = backend.pack(1).rpartition("/")[2].encode()
        bad = [b"../../config", b"/etc/passwd", good + b"\0", b"a" * 65536, b"\xff\xfe", good + b"/..", b"", b"0" * 64]

        class Foreign(faulty_sftp.Server):
            async def scandir(self, path: bytes) -> AsyncIterator[Any]:
                for entry in os.scandir(self.map_path(path)):
                    yield asyncssh.SFTPName(entry.name, attrs=asyncssh.SFTPAttrs.from_local(os.lstat(entry.path)))
                if path.endswith(b"/packs/10"):
                    for name in bad:
                        yield asyncssh.SFTPName(name, attrs=asyncssh.SFTPAttrs(permissions=0o100600, size=1))

            def lstat(self, path: bytes) -> Any:
                looked.append(path)
                return super().lstat(path)

        place = lying(Foreign)
        place.put(backend.pack(1), [b"x"])
        (root / "packs" / "10" / backend.pack(257 << 8).rpartition("/")[2]).symlink_to("/etc/passwd")
        (root / "packs" / "10" / f"10{'a' * 62}").mkdir()
        looked.clear()
        assert list(place.list("packs")) == [protocol.Item(backend.pack(1), 1)]
        assert looked == []

    def test_n13_link_in_place_of_a_blob(self, connect: Open, root: pathlib.Path) -> None:
        """A link, or a directory, that has the name of a blob is neither read nor taken for one."""
        place = connect(root)
        (root / "index" / ("0" * 64)).symlink_to("/etc/passwd")
        (root / "index" / ("1" * 64)).mkdir()
        for name in (f"index/{'0' * 64}", f"index/{'1' * 64}"):
            for use in (place.get, place.size, lambda name: place.put(name, [b"x"]), place.set_aside):
                with pytest.raises(errors.BackendError) as raised:
                    use(name)
                assert raised.value.kind == "not a file"
        assert list(place.list("index")) == []

    @pytest.mark.parametrize("foreign", [True, False])
    def test_n14_endless(self, lying: Lying, root: pathlib.Path, foreign: bool) -> None:
        """N6, N14: a listing that never ends, with names of others or the same one again, is an error."""

        class Endless(faulty_sftp.Server):
            async def scandir(self, path: bytes) -> AsyncIterator[Any]:
                number = 0
                while True:
                    number += foreign
                    name = b"%064x" % number
                    yield asyncssh.SFTPName(
                        b"x" + name if foreign else name, attrs=asyncssh.SFTPAttrs(permissions=0o100600, size=1)
                    )

        with pytest.raises(errors.RemoteError, match="does not end"):
            lying(Endless)._do("list", b"", sftp_list.Listing(os.fsencode(root), "index", max_names=5_000).run)

    def test_n6_breaks_off(self, lying: Lying, root: pathlib.Path) -> None:
        """N6: a listing that fails in the middle is an error, not a short listing."""

        class Breaks(faulty_sftp.Server):
            async def scandir(self, path: bytes) -> AsyncIterator[Any]:
                yield asyncssh.SFTPName(b"0" * 64, attrs=asyncssh.SFTPAttrs(permissions=0o100600, size=1))
                raise asyncssh.SFTPFailure("EIO")

        with pytest.raises(errors.RemoteError, match="failed to list"):
            list(lying(Breaks).list("index"))

    def test_n6_says_too_little(self, lying: Lying, root: pathlib.Path) -> None:
        """N6: where a listing has names only, each one's status is asked for."""

        class Terse(faulty_sftp.Server):
            async def scandir(self, path: bytes) -> AsyncIterator[Any]:
                async for entry in super().scandir(path):
                    yield asyncssh.SFTPName(entry.filename, attrs=asyncssh.SFTPAttrs())

        place = lying(Terse)
        place.put(backend.pack(1), [b"12345"])
        (root / "packs" / "10" / f"10{'a' * 62}").mkdir()
        assert list(place.list("packs")) == [protocol.Item(backend.pack(1), 5)]
