"""The options of every command that writes images, and how what they wrote is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc.cli import text, verb

if TYPE_CHECKING:
    from vimgvc.commands import export


def _option(*names: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False)


@dataclass(frozen=True, slots=True)
class Output:
    """What is to be written, and how; None and False mean: not said."""

    new_format: Annotated[
        str | None, _option("--format", metavar="FORMAT", text="Format of the new image.  [default: as it came]")
    ] = None
    options: Annotated[
        list[str] | None,
        _option("-o", metavar="KEY=VALUE", text="An option of the format, as of qemu-img; repeatable."),
    ] = None
    compress: Annotated[bool | None, _option("--compress/--no-compress", "-c", text="Compress what is written.")] = None
    size: Annotated[str | None, _option("--size", metavar="SIZE", text="Make the disk larger; zeros follow.")] = None
    force: Annotated[bool, _option("--force", "-f", text="Replace TARGET when it exists.")] = False
    no_compare: Annotated[
        bool, _option("--no-compare", text="Do not read the result again to compare it before it gets its name.")
    ] = False
    new_secret_file: Annotated[
        str | None, _option("--new-secret-file", metavar="FILE", text="Holds the passphrase of the new image (luks).")
    ] = None
    threads: verb.Threads = None

    def wanted(self) -> export.Wanted:
        """The same for the commands. Raises `UsageError`."""
        from vimgvc.commands import export

        return export.Wanted(
            self.new_format,
            tuple(self.options or ()),
            self.compress,
            text.parse_option("--size", self.size) if self.size else None,
            force=self.force,
            compare=not self.no_compare,
            threads=self.threads,
            secret_file=self.new_secret_file,
        )


def facts(done: Any) -> dict[str, Any]:
    """What the documents of all these commands have."""
    return {
        "format": done.kind.format,
        "options": dict(done.kind.options),
        "compressed": done.kind.compressed,
        "size": done.size,
        "target": done.target,
        "compared": done.compared,
        "resumed": done.resumed,
        "bytes_written": done.bytes_written,
    }


def described(done: Any) -> str:
    """What was written, in words."""
    place = "standard output" if done.target == "-" else text.escape(done.target)
    words = [f"{place} ({done.kind.format}): {text.size(done.size)}"]
    words.append(f"{text.size(done.bytes_written)} written in {text.seconds(done.seconds)}")
    if done.resumed:
        words.append("resumed")
    if done.compared:
        words.append("compared")
    return ", ".join(words)
