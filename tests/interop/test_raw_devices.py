"""Block devices as sources and targets, on real loop devices (rows X2, X3, X8 and I32)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests import devices, needs
from tests.suites import reader, writer
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import detect, raw

#: What stands behind the disk on a device that is larger; nobody may touch it.
_REST = b"\xee" * 8192


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Devices of a test, detached after it."""
    needs.require_loop()
    with contextlib.ExitStack() as opened:
        yield opened


@pytest.fixture
def device(stack: contextlib.ExitStack, tmp_path: pathlib.Path) -> pathlib.Path:
    """A device of 4 MiB full of 0xFF; `tmp_path / "backing"` is what is on it."""
    (tmp_path / "backing").write_bytes(b"\xff" * (4 << 20))
    return stack.enter_context(devices.loop(tmp_path / "backing"))


class TestDeviceReader(reader.ReaderSuite):
    sector = 512

    @pytest.fixture(autouse=True)
    def _stack(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> raw.RawReader:
        (folder / "backing").write_bytes(sample.content)
        return raw.RawReader(self.stack.enter_context(devices.loop(folder / "backing")))


class TestDeviceWriter(writer.WriterSuite):
    """Also row X8: the device is full of other data before, and the suite checks every byte after."""

    @pytest.fixture(autouse=True)
    def _stack(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack

    def create(self, folder: pathlib.Path, size: int) -> raw.RawWriter:
        (folder / "backing").write_bytes(b"\xff" * (-(-size // 4096) * 4096) + _REST)
        device = self.stack.enter_context(devices.loop(folder / "backing"))
        self.size = size
        return raw.RawWriter(device, size, tag="t1", force=True)

    def result(self, folder: pathlib.Path) -> bytes | None:
        content = (folder / "backing").read_bytes()
        assert content.endswith(_REST)
        assert set(content[self.size : -len(_REST)]) <= {0xFF}
        return content[: self.size]

    def allocated(self, folder: pathlib.Path) -> int | None:
        return (folder / "backing").stat().st_blocks * 512 - len(_REST)

    def test_abort_gives_no_result(self, seed: int, tmp_path: pathlib.Path) -> None:
        """A device has no name to withhold: after abort it is free for the next attempt, which starts over."""
        target = self.create(tmp_path, 4097)
        target.pwrite(0, memoryview(np.random.default_rng(seed).bytes(4097)))
        target.abort()
        target.abort()
        again = raw.RawWriter(target.path, 4097, tag="t1", force=True)
        assert not again.resumed
        again.finish()
        assert self.result(tmp_path) == bytes(4097)


# --- reading --------------------------------------------------------------------------------------


def test_device_facts(device: pathlib.Path) -> None:
    """A device is as large as it is, all of it allocated, all of it data."""
    source = raw.RawReader(device)
    assert (source.size, source.allocated_bytes) == (4 << 20, 4 << 20)
    assert list(source.extents(10, 100)) == [extents.Extent(10, 100, extents.Kind.DATA)]
    source.check_unchanged()
    source.close()


def test_device_content_is_looked_at(device: pathlib.Path) -> None:
    """What lies on a device is detected like what lies in a file."""
    assert detect.detect(device) == "raw"
    device.write_bytes(b"QFI\xfb\0\0\0\x03")
    assert detect.detect(device) == "qcow2"


def test_i31_device_that_changes_its_size(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A device that grows while it is read is told."""
    source = raw.RawReader(device)
    os.truncate(tmp_path / "backing", 8 << 20)
    subprocess.run([needs.require_loop(), "--set-capacity", device], check=True)
    with pytest.raises(errors.VimgvcError):
        source.check_unchanged()
    source.close()


def test_i32_unreadable_sectors_are_named(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A hard read error is an error that names the bytes from the first unreadable block on; the rest reads."""
    source = raw.RawReader(device)
    os.truncate(tmp_path / "backing", 1 << 20)  # the device keeps its size; reading behind this fails
    assert reader.read(source.pread_into, 0, 1 << 20) == b"\xff" * (1 << 20)
    with pytest.raises(errors.BackendError) as caught:
        source.pread_into(1000, memoryview(bytearray(2 << 20)))
    assert caught.value.kind == "EIO"
    assert caught.value.where == f"{device}, bytes {1 << 20} to {1000 + (2 << 20) - 1}"
    source.close()


# --- writing --------------------------------------------------------------------------------------


def test_x2_device_needs_force(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Without force a device is not written to."""
    with pytest.raises(errors.VimgvcError) as caught:
        raw.RawWriter(device, 512, tag="t1")
    assert caught.value.exit_code == 1
    assert (tmp_path / "backing").read_bytes() == b"\xff" * (4 << 20)


def test_x2_mounted_device_is_refused(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A mounted device is refused with its mount point, even with force."""
    subprocess.run([needs.require_tool("mke2fs", "e2fsprogs"), "-q", device], check=True)
    with devices.mounted(device, tmp_path / "mnt") as at:
        with pytest.raises(errors.UnsafeImage) as caught:
            raw.RawWriter(device, 512, tag="t1", force=True)
        assert str(at) in caught.value.message
    target = raw.RawWriter(device, 512, tag="t1", force=True)
    target.abort()


def test_x2_device_that_a_machine_writes_is_refused(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A device that another process has open for writing is refused with that process; a reader is no reason."""
    script = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    for mode, refused in [("r+b", True), ("rb", False)]:
        command = [sys.executable, "-c", script, str(device), mode]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if refused:
                with pytest.raises(errors.UnsafeImage) as caught:
                    raw.RawWriter(device, 512, tag="t1", force=True)
                assert f"process {process.pid} " in caught.value.message
            else:
                raw.RawWriter(device, 512, tag="t1", force=True).abort()
            process.communicate("")
    assert (tmp_path / "backing").read_bytes() == b"\xff" * (4 << 20)


def test_x2_two_writers_of_one_device(device: pathlib.Path) -> None:
    """The second one is told to wait."""
    first = raw.RawWriter(device, 512, tag="t1", force=True)
    with pytest.raises(errors.Busy):
        raw.RawWriter(device, 512, tag="t2", force=True)
    first.abort()


def test_x2_x7_link_to_a_device_is_refused(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A device is named itself: the hint says what the link leads to."""
    (tmp_path / "link").symlink_to(device)
    with pytest.raises(errors.UnsafeImage) as caught:
        raw.RawWriter(tmp_path / "link", 512, tag="t1", force=True)
    assert str(device) in caught.value.hint


def test_x3_device_that_is_too_small(device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A disk that does not fit is refused before a byte is written."""
    with pytest.raises(errors.NoSpace):
        raw.RawWriter(device, (4 << 20) + 1, tag="t1", force=True)
    assert (tmp_path / "backing").read_bytes() == b"\xff" * (4 << 20)
    raw.RawWriter(device, 4 << 20, tag="t1", force=True).abort()


def test_write_protected_device(device: pathlib.Path) -> None:
    """A write-protected device is refused at once, not at the first write."""
    blockdev = needs.require_tool("blockdev", "util-linux")
    subprocess.run([blockdev, "--setro", device], check=True)
    try:
        with pytest.raises(errors.BackendError) as caught:
            raw.RawWriter(device, 512, tag="t1", force=True)
        assert caught.value.kind == "EROFS"
    finally:
        subprocess.run([blockdev, "--setrw", device], check=True)


@pytest.mark.parametrize(("start", "end"), [(100, 4096), (0, 100), (100, 101), (4000, 4200), (100, 8292)])
def test_x8_partly_written_blocks(start: int, end: int, device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What a write leaves of a block that was never written is zeros, at its head, its tail and both."""
    expected = bytearray(1 << 20)
    target = raw.RawWriter(device, 1 << 20, tag="t1", force=True)
    for block in range(0, 1 << 20, 65536):
        target.pwrite(block + start, memoryview(b"x" * (end - start)))
        expected[block + start : block + end] = b"x" * (end - start)
    target.finish()
    assert (tmp_path / "backing").read_bytes() == bytes(expected) + b"\xff" * (3 << 20)


def test_x4_device_write_error(tmp_path: pathlib.Path, stack: contextlib.ExitStack, seed: int) -> None:
    """What a device accepted but could not keep is exit 20 at the end, never success."""
    with devices.small(tmp_path / "small", 1 << 20) as small:
        backing = small / "backing"
        backing.touch()
        os.truncate(backing, 4 << 20)
        with devices.loop(backing) as device:
            target = raw.RawWriter(device, 4 << 20, tag="t1", force=True)
            with pytest.raises((errors.IntegrityError, errors.NoSpace)):
                _fill(target, np.random.default_rng(seed).bytes(4 << 20))
            target.abort()


def _fill(target: raw.RawWriter, content: bytes) -> None:
    target.pwrite(0, memoryview(content))
    target.finish()
