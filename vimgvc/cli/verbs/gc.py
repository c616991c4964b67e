"""`vimgvc gc`."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import documents, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import gc as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc gc --dry-run         what would go, to the byte
      vimgvc gc
      vimgvc gc --max-unused 0    keep nothing that no commit needs

    What goes is what no branch or tag leads to any more, and forgotten commits: until
    then they can be brought back. An interrupted gc has lost nothing, and the next one
    begins anew; where there are no locks (S3, SFTP) it has to be told that the other
    one will not go on: --take-over. What that one was about to remove stays in doubt,
    and cannot be pushed again, until --close says that nothing of it is on its way.
    Commits and pushes may run meanwhile, but for commits into a directory here.

    Whoever names a commit pins it until that is done. Pins of programs that died are
    listed after a day, and hold their commits until --expire-pins.
    """,
)
def gc(
    run: session.Session,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would go, and remove nothing.", show_default=False)
    ] = False,
    max_unused: Annotated[
        float, typer.Option("--max-unused", metavar="PERCENT", help="Of what stays, how much may be unneeded.")
    ] = 5,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also when most of what is stored goes.", show_default=False)
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Begin although another gc has not ended.", show_default=False),
    ] = False,
    close: Annotated[
        list[int] | None,
        typer.Option("--close", metavar="NUMBER", help="That gc can remove nothing any more.", show_default=False),
    ] = None,
    expire_pins: Annotated[
        bool,
        typer.Option("--expire-pins", help="First remove all pins older than a day.", show_default=False),
    ] = False,
    expire_pin: Annotated[
        list[str] | None,
        typer.Option("--expire-pin", metavar="PIN", help="First remove this pin. Can be repeated.", show_default=False),
    ] = None,
    threads: verb.Threads = None,
) -> None:
    """Remove what no commit needs."""
    from vimgvc.commands import gc as command

    repository = run.repository(keep=False)
    with run.progress() as monitor:
        done = command.run(
            repository,
            max_unused=max_unused,
            dry_run=dry_run,
            force=force,
            threads=threads,
            host=os.uname().nodename,
            take_over=take_over,
            close=close or (),
            expire=command.Expire(tuple(expire_pin or ()), old=expire_pins),
            monitor=monitor,
        )
    run.out.done(document(done, dry_run=dry_run), lines(done, dry_run=dry_run))
    if not done.complete:
        raise errors.Incomplete(
            "the disk is full: only what needed no room was done", hint="run the same command again"
        )


def document(done: command_types.Result, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "epoch": done.epoch,
        "commits_deleted": done.commits_deleted,
        "packs_deleted": done.packs_deleted,
        "packs_written": done.packs_written,
        "index_deleted": done.index_deleted,
        "index_written": done.index_written,
        "temporaries": done.temporaries,
        "repacked_bytes": done.repacked_bytes,
        "unneeded_bytes": done.unneeded_bytes,
        "freed_bytes": done.freed_bytes,
        "stored_bytes": done.stored_bytes,
        "needs_force": done.needs_force,
        "spared_packs": done.spared,
        "pins_deleted": done.pins_deleted,
        "pins": [dataclasses.asdict(pin) for pin in done.pins],
        "unfinished": [dataclasses.asdict(one) for one in done.unfinished],
        "seconds": documents.rounded(done.seconds),
    }


def lines(done: command_types.Result, *, dry_run: bool) -> list[str]:
    if done.epoch is None:
        return [f"nothing to remove: {text.exact_size(done.stored_bytes)} stored", *_left(done)]
    more = done.freed_bytes < 0
    verb_used = ("would use" if more else "would free") if dry_run else ("used" if more else "freed")
    told = [
        f"{verb_used} {text.exact_size(abs(done.freed_bytes))}{' more' if more else ''}",
        f"  removed: {text.count(done.commits_deleted, 'commit')}, {text.count(done.packs_deleted, 'pack')}",
        f"  written: {text.count(done.packs_written, 'pack')}",
        f"  stored:  {text.exact_size(done.stored_bytes)}",
    ]
    if dry_run and done.needs_force:
        told.append("that is most of what is stored: it needs --force")
    return [*told, *_left(done)]


def _left(done: command_types.Result) -> list[str]:
    """What others have not ended."""
    told = [
        f"pin {pin.pin} of {text.escape(pin.host) or 'nobody'} holds commit {pin.commit[:12]} since {pin.time}"
        for pin in done.pins
        if pin.old
    ]
    if told:
        told.append("  when nobody is at work on them any more, --expire-pins lets them go")
    for one in done.unfinished:
        state = "was taken over" if one.taken else "has not ended"
        told.append(f"gc number {one.epoch} of {text.escape(one.host) or 'nobody'}, begun {one.time}, {state}")
    return told
