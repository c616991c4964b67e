"""Raw files that have all of their space from the beginning."""

from __future__ import annotations

import pathlib
import resource

import numpy as np
import pytest

from tests.suites import writer
from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import raw

MODES = ["falloc", "full"]


class _Preallocated(writer.WriterSuite):
    mode = ""

    def create(self, folder: pathlib.Path, size: int) -> protocol.Target:
        return raw.RawWriter(folder / "disk.raw", size, tag="t1", preallocation=self.mode)

    def result(self, folder: pathlib.Path) -> bytes | None:
        path = folder / "disk.raw"
        return path.read_bytes() if path.exists() else None

    def allocated(self, folder: pathlib.Path) -> int | None:
        """Sparse is what these are not."""
        return None


class TestFalloc(_Preallocated):
    mode = "falloc"


class TestFull(_Preallocated):
    mode = "full"


@pytest.mark.parametrize("mode", MODES)
def test_all_space_is_taken(mode: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Whatever was written, zeroed or left alone, every block of the result has its space."""
    size = (8 << 20) + 512
    target = raw.RawWriter(tmp_path / "disk.raw", size, tag="t1", preallocation=mode)
    target.pwrite(1 << 20, memoryview(np.random.default_rng(seed).bytes(3 << 20)))
    target.zero(2 << 20, 4 << 20)
    target.finish()
    status = (tmp_path / "disk.raw").stat()
    assert status.st_size == size
    assert size <= status.st_blocks * 512 <= size + 65536


@pytest.mark.parametrize("mode", MODES)
def test_space_is_taken_when_resumed(mode: str, seed: int, tmp_path: pathlib.Path) -> None:
    """A partial file that another mode left sparse gets its space; zeroing keeps it."""
    size, data = 8 << 20, np.random.default_rng(seed).bytes(1 << 20)
    first = raw.RawWriter(tmp_path / "disk.raw", size, tag="t1")
    first.pwrite(1 << 20, memoryview(data))
    first.pwrite(5 << 20, memoryview(data))
    first.abort()
    target = raw.RawWriter(tmp_path / "disk.raw", size, tag="t1", preallocation=mode)
    assert target.resumed
    target.zero(0, 1 << 20)
    target.zero(2 << 20, size - (2 << 20))
    target.finish()
    assert (tmp_path / "disk.raw").read_bytes() == bytes(1 << 20) + data + bytes(size - (2 << 20))
    assert (tmp_path / "disk.raw").stat().st_blocks * 512 >= size


def test_full_is_written_everywhere(seed: int, tmp_path: pathlib.Path) -> None:
    """After `full` no hole is told, not even one with reserved space."""
    size = 4 << 20
    target = raw.RawWriter(tmp_path / "disk.raw", size, tag="t1", preallocation="full")
    target.pwrite(4096, memoryview(np.random.default_rng(seed).bytes(4096)))
    target.finish()
    reader = raw.RawReader(tmp_path / "disk.raw")
    assert [item.kind.value for item in reader.extents(0, size)] == ["data"]
    reader.close()


@pytest.mark.parametrize("mode", MODES)
def test_no_room_is_told_at_once(mode: str, tmp_path: pathlib.Path) -> None:
    """A disk that the file system has no room for is refused before anything is written, and nothing stays."""
    with pytest.raises(errors.NoSpace):
        raw.RawWriter(tmp_path / "disk.raw", 1 << 50, tag="t1", preallocation=mode)
    assert list(tmp_path.iterdir()) == []


def test_limit_of_file_sizes_is_told(tmp_path: pathlib.Path) -> None:
    """A size above the process's limit is an error with that reason, not a signal; nothing stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(errors.VimgvcError, match="making a file of"):
            raw.RawWriter(tmp_path / "disk.raw", 2 << 20, tag="t1", preallocation="falloc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_unknown_mode_is_refused(tmp_path: pathlib.Path) -> None:
    """What raw files do not know is a usage error that names what they do."""
    with pytest.raises(errors.UsageError, match="preallocation is metadata; allowed are: off, falloc, full"):
        raw.RawWriter(tmp_path / "disk.raw", 4096, tag="t1", preallocation="metadata")
    assert list(tmp_path.iterdir()) == []
