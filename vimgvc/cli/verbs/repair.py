"""`vimgvc repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import copies, documents, session, text, verb
from vimgvc.cli.verbs import verify

if TYPE_CHECKING:
    from vimgvc.commands import repair as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc repair --dry-run    what would be done
      vimgvc repair
      vimgvc repair --data       also opens every segment, as 'verify --data' does
      vimgvc repair --from offsite    and with what the copy there has
      vimgvc repair --remote offsite  that copy, with what is here

    Whatever can still be read of damaged packs moves into new ones; lost index
    objects, copies of key slots and the configuration are written again. Nothing is
    deleted: what is damaged goes to the directory 'quarantine'. Nobody can commit
    meanwhile.

    Ends with exit code 20 when something stays lost. Commit the same disks again to
    bring lost contents back; then older commits restore, too.
    """,
)
def repair(
    run: session.Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be done, and do nothing.", show_default=False)
    ] = False,
    data: Annotated[bool, typer.Option("--data", help="Open and check everything.", show_default=False)] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="REMOTE", help="Bring back what this place has.", show_default=False),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option("--remote", metavar="REMOTE", help="Mend this place instead.", show_default=False),
    ] = None,
) -> None:
    """Mend what damage left, as far as it can be mended."""
    from vimgvc.commands import repair as command

    wish = command.Wish(data, dry_run, remote, source)
    with run.progress() as monitor:
        result = command.run(copies.here(run, monitor, keep=False), wish)
    done, healed = result.repaired, result.healed
    if run.out.json:
        run.out.document(document(done, dry_run=dry_run) | _healed_facts(healed))
    elif done.remaining or not run.out.quiet:
        run.out.lines([*lines(done, run.out.style, dry_run=dry_run), *_healed_lines(healed, dry_run=dry_run)])
    if done.remaining and not (dry_run and healed and healed.size):
        raise errors.IntegrityError(
            remote or "repository",
            f"{text.count(len(done.remaining), 'problem')} cannot be mended",
            hint="commit the same disks again to bring lost contents back; commits that are not listed restore",
        )


def _healed_facts(healed: command_types.Healed | None) -> dict[str, Any]:
    if healed is None:
        return {}
    facts = {"commits": healed.commits, "packs": healed.packs, "bytes": healed.size, "lost": list(healed.lost)}
    return {"healed": facts}


def _healed_lines(healed: command_types.Healed | None, *, dry_run: bool) -> list[str]:
    if healed is None or not (healed.size or healed.lost):
        return []
    told = [text.escape(f"not to be had there either: {one}") for one in healed.lost]
    what = f"{text.count(healed.commits, 'commit')}, {text.count(healed.packs, 'pack')}"
    if healed.size:
        words = "would come from there, at most" if dry_run else "came from there"
        told.append(f"{what}, {text.exact_size(healed.size)} {words}")
    return told


def document(done: command_types.Repaired, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "problems": verify.problem_facts(done.problems),
        "actions": [{"kind": one.kind, "object": one.object, "detail": one.detail} for one in done.actions],
        "remaining": verify.problem_facts(done.remaining),
        "packs_written": done.packs_written,
        "index_written": done.index_written,
        "segments_saved": done.segments_saved,
        "segments_lost": done.segments_lost,
        "written_bytes": done.written_bytes,
        "set_aside": done.set_aside,
        "set_aside_bytes": done.set_aside_bytes,
        "seconds": documents.rounded(done.seconds),
    }


def lines(done: command_types.Repaired, style: text.Style, *, dry_run: bool) -> list[str]:
    if not done.problems and not done.actions:
        return ["nothing to repair"]
    told = [text.escape(f"{one.kind} {one.object}: {one.detail}") for one in done.actions]
    told += verify.problem_lines(done.remaining, style)
    would = "would be " if dry_run else ""
    counts = f"{text.count(len(done.problems), 'problem')} found, {len(done.remaining)} cannot be mended"
    changes = f"{would}written: {text.exact_size(done.written_bytes)}, set aside: {text.count(done.set_aside, 'file')}"
    return [*told, f"{changes}; {counts}"]
