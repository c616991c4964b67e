"""Making, opening and locking the directory of a repository."""

from __future__ import annotations

import errno
import pathlib

import pytest

from tests.crash import faults, model
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import local, protocol, registry


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


def names_of(place: local.LocalBackend) -> set[str]:
    return {item.name for area in protocol.AREAS for item in place.list(area)}


class TestCreate:
    def test_makes_directories(self, tmp_path: pathlib.Path) -> None:
        """A repository can be made where not even the directory above exists; all of it is durable."""
        disk = model.ModelFiles([str(tmp_path)])
        root = tmp_path / "a" / "b"
        local.LocalBackend.create(root, disk)
        assert not disk.pending()
        made = {path.removeprefix(f"{root}/") for path in disk.tree(str(root))} - {str(root)}
        shards = {f"packs/{number:02x}" for number in range(256)}
        assert made == {*protocol.AREAS, "lock"} | shards

    def test_into_a_directory_that_is_free(self, tmp_path: pathlib.Path) -> None:
        """An empty directory, or the root of a file system, is as good as none."""
        (tmp_path / "lost+found").mkdir()
        local.LocalBackend.create(tmp_path)
        assert (tmp_path / "packs" / "ff").is_dir()

    def test_occupied(self, tmp_path: pathlib.Path, place: local.LocalBackend, root: pathlib.Path) -> None:
        """A repository, a directory with anything else in it, or a file is refused, and left as it is."""
        (tmp_path / "documents").mkdir()
        (tmp_path / "documents" / "letter").write_bytes(b"dear")
        (tmp_path / "file").write_bytes(b"x")
        before = regular_files(tmp_path)
        for occupied in (root, tmp_path / "documents", tmp_path / "file"):
            with pytest.raises(errors.UsageError) as raised:
                local.LocalBackend.create(occupied)
            assert raised.value.hint
        assert regular_files(tmp_path) == before
        assert place.get(protocol.CONFIG) == b"config"

    @pytest.mark.parametrize("name", [backend.pack(1), backend.entry(1, 1), f"index/{1:064x}", f"commits/{1:064x}"])
    def test_repository_without_config(self, place: local.LocalBackend, root: pathlib.Path, name: str) -> None:
        """Where `config` is lost but anything else is stored nothing is made, and no key is removed."""
        key = f"keys/{1:032x}-0"
        place.put(name, [b"x"])
        place.put(key, [b"key"])
        place.delete(protocol.CONFIG)
        with pytest.raises(errors.UsageError):
            local.LocalBackend.create(root)
        assert names_of(local.LocalBackend.open(root)) == {name, key}

    def test_d1_after_an_interrupted_one(self, root: pathlib.Path) -> None:
        """D1: what an interrupted `init` left is no repository with another key; a new one takes its place."""
        first = local.LocalBackend.create(root)
        first.put(f"keys/{1:032x}-0", [b"a key to nothing"])
        (root / "packs" / "00" / (".tmp-" + "0" * 16)).write_bytes(b"")
        del first
        second = local.LocalBackend.create(root)
        assert names_of(second) == set()
        second.put(protocol.CONFIG, [b"config"])
        assert local.LocalBackend.open(root).get(protocol.CONFIG) == b"config"

    def test_two_at_once(self, root: pathlib.Path) -> None:
        """While one is being made in a place another cannot be; afterwards there is one."""
        first = local.LocalBackend.create(root)
        first.put(f"keys/{1:032x}-0", [b"key"])
        with pytest.raises(errors.Busy):
            local.LocalBackend.create(root)
        assert first.put(protocol.CONFIG, [b"config"])
        with pytest.raises(errors.UsageError):
            local.LocalBackend.create(root)
        assert names_of(first) == {f"keys/{1:032x}-0"}


class TestOpen:
    def test_no_repository(self, tmp_path: pathlib.Path) -> None:
        """What is absent, empty, a file or something else is no repository."""
        (tmp_path / "file").write_bytes(b"x")
        for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
            with pytest.raises(errors.NoRepository) as raised:
                local.LocalBackend.open(path)
            assert raised.value.hint

    def test_r15_without_config(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """R15: a repository that lost `config` opens as long as it has a key slot."""
        place.put(f"keys/{1:032x}-0", [b"key"])
        place.delete(protocol.CONFIG)
        assert names_of(local.LocalBackend.open(root)) == {f"keys/{1:032x}-0"}

    def test_registry(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """A path, relative or not, and a file URL lead to the same place; other URLs are refused by name."""
        spaced = root.with_name("with space")
        root.rename(spaced)
        for location in (
            str(spaced),
            f"{spaced}/",
            f"file://{spaced.parent}/with%20space",
            f"file://localhost{spaced}",
        ):
            assert registry.open_backend(location).get(protocol.CONFIG) == b"config"
        for location in ("gopher://bucket/name", "file://otherhost/x", "", "a\0b"):
            with pytest.raises(errors.UsageError):
                registry.open_backend(location)
        assert [registry.open_backend(str(spaced), durable=on).capabilities.durable for on in (True, False)] == [
            True,
            False,
        ]
        made = registry.open_backend(str(root.with_name("new")), create=True)
        assert made.put(protocol.CONFIG, [b"x"])


class TestLocks:
    def test_shared_and_exclusive(self, place: local.LocalBackend, root: pathlib.Path) -> None:
        """Who reads or adds keeps out who removes, and nobody else; the lock ends with the block."""
        other = local.LocalBackend(root)
        with place.lock_shared(), other.lock_shared(), pytest.raises(errors.Busy) as raised:
            other.lock_exclusive().__enter__()
        assert raised.value.hint
        with place.lock_exclusive():
            for lock in (other.lock_shared, other.lock_exclusive):
                with pytest.raises(errors.Busy):
                    lock().__enter__()
        with other.lock_exclusive():
            pass

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOENT])
    def test_without_locks(self, root: pathlib.Path, code: int) -> None:
        """Where there are no locks adding goes on, and removing is refused."""
        disk = model.ModelFiles([str(root.parent)])
        local.LocalBackend.create(root, disk).put(protocol.CONFIG, [b"x"])
        place = local.LocalBackend(root, faults.FaultyFiles(disk, faults.Fault(0, code, persistent=True, only="lock")))
        with place.lock_shared():
            assert place.put(backend.pack(1), [b"x"])
        with pytest.raises(errors.BackendError):
            place.lock_exclusive().__enter__()

    def test_failing_lock(self, root: pathlib.Path) -> None:
        """A lock that fails for another reason is an error, not a lock."""
        disk = model.ModelFiles([str(root.parent)])
        local.LocalBackend.create(root, disk).put(protocol.CONFIG, [b"x"])
        place = local.LocalBackend(root, faults.FaultyFiles(disk, faults.Fault(0, errno.EIO, only="lock")))
        with pytest.raises(errors.BackendError) as raised:
            place.lock_shared().__enter__()
        assert raised.value.kind == "EIO"
