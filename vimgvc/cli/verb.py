"""How a function becomes a verb: the common options, the look of its help, two-line usage errors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from typer import core
from typer._click import formatting  # since 0.26 typer has its own copy of click, without a public name

from vimgvc import errors
from vimgvc.cli import options, session

KDF_MEMORY = "256MiB"
KdfMemory = Annotated[
    str, typer.Option("--kdf-memory", metavar="SIZE", help="What guessing one passphrase costs: 64MiB to 2GiB.")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, max=256, help="[default: one a core]", show_default=False),
]
#: With --exit-code, as of diff and cmp.
DIFFERS, _TROUBLE = 1, 2
#: What other programs call these verbs.
_SYNONYMS = {
    "add": "commit",
    "annotate": "blame",
    "backup": "commit",
    "branches": "branch",
    "check": "verify",
    "checkout": "restore",
    "cat": "show",
    "cmp": "diff",
    "compare": "diff",
    "collect": "gc",
    "create": "init",
    "du": "stats",
    "extract": "restore",
    "fsck": "verify",
    "history": "log",
    "img-info": "info",
    "inspect": "info",
    "list": "log",
    "ls": "log",
    "passwd": "key change",
    "prune": "gc",
    "save": "commit",
    "snapshot": "commit",
    "snapshots": "log",
    "tags": "tag",
}


class Command(core.TyperCommand):
    """Help with the common options apart and the examples as they were written."""

    def format_options(self, ctx: Any, formatter: formatting.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: formatting.HelpFormatter) -> None:
        _write_epilog(self.epilog, formatter)


class Group(core.TyperGroup):
    """A command with commands below it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        names = self.list_commands(ctx)
        if not args[0].startswith("-") and args[0] not in names:
            raise errors.UsageError(
                f"no such command: {args[0]}", hint=_suggestion(args[0], names, str(ctx.command_path))
            )
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: formatting.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: formatting.HelpFormatter) -> None:
        _write_epilog(self.epilog, formatter)


def _suggestion(typed: str, known: Sequence[str], command: str) -> str:
    """What a mistyped verb may have meant."""
    import difflib

    near = difflib.get_close_matches(typed, known, n=1)
    meant = near[0] if near else _SYNONYMS.get(typed) if command == "vimgvc" else None
    return f"did you mean '{command} {meant}'?" if meant else f"see '{command} --help'"


def _write_options(command: Any, ctx: Any, formatter: formatting.HelpFormatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], options.PANEL: []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections[getattr(parameter, "rich_help_panel", None) or kind].append(record)
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def _write_epilog(epilog: str | None, formatter: formatting.HelpFormatter) -> None:
    if epilog:
        formatter.write_paragraph()
        for line in inspect.cleandoc(epilog).splitlines():
            formatter.write(f"{line}\n")


@contextlib.contextmanager
def answering(wanted: bool) -> Iterator[None]:
    """With --exit-code 1 is an answer: a failure that would end with it ends with 2."""
    try:
        yield
    except errors.VimgvcError as error:
        if wanted and error.exit_code == DIFFERS:
            error.exit_code = _TROUBLE
        raise


def new_app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def add(
    app: typer.Typer, *, epilog: str, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function `f(run, *arguments)` a command of `app`; its docstring is the help.

    An argument that is a dataclass stands for one option for each of its fields.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        first, *own = inspect.signature(function, eval_str=True).parameters.values()
        assert first.name == "run"
        groups: dict[str, Any] = {one.name: one.annotation for one in own if dataclasses.is_dataclass(one.annotation)}

        @functools.wraps(function)
        def call(ctx: typer.Context, **arguments: Any) -> None:
            given, rest = options.split(options.Globals, arguments)
            found: dict[str, Any] = {}
            for key, group in groups.items():
                found[key], rest = options.split(group, rest)
            try:
                function(session.begin(ctx.ensure_object(options.Globals).then(given)), **rest, **found)
            except errors.UsageError as error:
                error.hint = error.hint or f"see '{ctx.command_path} --help'"
                raise

        _set_parameters(call, [part for one in own for part in options.parameters(groups.get(one.name)) or [one]])
        app.command(name, cls=Command, epilog=epilog)(call)
        return function

    return decorate


def make_group(
    app: typer.Typer,
    *extra: inspect.Parameter,
    cls: type[Group],
    help_text: str,
    epilog: str,
    alone: Callable[[session.Session], None] | None = None,
) -> None:
    """Let `app` take the common options before its commands, and `extra`, which act on their own.

    `alone` is what it does without a command; None: that is a mistake.
    """

    def call(ctx: typer.Context, **arguments: Any) -> None:
        given, _ = options.split(options.Globals, arguments)
        before = ctx.parent.obj if ctx.parent else None
        ctx.obj = (before or options.Globals()).then(given)
        if alone is not None and ctx.invoked_subcommand is None:
            alone(session.begin(ctx.obj))

    _set_parameters(call, list(extra))
    app.callback(cls=cls, help=help_text, epilog=epilog, invoke_without_command=alone is not None)(call)


def _set_parameters(function: Callable[..., None], own: Sequence[inspect.Parameter]) -> None:
    """What typer is to see of a `function(ctx, **arguments)`: the parameters `own` and the common options."""
    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", kind, annotation=typer.Context)
    parameters = [context, *(parameter.replace(kind=kind) for parameter in own), *options.parameters(options.Globals)]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {}
