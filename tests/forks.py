"""The program, started many times without its start-up: each run is a fork of a process that has imported it all.

with forks.Program(place, environment) as program:
    assert program.run("commit", "vm.img") == 0
    patience.run(program.start("commit", "vm.img"), rng.random())
"""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

ROOT = pathlib.Path(__file__).parents[1]

# A line of arguments is answered by the number of the process that was made for them; the next line asks for its code.
# What goes wrong there is told where the tests say it, too.
_SERVE = """
import gc, importlib, json, os, pkgutil, sys
import vimgvc
for module in pkgutil.walk_packages(vimgvc.__path__, "vimgvc."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from vimgvc.cli import main
gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 99
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            sys.argv[1:] = json.loads(line)
            code = main.main()
        finally:
            os._exit(code)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Run:
    """One run of the program; `code` must be asked for before the next one starts."""

    def __init__(self, server: subprocess.Popen[str], number: int) -> None:
        self._server, self._number = server, number
        # It exists until its code is asked for, be it as a zombie.
        self._watch = os.pidfd_open(number)

    def ends_within(self, seconds: float) -> bool:
        return bool(select.select([self._watch], [], [], seconds)[0])

    def kill(self) -> None:
        signal.pidfd_send_signal(self._watch, signal.SIGKILL)

    def code(self) -> int:
        """The exit code, or the negative number of the signal, when it has ended."""
        os.close(self._watch)
        return int(_asked(self._server, ""))


class Program:
    """Runs `vimgvc` in `place`, one at a time, with more in its environment."""

    def __init__(self, place: pathlib.Path, environment: Mapping[str, str]) -> None:
        own = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment}
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            cwd=place,
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.communicate()

    def start(self, *arguments: str) -> Run:
        return Run(self._server, int(_asked(self._server, json.dumps(arguments))))

    def run(self, *arguments: str) -> int:
        """The exit code."""
        return self.start(*arguments).code()


def _asked(server: subprocess.Popen[str], line: str) -> str:
    assert server.stdin
    assert server.stdout
    server.stdin.write(f"{line}\n")
    server.stdin.flush()
    return server.stdout.readline()


class Patience:
    """How long to wait before killing, so that most runs are killed at any moment of theirs, and some end before.

    It goes by how the last runs ended, and not by a clock: the machine may be slower in a minute.
    """

    def __init__(self) -> None:
        self._longest = 0.1
        self.ended = self.killed = 0

    def run(self, run: Run, part: float) -> bool:
        """Wait and kill; `part`, from 0 to 1, says how long. True when the run had ended well before."""
        if not run.ends_within(part * self._longest):
            run.kill()
        ended = run.code() == 0
        if ended:
            self.ended += 1
            self._longest *= 0.8
        else:
            self.killed += 1
            self._longest *= 1.06 if self.ended else 1.5
        return ended
