"""A program on a terminal of its own."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping
from types import TracebackType
from typing import Self

ROOT = pathlib.Path(__file__).parents[2]


class Terminal:
    """`vimgvc ARGUMENTS` with a new terminal as its input, its controlling terminal and, unless piped, its output.

    `shown` collects everything the terminal was sent. Leaving the block ends the program.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *arguments: str,
        piped: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, self._slave = os.openpty()
        self.shown = b""
        own = {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120", "LINES": "40", **(environment or {})}
        self.process = subprocess.Popen(
            # the tests themselves may run under nohup, and what is ignored stays ignored
            ["env", "--default-signal=HUP,INT", "setsid", "--ctty", sys.executable, "-m", "vimgvc", *arguments],
            cwd=directory,
            env={**os.environ, **own},
            stdin=self._slave,
            stdout=subprocess.PIPE if piped else self._slave,
            stderr=self._slave,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        os.close(self._slave)
        os.close(self._master)

    def until(self, text: str) -> None:
        """Wait until the terminal shows `text` once more; what comes later is not read yet."""
        seen = b""
        while text.encode() not in seen:
            part = os.read(self._master, 65536)
            seen += part
            self.shown += part

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def end(self) -> int:
        """Wait for the end of the program; its exit code. Everything is in `shown` then."""
        code = self.process.wait()
        os.write(self._slave, b"<end>")
        while not self.shown.endswith(b"<end>"):
            self.shown += os.read(self._master, 65536)
        self.shown = self.shown.removesuffix(b"<end>")
        return code
