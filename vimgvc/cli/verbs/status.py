"""`vimgvc status`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import inputs, render, session, text, verb
from vimgvc.cli.verbs import diff as diff_verb

if TYPE_CHECKING:
    from vimgvc.commands import diff
    from vimgvc.commands import status as command_types

app = verb.new_app()
#: Ranges that are shown; with --json all of them are.
_SHOWN = 5


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc status vm.img                what changed since it was recorded
      vimgvc status root.img data.img --branch web
      vimgvc status vm.img --fast         trust its times, and do not read it

    An image stands for what it was when it was last seen: committed, restored or
    found clean; else for the branch that has its name, or that --branch names. All
    of it is compared. With --fast a file whose times, size and place are what they
    were counts as clean, and the answer says so.
    """,
)
def status(
    run: session.Session,
    *,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images or devices.")],
    branch: Annotated[
        str | None,
        typer.Option("--branch", "-b", metavar="NAME", help="Compare with this branch.", show_default=False),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Rely on what is remembered of a file and its times.", show_default=False)
    ] = False,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="End with 1 unless all are clean, 2 on failure.", show_default=False),
    ] = False,
    given: inputs.Input,
    threads: verb.Threads = None,
) -> None:
    """Show whether images are as they were recorded."""
    from vimgvc.commands import status as command

    with verb.answering(exit_code):
        access, repository = given.access(), run.repository()
        found: list[command_types.Status] = []
        try:
            with run.progress() as monitor:
                wanted = command.Wanted(branch, fast, threads)
                found.extend(command.run(repository, run.environment, images, access, wanted, monitor=monitor))
        except errors.VimgvcError:
            if not run.out.json:  # where a failure is all of the answer
                run.out.lines(_lines(found, run.out.style))
            raise
        run.out.lines(_document(found) if run.out.json else _lines(found, run.out.style))
        given.check_complete(*(container for one in found for container in one.containers))
    if exit_code and any(one.state != command.CLEAN for one in found):
        raise typer.Exit(verb.DIFFERS)


def _lines(found: list[command_types.Status], style: text.Style) -> Iterator[str]:
    for one in found:
        yield f"{text.escape(one.image)}: {_head(one)}"
        if one.state == "changed":
            for disk in one.disks:
                yield from (f"  {line}" for line in diff_verb.lines(disk, style))
                yield from _ranges(disk)


def _head(one: command_types.Status) -> str:
    if one.commit is None:
        return f"unknown: {text.escape(one.reason)}"
    commit = f"{text.escape(one.commit.branch)} {render.short(one.commit.id)}"
    line = f"{one.state}{' since' if one.state == 'changed' else ','} {commit}"
    if not one.compared:
        line += ", by what is remembered of its times; it was not read"
    if one.tip is not None and one.tip != one.commit.id:
        line += f"; the branch is at {render.short(one.tip)}"
    return line


def _ranges(disk: diff.DiskDiff) -> Iterator[str]:
    for start, length in itertools.islice(disk.changed.pairs(), _SHOWN):
        yield f"    {length:,} bytes at {start:,}"
    if len(disk.changed) > _SHOWN:
        yield f"    and {text.count(len(disk.changed) - _SHOWN, 'place')} more, which --json lists"


def _document(found: list[command_types.Status]) -> Iterator[str]:
    """The lines of the JSON document; there may be millions of extents."""
    yield "{"
    yield '  "images": ['
    for number, one in enumerate(found, 1):
        *facts, last = json.dumps(_facts(one), indent=2).splitlines()[:-1]
        yield from (f"    {line}" for line in [*facts, f"{last},"])
        yield from (f"    {line}" for line in diff_verb.disks_member(one.disks, is_last=True))
        yield "    }" if number == len(found) else "    },"
    yield "  ]"
    yield "}"


def _facts(one: command_types.Status) -> dict[str, Any]:
    return {
        "image": one.image,
        "state": one.state,
        "reason": one.reason or None,
        "told_by": one.told_by,
        "branch": one.commit.branch if one.commit else None,
        "id": one.commit.id if one.commit else None,
        "disk": one.disk,
        "tip": one.tip,
        "compared": one.compared,
        "interrupted": one.interrupted,
    }
