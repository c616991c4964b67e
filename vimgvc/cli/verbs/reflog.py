"""`vimgvc reflog`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc.cli import documents, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import reflog as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc reflog                   every branch and tag there ever was
      vimgvc reflog vm                every value that vm had, the last one first
      vimgvc branch vm 'vm@{1}'       bring back a branch that was deleted
      vimgvc restore 'vm@{2 days ago}' before.img
    """,
)
def reflog(
    run: session.Session,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which branch or tag.", show_default=False)
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Show what is left of a log that is not whole.", show_default=False)
    ] = False,
) -> None:
    """Show every value that a branch or tag had."""
    from vimgvc.commands import reflog as command

    found = command.run(run.repository(), name, accept=accept)
    if run.out.json:
        run.out.document({"values": [_facts(item) for item in found]})
    else:
        run.out.lines(_lines(found, run.out.style))


def _facts(item: command_types.Value) -> documents.Document:
    return {
        "kind": item.kind,
        "name": item.name,
        "number": item.number,
        "commit": item.id,
        "time": item.time,
        "host": item.host,
    }


def _lines(found: Sequence[command_types.Value], style: text.Style) -> Iterator[str]:
    for item in found:
        name = style.branch(f"{text.escape(item.name)}@{{{item.number}}}")
        commit = style.id(render.short(item.id)) if item.id else "-" * render.SHORT
        kind = "tag, " if item.kind == "tag" else ""
        when = f"{text.date(item.time)} on {text.escape(item.host)}"
        yield f"{commit} {name} {kind}{when}: {_what(item, style)}"


def _what(item: command_types.Value, style: text.Style) -> str:
    if item.id is None:
        return "deleted"
    if item.gone:
        return "not there any more"
    return text.subject(item.commit.message) if item.commit else style.bad("cannot be read")
