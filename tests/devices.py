"""Real block devices and real full disks, for tests that run as root."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

from tests import needs


@contextlib.contextmanager
def loop(backing: pathlib.Path) -> Iterator[pathlib.Path]:
    """A block device whose content is the file `backing`."""
    losetup = needs.require_loop()
    shown = subprocess.run([losetup, "--find", "--show", backing], capture_output=True, text=True, check=True)
    device = shown.stdout.strip()
    try:
        yield pathlib.Path(device)
    finally:
        subprocess.run([losetup, "--detach", device], check=True)


@contextlib.contextmanager
def mounted(what: pathlib.Path | str, at: pathlib.Path, *options: str) -> Iterator[pathlib.Path]:
    """`what` mounted at the new folder `at`."""
    needs.require_root()
    at.mkdir()
    subprocess.run([needs.require_tool("mount", "mount"), *options, what, at], check=True)
    try:
        yield at
    finally:
        subprocess.run([needs.require_tool("umount", "mount"), "--lazy", at], check=True)


@contextlib.contextmanager
def small(at: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """A file system of `size` bytes in memory, mounted at the new folder `at`."""
    with mounted("none", at, "-t", "tmpfs", "-o", f"size={size}") as folder:
        yield folder


def resize(at: pathlib.Path, size: int) -> None:
    """Give a `small` file system another size."""
    subprocess.run([needs.require_tool("mount", "mount"), "-o", f"remount,size={size}", at], check=True)
