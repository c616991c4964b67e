"""Writing through qemu: every format, compared before it has its name, and nothing left when it goes wrong.

Row X14: sizes that are not whole sectors. Failures: test_foreign_failures.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from tests import depth, foreign_images, goal
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import memory
from vimgvc.images import access, foreign_target, registry, side_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_temporary")]

_SIZE = (5 << 20) + 512


@pytest.mark.parametrize(
    "layout",
    depth.of_run((layout for layout in foreign_images.LAYOUTS if layout[0] != "qcow2"), 15),
    ids=foreign_images.identify,
)
def test_every_format_is_written(
    layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path, out: pathlib.Path
) -> None:
    """Written, compared, opened again with the options it was to have; qemu reads the same disk."""
    fmt = layout[0]
    options = {name: value for name, value in layout[1].items() if name != "force_size"}
    disk, path = goal.disk(_SIZE, seed), out / "disk.out"
    secret = foreign_images.secret(tmp_path)
    given_secret = str(secret) if fmt == "luks" else None
    given = {**options, "iter-time": "10"} if fmt == "luks" else options
    notes = foreign_target.convert_into(
        disk, path, fmt, given, tag="t1", check=goal.comparing(disk), secret_file=given_secret
    )
    assert notes == ()
    opened = registry.open_image(path, access.Access(declared=fmt, secret_file=given_secret))
    assert opened.reader.size == _SIZE
    assert goal.content(opened.reader) == goal.content(disk)
    for name, value in foreign_target.parse_options(fmt, options).items():
        recorded = opened.container.get(name)
        assert recorded is None or value in (str(recorded), "on" if recorded is True else "off")
    opened.reader.close()
    foreign_images.Maker((fmt, {}), tmp_path).to_raw(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes()[:_SIZE] == goal.content(disk)
    several = options.get("subformat") in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")
    assert len(goal.names(out)) == 1 + several
    umask = os.umask(0)
    os.umask(umask)
    assert {entry.stat().st_mode & 0o777 for entry in out.iterdir()} == {0o666 & ~umask}


_ROUNDED: list[tuple[str, dict[str, str]]] = [
    ("vmdk", {}),
    ("vdi", {}),
    ("vpc", {"subformat": "fixed"}),
    ("vhdx", {}),
    ("qed", {}),
]


@pytest.mark.parametrize(
    ("layout", "size"), depth.of_run(itertools.product(_ROUNDED, [1, 511, 513, 1_000_003]), 10), ids=str
)
def test_x14_sizes_are_rounded_up_and_told(
    layout: tuple[str, dict[str, str]], size: int, seed: int, out: pathlib.Path
) -> None:
    """Row X14: a size that is no multiple of 512 is rounded up, with zeros behind the end and a note that says so."""
    disk = goal.disk(size, seed)
    notes = foreign_target.convert_into(disk, out / "disk", layout[0], layout[1], tag="t1", check=goal.comparing(disk))
    rounded = -(-size // 512) * 512
    assert len(notes) == 1
    assert str(size) in notes[0]
    assert str(rounded) in notes[0]
    opened = registry.open_image(out / "disk", access.Access(declared=layout[0]))
    assert opened.reader.size == rounded
    opened.reader.close()


@pytest.mark.parametrize(
    ("fmt", "options", "possible"),
    [
        ("vdi", {}, True),
        ("vhdx", {}, True),
        ("qed", {}, True),
        ("parallels", {}, True),
        ("vpc", {}, True),
        ("vpc", {"subformat": "fixed"}, False),
        ("vmdk", {}, False),
        ("vmdk", {"subformat": "monolithicFlat"}, False),
        ("qcow", {}, False),
    ],
)
def test_empty_disks(fmt: str, options: dict[str, str], possible: bool, out: pathlib.Path) -> None:
    """A disk of 0 bytes is written where the format has such; elsewhere it is a usage error before anything is made."""
    disk = memory.MemoryDisk(0)
    if possible:
        foreign_target.convert_into(disk, out / "disk", fmt, options, tag="t1", check=goal.comparing(disk))
        assert goal.names(out) == ["disk"]
        return
    with pytest.raises(errors.UsageError, match="0 bytes"):
        foreign_target.convert_into(disk, out / "disk", fmt, options, tag="t1")
    assert goal.names(out) == []


def test_a_full_disk(seed: int, out: pathlib.Path) -> None:
    """What cannot fit is refused before anything is made."""
    with pytest.raises(errors.NoSpace):
        foreign_target.convert_into(goal.disk(_SIZE, seed), out / "disk", "vdi", {}, tag="t1", data_bytes=1 << 60)
    assert goal.names(out) == []


def test_replacing(seed: int, out: pathlib.Path) -> None:
    """Without force an existing target is refused; with it, it is replaced and its mode stays."""
    path, disk = out / "disk.vdi", goal.disk(_SIZE, seed)
    path.write_bytes(b"old")
    path.chmod(0o640)
    with pytest.raises(errors.VimgvcError, match="exists"):
        foreign_target.convert_into(disk, path, "vdi", {}, tag="t1")
    assert path.read_bytes() == b"old"
    foreign_target.convert_into(disk, path, "vdi", {}, tag="t1", force=True, check=goal.comparing(disk))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_size > _SIZE // 4
    assert goal.names(out) == ["disk.vdi"]


def test_targets_that_are_refused(seed: int, tmp_path: pathlib.Path, out: pathlib.Path) -> None:
    """Links, folders, pipes and forbidden places are refused, with force too; nothing is made."""
    (out / "link").symlink_to(tmp_path / "elsewhere")
    (out / "folder").mkdir()
    os.mkfifo(out / "pipe")
    before = goal.names(out)
    for name in before:
        with pytest.raises(errors.UnsafeImage):
            foreign_target.convert_into(goal.disk(512, seed), out / name, "vdi", {}, tag="t1", force=True)
    with pytest.raises(errors.UnsafeImage, match="keeps its own"):
        foreign_target.convert_into(goal.disk(512, seed), out / "new", "vdi", {}, tag="t1", forbidden=[tmp_path])
    with pytest.raises(errors.NotFound):
        foreign_target.convert_into(goal.disk(512, seed), out / "none" / "new", "vdi", {}, tag="t1")
    assert goal.names(out) == before


def test_several_files_replace_nothing(seed: int, out: pathlib.Path) -> None:
    """If a part of a disk of several files has its name already nothing is written, with force neither."""
    (out / "vm-f001.vmdk").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(errors.VimgvcError, match="vm-f001"):
            foreign_target.convert_into(
                goal.disk(_SIZE, seed),
                out / "vm.vmdk",
                "vmdk",
                {"subformat": "twoGbMaxExtentFlat"},
                tag="t1",
                force=force,
            )
    assert goal.names(out) == ["vm-f001.vmdk"]
    assert (out / "vm-f001.vmdk").read_bytes() == b"mine"


def _writing(path: pathlib.Path) -> Callable[[], None]:
    def write() -> None:
        path.write_bytes(b"mine")

    return write


def test_a_part_that_appears_meanwhile(seed: int, out: pathlib.Path) -> None:
    """If somebody makes a file with a part's name while we write, it stays, and no other name is given."""
    disk = goal.Hooked(goal.disk(_SIZE, seed), _writing(out / "vm-flat.vmdk"))
    with pytest.raises(errors.VimgvcError, match="vm-flat"):
        foreign_target.convert_into(disk, out / "vm.vmdk", "vmdk", {"subformat": "monolithicFlat"}, tag="t1")
    assert goal.names(out) == ["vm-flat.vmdk"]


