"""Transcripts: what a person types and what the program answers, in a text file.

    # a remark
    $ vimgvc log                    run in this process, with the words that a shell would make
    % vimgvc log | head -n 1        run by sh in a session without a terminal
    $ export NAME=VALUE             for the commands that follow
    an expected line of output
    ! an expected line of error output
    ? 12                            the expected exit code; 0 when not said
    = old.img vm.img                all that is in the directory afterwards, but for .vimgvc

In expected lines `[ID]` stands for 12 hexadecimal digits, `[FULL]` for 64, `[SLOT]` for 8, `[UUID]`
for 32, `[TIME]` for a date, `[SIZE]` for a size, `[SECONDS]` for a duration, `[NUMBER]` for digits,
`[DIR]` for the directory, `[ANY]` for anything. A line of `...` stands for any lines.

Each transcript has a directory, a home and an environment of its own. After each, nothing that was
printed may hold a passphrase, a recovery code or the root key (C20).
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from vimgvc.cli import main

_ROOT = pathlib.Path(__file__).parents[2]
_PATTERNS = {
    "ID": "[0-9a-f]{12}",
    "FULL": "[0-9a-f]{64}",
    "SLOT": "[0-9a-f]{8}",
    "UUID": "[0-9a-f]{32}",
    "TIME": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}",
    "SIZE": r"\d+(?:\.\d)? [KMGT]?i?B",
    "SECONDS": r"\d+\.\d+(?: s)?",
    "NUMBER": r"[\d,]+",
    "ANY": ".*",
}
#: Programs for `%` lines: vimgvc, and what runs a command without root's right to read everything.
_SHIMS = {
    "vimgvc": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vimgvc "$@"\n',
    "unprivileged": '#!/bin/sh\n[ "$(id -u)" = 0 ] || exec "$@"\n'
    'exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"\n',
}


@dataclass(slots=True)
class Step:
    """`sign` is `$` or `%`; `line` counts from 1."""

    line: int
    sign: str
    command: str
    output: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    code: int = 0
    files: list[str] | None = None


def parse(text: str) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        sign, _, rest = line.partition(" ")
        if not line or sign.startswith("#"):
            continue
        if sign in ("$", "%"):
            steps.append(Step(number, sign, rest))
        elif sign == "!":
            steps[-1].errors.append(rest)
        elif sign == "?":
            steps[-1].code = int(rest)
        elif sign == "=":
            steps[-1].files = rest.split()
        else:
            # "\n" alone cannot be written as an expected line: an empty line parts commands
            steps[-1].output.append("" if line == "." else line)
    return steps


@dataclass(slots=True)
class Player:
    """Plays steps in `directory`; `chdir` and `setenv` are to be undone by the caller."""

    directory: pathlib.Path
    setenv: Callable[[str, str], None]
    printed: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def play(self, step: Step) -> None:
        if step.command.startswith("export "):
            name, _, value = step.command.removeprefix("export ").partition("=")
            self.setenv(name, value)
            if name == "VIMGVC_PASSWORD" and value:
                self.secrets.add(value)
            return
        os.chdir(self.directory)
        words = shlex.split(step.command) if step.sign == "$" else []
        code, output, errors = _inside(words[1:]) if words[:1] == ["vimgvc"] else self._outside(step.command)
        self.printed += [output, errors]
        where = f"line {step.line}: {step.command}\n--- output\n{output}--- error output\n{errors}--- exit code {code}"
        assert self.matches(step.errors, errors), f"error output differs at {where}"
        assert self.matches(step.output, output), f"output differs at {where}"
        assert code == step.code, f"exit code differs at {where}"
        if step.files is not None:
            found = sorted(path.name for path in self.directory.iterdir() if path.name != ".vimgvc")
            assert found == sorted(step.files), f"files differ at {where}"

    def _outside(self, command: str) -> tuple[int, str, str]:
        shims = self.directory.parent / "bin"
        if not shims.exists():
            shims.mkdir()
            for name, script in _SHIMS.items():
                (shims / name).write_text(script)
                (shims / name).chmod(0o755)
        # the usual buffering, whatever the one who runs the tests prefers
        own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        environment = {**own, "PATH": f"{shims}:{os.environ['PATH']}", "PYTHONPATH": str(_ROOT)}
        result = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    def matches(self, expected: list[str], actual: str) -> bool:
        """Whether the text is what the lines say, placeholders replaced."""
        pattern = "".join("(?:.*\n)*" if line == "..." else f"{self._line(line)}\n" for line in expected)
        return re.fullmatch(pattern, actual) is not None

    def _line(self, line: str) -> str:
        parts = re.split(r"\[([A-Z]+)\]", line)
        for at in range(1, len(parts), 2):
            own = (
                re.escape(str(self.directory))
                if parts[at] == "DIR"
                else _PATTERNS.get(parts[at], re.escape(f"[{parts[at]}]"))
            )
            parts[at] = own
        return "".join(part if at % 2 else re.escape(part) for at, part in enumerate(parts))


def _inside(arguments: list[str]) -> tuple[int, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), errors="backslashreplace", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = main.run(arguments)
    texts = []
    for stream in streams:
        stream.flush()
        stream.seek(0)
        texts.append(stream.read())
    return code, texts[0], texts[1]


def leaks(printed: list[str], secrets: set[str]) -> list[str]:
    """The secrets that are in what was printed, in either case of hexadecimal."""
    everything = "".join(printed)
    return sorted(secret for secret in secrets if secret in everything or secret.upper() in everything)
