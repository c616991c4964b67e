"""`vimgvc commit`."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc.cli import documents, inputs, progress, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import commit as command_types

app = verb.new_app()


@dataclass(frozen=True, slots=True)
class Said:
    """What the commit is besides its disks."""

    message: Annotated[
        str | None, typer.Option("-m", "--message", metavar="TEXT", help="What this state is.", show_default=False)
    ] = None
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", metavar="NAME", help="Branch to add to.", show_default=False)
    ] = None
    attach: Annotated[
        list[str] | None,
        typer.Option(
            "--attach", metavar="FILE", help="Record a file beside the disks; repeatable.", show_default=False
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Work:
    """How much is done for it."""

    level: Annotated[
        int, typer.Option("--level", metavar="N", min=1, max=19, help="zstd level: higher is smaller and slower.")
    ] = 3
    threads: verb.Threads = None
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not read new segments back.", show_default=False)
    ] = False
    verify_source: Annotated[
        bool, typer.Option("--verify-source", help="Read all of it again, holes too, and compare.", show_default=False)
    ] = False
    no_fsync: Annotated[bool, typer.Option("--no-fsync", hidden=True)] = False

    def effort(self) -> command_types.Effort:
        from vimgvc.commands import commit as command

        return command.Effort(level=self.level, verify=not self.no_verify, threads=self.threads)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc commit vm.img -m 'before the upgrade'
      vimgvc commit vm.qcow2 --all-snapshots   its snapshots as history
      vimgvc commit /dev/vg0/web --branch web
      vimgvc commit root.img data.img          two disks of one machine, one commit
      vimgvc commit root=a/disk.img data=b/disk.img
      vimgvc commit web.img --attach web.xml   and its description

    The branch is named after the first image unless --branch names it. Each disk
    is named after its image: NAME=IMAGE names it otherwise. What is recorded is the
    disk, not its file: the same disk in another format costs nothing. Holes are not
    read. Without a change nothing is recorded.
    """,
)
def commit(
    run: session.Session,
    *,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images or devices to record.")],
    said: Said,
    given: inputs.Input,
    work: Work,
    all_snapshots: Annotated[
        bool, typer.Option("--all-snapshots", help="First one commit for each internal snapshot.", show_default=False)
    ] = False,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Who records it.", show_default=False)
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Record a commit even when nothing changed.", show_default=False)
    ] = False,
) -> None:
    """Record the state of disks as one commit.

    What was committed is durable when this ends with exit code 0.
    """
    from vimgvc.commands import commit as command

    named, access = command.name_images(images), given.access()
    files = command.name_files(said.attach or [])
    place, done = None, []
    for step in command.steps(named, access, said.message, all_snapshots=all_snapshots):
        wanted = command.request(
            named,
            branch=said.branch,
            message=step.message,
            author=_user() if author is None else author,
            host=os.uname().nodename,
            allow_empty=allow_empty,
            once=step.snapshot is not None,
        )
        with command.open_images(named, step.access, progress.Plain(run.out), files) as opened:
            place = place or run.adding(durable=not work.no_fsync)
            with run.progress() as monitor:
                result = command.record(
                    place,
                    run.environment,
                    opened,
                    wanted,
                    effort=work.effort(),
                    monitor=monitor,
                    verify_source=work.verify_source,
                )
            done.append(result)
        if not run.out.json:
            run.out.done({}, _lines(done[-1], step.snapshot))
    if run.out.json:
        run.out.document({"commits": [_facts(one) for one in done]} if all_snapshots else _facts(done[0]))
    given.check_complete(*(disk.container for one in done for disk in one.commit.disks))


def _lines(made: command_types.Result | command_types.Delivered, snapshot: str | None) -> list[str]:
    from vimgvc.commands import commit as command

    if isinstance(made, command.Delivered):
        head = f"[delivery {made.id[:8]} to {text.escape(made.commit.branch)}] {text.subject(made.commit.message)}"
        return [head, *render.made(made.commit, made.result.seconds)[1:], "  'vimgvc admit' makes a commit of it"]
    if made.created:
        return render.made(made.commit, made.seconds)
    if snapshot is not None:
        return [f"{text.escape(snapshot)} is {render.short(made.commit.id)} already"]
    return [f"nothing changed since {render.short(made.commit.id)}"]


def _facts(made: command_types.Result | command_types.Delivered) -> dict[str, Any]:
    from vimgvc.commands import commit as command

    if isinstance(made, command.Delivered):
        # its identifier and parents are not known before it is admitted
        facts = {**documents.commit_facts(made.commit), "id": None, "parents": None, "delivery": made.id}
        return {**facts, "created": True, "seconds": documents.rounded(made.result.seconds)}
    facts = documents.commit_facts(made.commit)
    return {**facts, "created": made.created, "seconds": documents.rounded(made.seconds)}


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
