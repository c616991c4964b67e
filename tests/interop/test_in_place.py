"""Images in place: what machines hold, real devices, full and failing disks."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests import devices, needs, programs, repos
from vimgvc import errors
from vimgvc.backends import local
from vimgvc.commands import restore_in_place
from vimgvc.images import in_place_target
from vimgvc.repo import repository

SIZE = 4 << 20


@pytest.fixture
def states(seed: int) -> tuple[bytes, bytes]:
    """Two states of one disk, with zeros that move."""
    old = bytearray(repos.noise(seed, SIZE))
    old[1 << 20 : 2 << 20] = bytes(1 << 20)
    new = bytearray(old)
    new[1 << 20 : (1 << 20) + 5000] = repos.noise(seed + 1, 5000)
    new[3 << 20 : (3 << 20) + (512 << 10)] = bytes(512 << 10)
    return bytes(old), bytes(new)


@pytest.fixture
def repo(states: tuple[bytes, bytes], tmp_path: pathlib.Path) -> repository.Repository:
    made = repos.create(local.LocalBackend.create(tmp_path / "repo"))
    for state in states:
        repos.commit(made, ("vm", state))
    return made


def _restore(
    repo: repository.Repository,
    revision: str,
    target: pathlib.Path,
    base: str | None = None,
    told: repos.Collector | None = None,
) -> restore_in_place.Rewritten:
    wanted = restore_in_place.wanted({"HOME": os.path.expanduser("~")}, base=base, threads=2)
    return restore_in_place.run(repo, revision, str(target), wanted, told or repos.Collector())


@contextlib.contextmanager
def _held_by_qemu_io(path: pathlib.Path, *options: str) -> Iterator[None]:
    """qemu-io has the image open, and its locks, as a machine would."""
    tool = needs.require_tool("qemu-io", "qemu-utils")
    command = [tool, *options, "-f", "raw", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("read 0 512\n")
        process.stdin.flush()
        while "512/512" not in process.stdout.readline():  # it ends if that never comes
            assert process.poll() is None
        yield
        process.communicate("quit\n")


@pytest.mark.parametrize("options", [(), ("-r",)])
def test_x2_image_that_a_machine_has_open(
    options: tuple[str, ...], repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path
) -> None:
    """Row X2: what QEMU has open, for writing or reading, is refused with exit 11 and its name; not a byte changes."""
    target = tmp_path / "vm.img"
    target.write_bytes(states[1])
    with _held_by_qemu_io(target, *options):
        for base in (None, "vm"):
            with pytest.raises(errors.Busy, match=r"process \d+ \(qemu-io\)") as caught:
                _restore(repo, "vm~1", target, base)
            assert caught.value.exit_code == 11
        assert target.read_bytes() == states[1]
        assert not in_place_target.is_marked(target)
    _restore(repo, "vm~1", target)
    assert target.read_bytes() == states[0]


def test_x2_no_machine_starts_meanwhile(tmp_path: pathlib.Path) -> None:
    """While a target is written QEMU cannot open it, neither for writing nor for reading."""
    tool = needs.require_tool("qemu-io", "qemu-utils")
    path = tmp_path / "vm.img"
    path.write_bytes(bytes(SIZE))
    target = in_place_target.open_target(path, SIZE, known=None, as_raw=False, forbidden=(), devices=None)
    for options in ((), ("-r",)):
        command = [tool, *options, "-f", "raw", "-c", "read 0 512", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "lock" in done.stderr
    target.abort()
    programs.qemu_io(path, "raw", "write 0 512")


def test_x2_image_that_another_program_writes(
    repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path
) -> None:
    """A process without any locks that has the file open for writing is named; one that reads is no reason."""
    target = tmp_path / "vm.img"
    target.write_bytes(states[1])
    script = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    for mode, refused in [("r+b", True), ("rb", False)]:
        command = [sys.executable, "-c", script, str(target), mode]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if refused:
                with pytest.raises(errors.Busy, match=f"process {process.pid} "):
                    _restore(repo, "vm~1", target)
                assert target.read_bytes() == states[1]
            else:
                _restore(repo, "vm~1", target)
                assert target.read_bytes() == states[0]
            process.communicate("")


def test_x2_image_under_a_loop_device(
    repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path
) -> None:
    """An image that is attached as a device, where it may be mounted, is refused with the device."""
    needs.require_loop()
    target = tmp_path / "vm.img"
    target.write_bytes(states[1])
    with devices.loop(target) as device, pytest.raises(errors.Busy, match=str(device)):
        _restore(repo, "vm~1", target)
    assert target.read_bytes() == states[1]


@pytest.mark.parametrize("base", [None, "vm"])
def test_device_in_place(
    base: str | None, repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path
) -> None:
    """A device becomes the disk; what lies behind the disk stays; its marker is not in /dev and goes at the end."""
    needs.require_loop()
    backing = tmp_path / "backing"
    backing.write_bytes(states[1] + b"\xee" * 8192)
    with devices.loop(backing) as device:
        done = _restore(repo, "vm~1", device, base)
        assert not [name for name in os.listdir("/dev") if "vimgvc" in name]
    assert backing.read_bytes() == states[0] + b"\xee" * 8192
    assert done.done.written < SIZE // 2
    assert (done.done.compared == 0) == (base is not None)


def test_a_device_that_is_said_to_hold_a_shorter_disk(tmp_path: pathlib.Path, seed: int) -> None:
    """Behind a shorter disk a device holds anything: it is zeroed where the new disk has zeros."""
    needs.require_loop()
    repo = repos.create(local.LocalBackend.create(tmp_path / "repo"))
    short = repos.noise(seed, 100_001)
    for state in (short, short + bytes(SIZE - len(short))):
        repos.commit(repo, ("vm", state))
    backing = tmp_path / "backing"
    backing.write_bytes(short + b"\xee" * (SIZE + 8192 - len(short)))
    with devices.loop(backing) as device:
        _restore(repo, "vm", device, "vm~1")
    assert backing.read_bytes() == short + bytes(SIZE - len(short)) + b"\xee" * 8192


def test_x3_device_that_is_too_small(
    repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path
) -> None:
    """Row X3: it is refused before a byte is written."""
    needs.require_loop()
    backing = tmp_path / "backing"
    backing.write_bytes(states[1][: SIZE - 4096])
    with devices.loop(backing) as device, pytest.raises(errors.NoSpace):
        _restore(repo, "vm~1", device)
    assert backing.read_bytes() == states[1][: SIZE - 4096]


def test_x4_full_disk(repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path) -> None:
    """Row X4: without room exit 24, a warning and the marker; with room the same command makes it whole."""
    with devices.small(tmp_path / "small", 1 << 20) as small:
        target = small / "vm.img"
        target.touch()
        os.truncate(target, SIZE)
        told = repos.Collector()
        with pytest.raises(errors.NoSpace) as caught:
            _restore(repo, "vm", target, told=told)
        assert [problem for problem in told.problems if "is a mixture of two states" in problem]
        assert caught.value.exit_code == 24
        assert in_place_target.is_marked(target)
        with pytest.raises(errors.VimgvcError, match="was interrupted"):
            _restore(repo, "vm", target, "vm~1")
        devices.resize(small, 8 << 20)
        assert _restore(repo, "vm", target).resumed
        assert target.read_bytes() == states[1]
        assert os.listdir(small) == ["vm.img"]


class _Impatient(repos.Collector):
    """Whoever watches stops it at the first progress."""

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        super().advance(amount, new=new, stored=stored)
        raise KeyboardInterrupt


@pytest.mark.parametrize("base", ["vm~1", None], ids=["known", "compared"])
def test_x4_interrupted(
    repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path, base: str | None
) -> None:
    """Row X4: after Ctrl-C the hint is a command that goes on: the same, but what was known is known no more."""
    target = tmp_path / "vm.img"
    target.write_bytes(states[0])
    told = _Impatient()
    with pytest.raises((errors.Interrupted, KeyboardInterrupt)) as caught:
        _restore(repo, "vm", target, base, told)
    # the other was stopped while it compared
    assert in_place_target.is_marked(target) == isinstance(caught.value, errors.Interrupted) == (base is not None)
    if isinstance(caught.value, errors.Interrupted):
        assert "without --base" in caught.value.hint
        assert [problem for problem in told.problems if "is a mixture of two states" in problem]
    assert _restore(repo, "vm", target).done.written < SIZE
    assert target.read_bytes() == states[1]


def test_x4_device_that_fails(repo: repository.Repository, tmp_path: pathlib.Path) -> None:
    """Row X4: what a device accepted but could not keep is an error at the end, and the marker stays."""
    needs.require_loop()
    with devices.small(tmp_path / "small", 1 << 20) as small:
        backing = small / "backing"
        backing.touch()
        os.truncate(backing, SIZE)
        with devices.loop(backing) as device:
            with pytest.raises((errors.IntegrityError, errors.NoSpace)):
                _restore(repo, "vm", device)
            with pytest.raises(errors.VimgvcError, match="was interrupted"):
                _restore(repo, "vm", device, "vm~1")
            devices.resize(small, 8 << 20)
            assert _restore(repo, "vm", device).resumed
        devices.resize(small, 8 << 20)


def test_a_folder_that_cannot_hold_the_marker(
    repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path
) -> None:
    """Where no marker can be made nothing is written: a full file system lets nobody begin."""
    with devices.small(tmp_path / "small", 8 << 20) as small:
        target = small / "vm.img"
        target.write_bytes(states[1])
        programs.run(needs.require_tool("mount", "mount"), "-o", "remount,nr_inodes=2", small)
        with pytest.raises(errors.NoSpace):
            _restore(repo, "vm~1", target)
        assert target.read_bytes() == states[1]


def test_qemu_sees_the_disk(repo: repository.Repository, states: tuple[bytes, bytes], tmp_path: pathlib.Path) -> None:
    """After random writes of QEMU's the image is brought back, and to qemu-img it is the disk, as sparse as that."""
    target, expected = tmp_path / "vm.img", tmp_path / "expected.img"
    target.write_bytes(states[0])
    expected.write_bytes(states[0])
    rng = np.random.default_rng(7)
    writes = [f"write -q -P {n + 1} {int(at) * 512} {512 * (n + 1)}" for n, at in enumerate(rng.integers(0, 8000, 20))]
    programs.qemu_io(target, "raw", *writes)
    assert target.read_bytes() != states[0]
    _restore(repo, "vm~1", target)
    programs.qemu_img("compare", "-f", "raw", "-F", "raw", target, expected)
    _restore(repo, "vm", target, "vm~1")
    assert target.read_bytes() == states[1]
    told = programs.qemu_img("map", "-f", "raw", "--output=json", target)
    assert sum(item["length"] for item in json.loads(told) if not item["data"]) >= 512 << 10
