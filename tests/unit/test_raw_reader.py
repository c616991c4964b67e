"""RawReader: the suite, and what is special about files."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Callable

import pytest

from tests import needs
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import raw


def _write(path: pathlib.Path, sample: reader.Sample) -> None:
    """The sample as a sparse file: its holes are never written."""
    with path.open("wb") as file:
        file.truncate(len(sample.content))
        for item in sample.data():
            os.pwrite(file.fileno(), sample.content[item.start : item.end], item.start)


class TestRawReader(reader.ReaderSuite):
    hole_grid = 16384

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> raw.RawReader:
        path = folder / "disk.raw"
        _write(path, sample)
        return raw.RawReader(path)


def _open_and_read(path: pathlib.Path) -> bytes:
    source = raw.RawReader(path)
    try:
        return reader.read(source.pread_into, 0, source.size)
    finally:
        source.close()


def test_huge_sparse_file_costs_nothing(tmp_path: pathlib.Path) -> None:
    """A file of a TiB with two blocks of data is five extents and 8 KiB of allocated space."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        os.pwrite(file.fileno(), b"x" * 4096, 1 << 30)
        os.pwrite(file.fileno(), b"x" * 4096, 1 << 39)
    source = raw.RawReader(path)
    data = [item for item in source.extents(0, source.size) if item.kind is extents.Kind.DATA]
    assert data == [extents.Extent(at, 4096, extents.Kind.DATA) for at in (1 << 30, 1 << 39)]
    assert source.allocated_bytes == 8192
    source.close()


def test_allocated_bytes_never_exceed_the_size(tmp_path: pathlib.Path) -> None:
    """A disk of one byte takes a block of the file system, and is said to take one byte."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x")
    source = raw.RawReader(path)
    assert source.allocated_bytes == 1
    source.close()


def test_symbolic_link_is_followed(tmp_path: pathlib.Path) -> None:
    """A link to an image is that image: that is how people name disks."""
    (tmp_path / "disk.raw").write_bytes(b"content")
    (tmp_path / "link").symlink_to("disk.raw")
    assert _open_and_read(tmp_path / "link") == b"content"


def test_i4_special_files_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FIFO, socket, character device and directory are refused at once, also through a link."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 108 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in ["fifo", "link", "socket", ".", "/dev/null"]:
            with pytest.raises(errors.UnsafeImage):
                raw.RawReader(path)


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/self/mem", "/proc/kmsg", "/sys/kernel/uevent_seqnum"])
def test_i4_made_up_files_are_refused(path: str) -> None:
    """Files that the kernel makes up are refused, whatever size they claim and even if reading them would wait."""
    if path == "/proc/kmsg":
        needs.require_root()  # who may not open it learns only that
    with pytest.raises(errors.UnsafeImage):
        raw.RawReader(path)


def test_i4_made_up_files_elsewhere() -> None:
    """A file of no size that gives bytes is refused wherever it lies; control groups are full of them."""
    found = [path for path in pathlib.Path("/sys/fs/cgroup").glob("**/cgroup.procs") if path.stat().st_size == 0]
    if not found or found[0].stat().st_dev == pathlib.Path("/sys").stat().st_dev:
        pytest.skip("needs control groups mounted at /sys/fs/cgroup")
    with pytest.raises(errors.UnsafeImage):
        raw.RawReader(found[0])


def test_i34_the_descriptor_decides(tmp_path: pathlib.Path) -> None:
    """A FIFO that took the file's place between the first look and the opening is refused all the same."""
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(errors.UnsafeImage):
        raw._check_ordinary(fd, os.fstat(fd), "disk.raw")
    os.close(fd)


def test_missing_file(tmp_path: pathlib.Path) -> None:
    """A name that leads nowhere is NotFound, also when a file is where a folder should be."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("nothing", "file/below", "dangling"):
        with pytest.raises(errors.NotFound) as caught:
            raw.RawReader(tmp_path / name)
        assert caught.value.name == str(tmp_path / name)


def test_open_error_is_typed(tmp_path: pathlib.Path) -> None:
    """Whatever else the system says on opening carries its errno name and the path."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(errors.BackendError) as caught:
        raw.RawReader(tmp_path / "loop")
    assert (caught.value.kind, caught.value.where) == ("ELOOP", str(tmp_path / "loop"))


def test_failed_open_leaks_no_descriptor(tmp_path: pathlib.Path) -> None:
    """Refusing an image leaves nothing open."""
    before = set(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "nothing", pathlib.Path("/proc/self/status")):
        with pytest.raises(errors.VimgvcError):
            raw.RawReader(path)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("cut", [0, 1, 4096, 50_000])
def test_i31_shrunk_source_is_an_error(cut: int, seed: int, tmp_path: pathlib.Path) -> None:
    """A file that became shorter never gives zeros for what is gone: reading and listing there raise."""
    path = tmp_path / "disk.raw"
    path.write_bytes(reader.make_sample(100_000, seed).content)
    source = raw.RawReader(path)
    os.truncate(path, cut)
    assert reader.read(source.pread_into, 0, cut) == path.read_bytes()
    for offset, length in [(0, 100_000), (cut, 1), (99_999, 1)]:
        with pytest.raises(errors.VimgvcError) as caught:
            source.pread_into(offset, memoryview(bytearray(length)))
        assert caught.value.exit_code == 1
        with pytest.raises(errors.VimgvcError):
            list(source.extents(offset, length))
    with pytest.raises(errors.VimgvcError):
        source.check_unchanged()
    source.close()


def _append(path: pathlib.Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _rewrite(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        file.write(b"y")


def _rewrite_and_backdate(path: pathlib.Path) -> None:
    status = path.stat()
    _rewrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [_append, _rewrite, _rewrite_and_backdate])
def test_i31_changed_source_is_told(change: Callable[[pathlib.Path], None], tmp_path: pathlib.Path) -> None:
    """Growth, a write in place, and a write with the time stamp set back are all seen at the end."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * 5000)
    os.utime(path, (1, 1))
    source = raw.RawReader(path)
    source.check_unchanged()
    change(path)
    with pytest.raises(errors.VimgvcError):
        source.check_unchanged()
    source.close()


def test_reading_is_no_change(tmp_path: pathlib.Path) -> None:
    """A source that was only read, by us and by others, is unchanged."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * 5000)
    source = raw.RawReader(path)
    reader.read(source.pread_into, 0, 5000)
    path.read_bytes()
    source.check_unchanged()
    source.close()


def test_i34_replaced_name_does_not_matter(tmp_path: pathlib.Path) -> None:
    """Once opened, the name may be given to something else: what was opened is read."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"first")
    source = raw.RawReader(path)
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert reader.read(source.pread_into, 0, 5) == b"first"
    source.close()


def test_closed_reader_reads_nothing(tmp_path: pathlib.Path) -> None:
    """After close a read is a typed error, not somebody else's descriptor."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x")
    source = raw.RawReader(path)
    source.close()
    with pytest.raises(errors.BackendError) as caught:
        source.pread_into(0, memoryview(bytearray(1)))
    assert caught.value.kind == "EBADF"
