"""`vimgvc fetch`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from vimgvc import errors
from vimgvc.cli import copies, session, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc fetch               all branches and tags of origin, or the only remote
      vimgvc fetch offsite vm    one branch, and its tags
      vimgvc log offsite/vm      what was there

    Branches here are not touched: those that follow the remote are REMOTE/BRANCH.
    After an interruption the same command goes on. Data that was left in the remote
    comes with the next fetch without --only-metadata.
    """,
)
def fetch(
    run: session.Session,
    *,
    remote: copies.RemoteName = None,
    branches: copies.BranchNames = None,
    prune: Annotated[
        bool, typer.Option("--prune", "-p", help="Delete what follows branches that are gone.", show_default=False)
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Move tags, too.", show_default=False)] = False,
    heal: copies.Heal = False,
    only_metadata: copies.OnlyMetadata = False,
    dry_run: copies.DryRun = False,
) -> None:
    """Copy what another place has, and see where its branches are."""
    from vimgvc.commands import fetch as command

    if heal and only_metadata:
        raise errors.UsageError("--heal and --only-metadata exclude each other", hint="give one of them")
    options = command.Options(
        dry_run=dry_run,
        prune=prune,
        force=force,
        everything=heal,
        metadata=only_metadata,
        host=os.uname().nodename,
    )
    with run.progress() as monitor:
        done = command.run(copies.here(run, monitor), remote, branches or (), options)
    copies.show_fetched(run, done, dry_run=dry_run)
    done.check()
