"""Programs that tests run; when one fails, the test shows all that it said."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
from collections.abc import Mapping

from tests import needs

Argument = str | bytes | pathlib.Path


class Failed(AssertionError):
    """A program ended with another code than 0."""


# A LUKS image cannot be made when qemu measured no CPU time at all, its clock being coarse; asked again, it can.
_COARSE_CLOCK = "Unable to get accurate CPU usage"


def run(
    program: Argument, *arguments: Argument, cwd: pathlib.Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What a program prints that must not fail."""
    done = _run(program, *arguments, cwd=cwd, env=env)
    return _printed(done)


def qemu(tool: str, *arguments: Argument) -> str:
    """What a tool of qemu's prints that must not fail."""
    path = needs.require_tool(tool, "qemu-utils")
    while True:
        done = _run(path, *arguments)
        if _COARSE_CLOCK not in done.stderr:
            return _printed(done)


def qemu_img(*arguments: Argument) -> str:
    return qemu("qemu-img", *arguments)


def qemu_io(path: pathlib.Path, form: str, *commands: str) -> str:
    """Run commands on an image of a format, in one process."""
    return qemu("qemu-io", "-f", form, *[word for command in commands for word in ("-c", command)], path)


def _run(
    program: Argument, *arguments: Argument, cwd: pathlib.Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, errors="backslashreplace", check=False, cwd=cwd, env=env
    )


def _printed(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        called = shlex.join(os.fsdecode(word) for word in done.args)
        raise Failed(f"{called}\nended with {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout
