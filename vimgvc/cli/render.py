"""Commits as text. Every name and message in it is escaped (X11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vimgvc.cli import graph, text
from vimgvc.model import commit

SHORT = 12
Tips = Mapping[str, Sequence[str]]


def short(commit_id: str) -> str:
    return commit_id[:SHORT]


def made(item: commit.Commit, seconds: float) -> list[str]:
    """What `commit` says it did."""
    head = f"[{text.escape(item.branch)} {short(item.id)}] {text.subject(item.message)}"
    return [head, *(f"  {disk_line(disk)}" for disk in item.disks), f"  in {text.seconds(seconds)}"]


def disk_line(disk: commit.Disk) -> str:
    """A disk and what recording it cost, on one line."""
    return (
        f"disk {text.escape(disk.name)}  {text.size(disk.size)}, read {text.size(disk.read_bytes)}, "
        f"new {text.size(disk.new_bytes)}, stored {text.size(disk.stored_bytes)}"
    )


def log(
    commits: Iterable[commit.Commit], tips: Tips, style: text.Style, *, oneline: bool, graphed: bool
) -> Iterator[str]:
    """The lines of a history."""
    lanes = graph.Graph()
    between: str | None = None
    for item in commits:
        entry = [_oneline(item, tips, style)] if oneline else _entry(item, tips, style)
        block = lanes.add(item.id, item.parents) if graphed else graph.Block([], "", [], "")
        if between is not None and not oneline and not block.above:
            yield between
        yield from block.beside(entry, style.graph) if graphed else entry
        between = style.graph(block.rest)


def _oneline(item: commit.Commit, tips: Tips, style: text.Style) -> str:
    return f"{style.id(short(item.id))}{_decoration(item, tips, style)} {text.subject(item.message)}"


def _entry(item: commit.Commit, tips: Tips, style: text.Style) -> list[str]:
    head = [f"{style.id('commit ' + short(item.id))}{_decoration(item, tips, style)}"]
    if len(item.parents) > 1:
        head.append("Merge:  " + " ".join(short(parent) for parent in item.parents))
    head.append(f"Author: {text.escape(item.author)} on {text.escape(item.host)}")
    head.append(f"Date:   {text.date(item.time)}")
    message = [f"    {line}".rstrip() for line in text.lines(item.message)]
    return [*head, "", *message, "", *(f"    {disk_line(disk)}" for disk in item.disks)]


def _decoration(item: commit.Commit, tips: Tips, style: text.Style) -> str:
    names = ", ".join(style.branch(text.escape(name)) for name in tips.get(item.id, ()))
    return f" ({names})" if names else ""


def show(item: commit.Commit, branches: Sequence[str], style: text.Style) -> list[str]:
    """Every fact of one commit."""
    lines = [style.id(f"commit {item.id}")]
    lines += [f"Parent: {parent}" for parent in item.parents]
    lines.append(f"Branch: {text.escape(item.branch)}")
    if branches:
        lines.append("Tip of: " + ", ".join(style.branch(text.escape(name)) for name in branches))
    lines.append(f"Author: {text.escape(item.author)} on {text.escape(item.host)}")
    lines.append(f"Date:   {text.date(item.time)}")
    lines += ["", *(f"    {line}".rstrip() for line in text.lines(item.message))]
    for disk in item.disks:
        lines += ["", *_disk_facts(disk)]
    return lines


def _disk_facts(disk: commit.Disk) -> list[str]:
    container = ", ".join(f"{key} {value}" for key, value in sorted(disk.container.items()))
    facts = {
        "size": text.exact_size(disk.size),
        "container": text.escape(container),
        "manifest": disk.manifest,
        "allocated": text.exact_size(disk.allocated_bytes),
        "read": text.exact_size(disk.read_bytes),
        "changed": text.exact_size(disk.changed_bytes),
        "new": text.exact_size(disk.new_bytes),
        "stored": text.exact_size(disk.stored_bytes),
    }
    return [f"disk {text.escape(disk.name)}", *table(facts)]


def table(facts: Mapping[str, str], indent: str = "    ") -> list[str]:
    """Names and values in two columns."""
    width = max((len(name) for name in facts), default=0)
    return [f"{indent}{name:<{width}}  {value}".rstrip() for name, value in facts.items()]
