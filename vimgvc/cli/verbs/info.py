"""`vimgvc info`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc.cli import render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import info as command_types

app = verb.new_app()

#: Facts of containers that are numbers of bytes.
_SIZES = ("sector_size",)
#: Shown elsewhere.
_APART = (
    "block_size",
    "cluster_size",
    "compressed",
    "format",
    "backing_file",
    "backing_format",
    "data_file",
    "snapshot",
    "encryption",
    "compression_type",
)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc info vm.qcow2
      vimgvc info vm.qcow2 --json
      vimgvc info disk.img --format raw   whatever it looks like

    Reads a few MiB at most, opens no other file than IMAGE, and needs no repository.
    Names of other files in it are shown, never followed.
    """,
)
def info(
    run: session.Session,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image or device to look at.")],
    format_: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Format of the image.", show_default=False)
    ] = None,
) -> None:
    """Show what an image is and holds."""
    from vimgvc.commands import images
    from vimgvc.commands import info as command

    found = command.run(image, images.access(format_))
    if run.out.json:
        run.out.document(dataclasses.asdict(found))
        return
    run.out.lines(lines(found))
    for warning in found.warnings:
        run.out.problem(warning)


def lines(found: command_types.Info) -> list[str]:
    facts = {
        "format": found.format,
        **({} if found.disks else {"virtual size": _size(found.virtual_size)}),
        "file size": _size(found.file_size),
        "on disk": _size(found.allocated_bytes),
        **({} if found.disks else {"guest data": _size(found.data_bytes)}),
    }
    if found.cluster_size is not None:
        facts["cluster size"] = text.size(found.cluster_size)
    facts |= {
        name.replace("_", " "): _fact(name, value) for name, value in found.container.items() if name not in _APART
    }
    kind = found.container.get("compression_type")
    if "compressed" in found.container:
        facts["compressed"] = f"{render.plain(found.container['compressed'])} ({kind or 'zlib'})"
    if found.format not in ("raw", "ova"):
        facts["encryption"] = found.encryption or "none"
    if found.backing_file is not None:
        shown = f" ({text.escape(found.backing_format)})" if found.backing_format else ""
        facts["backing file"] = f"{text.escape(found.backing_file)}{shown}, not opened"
    if found.data_file is not None:
        facts["data file"] = f"{text.escape(found.data_file) or 'not named'}, not opened"
    many = [("files", f"{text.escape(name)}, not opened") for name in found.files]
    many += [("disks", _disk(one)) for one in found.disks]
    many += [("snapshots", _snapshot(one)) for one in found.snapshots] + [
        ("bitmaps", _bitmap(one)) for one in found.bitmaps
    ]
    listed = render.table(facts, indent="")
    width = max(len(name) for name in facts)
    last = ""
    for name, line in many:
        listed.append(f"{name if name != last else '':<{width}}  {line}")
        last = name
    return [text.escape(found.image), *(f"  {line}" for line in listed)]


def _size(count: int | None) -> str:
    return "not known" if count is None else text.exact_size(count)


def _fact(name: str, value: Any) -> str:
    if name in _SIZES and isinstance(value, int):
        return text.size(value)
    return text.escape(render.plain(value))


def _disk(one: dict[str, Any]) -> str:
    file = f"{text.escape(one['file'])}, {text.size(one['file_size'])}" if one["file"] else "empty"
    return f"{text.escape(one['name'])}  {text.size(one['size'])}  {one['format'] or 'some format'} in {file}"


def _snapshot(one: dict[str, Any]) -> str:
    parts = (one["id"], one["name"], text.date(one["time"]), "" if one["size"] is None else text.size(one["size"]))
    state = f"with {text.size(one['vm_state_bytes'])} of memory" if one["vm_state_bytes"] else ""
    return "  ".join(text.escape(part) for part in (*parts, state) if part)


def _bitmap(one: dict[str, Any]) -> str:
    state = ", was not saved properly" if one["in_use"] else "" if one["auto"] else ", disabled"
    return f"{text.escape(one['name'])}  {text.size(one['granularity'])} a bit{state}"
