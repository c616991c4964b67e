"""`vimgvc restore`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import documents, render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import restore as command_types
    from vimgvc.commands import restore_folder, restore_in_place

app = verb.new_app()


@dataclass(frozen=True, slots=True)
class Place:
    """Writing to an image that is there."""

    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="TARGET is there: write only what differs.", show_default=False),
    ] = False
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="REV",
            help="TARGET is exactly at REV: do not compare. With --in-place.",
            show_default=False,
        ),
    ] = None
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="TARGET is what it was when it was last seen, if its times say so. With --in-place.",
            show_default=False,
        ),
    ] = False
    as_raw: Annotated[
        bool,
        typer.Option("--as-raw", help="TARGET is raw, whatever it looks like. With --in-place.", show_default=False),
    ] = False

    def check(self, *, force: bool, salvage: bool) -> None:
        """Raise `UsageError` for what excludes each other."""
        if not self.in_place:
            for option, given in (("--base", self.base is not None), ("--fast", self.fast), ("--as-raw", self.as_raw)):
                if given:
                    raise errors.UsageError(
                        f"{option} is about --in-place", hint=f"say --in-place, or leave {option} away"
                    )
            return
        if self.fast and self.base is not None:
            raise errors.UsageError("--base and --fast exclude each other", hint="leave one of them away")
        for option, given in (("--force", force), ("--salvage", salvage)):
            if given:
                raise errors.UsageError(f"--in-place and {option} exclude each other", hint=f"leave {option} away")


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc restore vm                      the last state of vm, to vm.img
      vimgvc restore vm~1 yesterday.img
      vimgvc restore web folder/             all disks and files of a commit
      vimgvc restore web data.img --disk data
      vimgvc restore vm /dev/vg0/vm --force  to a block device
      vimgvc restore vm~1 vm.img --in-place  only what differs

    The image is sparse. It is written beside TARGET and renamed at the end, so
    TARGET is complete or not there. After an interruption the same command goes on
    where it stopped. With --in-place TARGET itself is changed: what differs is found
    by comparing all of it, or told by --base REV when TARGET is exactly at REV,
    or remembered (--fast) while its times are what they were.
    """,
)
def restore(
    run: session.Session,
    rev: Annotated[str, typer.Argument(metavar="REV[:DISK]", help="Which commit, and which disk of it.")],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]", help="File, device, or DIR/ for everything.  [default: DISK.img]", show_default=False
        ),
    ] = None,
    *,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            "--disk", metavar="NAME", help="Only this disk or file; repeatable with DIR/.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace TARGET when it exists.", show_default=False)
    ] = False,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="Go on where data is damaged, and fill it with a pattern.", show_default=False),
    ] = False,
    place: Place,
    threads: verb.Threads = None,
) -> None:
    """Write recorded disks to raw images or block devices."""
    from vimgvc.commands import restore as command

    place.check(force=force, salvage=salvage)
    is_folder = target is not None and target.endswith("/")
    if is_folder and place.in_place:
        raise errors.UsageError("--in-place is about one disk", hint="name the image that is to be changed")
    if target is not None and is_folder:
        lost = _folder(run, rev, target, disk or [], force=force, salvage=salvage, threads=threads)
    elif place.in_place:
        lost = _in_place(run, command.with_disk(rev, disk or []), target, place, threads)
    else:
        revision = command.with_disk(rev, disk or [])
        lost = _one(run, revision, target, force=force, salvage=salvage, threads=threads)
    if lost:
        raise errors.Incomplete(
            f"{text.size(lost)} of {'it' if is_folder else 'the disk'} are lost and filled with a pattern",
            hint="run 'vimgvc verify' to see which other commits are affected",
        )


def _one(
    run: session.Session, revision: str, target: str | None, *, force: bool, salvage: bool, threads: int | None
) -> int:
    """Returns how many bytes were lost."""
    from vimgvc.commands import restore as command

    repository = run.repository()
    with run.progress() as monitor:
        done = command.run(
            repository,
            revision,
            target,
            run.environment,
            force=force,
            salvage=salvage,
            threads=threads,
            monitor=monitor,
        )
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
        f"restored {_kind(done)} {text.escape(done.disk.name)} of {render.short(done.commit.id)} "
        f"to {text.escape(done.target)}: {text.size(done.disk.size)}, "
        f"{text.size(done.bytes_written)} written in {text.seconds(done.seconds)}"
    )
    run.out.done(document, [line + (", resumed" if done.resumed else ""), *_lost(done.lost)])
    return sum(length for _, length in done.lost)


