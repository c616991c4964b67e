"""X13: targets on file systems that copy on write or compress, and on devices with sectors of 4 KiB."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from tests import devices, needs, programs, repos
from tests.suites import reader
from vimgvc import monitor
from vimgvc.images import qcow2_options, qcow2_target, raw

pytestmark = pytest.mark.slow

_SIZE = (9 << 20) + 4096 + 512
_ROOM = 384 << 20


@contextlib.contextmanager
def _sectors_of_4k(backing: pathlib.Path) -> Iterator[pathlib.Path]:
    losetup = needs.require_loop()
    device = programs.run(losetup, "--find", "--show", "--sector-size", "4096", backing).strip()
    try:
        yield pathlib.Path(device)
    finally:
        programs.run(losetup, "--detach", device)


@pytest.fixture(params=["btrfs", "xfs"])
def folder(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system that shares and (btrfs) compresses blocks, on a device with sectors of 4 KiB."""
    with open(tmp_path / "backing", "wb") as backing:
        backing.truncate(_ROOM)
    package = {"btrfs": "btrfs-progs", "xfs": "xfsprogs"}[request.param]
    program = needs.require_tool(f"mkfs.{request.param}", package)
    options = {"btrfs": ["-o", "compress-force=zstd"], "xfs": []}[request.param]
    with _sectors_of_4k(tmp_path / "backing") as device:
        programs.run(program, "-q", device)
        with devices.mounted(device, tmp_path / "mounted", *options) as at:
            yield at


def test_x13_a_disk_restores_everywhere(folder: pathlib.Path, seed: int) -> None:
    """A disk that ends inside a block restores byte for byte, and again over a partial file."""
    content = reader.make_sample(_SIZE, seed).content
    repo = repos.create()
    repos.commit(repo, ("vm", content))
    disk = repo.resolve("vm").disk()
    target = raw.RawWriter(folder / "vm.img", _SIZE, tag="t1")
    target.pwrite(0, memoryview(content)[: 3 << 20])
    target.pwrite(4 << 20, memoryview(bytes([0xEE]) * (1 << 20)))
    target.abort()
    again = raw.RawWriter(folder / "vm.img", _SIZE, tag="t1")
    assert again.resumed
    repo.open_disk(disk).restore(again, monitor.NullMonitor())
    assert (folder / "vm.img").read_bytes() == content


def test_x13_a_qcow2_is_written_everywhere(folder: pathlib.Path, seed: int) -> None:
    """A qcow2 written there is sound, and the same disk."""
    content = reader.make_sample(_SIZE, seed).content
    repo = repos.create()
    repos.commit(repo, ("vm", content))
    stored = repo.open_disk(repo.resolve("vm").disk())
    target = qcow2_target.build(
        folder / "vm.qcow2", _SIZE, qcow2_options.Options(), stored.extents(0, _SIZE), tag="t1", force=False
    )
    stored.restore(target, monitor.NullMonitor())
    programs.qemu_img("check", "-q", "-f", "qcow2", folder / "vm.qcow2")
    (folder / "vm.raw").write_bytes(content)
    programs.qemu_img("compare", "-q", "-f", "qcow2", "-F", "raw", folder / "vm.qcow2", folder / "vm.raw")


def test_x13_a_device_with_large_sectors(seed: int, tmp_path: pathlib.Path) -> None:
    """A device whose sectors have 4 KiB takes a disk that ends inside one; what lies behind the disk stays."""
    content = reader.make_sample(_SIZE, seed).content
    room = _SIZE - _SIZE % 4096 + (1 << 20)
    (tmp_path / "backing").write_bytes(b"\xff" * room)
    repo = repos.create()
    repos.commit(repo, ("vm", content))
    with _sectors_of_4k(tmp_path / "backing") as device:
        target = raw.RawWriter(device, _SIZE, tag="t1", force=True)
        repo.open_disk(repo.resolve("vm").disk()).restore(target, monitor.NullMonitor())
    assert (tmp_path / "backing").read_bytes() == content + b"\xff" * (room - _SIZE)
