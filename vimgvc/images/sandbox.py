"""How a child is confined: a launcher between us and the program that it is to run.

`sandbox_child` runs as a script of its own, which is what lets limits be set without Python code
between fork and exec of a process with threads. It stays as the guard of the program:

- the program cannot outlive the guard (it gets SIGKILL), nor the guard our end of a socket, `control`;
- when the program ends, the guard sends its exit status as text (negative: the signal that ended it);
- when `control` is closed, for whatever reason, also when we are killed, the guard ends the program and
  removes the scratch folders with what is left in them.

specs/foreign-formats.md says what the program may do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

#: The exit status of a launcher that could not confine the program, which then did not run.
NOT_CONFINED = 125

MEMORY = 2 << 30
OPEN_FILES = 256

#: Where qemu's messages go: a file of this size at most, so a child that may write no file may write this.
MESSAGES = 65536


@dataclass(frozen=True, slots=True)
class Scratch:
    """A flat folder that is removed when it is given up; `fd` is it, opened."""

    path: str
    fd: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What a child may use; everything else is denied where the kernel can deny it.

    `reads`: descriptors of files that it may open again through /proc/self/fd, for reading.
    `folder`: descriptor of the folder that it starts in and may make files in; None: it starts in `/` and
    may write nowhere. `listen`: descriptor of a listening socket, handed on as systemd does (number 3).
    `extra`: inherited without any right in the file system, which files in memory do not need.
    `scratch`: removed by the guard. `memory` and `file_bytes` in bytes, `cpu` in seconds.
    """

    cpu: int
    reads: Sequence[int] = ()
    folder: int | None = None
    listen: int | None = None
    extra: Sequence[int] = ()
    scratch: Sequence[Scratch] = ()
    memory: int = MEMORY
    file_bytes: int = MESSAGES
    open_files: int = OPEN_FILES

    def descriptors(self) -> list[int]:
        """Every descriptor that the launcher must inherit."""
        single = [fd for fd in (self.folder, self.listen) if fd is not None]
        return [*self.reads, *self.extra, *single, *(item.fd for item in self.scratch)]


def command(policy: Policy, control: int, program: str, arguments: Sequence[str]) -> list[str]:
    """The command line of the launcher that runs `program` (an absolute path) under `policy`."""
    limits = {
        "control": control,
        "reads": list(policy.reads),
        "extra": list(policy.extra),
        "folder": policy.folder,
        "listen": policy.listen,
        "scratch": [[item.path, item.fd] for item in policy.scratch],
        "memory": policy.memory,
        "cpu": policy.cpu,
        "file_bytes": max(policy.file_bytes, MESSAGES),
        "open_files": policy.open_files,
        "runs": _runs(program),
    }
    launcher = os.path.join(os.path.dirname(__file__), "sandbox_child.py")
    return [sys.executable, "-I", "-S", launcher, json.dumps(limits), program, *arguments]


def _runs(program: str) -> list[str]:
    """What must be readable for a program to start: itself and, of a private installation, its libraries."""
    real = os.path.realpath(program)
    prefix, last = os.path.split(os.path.dirname(real))
    libraries = [os.path.join(prefix, name) for name in ("lib", "lib64")] if last == "bin" else []
    return [real, *libraries]
