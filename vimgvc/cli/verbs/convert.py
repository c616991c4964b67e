"""`vimgvc convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc.cli import documents, inputs, outputs, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import convert as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc convert vm.vmdk vm.qcow2 --format qcow2
      vimgvc convert vm.qcow2 small.qcow2 -c            the same options, compressed
      vimgvc convert disk.img - --format qcow2 | ssh host 'cat > vm.qcow2'
      vimgvc convert vm.qcow2 vm.img --format raw --snapshot clean

    Needs no repository. The result is compared with IMAGE, then made durable, then
    named TARGET.
    """,
)
def convert(
    run: session.Session,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image or device to read.")],
    target: Annotated[str, typer.Argument(metavar="TARGET|-", help="File or device; - writes to a pipe.")],
    *,
    made: outputs.Output,
    given: inputs.ConvertInput,
) -> None:
    """Write the disk in an image to an image of any format."""
    from vimgvc.commands import convert as command

    wanted, access, to_pipe = made.wanted(), given.access(), target == "-"
    if to_pipe:
        run.out.check_pipe()
    with run.progress() as monitor:
        done = command.run(image, access, target, wanted, monitor, put=run.out.bytes)
    said = f"converted {text.escape(done.image)} ({done.container['format']}) to {outputs.described(done)}"
    if to_pipe:
        run.out.end_bytes()
        run.out.note(said)
    else:
        run.out.done(document(done), [said])
    given.check_complete(done.container)


def document(done: command_types.Converted) -> dict[str, Any]:
    return {
        "image": done.image,
        "container": done.container,
        **outputs.facts(done),
        "seconds": documents.rounded(done.seconds),
    }
