"""`vimgvc blame`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc.cli import documents, listed, ranges, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import blame as command_types
    from vimgvc.model import commit as model

app = verb.new_app()
_NOBODY = "-"


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc blame vm                       each range, and who wrote it
      vimgvc blame web:data@1GiB..1100MiB   a part of the disk
      vimgvc blame vm~2 --stat              how much each commit wrote of it

    Goes back along first parents. What is blamed are whole chunks of 4 KiB or more;
    what nobody wrote since the disk had it is zeros.
    """,
)
def blame(
    run: session.Session,
    rev: Annotated[str, typer.Argument(metavar="REV[:DISK][@START..END]", help="Which disk, and which part of it.")],
    *,
    stat: Annotated[bool, typer.Option("--stat", help="Only how much each commit wrote.", show_default=False)] = False,
) -> None:
    """Show which commit last wrote each part of a disk."""
    from vimgvc.commands import blame as command

    revision, part = ranges.split(rev)
    repository = run.repository()
    with run.progress() as monitor:
        found = command.run(repository, revision, *(part or (0, None)), monitor)
    if run.out.json:
        run.out.lines(document(found))
    else:
        run.out.lines(_totals(found, run.out.style) if stat else _parts(found, run.out.style))


def _parts(found: command_types.Blame, style: text.Style) -> Iterator[str]:
    end = max((part.start + part.length for part in found.parts), default=0)
    width = len(f"{end:,}")
    for part in found.parts:
        place = f"{part.start:>{width},}  {text.size(part.length):>8}"
        yield f"{_writer(part.commit, style)}  {place}  {_about(part.commit)}"


def _totals(found: command_types.Blame, style: text.Style) -> Iterator[str]:
    for commit, count in found.by_commit():
        yield f"{_writer(commit, style)}  {text.size(count):>8}  {_about(commit)}"


def _writer(commit: model.Commit | None, style: text.Style) -> str:
    return style.id(render.short(commit.id)) if commit else f"{_NOBODY:<{render.SHORT}}"


def _about(commit: model.Commit | None) -> str:
    return f"{text.date(commit.time)[:10]}  {text.subject(commit.message)}" if commit else "zeros"


def document(found: command_types.Blame) -> Iterator[str]:
    """The lines of the JSON document; there may be millions of ranges."""
    yield "{"
    yield f'  "id": {json.dumps(found.commit.id)},'
    yield f'  "disk": {json.dumps(found.disk.name)},'
    yield f'  "size": {found.disk.size},'
    writers = [
        {"commit": documents.commit_facts(commit) if commit else None, "bytes": count}
        for commit, count in found.by_commit()
    ]
    yield from listed.member("commits", writers)
    yield '  "ranges": ['
    parts = (
        f"    [{part.start}, {part.length}, {json.dumps(part.commit.id if part.commit else None)}]"
        for part in found.parts
    )
    yield from listed.separated(parts)
    yield "  ]"
    yield "}"
