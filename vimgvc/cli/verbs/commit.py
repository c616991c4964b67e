"""`vimgvc commit`."""

from __future__ import annotations

import os
import pwd
from typing import Annotated

import typer

from vimgvc.cli import documents, render, session, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc commit vm.img -m 'before the upgrade'
      vimgvc commit /dev/vg0/web --branch web
      vimgvc commit root.img data.img          two disks of one machine, one commit
      vimgvc commit root=a/disk.img data=b/disk.img

    The branch is named after the first image unless --branch names it. Each disk
    is named after its image: NAME=IMAGE names it otherwise. Holes in a sparse
    file are not read. Without a change nothing is recorded.
    """,
)
def commit(
    run: session.Session,
    *,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images or devices to record.")],
    message: Annotated[
        str | None, typer.Option("-m", "--message", metavar="TEXT", help="What this state is.", show_default=False)
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", metavar="NAME", help="Branch to add to.", show_default=False)
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Format of the images.", show_default=False)
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Who records it.", show_default=False)
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Record a commit even when nothing changed.", show_default=False)
    ] = False,
    level: Annotated[
        int, typer.Option("--level", metavar="N", min=1, max=19, help="zstd level: higher is smaller and slower.")
    ] = 3,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, max=256, help="[default: one a core]", show_default=False),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not read new segments back.", show_default=False)
    ] = False,
    no_fsync: Annotated[bool, typer.Option("--no-fsync", hidden=True)] = False,
) -> None:
    """Record the state of disks as one commit.

    What was committed is durable when this ends with exit code 0.
    """
    from vimgvc.commands import commit as command

    named = command.name_images(images)
    wanted = command.request(
        named,
        branch=branch,
        message=message,
        author=_user() if author is None else author,
        host=os.uname().nodename,
        allow_empty=allow_empty,
    )
    effort = command.Effort(level=level, verify=not no_verify, threads=threads)
    with command.open_images(named, format_) as sources:
        repository = run.repository(durable=not no_fsync)
        with run.progress() as monitor:
            result = command.run(repository, run.environment, sources, wanted, effort=effort, monitor=monitor)
    if result.created:
        lines = render.made(result.commit, result.seconds)
    else:
        lines = [f"nothing changed since {render.short(result.commit.id)}"]
    facts = documents.commit_facts(result.commit)
    run.out.done({**facts, "created": result.created, "seconds": documents.rounded(result.seconds)}, lines)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
