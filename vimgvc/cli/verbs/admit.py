"""`vimgvc admit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc import errors
from vimgvc.cli import copies, documents, progress, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import admit as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc admit --dry-run       what waits, from whom, and for which branch
      vimgvc admit
      vimgvc admit --discard 3f2a  one that was refused, or left unfinished

    What hosts with write keys have delivered ('vimgvc key add --write-only') is
    read and checked as any image is, and recorded on the branch that the key may
    write, with the times and messages of the host. A delivery that is damaged, was
    altered, or was made with a key that was removed is refused; the others go on.
    """,
)
def admit(
    run: session.Session,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what waits, and record nothing.", show_default=False)
    ] = False,
    discard: Annotated[
        str | None,
        typer.Option("--discard", metavar="DELIVERY", help="Let this one go instead.", show_default=False),
    ] = None,
) -> None:
    """Make commits of what hosts have delivered that can only add."""
    from vimgvc.commands import admit as command

    if discard is not None and dry_run:
        raise errors.UsageError("--discard and --dry-run exclude each other", hint="give one of them")
    if discard is not None:
        gone = command.discard(copies.here(run, progress.Plain(run.out)), discard)
        facts = {"discarded": gone.id, "bytes": gone.size}
        run.out.done(facts, [f"discarded delivery {gone.id[:8]}, {text.exact_size(gone.size)}"])
        return
    with run.progress() as monitor:
        found = command.run(copies.here(run, monitor), dry_run=dry_run)
    refused = sum(item.state == command.REFUSED for item in found)
    if run.out.json:
        run.out.document({"dry_run": dry_run, "deliveries": [_facts(item) for item in found]})
    elif refused or not run.out.quiet:
        run.out.lines([_line(item, run.out.style) for item in found] or ["nothing waits"])
    if refused:
        raise errors.IntegrityError(
            "inbox",
            f"{text.count(refused, 'delivery', 'deliveries')} cannot be admitted",
            hint="'vimgvc admit --discard DELIVERY' lets one go; ask its host to commit again",
        )


def _facts(item: command_types.Outcome) -> documents.Document:
    return {
        "id": item.id,
        "state": item.state,
        "label": item.label or None,
        "branch": item.branch or None,
        "time": item.time or None,
        "commit": item.commit,
        "bytes": item.size,
        "reason": item.reason or None,
    }


def _line(item: command_types.Outcome, style: text.Style) -> str:
    words = [item.state, item.id[:8]]
    if item.time:
        words += [text.date(item.time), text.escape(item.label), style.branch(text.escape(item.branch))]
    words.append(style.id(render.short(item.commit)) if item.commit else text.size(item.size))
    line = "  ".join(word for word in words if word)
    return f"{line}: {style.bad(text.escape(item.reason))}" if item.reason else line
