"""`vimgvc pull`."""

from __future__ import annotations

import os

from vimgvc.cli import copies, session, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc pull                all branches that are here, from origin
      vimgvc pull offsite vm     one branch, also one that is not here yet
      vimgvc pull --only-metadata   the history; data is read there when it is needed

    A branch only goes forward. One that has commits of its own stays, and both are
    kept: 'vimgvc log --graph' shows how they parted. Data that was left in the remote
    comes with the next pull without --only-metadata.
    """,
)
def pull(
    run: session.Session,
    *,
    remote: copies.RemoteName = None,
    branches: copies.BranchNames = None,
    only_metadata: copies.OnlyMetadata = False,
    dry_run: copies.DryRun = False,
) -> None:
    """Fetch, and let branches here go forward to where they are there."""
    from vimgvc.commands import fetch as command

    options = command.Options(dry_run=dry_run, metadata=only_metadata, host=os.uname().nodename)
    with run.progress() as monitor:
        done = command.pull(copies.here(run, monitor), remote, branches or (), options)
    copies.show_fetched(run, done, dry_run=dry_run)
    done.check()
