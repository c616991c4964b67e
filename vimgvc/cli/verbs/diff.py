"""`vimgvc diff`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import disk_map, inputs, listed, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import diff as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc diff vm~1 vm                 what the last commit changed
      vimgvc diff vm vm.qcow2             what changed in an image since
      vimgvc diff web:data web~5:data --map
      vimgvc diff vm~7 vm --png week.png  a picture of where

    Changes are counted in whole chunks of 4 KiB or more. Commits are compared by
    what is recorded about them, images by their hashes; holes are not read.
    What is the name of a commit and of a file is the commit: write ./vm for the file.
    """,
)
def diff(
    run: session.Session,
    first: Annotated[str, typer.Argument(metavar="REV[:DISK]", help="What was before.")],
    second: Annotated[str, typer.Argument(metavar="REV[:DISK]|IMAGE", help="What is now.")],
    *,
    stat: Annotated[
        bool, typer.Option("--stat", help="Only how much of each disk and partition.  [default]", show_default=False)
    ] = False,
    map_: Annotated[bool, typer.Option("--map", help="Draw where on the disk.", show_default=False)] = False,
    png: Annotated[
        str | None, typer.Option("--png", metavar="FILE", help="Write a picture of where.", show_default=False)
    ] = None,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="End with 1 if there is a difference, 2 on failure.", show_default=False),
    ] = False,
    given: inputs.Input,
    threads: verb.Threads = None,
) -> None:
    """Show what differs between two commits, or a commit and an image."""
    if map_ and (stat or run.out.json):
        other = "--stat" if stat else "--json"
        raise errors.UsageError(f"--map and {other} exclude each other", hint="give one of them")
    with verb.answering(exit_code):
        if png is not None:
            _check_picture(png)
        found = _compare(run, first, second, given, threads)
        _show(run, found, drawn=map_)
        if png is not None:
            _draw(run, found, png, f"{first} .. {second}")
        given.check_complete(*found.containers)
    if exit_code and found.differs:
        raise typer.Exit(verb.DIFFERS)


def _compare(
    run: session.Session, first: str, second: str, given: inputs.Input, threads: int | None
) -> command_types.Diff:
    from vimgvc.commands import diff as command

    access, repository = given.access(), run.repository()
    with run.progress() as monitor:
        return command.run(repository, first, second, access, monitor, threads=threads)


def _check_picture(path: str) -> None:
    from vimgvc.commands import heat

    heat.check(path)


def _draw(run: session.Session, found: command_types.Diff, path: str, title: str) -> None:
    from vimgvc.commands import heat

    heat.save(path, heat.picture(found, title))
    run.out.note(f"picture written to {path}")


def _show(run: session.Session, found: command_types.Diff, *, drawn: bool) -> None:
    if run.out.json:
        run.out.lines(document(found))
        return
    for disk in found.disks:
        run.out.lines(lines(disk, run.out.style))
        if drawn and disk.size:
            from vimgvc.commands import heat

            columns, most = disk_map.cells(shutil.get_terminal_size().columns)
            encoding = run.out.stdout.encoding or "ascii"
            run.out.lines(disk_map.lines(heat.grid(disk, most), disk.parts, columns, run.out.style, encoding))
    run.out.lines(map(render.file_line, found.attachments))


def lines(disk: command_types.DiskDiff, style: text.Style) -> list[str]:
    """A disk and what changed in each of its partitions."""
    name = text.escape(disk.name)
    if disk.size is None:
        return [f"disk {name}: removed"]
    told = [f"disk {name}  {_sizes(disk)}: {_amount(disk, style)}"]
    for part in disk.parts:
        label = " ".join(filter(None, [part.name, part.filesystem or "unknown", text.escape(part.label)]))
        told.append(f"  {label}: {_part(part.changed_bytes, style)}")
    if disk.parts and disk.outside_bytes:
        told.append(f"  outside of partitions: {_part(disk.outside_bytes, style)}")
    return told


def _sizes(disk: command_types.DiskDiff) -> str:
    assert disk.size is not None
    if disk.size_before is None or disk.size == disk.size_before:
        return text.size(disk.size)
    if text.size(disk.size) == text.size(disk.size_before):
        return f"{disk.size_before:,} -> {disk.size:,} bytes"
    return f"{text.size(disk.size_before)} -> {text.size(disk.size)}"


def _amount(disk: command_types.DiskDiff, style: text.Style) -> str:
    if disk.size_before is None:
        return f"added, {text.size(disk.changed_bytes)} of data"
    if not disk.differs:
        return "equal"
    zeroed = f", {text.size(disk.zeroed_bytes)} of it to zeros" if disk.zeroed_bytes else ""
    places = f" in {text.count(len(disk.changed), 'place')}" if len(disk.changed) else ""
    return f"{_part(disk.changed_bytes, style)}{places}{zeroed}"


def _part(count: int, style: text.Style) -> str:
    return style.id(f"{text.size(count)} changed") if count else "unchanged"


def document(found: command_types.Diff) -> Iterator[str]:
    """The lines of the JSON document; there may be millions of extents."""
    yield "{"
    yield from disks_member(found.disks)
    files = [{"name": one.name, "state": one.state} for one in found.attachments]
    yield from listed.member("attachments", files, last=True)
    yield "}"


def disks_member(disks: Sequence[command_types.DiskDiff], *, is_last: bool = False) -> Iterator[str]:
    """The lines of the member `disks` of a document."""
    yield '  "disks": ['
    for number, disk in enumerate(disks, 1):
        *facts, last = json.dumps(_facts(disk), indent=2).splitlines()[:-1]
        yield from (f"    {line}" for line in [*facts, f"{last},"])
        yield '      "extents": ['
        pairs = (f"        [{start}, {length}]" for start, length in disk.changed.pairs())
        yield from listed.separated(pairs)
        yield "      ]"
        yield "    }" if number == len(disks) else "    },"
    yield "  ]" if is_last else "  ],"


def _facts(disk: command_types.DiskDiff) -> dict[str, Any]:
    return {
        "name": disk.name,
        "size": disk.size,
        "size_before": disk.size_before,
        "changed_bytes": disk.changed_bytes,
        "zeroed_bytes": disk.zeroed_bytes,
        "outside_bytes": disk.outside_bytes,
        "partitions": [
            {
                "name": part.name,
                "start": part.start,
                "length": part.length,
                "filesystem": part.filesystem,
                "label": part.label,
                "changed_bytes": part.changed_bytes,
            }
            for part in disk.parts
        ],
    }
