"""The options that every command takes, before the verb or after it; the later one wins."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import typer

from vimgvc import errors

PANEL = "Options of every command"


def _option(*names: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False, rich_help_panel=PANEL)


@dataclass(frozen=True, slots=True)
class Globals:
    """What was given; None and False mean: not given."""

    repo: Annotated[
        str | None,
        _option("--repo", "-r", metavar="DIR", text="The repository (else VIMGVC_REPOSITORY, else upwards)."),
    ] = None
    start: Annotated[str | None, _option("-C", metavar="DIR", text="Work as if started in DIR.")] = None
    password_file: Annotated[
        str | None, _option("--password-file", metavar="FILE", text="Read the passphrase from FILE.")
    ] = None
    password_command: Annotated[
        str | None, _option("--password-command", metavar="COMMAND", text="Take the passphrase from COMMAND's output.")
    ] = None
    key_file: Annotated[str | None, _option("--key-file", metavar="FILE", text="Open with a key file.")] = None
    insecure_perms: Annotated[bool, _option("--insecure-perms", text="Accept a key file that others may read.")] = False
    recovery_code: Annotated[
        bool, _option("--recovery-code", text="Open with a recovery code, asked for on the terminal.")
    ] = False
    json: Annotated[bool, _option("--json", text="Print one JSON document.")] = False
    quiet: Annotated[bool, _option("--quiet", "-q", text="Print results and errors only.")] = False
    verbose: Annotated[bool, _option("--verbose", "-v", text="Print more.")] = False

    def then(self, later: Globals) -> Globals:
        """These options with those of `later` over them. Raises `UsageError` where they exclude each other."""
        given = {field.name: getattr(later, field.name) for field in fields(later) if getattr(later, field.name)}
        return replace(self, **given)

    def check(self) -> None:
        if self.quiet and self.verbose:
            raise errors.UsageError("--quiet and --verbose exclude each other", hint="give one of them")
        sources = {
            "--password-file": self.password_file,
            "--password-command": self.password_command,
            "--key-file": self.key_file,
            "--recovery-code": self.recovery_code,
        }
        given = [name for name, value in sources.items() if value]
        if len(given) > 1:
            raise errors.UsageError(f"{' and '.join(given)} exclude each other", hint="give one of them")


def parameters() -> list[inspect.Parameter]:
    """The same as parameters of a function, for typer."""
    own = inspect.signature(Globals, eval_str=True).parameters.values()
    return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]


def split(arguments: dict[str, Any]) -> tuple[Globals, dict[str, Any]]:
    """The options of every command, and the rest."""
    names = {field.name for field in fields(Globals)}
    own = {name: value for name, value in arguments.items() if name in names}
    return Globals(**own), {name: value for name, value in arguments.items() if name not in names}
