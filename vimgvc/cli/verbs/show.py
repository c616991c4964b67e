"""`vimgvc show`."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc.cli import documents, render, session, verb

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
        run.out.document({**documents.commit_facts(found.commit), "branches": found.branches})
    else:
        run.out.lines(render.show(found.commit, found.branches, run.out.style))
