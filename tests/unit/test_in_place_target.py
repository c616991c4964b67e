"""Files that are written where they are: rules, marker, sizes, space."""

from __future__ import annotations

import fcntl
import os
import pathlib
import socket
import struct

import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import in_place_target, in_use

BLOCK = 4096


def _open(
    path: pathlib.Path, size: int, known: int | None = None, *, as_raw: bool = False, forbidden: tuple[str, ...] = ()
) -> in_place_target.InPlaceTarget:
    return in_place_target.open_target(
        path,
        size,
        known=None if known is None else in_place_target.Known("vm~1", known),
        as_raw=as_raw,
        forbidden=forbidden,
        devices=None,
    )


def _file(folder: pathlib.Path, content: bytes) -> pathlib.Path:
    path = folder / "vm.img"
    path.write_bytes(content)
    return path


def _marker(path: pathlib.Path) -> pathlib.Path:
    return path.parent / f".{path.name}.vimgvc-in-place"


def test_marker_is_there_from_the_first_change_to_the_end(tmp_path: pathlib.Path) -> None:
    """No marker before something changes, one while it does, none when it is done; nothing else is left."""
    path = _file(tmp_path, b"a" * 10_000)
    target = _open(path, 10_000)
    assert reader.read(target.pread_into, 5000, 5000) == b"a" * 5000
    assert not in_place_target.is_marked(path)
    target.pwrite(1, memoryview(b"b"))
    assert _marker(path).exists()
    assert in_place_target.is_marked(path)
    target.zero(3, 5)
    target.finish()
    assert path.read_bytes() == b"ab" + b"a" + bytes(5) + b"a" * 9992
    assert os.listdir(tmp_path) == ["vm.img"]


def test_without_a_change_nothing_is_touched(tmp_path: pathlib.Path) -> None:
    """A target that is right already keeps its time stamps, and no marker is made."""
    path = _file(tmp_path, b"a" * 10_000)
    before = path.stat()
    target = _open(path, 10_000)
    assert reader.read(target.pread_into, 0, 10_000) == b"a" * 10_000
    target.finish()
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ctime_ns == before.st_ctime_ns
    assert os.listdir(tmp_path) == ["vm.img"]


def test_x5_interrupted_leaves_the_marker(tmp_path: pathlib.Path) -> None:
    """Row X5: after an abort the marker tells of the mixture: no state is taken for known until it was compared."""
    path = _file(tmp_path, b"a" * 10_000)
    target = _open(path, 10_000, 10_000)
    target.pwrite(1, memoryview(b"b"))
    target.abort()
    target.abort()
    with pytest.raises(errors.VimgvcError, match="was interrupted") as caught:
        _open(path, 10_000, 10_000)
    assert caught.value.exit_code == 1
    assert "--base" in caught.value.hint
    again = _open(path, 10_000)
    assert again.marked
    again.finish()
    assert not in_place_target.is_marked(path)
    _open(path, 10_000, 10_000).abort()


def test_abort_before_a_change_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """Who gives up before the first change leaves no marker."""
    path = _file(tmp_path, b"a" * 10_000)
    _open(path, 10_000).abort()
    assert os.listdir(tmp_path) == ["vm.img"]


def test_a_replaced_file_is_no_mixture(tmp_path: pathlib.Path) -> None:
    """The marker of a file that was replaced as a whole can be taken away."""
    path = _file(tmp_path, b"a" * 10)
    target = _open(path, 10)
    target.pwrite(0, memoryview(b"b"))
    target.abort()
    in_place_target.unmark(path)
    in_place_target.unmark(path)
    assert not in_place_target.is_marked(path)


def test_long_names_have_markers(tmp_path: pathlib.Path) -> None:
    """A name of 255 bytes has a marker of its own, another one than its neighbour's."""
    first, second = tmp_path / ("n" * 251 + ".img"), tmp_path / ("n" * 250 + "m.img")
    for path in (first, second):
        path.write_bytes(b"a" * 10)
    target = _open(first, 10)
    target.pwrite(0, memoryview(b"b"))
    assert in_place_target.is_marked(first)
    assert not in_place_target.is_marked(second)
    target.finish()


@pytest.mark.parametrize(("old", "new"), [(0, 9000), (9000, 0), (5000, 1 << 20), (1 << 20, 5000)])
def test_the_file_gets_the_size_of_the_disk(old: int, new: int, tmp_path: pathlib.Path) -> None:
    """It grows with zeros before the first write and is cut off only when all else is done."""
    path = _file(tmp_path, b"a" * old)
    target = _open(path, new)
    assert target.size == new
    assert list(target.extents(0, new))[-1:] == (
        [extents.Extent(old, new - old, extents.Kind.HOLE)]
        if old < new
        else [extents.Extent(0, new, extents.Kind.DATA)][:new]
    )
    assert reader.read(target.pread_into, 0, new) == (b"a" * old + bytes(max(0, new - old)))[:new]
    if new:
        target.pwrite(new - 1, memoryview(b"b"))
        assert path.stat().st_size == max(old, new)
    target.finish()
    assert path.read_bytes() == ((b"a" * old + bytes(new))[: new - 1] + b"b" if new else b"")