def test_a_target_that_appears_meanwhile(seed: int, out: pathlib.Path) -> None:
    """If somebody makes the target while we write, it stays, and the parts that have their names lose them."""
    disk = goal.Hooked(goal.disk(_SIZE, seed), _writing(out / "vm.vmdk"))
    with pytest.raises(errors.VimgvcError, match="appeared"):
        foreign_target.convert_into(disk, out / "vm.vmdk", "vmdk", {"subformat": "monolithicFlat"}, tag="t1")
    assert goal.names(out) == ["vm.vmdk"]
    assert (out / "vm.vmdk").read_bytes() == b"mine"


def test_two_gigabytes_are_two_files(out: pathlib.Path) -> None:
    """A disk over the border of 2 GiB is two files, and still the same disk."""
    disk = memory.MemoryDisk((2 << 30) + (1 << 20))
    disk.pwrite((2 << 30) - 1000, memoryview(b"border" * 500))
    foreign_target.convert_into(disk, out / "vm.vmdk", "vmdk", {"subformat": "twoGbMaxExtentSparse"}, tag="t1")
    assert goal.names(out) == ["vm-s001.vmdk", "vm-s002.vmdk", "vm.vmdk"]
    opened = registry.open_image(out / "vm.vmdk", access.Access(declared="vmdk"))
    assert opened.reader.size == disk.size
    assert reader.read(opened.reader.pread_into, (2 << 30) - 2000, 5000) == reader.read(
        disk.pread_into, (2 << 30) - 2000, 5000
    )
    opened.reader.close()


