"""Names that are no place for a disk, and what others may have laid there (rows X7 and X10)."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Callable

import pytest

from tests import devices, needs
from vimgvc import errors
from vimgvc.images import raw, raw_target

_PARTIAL = ".disk.raw.t1.partial"


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(os.listdir(folder))


def _create(folder: pathlib.Path, size: int = 100_000) -> raw.RawWriter:
    return raw.RawWriter(folder / "disk.raw", size, tag="t1")


def test_x7_special_files_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links (also to nothing), FIFO, socket, device and directory are refused even with force; all stay."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_bytes(b"precious")
    pathlib.Path("link").symlink_to("file")
    pathlib.Path("dangling").symlink_to("nothing")
    os.mkfifo("fifo")
    pathlib.Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        before = _names(tmp_path)
        for name in [
            "link",
            "dangling",
            "fifo",
            "socket",
            "folder",
            "folder/",
            ".",
            "..",
            "folder/..",
            "/",
            "/dev/null",
        ]:
            with pytest.raises(errors.UnsafeImage):
                raw.RawWriter(name, 10, tag="t1", force=True)
        assert _names(tmp_path) == before
    assert pathlib.Path("file").read_bytes() == b"precious"


def test_x7_path_inside_the_repository(tmp_path: pathlib.Path) -> None:
    """Below a forbidden folder nothing is written, whatever way leads there."""
    inner = tmp_path / "repository" / "packs" / "00"
    inner.mkdir(parents=True)
    (tmp_path / "repository-2").mkdir()
    (tmp_path / "link").symlink_to("repository/packs")
    forbidden = [tmp_path / "nothing", tmp_path / "repository"]
    ways = ["repository/x", "repository/packs/00/x", "link/x", "link/00/x", "repository-2/../repository/x"]
    for way in ways:
        with pytest.raises(errors.UnsafeImage):
            raw.RawWriter(tmp_path / way, 10, tag="t1", forbidden=forbidden)
    assert [_names(inner), _names(inner.parent), _names(tmp_path / "repository")] == [[], ["00"], ["packs"]]
    for way in ["x", "repository-2/x", "repository/../x2"]:
        raw.RawWriter(tmp_path / way, 10, tag="t1", forbidden=forbidden).abort()


def test_x7_repository_under_another_mount(tmp_path: pathlib.Path) -> None:
    """A bind mount of the repository is the repository."""
    repository = tmp_path / "repository"
    repository.mkdir()
    with devices.mounted(repository, tmp_path / "elsewhere", "--bind") as other, pytest.raises(errors.UnsafeImage):
        raw.RawWriter(other / "x", 10, tag="t1", forbidden=[repository])
    assert _names(repository) == []


def test_x7_planted_partial_file(tmp_path: pathlib.Path) -> None:
    """A link, second name, FIFO or folder in the partial file's place is not written to."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    partial = tmp_path / _PARTIAL
    plants: list[Callable[[], None]] = [
        lambda: partial.symlink_to(victim),
        lambda: os.link(victim, partial),
        lambda: os.mkfifo(partial),
    ]
    for plant in plants:
        plant()
        with pytest.raises(errors.UnsafeImage):
            _create(tmp_path)
        partial.unlink()
    partial.mkdir()
    with pytest.raises(errors.UnsafeImage):
        _create(tmp_path)
    assert victim.read_bytes() == b"precious"


def test_x7_partial_file_of_another_user(tmp_path: pathlib.Path) -> None:
    """In a shared folder another user cannot lay out a file for root to write a disk into."""
    needs.require_root()
    (tmp_path / _PARTIAL).write_bytes(b"x")
    os.chown(tmp_path / _PARTIAL, 65534, 65534)
    with pytest.raises(errors.UnsafeImage):
        _create(tmp_path)


def test_missing_folder(tmp_path: pathlib.Path) -> None:
    """A target in a folder that is not there, or in a file, is NotFound and names the folder."""
    (tmp_path / "file").write_bytes(b"")
    for name in ("nothing/x", "file/x"):
        with pytest.raises(errors.NotFound) as caught:
            raw.RawWriter(tmp_path / name, 10, tag="t1")
        assert caught.value.what == "directory"


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" + "€" * 84, "\udcff" * 255])
def test_x10_longest_names(name: str, tmp_path: pathlib.Path) -> None:
    """A name may be as long as the file system allows; the partial file's is cut to fit."""
    target = raw.RawWriter(tmp_path / name, 3, tag="t" * 64)
    target.pwrite(0, memoryview(b"abc"))
    assert len(os.fsencode(_names(tmp_path)[0])) <= 255
    target.abort()
    again = raw.RawWriter(tmp_path / name, 3, tag="t" * 64)
    assert again.resumed
    again.finish()
    assert _names(tmp_path) == [name]


def test_x10_long_names_stay_apart() -> None:
    """Names that are cut at the same place do not share a partial file."""
    names = {raw_target.partial_name("a" * 250 + end, "t1") for end in ("b", "c", "bc")}
    assert len(names) == 3


@pytest.mark.parametrize("tag", ["", ".", "../x", "a/b", "a\0", "a" * 65, "a\n"])
def test_tag_cannot_lead_elsewhere(tag: str, tmp_path: pathlib.Path) -> None:
    """A tag is a plain word; anything else is the caller's mistake."""
    with pytest.raises(ValueError, match="not a tag"):
        raw.RawWriter(tmp_path / "disk.raw", 10, tag=tag)
    assert _names(tmp_path) == []


def test_failed_opening_leaks_no_descriptor(tmp_path: pathlib.Path) -> None:
    """However a target is refused, nothing stays open."""
    first = _create(tmp_path, 3)
    before = _names(pathlib.Path("/proc/self/fd"))
    with pytest.raises(errors.Busy):
        _create(tmp_path, 3)
    with pytest.raises(errors.UnsafeImage):
        raw.RawWriter(tmp_path / "x", 3, tag="t1", forbidden=[tmp_path])
    with pytest.raises(errors.NoSpace):
        raw.RawWriter(tmp_path / "x", 1 << 43, tag="t1", data_bytes=1 << 43)
    assert _names(pathlib.Path("/proc/self/fd")) == before
    first.abort()
