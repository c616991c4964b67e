"""`vimgvc push`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc.cli import copies, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import push as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc push                       all own branches, to origin or the only remote
      vimgvc push offsite vm v1.0       a branch and a tag
      vimgvc push offsite vm:backup/vm  under another name there
      vimgvc push --dry-run             to the byte, what would move
      vimgvc push offsite --delete old  gone there; its commits stay until gc

    A branch there that has something else is not moved without --force. After an
    interruption the same command goes on: what arrived is not sent again.
    """,
)
def push(
    run: session.Session,
    *,
    remote: copies.RemoteName = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BRANCH|TAG|SRC:DST]...", help="What to push.", show_default=False),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All own branches.", show_default=False)] = False,
    tags: Annotated[bool, typer.Option("--tags", help="All tags.", show_default=False)] = False,
    delete: Annotated[bool, typer.Option("--delete", "-d", help="Delete each name there.", show_default=False)] = False,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Also move what has something else; the log keeps it.", show_default=False),
    ] = False,
    heal: copies.Heal = False,
    dry_run: copies.DryRun = False,
) -> None:
    """Copy branches, tags and what they lead to, to another place."""
    from vimgvc.commands import push as command

    which = command.Which(tuple(names or ()), all_=all_, tags=tags, delete=delete, force=force)
    with run.progress() as monitor:
        pushed = command.run(copies.here(run, monitor), remote, which, dry_run=dry_run, everything=heal)
    _show(run, pushed, dry_run=dry_run)
    pushed.done.check(pushed.label)


def _show(run: session.Session, pushed: command_types.Pushed, *, dry_run: bool) -> None:
    facts = {"remote": pushed.remote or None, "url": pushed.url, **copies.result_facts(pushed.done, dry_run=dry_run)}
    lines = [f"to {text.escape(pushed.label)}{' (all own branches)' if pushed.chosen else ''}"]
    lines += copies.change_lines(pushed.done.changes, run.out.style)
    if pushed.done.commits or pushed.done.packs:
        lines.append(copies.cost_line(pushed.done, dry_run=dry_run, verb="pushed"))
    run.out.done(facts, lines)
