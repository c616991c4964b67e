"""Real block devices and real full disks, for tests that run as root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import struct
import subprocess
import time
from collections.abc import Iterator

from tests import needs, programs

#: EXT4_IOC_SHUTDOWN: the file system is dead from here on, as after a power cut. What is in the
#: journal's memory is written first (FLUSH), or lost too.
_SHUTDOWN = 0x8004587D
FLUSH, NO_FLUSH = 1, 2


class Disk:
    """An ext4 file system on a loop device, whose power can be cut."""

    def __init__(self, device: pathlib.Path, folder: pathlib.Path) -> None:
        self.device, self.folder = device, folder

    def mount(self) -> None:
        subprocess.run([needs.require_tool("mount", "mount"), self.device, self.folder], check=True)

    def unmount(self) -> None:
        umount, busy = needs.require_tool("umount", "mount"), 32
        # A server that had files open here may take a moment to end.
        while subprocess.run([umount, self.folder], check=False, capture_output=True).returncode == busy:
            time.sleep(0.02)

    def cut(self, flag: int) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", flag))
        finally:
            os.close(handle)

    def reboot(self) -> None:
        self.unmount()
        self.mount()


@contextlib.contextmanager
def loop(backing: pathlib.Path) -> Iterator[pathlib.Path]:
    """A block device whose content is the file `backing`."""
    losetup = needs.require_loop()
    device = programs.run(losetup, "--find", "--show", backing).strip()
    try:
        yield pathlib.Path(device)
    finally:
        programs.run(losetup, "--detach", device)


@contextlib.contextmanager
def disk(folder: pathlib.Path, size: int, kind: str = "ext4") -> Iterator[Disk]:
    """A new file system of `size` bytes, mounted at `disk` below `folder`: ext4, or xfs."""
    image, at = folder / "disk.img", folder / "disk"
    make = {"ext4": ("mke2fs", "e2fsprogs", "-q", "-F", "-t", "ext4"), "xfs": ("mkfs.xfs", "xfsprogs", "-q")}
    program, package, *options = make[kind]
    needs.require_root()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([needs.require_tool(program, package), *options, image], check=True)
    at.mkdir()
    with loop(image) as device:
        made = Disk(device, at)
        made.mount()
        try:
            yield made
        finally:
            made.unmount()


@contextlib.contextmanager
def mounted(what: pathlib.Path | str, at: pathlib.Path, *options: str) -> Iterator[pathlib.Path]:
    """`what` mounted at the new folder `at`."""
    needs.require_root()
    at.mkdir()
    programs.run(needs.require_tool("mount", "mount"), *options, what, at)
    try:
        yield at
    finally:
        programs.run(needs.require_tool("umount", "mount"), "--lazy", at)


@contextlib.contextmanager
def small(at: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """A file system of `size` bytes in memory, mounted at the new folder `at`."""
    with mounted("none", at, "-t", "tmpfs", "-o", f"size={size}") as folder:
        yield folder


def resize(at: pathlib.Path, size: int) -> None:
    """Give a `small` file system another size."""
    programs.run(needs.require_tool("mount", "mount"), "-o", f"remount,size={size}", at)
