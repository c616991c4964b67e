"""`vimgvc restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc import errors
from vimgvc.cli import documents, render, session, text, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc restore vm                      the last state of vm, to vm.img
      vimgvc restore vm~1 yesterday.img
      vimgvc restore web:data data.img       one disk of a commit with several
      vimgvc restore vm /dev/vg0/vm --force  to a block device

    The image is sparse. It is written beside TARGET and renamed at the end, so
    TARGET is complete or not there. After an interruption the same command goes on
    where it stopped.
    """,
)
def restore(
    run: session.Session,
    rev: Annotated[str, typer.Argument(metavar="REV[:DISK]", help="Which commit, and which disk of it.")],
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="File or device.  [default: DISK.img]", show_default=False)
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace TARGET when it exists.", show_default=False)
    ] = False,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="Go on where data is damaged, and fill it with a pattern.", show_default=False),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, max=256, help="[default: one a core]", show_default=False),
    ] = None,
) -> None:
    """Write a recorded disk to a raw image or a block device."""
    from vimgvc.commands import restore as command

    repository = run.repository()
    with run.progress() as monitor:
        done = command.run(repository, rev, target, force=force, salvage=salvage, threads=threads, monitor=monitor)
    document = {
        "id": done.commit.id,
        "disk": done.disk.name,
        "size": done.disk.size,
        "target": done.target,
        "resumed": done.resumed,
        "bytes_written": done.bytes_written,
        "lost": [list(item) for item in done.lost],
        "seconds": documents.rounded(done.seconds),
    }
    line = (
        f"restored disk {text.escape(done.disk.name)} of {render.short(done.commit.id)} to {text.escape(done.target)}: "
        f"{text.size(done.disk.size)}, {text.size(done.bytes_written)} written in {text.seconds(done.seconds)}"
    )
    lost = [f"  lost: {length:,} bytes at {offset:,}" for offset, length in done.lost]
    run.out.done(document, [line + (", resumed" if done.resumed else ""), *lost])
    if done.lost:
        raise errors.Incomplete(
            f"{text.size(sum(length for _, length in done.lost))} of the disk are lost and filled with a pattern",
            hint="run 'vimgvc verify' to see which other commits are affected",
        )
