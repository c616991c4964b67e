"""Where words go.

- Results go to standard output: text, or with --json exactly one document.
- Everything else goes to standard error, each line with the program's name before it.
- Questions go to the terminal (`prompt`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from vimgvc import errors
from vimgvc.cli import text

#: Lines that are written together.
_AT_ONCE = 100


@dataclass(slots=True)
class Output:
    stdout: TextIO
    stderr: TextIO
    environment: Mapping[str, str]
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    style: text.Style = field(init=False)

    def __post_init__(self) -> None:
        self.style = text.Style(not self.json and _wants_colour(self.stdout, self.environment))

    def document(self, value: Mapping[str, Any]) -> None:
        self.lines([json.dumps(value, indent=2)])

    def lines(self, lines: Iterable[str]) -> None:
        rest = iter(lines)
        self._write(iter(lambda: "".join([f"{line}\n" for line in itertools.islice(rest, _AT_ONCE)]), ""))

    def exactly(self, content: str) -> None:
        """Print what is to be read by a program: with every option, and without a line end of its own."""
        self._write([content])

    def check_pipe(self) -> None:
        """Raise `UsageError` unless standard output can take bytes that are no text."""
        if self.json:
            raise errors.UsageError("--json and '-' both need standard output", hint="name a file")
        if getattr(self.stdout, "name", "") == os.devnull:  # what `main` put in the place of a closed one
            raise errors.UsageError("standard output is closed", hint="name a file, or send it into a pipe with |")
        if self.stdout.isatty():
            raise errors.UsageError("standard output is a terminal", hint="name a file, or send it into a pipe with |")

    def bytes(self, content: memoryview) -> None:
        """Bytes of a disk; raises as `lines`."""
        with self._writing():
            self.stdout.buffer.write(content)

    def end_bytes(self) -> None:
        """All of it was written: durable, where that is a file."""
        with self._writing():
            self.stdout.flush()
            if stat.S_ISREG(os.fstat(self.stdout.fileno()).st_mode):
                os.fsync(self.stdout.fileno())

    def done(self, value: Mapping[str, Any], lines: Iterable[str]) -> None:
        """What a command did: the document with --json, else the lines, with --quiet neither."""
        if self.json:
            self.document(value)
        elif not self.quiet:
            self.lines(lines)

    def note(self, message: str) -> None:
        if not self.quiet:
            self._say(message)

    def detail(self, message: str) -> None:
        if self.verbose:
            self._say(message)

    def problem(self, message: str) -> None:
        self._say(f"warning: {message}")

    def failure(self, error: errors.VimgvcError) -> None:
        """An error: two lines, or with --json one document (specs/cli.md)."""
        if self.json:
            print(json.dumps({"error": describe(error)}), file=self.stderr)
            return
        self._say(f"error: {error.message}")
        if error.hint:
            self._say(f"hint: {error.hint}")

    def _say(self, message: str) -> None:
        print(f"vimgvc: {text.escape(message)}", file=self.stderr)

    def _write(self, parts: Iterable[str]) -> None:
        with self._writing():
            for part in parts:
                self.stdout.write(part)
            self.stdout.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises `BrokenPipeError` when the reader has left, `VimgvcError` when it cannot be written."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise errors.from_os_error(error, "standard output") from error


def describe(error: errors.VimgvcError) -> dict[str, Any]:
    """An error as JSON."""
    return {"kind": kind(type(error)), "message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def kind(cls: type[errors.VimgvcError]) -> str:
    """The class in snake case: the nearest public one."""
    name = next(one.__name__ for one in cls.__mro__ if one.__module__ == errors.__name__)
    return "".join(f"_{char.lower()}" if char.isupper() and at else char.lower() for at, char in enumerate(name))


def is_rich_terminal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and environment.get("TERM", "") not in ("", "dumb")


def _wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    return not environment.get("NO_COLOR") and is_rich_terminal(stream, environment)
