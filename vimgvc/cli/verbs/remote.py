"""`vimgvc remote`: add, list, show, rename, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc.cli import copies, documents, progress, render, session, text, verb

app = verb.new_app()


def listing(run: session.Session) -> None:
    from vimgvc.commands import remote as command

    found = command.listing(copies.here(run, progress.Plain(run.out)))
    if run.out.json:
        run.out.document({"remotes": [_facts(item) for item in found]})
        return
    width = max((len(text.escape(item.name)) for item in found), default=0)
    run.out.lines(f"{text.escape(item.name):<{width}}  {text.escape(item.url)}" for item in found)


def _facts(item: copies.Remote) -> documents.Document:
    return {"name": item.name, "url": item.url}


verb.make_group(
    app,
    cls=verb.Group,
    help_text="Name the other places that this repository is copied to and from.",
    epilog="""
    Examples:
      vimgvc remote                              the remotes, and where they are
      vimgvc remote add origin /mnt/usb/vms
      vimgvc remote show origin

    Remotes are kept in your own configuration, not in the repository: who can write
    there cannot send your next push elsewhere.
    """,
    alone=listing,
)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc remote add origin /mnt/usb/vms
      vimgvc remote add offsite s3://bucket/vms

    An empty place is made ready: it gets this repository's key slots, so that the
    same passphrases open it.
    """,
)
def add(
    run: session.Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="A directory, or a URL.")],
) -> None:
    """Add a remote, and make it ready where nothing is yet."""
    from vimgvc.commands import remote as command

    found, made = command.add(copies.here(run, progress.Plain(run.out)), name, url)
    ready = ", which was empty and is ready now" if made else ""
    told = f"remote {text.escape(found.name)} is {text.escape(found.url)}{ready}"
    run.out.done({**_facts(found), "made": made}, [told])


@verb.add(
    app,
    name="list",
    epilog="""
    Examples:
      vimgvc remote list
    """,
)
def list_(run: session.Session) -> None:
    """List the remotes and where they are."""
    listing(run)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc remote show origin
    """,
)
def show(run: session.Session, name: Annotated[str, typer.Argument(metavar="NAME", help="The remote.")]) -> None:
    """Show a remote, and where its branches were when they were last seen."""
    from vimgvc.commands import remote as command

    found, followed = command.show(copies.here(run, progress.Plain(run.out)), name)
    if run.out.json:
        branches = [{"name": item.name, "commit": item.id, "time": item.time} for item in followed]
        run.out.document({**_facts(found), "branches": branches})
        return
    lines = [f"{text.escape(found.name)}  {text.escape(found.url)}"]
    lines += [f"  {text.escape(item.name)}  {render.short(item.id)}  seen {text.date(item.time)}" for item in followed]
    run.out.lines(lines)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc remote rename origin offsite
    """,
)
def rename(
    run: session.Session,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The remote.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
) -> None:
    """Give a remote, and the branches that follow it, another name."""
    from vimgvc.commands import remote as command

    found, _ = command.rename(copies.here(run, progress.Plain(run.out)), old, new)
    run.out.done(_facts(found), [f"remote {text.escape(old)} is now {text.escape(found.name)}"])


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc remote remove origin
    """,
)
def remove(run: session.Session, name: Annotated[str, typer.Argument(metavar="NAME", help="The remote.")]) -> None:
    """Forget a remote and the branches that follow it; the place itself stays as it is."""
    from vimgvc.commands import remote as command

    gone, changes = command.remove(copies.here(run, progress.Plain(run.out)), name)
    lines = [f"remote {text.escape(gone.name)} removed; {text.escape(gone.url)} stays as it is"]
    lines += [f"branch {text.escape(item.name)} deleted, was at {render.short(str(item.before))}" for item in changes]
    run.out.done({**_facts(gone), "branches": [item.name for item in changes]}, lines)
