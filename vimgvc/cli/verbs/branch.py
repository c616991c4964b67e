"""`vimgvc branch`."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc import errors
from vimgvc.cli import naming, session, text, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc branch                       the branches, and where each of them is
      vimgvc branch test vm~3             a second branch, from an earlier commit
      vimgvc commit vm.img --branch test  go on there
      vimgvc branch -m test experiment    another name
      vimgvc branch -d experiment         gone; its commits stay until gc
      vimgvc branch experiment 'experiment@{1}'
                                          back again
      vimgvc branch -f vm 'vm@{yesterday}'
                                          where it was a day ago
    """,
)
def branch(
    run: session.Session,
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME [REV]]", help="The new one, and its commit.", show_default=False),
    ] = None,
    delete: Annotated[bool, typer.Option("-d", "--delete", help="Delete each NAME.", show_default=False)] = False,
    move: Annotated[bool, typer.Option("-m", "--move", help="Rename: OLD NEW.", show_default=False)] = False,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Also move or replace one that is there.", show_default=False)
    ] = False,
) -> None:
    """List branches; make, move, rename or delete one.

    Nothing of this changes or deletes a commit.
    """
    given = names or []
    if delete and move:
        raise errors.UsageError("--delete and --move exclude each other", hint="give one of them")
    if delete:
        naming.delete(run, "branch", given)
    elif move:
        _rename(run, given, force=force)
    elif given:
        naming.create(run, "branch", given, force=force)
    elif force:
        naming.check("branch", given, 1, None)
    else:
        naming.show_all(run, "branch")


def _rename(run: session.Session, given: list[str], *, force: bool) -> None:
    naming.check("branch", given, 2, 2)
    changes = naming.place(run, "branch").rename(given[0], given[1], force=force)
    naming.told(run, changes, [f"branch {text.escape(given[0])} is {text.escape(given[1])} now"])