_NAMES = ["a b.vdi", "-O", "json:{}", "nbd:x", "a,b=c", "ü\n\x1b[31m", "x" * 255, os.fsdecode(b"\xff\xfe")]


@pytest.mark.parametrize(("name", "fmt"), depth.of_run(itertools.product(_NAMES, ["vdi", "vmdk"]), 8))
def test_names_mean_nothing(name: str, fmt: str, seed: int, out: pathlib.Path) -> None:
    """A target may be called anything that a file may be called; no name is taken for an option, protocol or text."""
    disk = goal.disk(_SIZE, seed)
    foreign_target.convert_into(disk, out / name, fmt, {}, tag="t1", check=goal.comparing(disk))
    assert goal.names(out) == [name]


@pytest.mark.parametrize("name", ['a"b.vmdk', "a\nb.vmdk", "ü.vmdk", os.fsdecode(b"\xff.vmdk")])
def test_names_in_texts(name: str, seed: int, out: pathlib.Path) -> None:
    """A disk of several files names them in a text; a name that needs quoting there is a usage error."""
    with pytest.raises(errors.UsageError, match="text of a vmdk"):
        foreign_target.convert_into(goal.disk(512, seed), out / name, "vmdk", {"subformat": "monolithicFlat"}, tag="t1")
    assert goal.names(out) == []


def test_luks_needs_a_passphrase(seed: int, out: pathlib.Path) -> None:
    """Without a passphrase nothing is encrypted, and nothing made."""
    with pytest.raises(errors.UsageError, match="passphrase"):
        foreign_target.convert_into(goal.disk(512, seed), out / "disk", "luks", {}, tag="t1")
    assert goal.names(out) == []


def test_one_at_a_time(seed: int, out: pathlib.Path) -> None:
    """While a target is written another run for it is refused, and the first finishes."""
    disk = goal.disk(_SIZE, seed)

    def second() -> None:
        with pytest.raises(errors.Busy):
            foreign_target.convert_into(disk, out / "disk", "vdi", {}, tag="t1")

    foreign_target.convert_into(
        goal.Hooked(disk, second), out / "disk", "vdi", {}, tag="t1", check=goal.comparing(disk)
    )
    assert goal.names(out) == ["disk"]


def test_what_was_left_is_removed(seed: int, out: pathlib.Path) -> None:
    """A private folder that an earlier run could not remove is taken over; one that is not ours is refused."""
    left = out / ".disk.t1.partial"
    left.mkdir(mode=0o700)
    (left / "disk").write_bytes(b"half")
    (left / "inner").mkdir()
    (left / "inner" / "disk").symlink_to(out / "mine")
    (out / "mine").write_bytes(b"mine")
    disk = goal.disk(_SIZE, seed)
    foreign_target.convert_into(disk, out / "disk", "vdi", {}, tag="t1", check=goal.comparing(disk))
    assert goal.names(out) == ["disk", "mine"]
    left.mkdir(mode=0o755)
    _refused_folder(out)
    left.rmdir()
    left.write_bytes(b"x")
    _refused_folder(out)
    left.unlink()
    left.symlink_to(out)
    _refused_folder(out)


def _refused_folder(out: pathlib.Path) -> None:
    with pytest.raises(errors.UnsafeImage, match="not a folder that"):
        side_folder.SideFolder(out / "disk", tag="t1", force=True, forbidden=(), data_bytes=None)
