"""The options that every command takes, before the verb or after it; the later one wins."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from vimgvc import errors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Group = TypeVar("Group", bound="DataclassInstance")
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
    accept_rollback: Annotated[
        bool, _option("--accept-rollback", text="Let what exit code 22 told of be so from now on.")
    ] = False
    expect_head: Annotated[
        str | None, _option("--expect-head", metavar="HEAD", text="Refuse a repository that is behind HEAD.")
    ] = None
    limit_upload: Annotated[
        str | None, _option("--limit-upload", metavar="RATE", text="Send at most RATE a second over the network: 10M.")
    ] = None
    limit_download: Annotated[
        str | None, _option("--limit-download", metavar="RATE", text="Receive at most RATE a second.")
    ] = None
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


def parameters(group: type | None) -> list[inspect.Parameter]:
    """The fields of a dataclass of options as parameters of a function, for typer; of None nothing."""
    own = inspect.signature(group, eval_str=True).parameters.values() if group else ()
    return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]


def split(group: type[Group], arguments: dict[str, Any]) -> tuple[Group, dict[str, Any]]:
    """The options of a group, and the rest."""
    names = {field.name for field in fields(group)}
    own = {name: value for name, value in arguments.items() if name in names}
    return group(**own), {name: value for name, value in arguments.items() if name not in names}
