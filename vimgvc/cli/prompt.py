"""Questions to a person.

Questions go to the terminal itself, never to standard input or output: a passphrase is not read
from a pipe by accident, and a redirected result holds no question. The answer is not shown, the
question is wiped afterwards, and the terminal is as before whatever happens in between.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vimgvc import errors

_LIMIT = 4096
_TERMINAL = "/dev/tty"


def passphrase(question: str) -> str:
    """Ask once without echo. Raises `UsageError` without a terminal, `Interrupted` at end of input."""
    return _ask(f"{question}: ", echo=False)


def new_passphrase(question: str) -> str:
    """Ask twice. Raises `UsageError` when the answers differ or are empty."""
    first = passphrase(question)
    if not first:
        raise errors.UsageError("the passphrase is empty", hint="type a passphrase, or give a key file with --key-file")
    if passphrase(f"{question} (again)") != first:
        raise errors.UsageError("the two passphrases differ", hint="run the same command again")
    return first


def code(question: str) -> str:
    """Ask once with echo: long codes are typed from paper. The line is wiped like the others."""
    return _ask(f"{question}: ", echo=True)


def yes(question: str) -> bool:
    """Whether the answer is yes. Raises `UsageError` without a terminal, `Interrupted` at end of input."""
    return _ask(f"{question} [y/N] ", echo=True).strip().lower() in ("y", "yes")


def somebody_there() -> bool:
    """Whether there is a terminal to ask on."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _ask(question: str, *, echo: bool) -> str:
    with _open_terminal() as terminal, _echo(terminal, wanted=echo):
        os.write(terminal, question.encode())
        answer = _read_line(terminal)
        wipe = b"\x1b[1A\r\x1b[K" if echo else b"\r\x1b[K"
        os.write(terminal, b"\r\n" if os.environ.get("TERM", "dumb") == "dumb" else wipe)
    try:
        return answer.decode()
    except UnicodeDecodeError:
        raise errors.UsageError(
            "the terminal sent bytes that are not UTF-8", hint="use a UTF-8 terminal, or --password-file"
        ) from None


@contextlib.contextmanager
def _open_terminal() -> Iterator[int]:
    try:
        terminal = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise errors.UsageError(
            "a passphrase is needed and there is no terminal to ask on",
            hint="give --password-file FILE, --password-command COMMAND, --key-file FILE, or set VIMGVC_PASSWORD_FILE",
        ) from None
    try:
        yield terminal
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _echo(terminal: int, *, wanted: bool) -> Iterator[None]:
    """The terminal with or without echo; what was typed ahead is dropped."""
    import termios

    before = termios.tcgetattr(terminal)
    during = list(before)
    during[3] = during[3] | termios.ECHO if wanted else during[3] & ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, during)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _read_line(terminal: int) -> bytes:
    """One line without its end. The terminal hands over lines; at most `_LIMIT` bytes are taken."""
    line = b""
    while len(line) < _LIMIT:
        part = os.read(terminal, _LIMIT - len(line))
        line += part
        if not part and not line:
            raise errors.Interrupted("no answer", hint="run the same command again")
        if not part or line.endswith(b"\n"):
            break
    return line.removesuffix(b"\n")
