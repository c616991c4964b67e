"""qcow2 images on block devices, which are not empty before."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests import devices, needs, programs
from tests.interop import test_qcow2_writer as writer
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import resized
from vimgvc.images import qcow2_target, raw

pytestmark = pytest.mark.slow

_FULL = b"\xff" * (16 << 20)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("text", ["", "extended_l2=on,cluster_size=2M", "preallocation=metadata"])
def test_images_on_devices(text: str, compressed: bool, seed: int, tmp_path: pathlib.Path) -> None:
    """What was on the device never shows, neither while the image is compared nor afterwards."""
    needs.require_loop()
    if compressed and "preallocation" in text:
        pytest.skip("not possible")
    disk = writer.make_disk(seed, 5 << 20)
    (tmp_path / "disk.raw").write_bytes(disk)
    (tmp_path / "backing").write_bytes(_FULL)
    with devices.loop(tmp_path / "backing") as device:
        target = qcow2_target.build(
            device,
            len(disk),
            writer.options(text, compressed=compressed),
            writer.blocks(disk),
            tag="t1",
            force=True,
        )
        for item in writer.blocks(disk):
            target.pwrite(item.start, memoryview(disk)[item.start : item.end])
        image = target.reader()
        assert reader.read(image.pread_into, 0, len(disk)) == disk
        image.close()
        target.finish()
        programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "disk.raw", device)
        programs.qemu_img("check", "-f", "qcow2", device)


def test_raw_disks_on_devices_are_read_back(seed: int, tmp_path: pathlib.Path) -> None:
    """A raw disk can be compared before it is finished: what was not written is zeros when it is settled."""
    needs.require_loop()
    size = 5_000_192
    data = np.random.default_rng(seed).bytes(70_000)
    (tmp_path / "backing").write_bytes(_FULL)
    with devices.loop(tmp_path / "backing") as device:
        target = raw.RawWriter(device, size, tag="t1", force=True)
        target.pwrite(1_000_001, memoryview(data))
        target.settle()
        found = reader.read(resized.Back(target).pread_into, 0, size)
        assert found == bytes(1_000_001) + data + bytes(size - 1_070_001)
        target.pwrite(0, memoryview(b"x"))
        target.finish()
    content = (tmp_path / "backing").read_bytes()
    assert content == b"x" + found[1:] + _FULL[size:]


@pytest.mark.parametrize("compressed", [False, True])
def test_devices_that_are_too_small(compressed: bool, seed: int, tmp_path: pathlib.Path) -> None:
    """An image that does not fit is refused, uncompressed before anything is written."""
    needs.require_loop()
    disk = np.random.default_rng(seed).bytes(4 << 20)
    (tmp_path / "backing").write_bytes(_FULL[: 4 << 20])
    with devices.loop(tmp_path / "backing") as device:
        with pytest.raises(errors.NoSpace, match="has 4194304 bytes"):  # noqa: PT012 - one of the two
            target = qcow2_target.build(
                device, len(disk), writer.options("", compressed=compressed), writer.blocks(disk), tag="t1", force=True
            )
            try:
                target.pwrite(0, memoryview(disk))
            finally:
                target.abort()
        if not compressed:
            assert (tmp_path / "backing").read_bytes() == _FULL[: 4 << 20]
