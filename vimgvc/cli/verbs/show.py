"""`vimgvc show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc.cli import documents, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import show as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc show vm           the last commit of branch vm
      vimgvc show vm~3         three commits before it
      vimgvc show 3f2a --json  by the first digits of its identifier
    """,
)
def show(run: session.Session, rev: Annotated[str, typer.Argument(metavar="REV", help="Which commit.")]) -> None:
    """Show every fact of one commit."""
    from vimgvc.commands import show as command

    found = command.run(run.repository(), rev)
    if run.out.json:
        facts = documents.commit_facts(found.commit)
        run.out.document({**facts, "branches": found.branches, "forgotten": fate_facts(found.fate)})
    else:
        run.out.lines(render.show(found.commit, found.branches, run.out.style, fate_lines(found.fate)))


def fate_facts(fate: command_types.Fate | None) -> documents.Document | None:
    if fate is None:
        return None
    record = fate.record
    return {"time": record.time, "host": record.host, "reason": record.reason, "data_gone": fate.gone}


def fate_lines(fate: command_types.Fate | None) -> list[str]:
    if fate is None:
        return []
    reason = f" ({text.escape(fate.record.reason)})" if fate.record.reason else ""
    told = [f"Forgotten: {text.date(fate.record.time)} on {text.escape(fate.record.host)}{reason}"]
    return [*told, "  gc has removed its data"] if fate.gone else told
