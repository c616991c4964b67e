"""Running programs of the machine, and saying which are missing."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class BenchError(Exception):
    """What stops a script: one message for the person who runs it."""


def chosen(parser: argparse.ArgumentParser, given: str, known: Iterable[str]) -> list[str]:
    """The names in `given`, separated by commas; ends the program for one that is not known."""
    names = given.split(",")
    if unknown := set(names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return names


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def require(programs: Mapping[str, str]) -> None:
    """Refuse to go on without these: program name -> Debian package."""
    missing = {program: package for program, package in programs.items() if shutil.which(program) is None}
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        packages = " ".join(sorted(set(missing.values())))
        raise BenchError(f"missing: {', '.join(sorted(missing))}\ninstall with: {sudo}apt-get install {packages}")


def run(
    argv: Sequence[str | os.PathLike[str]], *, text_in: str | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Standard output of a program that must succeed; shows its last words when it does not."""
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        input=text_in,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BenchError(f"{os.fspath(argv[0])} failed with code {done.returncode}:\n{tail}")
    return done.stdout


def mebibytes(count: float) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
