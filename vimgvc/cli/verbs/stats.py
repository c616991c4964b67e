"""`vimgvc stats`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vimgvc.cli import render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import stats as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc stats
      vimgvc stats --json
    """,
)
def stats(run: session.Session) -> None:
    """Show what the repository holds and how much room that takes."""
    from vimgvc.commands import stats as command

    repository = run.repository()
    with run.progress() as monitor:
        found = command.run(repository, monitor)
    if run.out.json:
        run.out.document(dataclasses.asdict(found))
    else:
        run.out.lines(lines(found))


def lines(found: command_types.Result) -> list[str]:
    facts = {
        "commits": f"{found.commits:,}",
        "branches": f"{found.branches:,}",
        "disks": f"{found.disks:,}",
        "packs": f"{found.packs:,}",
        "objects": f"{found.objects:,}",
        "all states": text.exact_size(found.logical_bytes),
        "read": text.exact_size(found.read_bytes),
        "new": text.exact_size(found.new_bytes),
        "stored": text.exact_size(found.stored_bytes),
        "  packs": text.exact_size(found.pack_bytes),
        "  metadata": text.exact_size(found.metadata_bytes),
    }
    if found.stored_bytes:
        facts["saved"] = f"{found.logical_bytes / found.stored_bytes:.1f}:1"
    return render.table(facts, indent="")
