"""What push, fetch and pull have in common on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc.cli import documents, render, session, text
from vimgvc.monitor import Monitor

if TYPE_CHECKING:
    from vimgvc.commands import connect, copies
    from vimgvc.commands import fetch as fetch_types

    Remote = copies.Remote

RemoteName = Annotated[
    str | None, typer.Argument(metavar="[REMOTE]", help="A remote, a directory or a URL.", show_default=False)
]
BranchNames = Annotated[
    list[str] | None, typer.Argument(metavar="[BRANCH]...", help="Branches there.", show_default=False)
]
Heal = Annotated[
    bool,
    typer.Option("--heal", help="Compare with what is really there, and replace what was lost.", show_default=False),
]
OnlyMetadata = Annotated[
    bool,
    typer.Option("--only-metadata", help="Leave the data in the remote, and read it from there.", show_default=False),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say what would move, and change nothing.", show_default=False)
]


def here(run: session.Session, monitor: Monitor, *, keep: bool = True) -> connect.Here:
    """The open repository and who works on it; without `keep` nothing counts that was kept on this machine."""
    from vimgvc.commands import connect

    accept = run.options.accept_rollback
    return connect.Here(run.repository(keep=keep), run.environment, os.uname().nodename, monitor, accept)


def change_facts(changes: Iterable[copies.Change]) -> list[documents.Document]:
    return [
        {
            "kind": item.kind,
            "source": item.source or None,
            "name": item.name,
            "before": item.before,
            "commit": item.after,
            "state": item.state.value,
            "reason": item.reason or None,
        }
        for item in changes
    ]


def result_facts(done: copies.Result, *, dry_run: bool) -> documents.Document:
    return {
        "dry_run": dry_run,
        "changes": change_facts(done.changes),
        "commits": done.commits,
        "packs": done.packs,
        "bytes": done.size,
        "pack_bytes": done.pack_size,
        "seconds": documents.rounded(done.seconds),
    }


def change_lines(changes: Iterable[copies.Change], style: text.Style) -> list[str]:
    return [f"  {_line(item, style)}" for item in changes]


def _line(item: copies.Change, style: text.Style) -> str:
    name = text.escape(item.name)
    shown = name if item.source in ("", item.name) else f"{text.escape(item.source)} -> {name}"
    before, after = render.short(item.before or ""), render.short(item.after or "")
    words = {
        "new": f"new {item.kind}, at {after}",
        "moved": f"{before}..{after}",
        "forced": f"{before}...{after} (forced, its log keeps {before})",
        "deleted": f"deleted, was at {before}",
        "up to date": "up to date",
        "rejected": style.bad(f"rejected: {item.reason}"),
    }
    return f"{shown}  {words[item.state.value]}"


def cost_line(done: copies.Result, *, dry_run: bool, verb: str) -> str:
    """How much moved; `verb` is what it is called afterwards."""
    moved = f"{text.count(done.commits, 'commit')}, {text.count(done.packs, 'pack')}, {text.exact_size(done.size)}"
    return f"would be {verb}: {moved}" if dry_run else f"{verb} {moved} in {text.seconds(done.seconds)}"


def show_fetched(run: session.Session, done: fetch_types.Fetched, *, dry_run: bool) -> None:
    """What `fetch` and `pull` did."""
    facts = {
        "remote": done.remote or None,
        "url": done.url,
        **result_facts(done.done, dry_run=dry_run),
        "forwarded": change_facts(done.forwarded),
        "others": list(done.others),
    }
    lines = [f"from {text.escape(done.label)}", *change_lines(done.done.changes, run.out.style)]
    if done.done.commits or done.done.packs:
        lines.append(cost_line(done.done, dry_run=dry_run, verb="fetched"))
    if done.forwarded:
        lines += ["here", *change_lines(done.forwarded, run.out.style)]
    if done.others:
        names = ", ".join(text.escape(name) for name in done.others)
        lines.append(f"not here: {names} ('vimgvc pull {text.escape(done.label)} BRANCH' makes one)")
    run.out.done(facts, lines)
