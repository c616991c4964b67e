"""`vimgvc verify`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import copies, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import verify as command_types

app = verb.new_app()
_HINT = "copy the repository, then run 'vimgvc repair'; commits that are not listed restore"
_SUBSET = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc verify                     structure, and the hash of every pack
      vimgvc verify --quick             structure only: reads no data
      vimgvc verify --data              also opens every segment and checks every chunk
      vimgvc verify --data --subset 3/7 a seventh of the packs, another one each day
      vimgvc verify --remote offsite    the copy there; --quick: by listing and sizes

    Ends with exit code 20 when something is damaged, and lists the commits, disks
    and ranges that it touches.
    """,
)
def verify(
    run: session.Session,
    quick: Annotated[bool, typer.Option("--quick", help="Check the structure only.", show_default=False)] = False,
    data: Annotated[bool, typer.Option("--data", help="Open and check everything.", show_default=False)] = False,
    subset: Annotated[
        str | None, typer.Option("--subset", metavar="N/T", help="Only the N-th of T parts.", show_default=False)
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option("--remote", metavar="REMOTE", help="Check this remote, directory or URL.", show_default=False),
    ] = None,
) -> None:
    """Check that everything recorded can be restored."""
    from vimgvc.commands import verify as command

    if quick and (data or subset):
        raise errors.UsageError(
            f"--quick and {'--data' if data else '--subset'} exclude each other", hint="give one of them"
        )
    part = _parse_subset(subset) if subset else None
    level = "quick" if quick else "data" if data else "default"
    with run.progress() as monitor:
        found = command.run(copies.here(run, monitor, keep=False), remote, level, part)
    if run.out.json:
        run.out.document(document(found))
    elif found.problems or not run.out.quiet:
        run.out.lines(lines(found, run.out.style))
    if found.problems:
        raise errors.IntegrityError(
            remote or "repository",
            f"{text.count(len(found.problems), 'problem')} found",
            hint=f"'vimgvc repair --remote {text.escape(remote)}' brings back what is here" if remote else _HINT,
        )


def _parse_subset(value: str) -> tuple[int, int]:
    match = _SUBSET.fullmatch(value)
    if not match or int(match[1]) > int(match[2]):
        raise errors.UsageError(f"not a subset: {value}", hint="give N/T with N from 1 to T, like 3/7")
    return int(match[1]), int(match[2])


def document(found: command_types.Result) -> dict[str, Any]:
    return {
        "packs": found.packs,
        "segments": found.segments,
        "chunks": found.chunks,
        "commits": found.commits,
        "elsewhere": _absent_facts(found.elsewhere),
        "problems": problem_facts(found.problems),
    }


def _absent_facts(absent: command_types.Absent | None) -> dict[str, Any] | None:
    if absent is None:
        return None
    return {"commits": absent.commits, "bytes": absent.size, "remotes": list(absent.remotes)}


def _absent_lines(absent: command_types.Absent | None) -> list[str]:
    if absent is None:
        return []
    places = ", ".join(f"'{text.escape(name)}'" for name in absent.remotes) or "unknown"
    size = text.exact_size(absent.size)
    return [f"not here: data of {text.count(absent.commits, 'commit')}, up to {size}, in remote {places}"]


def problem_facts(problems: Iterable[command_types.Problem]) -> list[dict[str, Any]]:
    return [
        {"kind": item.kind, "object": item.object, "detail": item.detail, "affected": list(item.affected)}
        for item in problems
    ]


def problem_lines(problems: Iterable[command_types.Problem], style: text.Style) -> list[str]:
    told = []
    for item in problems:
        told.append(style.bad(text.escape(f"{item.kind} {item.object}: {item.detail}")))
        told += [f"  affects {text.escape(name)}" for name in item.affected]
    return told


def lines(found: command_types.Result, style: text.Style) -> list[str]:
    told = problem_lines(found.problems, style)
    counts = ", ".join(
        (
            text.count(found.packs, "pack"),
            text.count(found.segments, "segment"),
            text.count(found.chunks, "chunk"),
            text.count(found.commits, "commit"),
        )
    )
    ending = text.count(len(found.problems), "problem") if told else "no problem found"
    return [*told, f"checked {counts}: {ending}", *_absent_lines(found.elsewhere)]