def _kind(done: command_types.Restored) -> str:
    return "attachment" if done.disk in done.commit.attachments else "disk"


def _lost(ranges: tuple[tuple[int, int], ...]) -> Iterator[str]:
    return (f"  lost: {length:,} bytes at {offset:,}" for offset, length in ranges)


def _in_place(run: session.Session, revision: str, target: str | None, place: Place, threads: int | None) -> int:
    from vimgvc.commands import restore_in_place as command

    wanted = command.wanted(run.environment, base=place.base, fast=place.fast, as_raw=place.as_raw, threads=threads)
    repository = run.repository()
    with run.progress() as monitor:
        found = command.run(repository, revision, target, wanted, monitor)
    run.out.done(_in_place_facts(found), [_in_place_line(found)])
    return 0


def _in_place_facts(found: restore_in_place.Rewritten) -> dict[str, Any]:
    return {
        "id": found.commit.id,
        "disk": found.disk.name,
        "size": found.disk.size,
        "target": found.target,
        "base": found.base.id if found.base else None,
        "base_remembered": found.is_remembered,
        "resumed": found.resumed,
        "bytes_compared": found.done.compared,
        "bytes_written": found.done.written,
        "bytes_zeroed": found.done.zeroed,
        "seconds": documents.rounded(found.done.seconds),
    }


def _in_place_line(found: restore_in_place.Rewritten) -> str:
    done = found.done
    how = f"{text.size(done.compared)} compared"
    if found.base:
        how = f"{'remembered' if found.is_remembered else 'known'} as {render.short(found.base.id)}"
    zeroed = f", {text.size(done.zeroed)} zeroed" if done.zeroed else ""
    return (
        f"{text.escape(found.target)} is now disk {text.escape(found.disk.name)} of {render.short(found.commit.id)}: "
        f"{text.size(found.disk.size)}, {how}, {text.size(done.written)} written{zeroed} "
        f"in {text.seconds(done.seconds)}{', after an interruption' if found.resumed else ''}"
    )


def _folder(
    run: session.Session,
    revision: str,
    target: str,
    names: list[str],
    *,
    force: bool,
    salvage: bool,
    threads: int | None,
) -> int:
    from vimgvc.commands import restore_folder as command

    repository = run.repository()
    with run.progress() as monitor:
        wanted = command.Wanted(names, force=force, salvage=salvage, threads=threads)
        found = command.run(repository, revision, target, wanted, monitor, environment=run.environment)
    document = {
        "id": found.commit.id,
        "target": target,
        "files": [_file_facts(file) for file in found.files],
        "seconds": documents.rounded(found.seconds),
    }
    head = (
        f"restored {text.count(len(found.files), 'file')} of {render.short(found.commit.id)} to {text.escape(target)}"
    )
    lines = [line for file in found.files for line in _file_lines(file)]
    run.out.done(document, [*lines, f"{head} in {text.seconds(found.seconds)}"])
    found.check_complete()
    return sum(length for file in found.files for _, length in file.lost)


def _file_facts(file: restore_folder.File) -> dict[str, Any]:
    return {
        "name": file.facts.name,
        "kind": file.kind,
        "file": file.path,
        "size": file.facts.size,
        "kept": file.kept,
        "resumed": file.resumed,
        "bytes_written": file.bytes_written,
        "lost": [list(item) for item in file.lost],
        "problem": str(file.problem) if file.problem else None,
    }


def _file_lines(file: restore_folder.File) -> list[str]:
    if file.problem is not None:
        how = f"not restored: {text.escape(str(file.problem))}"
    elif file.kept:
        how = "was there"
    else:
        how = f"{text.size(file.facts.size)}, {text.size(file.bytes_written)} written"
        how += ", resumed" if file.resumed else ""
    return [f"{file.kind} {text.escape(file.facts.name)} to {text.escape(file.path)}: {how}", *_lost(file.lost)]
