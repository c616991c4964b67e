"""Commits as text. Every name and message in it is escaped (X11)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vimgvc.cli import text
from vimgvc.model import commit

if TYPE_CHECKING:
    from vimgvc.commands import log_changes

SHORT = 12
Tips = Mapping[str, Sequence[str]]


def short(commit_id: str) -> str:
    return commit_id[:SHORT]


def made(item: commit.Commit, seconds: float) -> list[str]:
    """What `commit` says it did."""
    head = f"[{text.escape(item.branch)} {short(item.id)}] {text.subject(item.message)}"
    lines = [*map(disk_line, item.disks), *map(attachment_line, item.attachments)]
    return [head, *(f"  {line}" for line in lines), f"  in {text.seconds(seconds)}"]


def disk_line(disk: commit.Disk) -> str:
    """A disk and what recording it cost, on one line."""
    return (
        f"disk {text.escape(disk.name)}  {text.size(disk.size)}, read {text.size(disk.read_bytes)}, "
        f"new {text.size(disk.new_bytes)}, stored {text.size(disk.stored_bytes)}"
    )


def attachment_line(attachment: commit.Attachment) -> str:
    """A file beside the disks and what recording it cost, on one line."""
    return (
        f"attachment {text.escape(attachment.name)}  {text.size(attachment.size)}, "
        f"new {text.size(attachment.new_bytes)}, stored {text.size(attachment.stored_bytes)}"
    )


def stat_line(stat: log_changes.DiskStat) -> str:
    """What a commit changed of a disk."""
    grown = stat.size_before is not None and stat.size != stat.size_before
    new = ", new" if stat.size_before is None else f", size {text.size(stat.size)}" if grown else ""
    places = f" in {text.count(stat.places, 'place')}" if stat.places else ""
    return f"disk {text.escape(stat.name)}: {text.size(stat.changed_bytes)} changed{places}{new}"


def file_line(found: log_changes.FileDiff) -> str:
    """What became of an attachment."""
    return f"attachment {text.escape(found.name)}: {found.state}"


def log(
    commits: Iterable[commit.Commit],
    tips: Tips,
    style: text.Style,
    *,
    oneline: bool,
    graphed: bool,
    edges: Callable[[commit.Commit], Sequence[str]] = operator.attrgetter("parents"),
    notes: Callable[[commit.Commit], Sequence[str]] | None = None,
    below: Callable[[commit.Commit], Sequence[str]] | None = None,
) -> Iterator[str]:
    """The lines of a history; `edges` are the parents to draw, `notes` what is special about a commit.

    `below` tells more about it.
    """
    from vimgvc.cli import graph

    lanes = graph.Graph()
    between: str | None = None
    for item in commits:
        entry = (_oneline if oneline else _entry)(item, tips, notes(item) if notes else (), style)
        entry += [f"    {line}" for line in below(item)] if below else []
        block = lanes.add(item.id, edges(item)) if graphed else graph.Block([], "", [], "")
        if between is not None and not oneline and not block.above:
            yield between
        yield from block.beside(entry, style.graph) if graphed else entry
        between = style.graph(block.rest)


def _oneline(item: commit.Commit, tips: Tips, notes: Sequence[str], style: text.Style) -> list[str]:
    special = "".join(f" {style.bad(f'[{note}]')}" for note in notes)
    return [f"{style.id(short(item.id))}{_decoration(item, tips, style)}{special} {text.subject(item.message)}"]


def _entry(item: commit.Commit, tips: Tips, notes: Sequence[str], style: text.Style) -> list[str]:
    head = [f"{style.id('commit ' + short(item.id))}{_decoration(item, tips, style)}"]
    if len(item.parents) > 1:
        head.append("Merge:  " + " ".join(short(parent) for parent in item.parents))
    head += [f"Note:   {style.bad(note)}" for note in notes]
    head.append(f"Author: {text.escape(item.author)} on {text.escape(item.host)}")
    head.append(f"Date:   {text.date(item.time)}")
    message = [f"    {line}".rstrip() for line in text.lines(item.message)]
    return [*head, "", *message, "", *(f"    {disk_line(disk)}" for disk in item.disks)]


def _decoration(item: commit.Commit, tips: Tips, style: text.Style) -> str:
    names = ", ".join(style.branch(text.escape(name)) for name in tips.get(item.id, ()))
    return f" ({names})" if names else ""


def show(item: commit.Commit, branches: Sequence[str], style: text.Style, more: Sequence[str] = ()) -> list[str]:
    """Every fact of one commit, and `more` lines below its date."""
    lines = [style.id(f"commit {item.id}")]
    lines += [f"Parent: {parent}" for parent in item.parents]
    lines.append(f"Branch: {text.escape(item.branch)}")
    if branches:
        lines.append("Tip of: " + ", ".join(style.branch(text.escape(name)) for name in branches))
    lines.append(f"Author: {text.escape(item.author)} on {text.escape(item.host)}")
    lines.append(f"Date:   {text.date(item.time)}")
    lines += more
    lines += ["", *(f"    {line}".rstrip() for line in text.lines(item.message))]
    for disk in item.disks:
        lines += ["", *_disk_facts(disk)]
    for attachment in item.attachments:
        lines += ["", *_attachment_facts(attachment)]
    return lines


def _attachment_facts(attachment: commit.Attachment) -> list[str]:
    facts = {
        "size": text.exact_size(attachment.size),
        "manifest": attachment.manifest,
        "read": text.exact_size(attachment.read_bytes),
        "new": text.exact_size(attachment.new_bytes),
        "stored": text.exact_size(attachment.stored_bytes),
    }
    return [f"attachment {text.escape(attachment.name)}", *table(facts)]


def _disk_facts(disk: commit.Disk) -> list[str]:
    facts = {
        "size": text.exact_size(disk.size),
        "container": text.escape(container(disk.container)),
        "manifest": disk.manifest,
        "allocated": text.exact_size(disk.allocated_bytes),
        "read": text.exact_size(disk.read_bytes),
        "changed": text.exact_size(disk.changed_bytes),
        "new": text.exact_size(disk.new_bytes),
        "stored": text.exact_size(disk.stored_bytes),
    }
    return [f"disk {text.escape(disk.name)}", *table(facts)]


def container(facts: Mapping[str, Any]) -> str:
    """The facts of a container on one line, its format first."""
    names = sorted(facts, key=lambda name: (name != "format", name))
    return ", ".join(f"{name} {plain(facts[name])}" for name in names)


def plain(value: object) -> str:
    """A value of JSON as people read it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def table(facts: Mapping[str, str], indent: str = "    ") -> list[str]:
    """Names and values in two columns."""
    width = max((len(name) for name in facts), default=0)
    return [f"{indent}{name:<{width}}  {value}".rstrip() for name, value in facts.items()]
