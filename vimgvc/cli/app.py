"""The verbs. Each lives in its own module of `cli.verbs` and is imported when it is called for."""

from __future__ import annotations

import importlib
import inspect
from typing import Annotated, Any

import typer
from typer._click import exceptions

import vimgvc
from vimgvc import errors
from vimgvc.cli import verb

#: In the order of the help.
VERBS = ("init", "commit", "log", "show", "restore", "verify", "stats", "key")
EPILOG = """
Examples:
  vimgvc init                         make a repository here, in .vimgvc
  vimgvc commit vm.img -m 'clean'     record the state of a disk
  vimgvc log                          what was recorded
  vimgvc restore vm~1 before.img      get an earlier state back

Repository: --repo DIR, else VIMGVC_REPOSITORY, else the nearest .vimgvc upwards.
Passphrase: --password-file, --password-command, VIMGVC_PASSWORD_FILE, VIMGVC_PASSWORD_COMMAND,
VIMGVC_PASSWORD; else the remembered key ('vimgvc key remember'); else asked for on the terminal.
Revisions:  a branch, a tag, the first 4 or more digits of a commit, REV~N, REV^; REV:DISK.

Exit codes: 0 done, 1 failed and nothing changed, 2 usage, 3 done in part, 10 no repository, 11 busy,
12 no key opens, 20 integrity, 21 unsafe image or target, 22 rollback, 23 unsupported, 24 no space,
25 remote, 26 branch moved, 130 interrupted.
"""


class Verbs(verb.Group):
    """The top-level command."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        command = typer.main.get_command(importlib.import_module(f"vimgvc.cli.verbs.{cmd_name}").app)
        command.name = cmd_name
        return command


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


def version_line() -> str:
    return f"vimgvc {vimgvc.__version__}"


def invoke(arguments: list[str]) -> None:
    """Do what `arguments` say. Raises `VimgvcError`; every usage error is one."""
    command = typer.main.get_command(_app())
    try:
        with command.make_context("vimgvc", arguments) as context:
            command.invoke(context)
    except typer.Exit:
        pass
    except exceptions.UsageError as error:
        raise _usage_error(error) from None


def _app() -> typer.Typer:
    app = verb.new_app()
    version = inspect.Parameter(
        "version",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            typer.Option(
                "--version", help="Show the version.", is_eager=True, callback=_show_version, show_default=False
            ),
        ],
    )
    verb.make_group(app, version, cls=Verbs, help_text="git for virtual-machine disks.", epilog=EPILOG)
    return app


def _usage_error(error: exceptions.UsageError) -> errors.UsageError:
    """The parser's complaint in our words: lower case, no full stop, a hint."""
    command = error.ctx.command_path if error.ctx else "vimgvc"
    hint = f"see '{command} --help'"
    message = error.format_message()
    if isinstance(error, exceptions.NoSuchOption):
        message = f"no such option: {error.option_name}"
        if error.possibilities:
            hint = f"did you mean {min(error.possibilities)}?"
    if message.startswith("Missing command"):
        message = "no command given"
    message = message.replace("is not a valid int range", "is not a whole number")
    return errors.UsageError(message[:1].lower() + message[1:].rstrip("."), hint=hint)
