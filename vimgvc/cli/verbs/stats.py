"""`vimgvc stats`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import stats as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc stats
      vimgvc stats --branches      what each branch takes, alone and with others
      vimgvc stats vm vm~1         what these commits take
      vimgvc stats vm~9..vm
    """,
)
def stats(
    run: session.Session,
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="[REV...]", help="Commits, or A..B.", show_default=False)
    ] = None,
    branches: Annotated[bool, typer.Option("--branches", help="What each branch takes.", show_default=False)] = False,
) -> None:
    """Show what the repository holds and how much room that takes."""
    from vimgvc.commands import stats as command

    if revisions and branches:
        raise errors.UsageError("commits and --branches exclude each other", hint="ask for one after the other")
    repository = run.repository()
    with run.progress() as monitor:
        if branches:
            told = _branches(command.of_branches(repository, monitor))
        elif revisions:
            told = _commits(command.of_commits(repository, revisions, monitor))
        else:
            found = command.run(repository, monitor)
            told = dataclasses.asdict(found), lines(found)
    if run.out.json:
        run.out.document(told[0])
    else:
        run.out.lines(told[1])


_Told = tuple[dict[str, Any], list[str]]


def _branches(found: Mapping[str, command_types.Share]) -> _Told:
    document = [{"branch": name, "commits": share.commits, **_facts(share)} for name, share in found.items()]
    rows = [[text.escape(name), f"{share.commits:,}", *_sizes(share)] for name, share in found.items()]
    return {"branches": document}, _columns(["branch", "commits", *_SIZES], rows, left=1)


def _commits(found: Sequence[command_types.CommitShare]) -> _Told:
    document = [
        {"id": one.commit.id, "time": one.commit.time, "message": one.commit.message, **_facts(one.share)}
        for one in found
    ]
    rows = [[render.short(one.commit.id), *_sizes(one.share), text.subject(one.commit.message)[:60]] for one in found]
    return {"commits": document}, _columns(["commit", *_SIZES, ""], rows, left=1)


_SIZES = ("all states", "unique", "shared", "stored")


def _facts(share: command_types.Share) -> dict[str, int]:
    return {
        "logical_bytes": share.logical_bytes,
        "unique_bytes": share.unique_bytes,
        "shared_bytes": share.shared_bytes,
        "stored_bytes": share.stored_bytes,
    }


def _sizes(share: command_types.Share) -> list[str]:
    return [text.size(count) for count in _facts(share).values()]


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """A table: the first `left` columns, and the one without a name, to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at < left or not name else cell.rjust(width)
            for at, (cell, width, name) in enumerate(zip(row, widths, head, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def lines(found: command_types.Result) -> list[str]:
    facts = {
        "commits": f"{found.commits:,}",
        "branches": f"{found.branches:,}",
        "disks": f"{found.disks:,}",
        "packs": f"{found.packs:,}",
        "objects": f"{found.objects:,}",
        "all states": text.exact_size(found.logical_bytes),
        "read": text.exact_size(found.read_bytes),
        "new": text.exact_size(found.new_bytes),
        "stored": text.exact_size(found.stored_bytes),
        "  packs": text.exact_size(found.pack_bytes),
        "  metadata": text.exact_size(found.metadata_bytes),
    }
    if found.waiting:
        waiting = text.count(found.waiting, "delivery", "deliveries")
        facts["waiting"] = f"{waiting}, {text.exact_size(found.waiting_bytes)}: 'vimgvc admit'"
    if found.stored_bytes:
        facts["saved"] = f"{found.logical_bytes / found.stored_bytes:.1f}:1"
    if found.promised:
        facts["data elsewhere"] = f"of {text.count(found.promised, 'commit')}"
    return render.table(facts, indent="")
