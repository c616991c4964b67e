"""Names that commands choose: of disks, of files, of repositories."""

from __future__ import annotations

import pathlib

import pytest

from vimgvc import errors
from vimgvc.commands import commit, locate, restore
from vimgvc.model import commit as commits


def _disk(name: str) -> commits.Disk:
    return commits.Disk(name, 0, "0" * 64, {"format": "raw"}, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("name", ["vm", "web-1", "vm.2026", "Größe", "a b"])
def test_the_default_target_is_called_like_the_disk(name: str) -> None:
    """A disk is restored to its name with `.img`, in the working directory."""
    assert restore.default_target(_disk(name)) == f"{name}.img"


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "a/b", ".hidden", "a\nb", "a\x1b[0m", "", "x" * 252, "a\0b"])
def test_x10_a_disk_name_never_chooses_another_place(name: str) -> None:
    """What is no plain file name is refused: somebody else may have committed it."""
    with pytest.raises(errors.UsageError):
        restore.default_target(_disk(name))


@pytest.mark.parametrize(
    ("argument", "name", "path"),
    [
        ("vm.img", "vm", "vm.img"),
        ("/dev/vg0/root", "root", "/dev/vg0/root"),
        ("a/b.qcow2", "b", "a/b.qcow2"),
        ("data=a/disk.img", "data", "a/disk.img"),
        ("a=b=c.img", "a", "b=c.img"),
        ("dir/x=y.img", "x-y", "dir/x=y.img"),
        ("=x.img", "x", "=x.img"),
        ("x=", "x", "x="),
        ("evil\n\x1b[2J.img", "evil-2J", "evil\n\x1b[2J.img"),
        (".img", "img", ".img"),
        ("...img", "disk", "...img"),
    ],
)
def test_images_get_names(argument: str, name: str, path: str) -> None:
    """A disk is called like its file's stem, made safe, or as NAME=IMAGE says."""
    assert commit.name_images([argument]) == [commit.Image(name, path)]


def test_a_file_with_an_equals_sign_is_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME=IMAGE is only that when there is no file of that whole name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.img").touch()
    assert commit.name_images(["a=b.img"]) == [commit.Image("a-b", "a=b.img")]


def test_two_disks_need_two_names() -> None:
    """Equal stems are an error that names both files and the way out."""
    with pytest.raises(errors.UsageError) as caught:
        commit.name_images(["a/disk.img", "c.img", "b/disk.raw"])
    assert caught.value.message == "two disks would be called 'disk': a/disk.img and b/disk.raw"
    assert caught.value.hint == "name one of them yourself: NAME=b/disk.raw"


def _make(path: pathlib.Path) -> str:
    (path / "packs").mkdir(parents=True)
    (path / "keys").mkdir()
    (path / "config").touch()
    return str(path)


def test_the_nearest_repository_upwards(tmp_path: pathlib.Path) -> None:
    """`.vimgvc` before the directory itself, and the nearest before those above."""
    outer, inner = _make(tmp_path / ".vimgvc"), _make(tmp_path / "a" / ".vimgvc")
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "c").mkdir()
    assert locate.nearest(tmp_path / "a" / "b") == inner
    assert locate.nearest(tmp_path / "c") == outer
    assert locate.nearest(pathlib.Path(inner) / "packs") == inner
    assert locate.named(str(tmp_path / "a")) == inner
    assert locate.named(inner) == inner


def test_a_repository_that_lost_its_config_is_still_one(tmp_path: pathlib.Path) -> None:
    """The key slots repeat what `config` says, so it must be found; an empty skeleton is none."""
    place = pathlib.Path(_make(tmp_path / "r"))
    (place / "config").unlink()
    with pytest.raises(errors.NoRepository):
        locate.named(str(place))
    (place / "keys" / "slot").touch()
    assert locate.named(str(place)) == str(place)
