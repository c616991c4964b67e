"""Looking at confined children from outside, without waiting for any length of time."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select

from vimgvc.images import qemu


def guard_of(child: qemu.Child) -> int:
    return child._process.pid


def program_of(guard: int) -> int | None:
    """The process that a guard guards; None if there is none (any more)."""
    try:
        found = pathlib.Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(found[0]) if found else None


def status(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_gone(pid: int, seconds: float = 30) -> bool:
    """Whether a process, which need not be ours, ends within some time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def left_in(folder: pathlib.Path) -> list[str]:
    """Names in a folder of temporary files that look like ours."""
    with contextlib.suppress(FileNotFoundError):
        return [entry.name for entry in folder.iterdir() if entry.name.startswith("vimgvc-")]
    return []
