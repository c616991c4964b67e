"""The verbs. Each lives in its own module of `cli.verbs` and is imported when it is called for."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Annotated, Any

import typer
from typer._click import exceptions

import vimgvc
from vimgvc import errors
from vimgvc.cli import verb

#: In the order of the help.
VERBS = (
    "init",
    "commit",
    "log",
    "show",
    "status",
    "diff",
    "blame",
    "branch",
    "tag",
    "reflog",
    "head",
    "restore",
    "export",
    "convert",
    "info",
    "verify",
    "repair",
    "stats",
    "forget",
    "gc",
    "remote",
    "push",
    "fetch",
    "pull",
    "clone",
    "bundle",
    "key",
    "admit",
)
#: The parser's words and ours.
_WORDS = {
    r"Missing command\.": "no command given",
    r"is not a valid int range": "is not a whole number",
    r"Got unexpected extra argument(?:\(s\)|s)? \((.*)\)": r"too many arguments: \1",
}
EPILOG = """
Examples:
  vimgvc init                         make a repository here, in .vimgvc
  vimgvc commit vm.img -m 'clean'     record the state of a disk
  vimgvc log                          what was recorded
  vimgvc status vm.img                what changed since
  vimgvc restore vm~1 before.img      get an earlier state back
  vimgvc export vm vm.vmdk --format vmdk
                                      the same in another format
  vimgvc push                         a copy in another place: 'vimgvc remote add'

Repository:  --repo DIR, else VIMGVC_REPOSITORY, else the nearest .vimgvc upwards.
             Also s3://BUCKET/PREFIX?endpoint=https://HOST, with AWS_* credentials.
Passphrase:  --password-file, --password-command, VIMGVC_PASSWORD_FILE,
             VIMGVC_PASSWORD_COMMAND, VIMGVC_PASSWORD; else the remembered key
             ('vimgvc key remember'); else a question on the terminal.
Revisions:   a branch, a tag, the first 4 or more digits of a commit; REV~N, REV^;
             what BRANCH was: BRANCH@{N}, BRANCH@{2026-05-01}, BRANCH@{yesterday}.
Colours:     on a terminal, unless NO_COLOR is set.

Exit codes:  0 done                     20 integrity: something is damaged
             1 failed, nothing changed  21 unsafe or invalid image or target
             2 usage                    22 rollback, fork, identity changed
             3 done in part             23 unsupported format or feature
            10 no repository            24 no space
            11 busy                     25 remote unreachable or denied
            12 no key opens it          26 branch moved meanwhile
           130 interrupted             141 nobody reads the output
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


def invoke(arguments: list[str]) -> int:
    """Do what `arguments` say; returns the exit code. Raises `VimgvcError`; every usage error is one."""
    command = typer.main.get_command(_app())
    try:
        with command.make_context("vimgvc", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    except exceptions.UsageError as error:
        raise _usage_error(error, arguments) from None
    return 0


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


def _usage_error(error: exceptions.UsageError, arguments: list[str]) -> errors.UsageError:
    """The parser's complaint in our words: lower case, no full stop, a hint."""
    verb_given = next((one for one in arguments if one in VERBS), "")
    command = error.ctx.command_path if error.ctx else f"vimgvc {verb_given}".rstrip()
    hint = f"see '{command} --help'"
    message = error.format_message()
    if isinstance(error, exceptions.NoSuchOption):
        message = f"no such option: {error.option_name}"
        # stricter than the parser, which takes --version for --json
        import difflib

        near = difflib.get_close_matches(error.option_name, error.possibilities or (), 1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else hint
    for foreign, ours in _WORDS.items():
        message = re.sub(foreign, ours, message)
    return errors.UsageError(message[:1].lower() + message[1:].rstrip("."), hint=hint)
