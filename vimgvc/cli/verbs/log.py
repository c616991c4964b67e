"""`vimgvc log`."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc.cli import documents, render, session, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc log                      every branch, newest first
      vimgvc log vm --oneline -n 10   the last ten commits of one
      vimgvc log --graph              with branches and merges drawn
    """,
)
def log(
    run: session.Session,
    rev: Annotated[str | None, typer.Argument(metavar="[REV]", help="Where to begin.", show_default=False)] = None,
    limit: Annotated[
        int | None,
        typer.Option("-n", "--limit", metavar="COUNT", min=0, help="Show at most COUNT.", show_default=False),
    ] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line for each commit.", show_default=False)] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the history.", show_default=False)] = False,
) -> None:
    """Show the commits of a branch, or of all, newest first."""
    from vimgvc.commands import log as command

    history = command.run(run.repository(), rev, limit)
    if run.out.json:
        run.out.document({"commits": [documents.commit_facts(item) for item in history.commits]})
        return
    run.out.lines(render.log(history.commits, history.tips, run.out.style, oneline=oneline, graphed=graph))
