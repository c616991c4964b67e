"""`vimgvc bundle`: create."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc.cli import copies, render, session, text, verb

app = verb.new_app()

verb.make_group(
    app,
    cls=verb.Group,
    help_text="Put commits into one file, for machines without a network.",
    epilog="""
    Examples:
      vimgvc bundle create disks.bundle

    A bundle is encrypted like a repository and opens with the same keys. Read it
    with 'vimgvc pull FILE', 'fetch FILE' or 'clone FILE'.
    """,
)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc bundle create disks.bundle          all own branches and all tags
      vimgvc bundle create vm.bundle vm v1.0     a branch and a tag
      vimgvc bundle create new.bundle v1.0..vm   what came since v1.0, which has to be
                                                 there where the bundle is read

    After an interruption the same command goes on.
    """,
)
def create(
    run: session.Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file.")],
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="[A..B|REV]...", help="What to put in.", show_default=False)
    ] = None,
) -> None:
    """Make a bundle."""
    from vimgvc.commands import bundle as command

    with run.progress() as monitor:
        done = command.create(copies.here(run, monitor), file, revisions or ())
    facts = {
        "file": done.file,
        "bases": list(done.bases),
        "file_bytes": done.size,
        **copies.result_facts(done.done, dry_run=False),
    }
    del facts["dry_run"]
    lines = [f"made {text.escape(done.file)}", *copies.change_lines(done.done.changes, run.out.style)]
    lines += [f"  builds on {render.short(base)}" for base in done.bases]
    lines.append(copies.cost_line(done.done, dry_run=False, verb="bundled"))
    run.out.done(facts, lines)
