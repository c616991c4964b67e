"""What `branch` and `tag` print, and how their arguments are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.cli import documents, progress, render, session, text

if TYPE_CHECKING:
    from vimgvc.commands import naming

_PLURAL = {"branch": "branches", "tag": "tags"}


def place(run: session.Session, kind: str) -> naming.Place:
    from vimgvc.commands import naming

    return naming.Place(run.repository(), kind, os.uname().nodename, run.environment, progress.Plain(run.out))


def show_all(run: session.Session, kind: str) -> None:
    """List the names, one a line."""
    found = place(run, kind).listing()
    if run.out.json:
        run.out.document({_PLURAL[kind]: [_facts(item) for item in found]})
        return
    width = max((len(text.escape(item.name)) for item in found), default=0)
    run.out.lines(_line(item, width, run.out.style) for item in found)


def _facts(item: naming.Name) -> documents.Document:
    return {"name": item.name, "commit": item.id, "time": item.time, "broken": item.broken or None}


def _line(item: naming.Name, width: int, style: text.Style) -> str:
    name = text.escape(item.name)
    head = f"{style.branch(name)}{' ' * (width - len(name))}  {style.id(render.short(item.id))}"
    if item.commit is None:
        return f"{head}  {style.bad('broken')}: {text.escape(item.broken)}"
    return f"{head}  {text.date(item.commit.time)}  {text.subject(item.commit.message)}"


def told(run: session.Session, changes: Sequence[naming.Change], lines: Sequence[str]) -> None:
    """What was done."""
    facts = [{"name": item.name, "before": item.before, "commit": item.after} for item in changes]
    run.out.done({"changes": facts}, lines)


def create(run: session.Session, kind: str, arguments: Sequence[str], *, force: bool) -> None:
    """NAME [REV]."""
    check(kind, arguments, 1, 2)
    name, revision = arguments[0], arguments[1] if len(arguments) == 2 else None
    changes = place(run, kind).create(name, revision, force=force)
    [change] = changes
    at = render.short(str(change.after))
    if change.before is None:
        line = f"{kind} {text.escape(name)} made, at {at}"
    elif change.before == change.after:
        line = f"{kind} {text.escape(name)} is at {at} already"
    else:
        line = f"{kind} {text.escape(name)} moved from {render.short(change.before)} to {at}"
    told(run, changes, [line])


def delete(run: session.Session, kind: str, arguments: Sequence[str]) -> None:
    """NAME..."""
    check(kind, arguments, 1, None)
    changes = place(run, kind).delete(arguments)
    told(run, changes, [line for change in changes for line in _deleted(kind, change)])


def _deleted(kind: str, change: naming.Change) -> list[str]:
    name = text.escape(change.name)
    return [
        f"{kind} {name} deleted, was at {render.short(str(change.before))}",
        f"  back, until gc: vimgvc {kind} {name} {name}@{{1}}",
    ]


def check(kind: str, arguments: Sequence[str], least: int, most: int | None) -> None:
    """Raises `UsageError` for too few or too many arguments."""
    if len(arguments) < least:
        raise errors.UsageError("a name is missing", hint=f"see 'vimgvc {kind} --help'")
    if most is not None and len(arguments) > most:
        raise errors.UsageError(f"too many arguments: {arguments[most]}", hint=f"see 'vimgvc {kind} --help'")
