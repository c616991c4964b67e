"""The options of every command that reads images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import text

if TYPE_CHECKING:
    from vimgvc.commands import images


def _option(*names: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False)


@dataclass(frozen=True, slots=True)
class Input:
    """How images may be opened; None and False mean: not said."""

    format_: Annotated[str | None, _option("--format", metavar="FORMAT", text="Format of the image.")] = None
    as_raw: Annotated[bool, _option("--as-raw", text="Take the file itself as the disk, whatever it looks like.")] = (
        False
    )
    snapshot: Annotated[
        str | None, _option("--snapshot", metavar="NAME", text="An internal snapshot instead of the present state.")
    ] = None
    allow_chain: Annotated[
        bool, _option("--allow-chain", text="Read backing files in the image's folder and below it.")
    ] = False
    chain_root: Annotated[
        list[str] | None, _option("--chain-root", metavar="DIR", text="Read backing files below DIR too; repeatable.")
    ] = None
    data_file: Annotated[
        str | None, _option("--data-file", metavar="FILE", text="The external data file of a qcow2.")
    ] = None
    image_secret_file: Annotated[
        str | None, _option("--image-secret-file", metavar="FILE", text="Holds the passphrase of an encrypted image.")
    ] = None
    force_read: Annotated[bool, _option("--force-read", text="Also read an image that is marked as corrupt.")] = False
    skip_bad_sectors: Annotated[
        bool, _option("--skip-bad-sectors", text="Take zeros for what the disk cannot read; ends with exit code 3.")
    ] = False
    allow_changing: Annotated[
        bool, _option("--allow-changing", text="Accept an image that changes while it is read.")
    ] = False

    def access(self) -> images.Access:
        """The same for the commands. Raises `UsageError` for what excludes each other."""
        from vimgvc.commands import images

        return images.access(
            self.format_,
            as_raw=self.as_raw,
            snapshot=self.snapshot,
            allow_chain=self.allow_chain,
            chain_roots=tuple(self.chain_root or ()),
            data_file=self.data_file,
            secret_file=self.image_secret_file,
            force_read=self.force_read,
            skip_bad=self.skip_bad_sectors,
            allow_changing=self.allow_changing,
        )

    @staticmethod
    def check_complete(*containers: Mapping[str, Any]) -> None:
        """Raise `Incomplete` if something of these images could not be read, which only --skip-bad-sectors allows."""
        lost = sum(container.get("unreadable_bytes", 0) for container in containers)
        if lost:
            raise errors.Incomplete(
                f"{text.size(lost)} could not be read and are zeros",
                hint="'vimgvc show' lists where, under 'unreadable'",
            )


@dataclass(frozen=True, slots=True)
class ConvertInput(Input):
    """The same where `--format` is about the result."""

    format_: Annotated[str | None, _option("--from", metavar="FORMAT", text="Format of the image that is read.")] = None
