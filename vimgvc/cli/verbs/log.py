"""`vimgvc log`."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import documents, progress, ranges, render, session, verb

if TYPE_CHECKING:
    from vimgvc.commands import access, log_changes
    from vimgvc.commands import log as command_types
    from vimgvc.model import commit

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc log                      every branch, newest first
      vimgvc log vm --oneline -n 10   the last ten commits of one
      vimgvc log --graph              with branches and merges drawn
      vimgvc log vm --stat            and how much each of them changed
      vimgvc log web:data@1GiB..2GiB  what changed that part of a disk
    """,
)
def log(
    run: session.Session,
    *,
    rev: Annotated[
        str | None,
        typer.Argument(
            metavar="[REV[:DISK][@START..END]]",
            help="Where to begin, and which disk or part of it has to be changed.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("-n", "--limit", metavar="COUNT", min=0, help="Show at most COUNT.", show_default=False),
    ] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line for each commit.", show_default=False)] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the history.", show_default=False)] = False,
    stat: Annotated[
        bool,
        typer.Option("--stat", help="How much of each disk was changed, and in how many places.", show_default=False),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was forgotten, until gc takes it.", show_default=False)
    ] = False,
) -> None:
    """Show the commits of a branch, or of all, newest first."""
    from vimgvc.commands import log as command

    repository, monitor = run.repository(), progress.Plain(run.out)
    revision, part = (rev, None) if rev is None else _part(repository, rev, graph=graph)
    found = command.run(repository, revision, None if part else limit, monitor, everything=everything)
    stats = None
    if part or stat:
        from vimgvc.commands import log_changes

        found = log_changes.touching(repository, found, part, limit, monitor) if part else found
        stats = log_changes.Stats(repository, found, monitor) if stat else None
    if run.out.json:
        run.out.document(document(found, stats))
        return
    shown = iter(found.commits)
    first = next(shown, None)
    if first is None:
        if part:
            run.out.note("no commit changed that part")
        return
    run.out.lines(
        render.log(
            itertools.chain([first], shown),
            found.tips,
            run.out.style,
            oneline=oneline,
            graphed=graph,
            edges=found.edges,
            notes=found.notes,
            below=(lambda item: _changed(stats, item)) if stats else None,
        )
    )


def _changed(stats: log_changes.Stats, item: commit.Commit) -> list[str]:
    return [*map(render.stat_line, stats.of(item)), *map(render.file_line, stats.files(item))]


def _part(repository: access.Repository, typed: str, *, graph: bool) -> tuple[str, log_changes.Part | None]:
    """The revision, and the part of a disk if one is named."""
    revision, found = ranges.split(typed)
    if found is None and ":" not in typed:
        return typed, None
    from vimgvc.commands import log_changes

    name, part = log_changes.part_of(repository, revision, found)
    if part and graph:
        raise errors.UsageError("--graph draws whole histories", hint="leave it away, or the disk")
    return name, part


def document(found: command_types.History, stats: log_changes.Stats | None) -> dict[str, Any]:
    shown = []
    for item in found.commits:
        facts = documents.commit_facts(item)
        if stats:
            facts["stat"] = [dataclasses.asdict(one) for one in stats.of(item)]
            facts["files"] = [dataclasses.asdict(one) for one in stats.files(item)]
        shown.append(facts)
    forgotten = [item["id"] for item in shown if item["id"] in found.forgotten]
    return {"commits": shown, "forgotten": forgotten, "unreadable": sorted(found.lost)}
