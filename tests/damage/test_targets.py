"""Files as targets of a restore: what is refused, and what a failure leaves behind (rows X and D14)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests import devices, needs
from tests.suites import reader
from vimgvc import errors
from vimgvc.images import raw, raw_target

_PARTIAL = ".disk.raw.t1.partial"


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(os.listdir(folder))


def _create(
    folder: pathlib.Path, size: int = 100_000, *, force: bool = False, data_bytes: int | None = None
) -> raw.RawWriter:
    return raw.RawWriter(folder / "disk.raw", size, tag="t1", force=force, data_bytes=data_bytes)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# --- X1: what is there already --------------------------------------------------------------------


def test_x1_existing_target_is_refused(tmp_path: pathlib.Path) -> None:
    """Without force an existing file stays as it is, and nothing else appears."""
    (tmp_path / "disk.raw").write_bytes(b"precious")
    with pytest.raises(errors.VimgvcError) as caught:
        _create(tmp_path)
    assert caught.value.exit_code == 1
    assert (tmp_path / "disk.raw").read_bytes() == b"precious"
    assert _names(tmp_path) == ["disk.raw"]


def test_x1_forced_target_lives_until_the_end(tmp_path: pathlib.Path) -> None:
    """With force the old file is whole until the new one is, also for who has it open."""
    (tmp_path / "disk.raw").write_bytes(b"precious")
    with (tmp_path / "disk.raw").open("rb") as old:
        target = _create(tmp_path, 3, force=True)
        target.pwrite(0, memoryview(b"new"))
        assert (tmp_path / "disk.raw").read_bytes() == b"precious"
        target.finish()
        assert (tmp_path / "disk.raw").read_bytes() == b"new"
        assert old.read() == b"precious"
    assert _names(tmp_path) == ["disk.raw"]


def test_x1_target_that_appears_meanwhile(tmp_path: pathlib.Path) -> None:
    """A file that somebody puts there is not replaced; the finished disk is kept and taken up with force."""
    target = _create(tmp_path, 3)
    target.pwrite(0, memoryview(b"new"))
    (tmp_path / "disk.raw").write_bytes(b"precious")
    with pytest.raises(errors.VimgvcError):
        target.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"precious"
    assert (tmp_path / _PARTIAL).read_bytes() == b"new"
    again = _create(tmp_path, 3, force=True)
    assert again.resumed
    again.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"new"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_x1_new_file_gets_the_mode_of_the_umask(mask: int, tmp_path: pathlib.Path) -> None:
    """A new disk is as readable as the user's umask says, as with cp."""
    with _umask(mask):
        _create(tmp_path).finish()
    assert stat.S_IMODE((tmp_path / "disk.raw").stat().st_mode) == 0o666 & ~mask


def test_x1_replacing_opens_nothing_to_others(tmp_path: pathlib.Path) -> None:
    """A replaced file's mode passes on; until then the new one is its owner's alone."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"precious")
    path.chmod(0o640)
    with _umask(0):
        target = _create(tmp_path, 3, force=True)
    assert stat.S_IMODE((tmp_path / _PARTIAL).stat().st_mode) == 0o600
    target.pwrite(0, memoryview(b"new"))
    target.finish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_x1_replacing_keeps_the_owner(tmp_path: pathlib.Path) -> None:
    """As root, the replaced file's owner and group own the new one: a machine's disk stays its machine's."""
    needs.require_root()
    path = tmp_path / "disk.raw"
    path.write_bytes(b"precious")
    os.chown(path, 65534, 12345)
    _create(tmp_path, 3, force=True).finish()
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 12345)


# --- X4, X5, D14: failures in the middle ------------------------------------------------------------


def test_x4_lack_of_space_is_told_early(tmp_path: pathlib.Path) -> None:
    """Data that cannot fit is refused before anything is created; a sparse disk of that size is not."""
    size = 1 << 43
    with pytest.raises(errors.NoSpace):
        _create(tmp_path, size, data_bytes=size)
    assert _names(tmp_path) == []
    _create(tmp_path, size, data_bytes=4096).abort()


def test_x4_resumption_needs_less_space(tmp_path: pathlib.Path) -> None:
    """What a partial file holds already counts as there."""
    with devices.small(tmp_path / "small", 1 << 20) as folder:
        first = _create(folder, 1 << 20)
        first.pwrite(0, memoryview(bytes(900_000)))
        first.abort()
        again = _create(folder, 1 << 20, data_bytes=(1 << 20) - 4096)
        assert again.resumed
        again.abort()


def test_x4_enospc_keeps_the_partial_file(seed: int, tmp_path: pathlib.Path) -> None:
    """A full disk is exit 24 and no target; with more room the same restore goes on where it was."""
    content = np.random.default_rng(seed).bytes(2 << 20)
    with devices.small(tmp_path / "small", 1 << 20) as folder:
        target = _create(folder, len(content))
        with pytest.raises(errors.NoSpace):
            target.pwrite(0, memoryview(content))
        target.abort()
        assert _names(folder) == [_PARTIAL]
        devices.resize(folder, 4 << 20)
        again = _create(folder, len(content))
        assert again.resumed
        assert reader.read(again.pread_into, 0, 500_000) == content[:500_000]
        again.pwrite(500_000, memoryview(content)[500_000:])
        again.finish()
        assert (folder / "disk.raw").read_bytes() == content
        assert _names(folder) == ["disk.raw"]


