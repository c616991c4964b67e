"""`vimgvc tag`."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc.cli import naming, session, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc tag                     the tags, and what each of them names
      vimgvc tag before-upgrade vm   a name for the present state of vm
      vimgvc tag -d before-upgrade   gone; the commit stays
    """,
)
def tag(
    run: session.Session,
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME [REV]]", help="The new one, and its commit.", show_default=False),
    ] = None,
    delete: Annotated[bool, typer.Option("-d", "--delete", help="Delete each NAME.", show_default=False)] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="Also move one.", show_default=False)] = False,
) -> None:
    """List tags; make, move or delete one.

    A tag is a name for a commit that stays where it is; gc keeps what it names.
    """
    given = names or []
    if delete:
        naming.delete(run, "tag", given)
    elif given:
        naming.create(run, "tag", given, force=force)
    elif force:
        naming.check("tag", given, 1, None)
    else:
        naming.show_all(run, "tag")