def test_x1_known_size_must_be_right(tmp_path: pathlib.Path) -> None:
    """A target of another size than the state it is said to be in is refused, and not changed."""
    path = _file(tmp_path, b"a" * 10_000)
    with pytest.raises(errors.VimgvcError, match="not in that state"):
        _open(path, 10_000, 10_001)
    assert path.read_bytes() == b"a" * 10_000


def test_zeros_are_freed_and_the_rest_stays(tmp_path: pathlib.Path) -> None:
    """What is zeroed takes no space any more; space that was reserved elsewhere stays reserved."""
    path = _file(tmp_path, b"a" * (8 << 20))
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 8 << 20, 4 << 20)
    before = path.stat().st_blocks * 512
    target = _open(path, 12 << 20)
    target.zero(0, 4 << 20)
    target.finish()
    assert path.stat().st_blocks * 512 <= before - (4 << 20)
    assert path.stat().st_blocks * 512 >= (8 << 20)
    assert path.read_bytes() == bytes(4 << 20) + b"a" * (4 << 20) + bytes(4 << 20)


def test_x7_what_is_no_file_is_refused(tmp_path: pathlib.Path) -> None:
    """Row X7: links, pipes, sockets, directories, hard links, what is not there, and what lies in the repository."""
    path = _file(tmp_path, b"a" * 100)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.fspath(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "socket", "folder"):
        with pytest.raises(errors.UnsafeImage):
            _open(tmp_path / name, 100)
    server.close()
    with pytest.raises(errors.NotFound):
        _open(tmp_path / "nothing", 100)
    with pytest.raises(errors.UnsafeImage, match="keeps its own files"):
        _open(path, 100, forbidden=(os.fspath(tmp_path),))
    os.link(path, tmp_path / "other")
    with pytest.raises(errors.UnsafeImage, match="has 2 names"):
        _open(path, 100)
    assert path.read_bytes() == b"a" * 100


def test_containers_are_refused(tmp_path: pathlib.Path) -> None:
    """A file that looks like a container is not written over as if it were raw, unless it is said to be."""
    path = _file(tmp_path, b"QFI\xfb\0\0\0\3" + b"a" * 1000)
    with pytest.raises(errors.UnsafeImage, match="looks like qcow2") as caught:
        _open(path, 1008)
    assert "--as-raw" in caught.value.hint
    _open(path, 1008, as_raw=True).abort()


def test_two_writers(tmp_path: pathlib.Path) -> None:
    """The second one is told that the first is there."""
    path = _file(tmp_path, b"a" * 100)
    first = _open(path, 100)
    with pytest.raises(errors.Busy):
        _open(path, 100)
    first.abort()
    _open(path, 100).abort()


@pytest.mark.parametrize("byte", [100, 103, 201, 203])
def test_a_lock_as_qemu_has_it_is_use(byte: int, tmp_path: pathlib.Path) -> None:
    """Whichever of QEMU's bytes somebody has locked, shared as QEMU does: exit 11; other bytes are no reason."""
    path = _file(tmp_path, b"a" * 1000)
    other = os.open(path, os.O_RDONLY)
    shape = "hhqqi4x"
    fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack(shape, fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    with pytest.raises(errors.Busy) as caught:
        _open(path, 1000)
    assert caught.value.exit_code == 11
    fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack(shape, fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))
    fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack(shape, fcntl.F_RDLCK, os.SEEK_SET, 0, 50, 0))
    target = _open(path, 1000)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack(shape, fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    target.abort()
    os.close(other)


def test_a_writer_that_only_the_kernel_sees(tmp_path: pathlib.Path) -> None:
    """A descriptor open for writing counts, though it is not another process's; one for reading does not."""
    path = _file(tmp_path, b"a" * 1000)
    reading = os.open(path, os.O_RDONLY)
    os.close(in_use.open_alone(os.fspath(path)))
    writing = os.open(path, os.O_WRONLY)
    with pytest.raises(errors.Busy):
        in_use.open_alone(os.fspath(path))
    os.close(writing)
    os.close(reading)


def test_closed_and_outside(tmp_path: pathlib.Path) -> None:
    """Nothing is written outside the disk, nor after the end."""
    path = _file(tmp_path, b"a" * 1000)
    target = _open(path, 1000)
    for offset, length in [(1000, 1), (-1, 1), (0, 1001)]:
        with pytest.raises(ValueError, match="outside"):
            target.pwrite(offset, memoryview(bytes(length)))
        with pytest.raises(ValueError, match="outside"):
            target.zero(offset, length)
    target.finish()
    with pytest.raises(errors.VimgvcError):
        target.pwrite(0, memoryview(b"b"))
    assert path.read_bytes() == b"a" * 1000
