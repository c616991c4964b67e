"""Where the secret that opens a repository comes from.

Given on the command line: --password-file, --password-command, --key-file, --recovery-code. Else
from the environment: VIMGVC_PASSWORD_FILE, VIMGVC_PASSWORD_COMMAND, VIMGVC_PASSWORD. Else the
remembered key (`commands.access`), else a question on the terminal. The first one that is there
is used alone: a wrong passphrase in a file is an error, not a reason to ask.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
from collections.abc import Mapping

from vimgvc import errors
from vimgvc.cli import options, prompt
from vimgvc.commands import access

_LIMIT = 4096


def given(globals_: options.Globals, environment: Mapping[str, str]) -> access.Secret | None:
    """What was given explicitly, None when nothing was. Raises `UsageError`, `NoKey`."""
    if globals_.key_file:
        return access.key_file(globals_.key_file, insecure_perms=globals_.insecure_perms)
    if globals_.recovery_code:
        return access.recovery_code(prompt.code("recovery code"))
    return passphrase(globals_.password_file, globals_.password_command) or _from_environment(environment)


def asked(attempt: int) -> access.Secret:
    """Ask on the terminal; `attempt` counts from 0."""
    question = "wrong passphrase, try again" if attempt else "passphrase"
    return access.passphrase(prompt.passphrase(question).encode())


def asked_twice(question: str) -> access.Secret:
    return access.passphrase(prompt.new_passphrase(question).encode())


def passphrase(file: str | None, command: str | None) -> access.Secret | None:
    """A passphrase from a file or a command's output, without the line end at its end."""
    if file:
        return _passphrase(_read(file, "password file"), f"the password file {file}")
    if command:
        return _passphrase(_output(command), "the output of the password command")
    return None


def _from_environment(environment: Mapping[str, str]) -> access.Secret | None:
    found = passphrase(environment.get("VIMGVC_PASSWORD_FILE"), environment.get("VIMGVC_PASSWORD_COMMAND"))
    if found:
        return found
    # an empty variable is what `VIMGVC_PASSWORD= vimgvc ...` leaves behind: not a passphrase
    value = environment.get("VIMGVC_PASSWORD")
    return _passphrase(os.fsencode(value), "VIMGVC_PASSWORD") if value else None


def _passphrase(content: bytes, where: str) -> access.Secret:
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise errors.UsageError(f"{where} is empty", hint="put the passphrase there, on one line")
    return access.passphrase(line)


def _read(path: str, what: str) -> bytes:
    # a pipe is welcome here: --password-file <(pass show disks)
    try:
        with pathlib.Path(path).open("rb") as stream:
            content = stream.read(_LIMIT + 1)
    except OSError as error:
        raise errors.UsageError(
            f"cannot read the {what} {path}: {error.strerror}", hint="check the path and the mode of the file"
        ) from None
    if len(content) > _LIMIT:
        raise errors.UsageError(f"the {what} {path} is larger than {_LIMIT} bytes", hint="check the path")
    return content


def _output(command: str) -> bytes:
    hint = "run it by hand to see what is wrong"
    try:
        words = shlex.split(command)
        result = subprocess.run(words, stdout=subprocess.PIPE, check=False)  # noqa: S603 - the user's own command
    except (OSError, ValueError, IndexError) as error:
        raise errors.UsageError(f"cannot run the password command: {error}", hint=hint) from None
    if result.returncode:
        raise errors.NoKey(f"the password command failed with exit code {result.returncode}", hint=hint)
    return result.stdout
