"""`vimgvc export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import documents, outputs, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import export as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc export vm                             as it came: same format and options
      vimgvc export vm~2 old.qcow2 --format qcow2
      vimgvc export vm small.qcow2 --format qcow2 -c -o compression_type=zstd
      vimgvc export vm - --format qcow2 | ssh host 'cat > vm.qcow2'
      vimgvc export vm vm.vmdk --format vmdk -o subformat=streamOptimized
      vimgvc export vm larger.img --format raw --size 40G
      vimgvc export vm thin.qcow2 -o backing=vm~1,backing_file=old.qcow2
      vimgvc export --chain vm~3..vm states/       each commit on top of the one before

    The result is compared with the commit, then made durable, then named TARGET.
    """,
)
def export(
    run: session.Session,
    rev: Annotated[str, typer.Argument(metavar="REV[:DISK]", help="Which commit, and which disk of it.")],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET|-]", help="File; - writes to a pipe.  [default: DISK.FORMAT]", show_default=False
        ),
    ] = None,
    *,
    given: outputs.Output,
    chain: Annotated[
        bool,
        typer.Option(
            "--chain", help="REV is A..B: a qcow2 for each commit in the directory TARGET.", show_default=False
        ),
    ] = False,
) -> None:
    """Write a recorded disk to an image of any format."""
    from vimgvc.commands import export as command

    wanted, to_pipe = given.wanted(), target == "-"
    if chain and (target is None or to_pipe):
        raise errors.UsageError("--chain needs a directory as TARGET", hint="it is made if it is not there")
    if to_pipe:
        run.out.check_pipe()
    repository = run.repository()
    with run.progress() as monitor:
        if chain:
            all_done = command.chain(repository, rev, target or "", wanted, monitor)
        else:
            all_done = [command.run(repository, rev, target, wanted, monitor, put=run.out.bytes)]
    if to_pipe:
        run.out.end_bytes()
        run.out.note(line(all_done[0]))
    elif chain:
        run.out.done({"files": [document(done) for done in all_done]}, [line(done) for done in all_done])
    else:
        run.out.done(document(all_done[0]), [line(all_done[0])])


def document(done: command_types.Exported) -> dict[str, Any]:
    return {
        "id": done.commit.id,
        "disks": list(done.disks),
        **outputs.facts(done),
        "seconds": documents.rounded(done.seconds),
    }


def line(done: command_types.Exported) -> str:
    names = ", ".join(text.escape(name) for name in done.disks)
    what = f"disk{'s' if len(done.disks) > 1 else ''} {names} of {render.short(done.commit.id)}"
    return f"exported {what} to {outputs.described(done)}"