def test_d6_failed_fsync_is_final(seed: int, tmp_path: pathlib.Path) -> None:
    """Data that was accepted but cannot reach the disk: no target, exit 20 or 24, and nothing to take up.

    The file system lies on a device that ends in a full one: it finds out at fsync only.
    """
    mke2fs = needs.require_tool("mke2fs", "e2fsprogs")
    with devices.small(tmp_path / "small", 12 << 20) as small:
        image = small / "image"
        image.touch()
        os.truncate(image, 64 << 20)
        subprocess.run([mke2fs, "-q", "-t", "ext4", image], check=True)
        with devices.loop(image) as device, devices.mounted(device, tmp_path / "lying") as folder:
            target = _create(folder, 30 << 20)
            target.pwrite(0, memoryview(np.random.default_rng(seed).bytes(30 << 20)))
            with pytest.raises((errors.IntegrityError, errors.NoSpace)):
                target.finish()
            assert not {"disk.raw", _PARTIAL} & set(_names(folder))


_SCRIPT = """
import os, resource, signal, sys
from vimgvc import errors
from vimgvc.images import raw

path, mode = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # who started us may have ignored it
if mode == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    target = raw.RawWriter(path, 4 << 20, tag="t1")
    try:
        for at in range(0, target.size, 65536):
            target.pwrite(at, memoryview(b"x" * 65536))
            if at == 1 << 20:
                print("middle", flush=True)
                signal.pause()
        target.finish()
    except BaseException:
        target.abort()
        raise
except errors.VimgvcError as error:
    print(type(error).__name__, error.exit_code, error.hint)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_x5_d14_interrupted_writer_leaves_the_partial_file(
    number: signal.Signals, code: int, tmp_path: pathlib.Path
) -> None:
    """Ctrl-C or kill -9 in the middle: only the partial file, unlocked, with what was written."""
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "disk.raw"), "pause"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "middle\n"
            with pytest.raises(errors.Busy):
                _create(tmp_path, 4 << 20)
            process.send_signal(number)
            assert process.wait(timeout=60) == code
        finally:
            process.kill()
    assert _names(tmp_path) == [_PARTIAL]
    again = _create(tmp_path, 4 << 20)
    assert again.resumed
    written = (1 << 20) + 65536
    assert reader.read(again.pread_into, 0, 4 << 20) == b"x" * written + bytes((4 << 20) - written)
    again.zero(0, 4 << 20)
    again.finish()
    assert (tmp_path / "disk.raw").read_bytes() == bytes(4 << 20)


def test_x4_file_size_limit(tmp_path: pathlib.Path) -> None:
    """A limit of the file size is told by name, at once, and leaves nothing."""
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "disk.raw"), "limit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("VimgvcError 1 ")
    assert "ulimit" in done.stdout
    assert _names(tmp_path) == []


def test_x5_untouched_partial_file_does_not_stay(tmp_path: pathlib.Path) -> None:
    """A restore that fails before its first byte leaves no trace."""
    _create(tmp_path).abort()
    assert _names(tmp_path) == []


def test_x5_resumed_partial_file_stays(tmp_path: pathlib.Path) -> None:
    """A second attempt that fails before its first byte does not lose what the first one wrote."""
    target = _create(tmp_path, 3)
    target.pwrite(0, memoryview(b"abc"))
    target.abort()
    _create(tmp_path, 3).abort()
    assert (tmp_path / _PARTIAL).read_bytes() == b"abc"


def test_x5_unwanted_partial_file_does_not_stay(tmp_path: pathlib.Path) -> None:
    """Asked not to keep it, abort removes a partial file that was written to."""
    target = _create(tmp_path)
    target.pwrite(0, memoryview(b"x"))
    target.abort(keep=False)
    assert _names(tmp_path) == []


def test_x5_another_tag_is_another_disk(tmp_path: pathlib.Path) -> None:
    """The partial file of one disk is not taken up for another."""
    target = _create(tmp_path)
    target.pwrite(0, memoryview(b"x"))
    target.abort()
    other = raw.RawWriter(tmp_path / "disk.raw", 100_000, tag="t2")
    assert not other.resumed
    assert reader.read(other.pread_into, 0, 1) == b"\0"
    other.abort()


def test_x5_partial_file_of_another_size(tmp_path: pathlib.Path) -> None:
    """A partial file that is too long or too short becomes as long as the disk."""
    for size in (100_000, 50, 70_000):
        target = _create(tmp_path, size)
        target.pwrite(0, memoryview(b"x" * 50))
        assert (tmp_path / _PARTIAL).stat().st_size == size
        target.abort()


def test_two_writers_of_one_target(tmp_path: pathlib.Path) -> None:
    """The second one is told to wait, and the first one does not notice."""
    first = _create(tmp_path, 3)
    for _ in range(2):
        with pytest.raises(errors.Busy):
            _create(tmp_path, 3)
    first.pwrite(0, memoryview(b"abc"))
    first.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"abc"
    assert _names(tmp_path) == ["disk.raw"]


@pytest.mark.parametrize("followed", [False, True])
def test_partial_file_that_is_finished_before_the_lock(followed: bool, tmp_path: pathlib.Path) -> None:
    """Who opened a partial file that got its final name before the lock was free does not write to it.

    `followed`: a third process has begun the next partial file by then.
    """
    first = _create(tmp_path, 3)
    late = os.open(tmp_path / _PARTIAL, os.O_RDWR)
    first.finish()
    if followed:
        (tmp_path / _PARTIAL).write_bytes(b"")
    place = raw_target.FilePlace(str(tmp_path / "disk.raw"), tag="t1", force=True, present=None)
    assert not place._acquire(late, resumed=True)
    assert place.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(late)
    place.release(keep=True)
