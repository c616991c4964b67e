"""What the user lets an image be opened with, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vimgvc.disk import protocol

#: The largest disk that is believed in: 64 TiB.
MAX_SIZE = 64 << 40


@dataclass(frozen=True, slots=True)
class Access:
    """How the user lets an image be opened.

    `declared`: the format the user said, else the content decides. `snapshot`: an internal snapshot's
    name or id. `chain_roots`: folders below which backing files may lie, at most `chain_depth` of them;
    None allows none. `data_file`: the external data file, whatever name the header has. `secret_file`:
    holds the passphrase of an encrypted image. `force_read`: also what is marked corrupt. `skip_bad` and
    `allow_changing`: see `lenient`.
    """

    declared: str | None = None
    snapshot: str | None = None
    chain_roots: tuple[str, ...] | None = None
    chain_depth: int = 16
    data_file: str | None = None
    secret_file: str | None = None
    force_read: bool = False
    skip_bad: bool = False
    allow_changing: bool = False
    max_size: int = MAX_SIZE


@dataclass(frozen=True, slots=True)
class Opened:
    """A disk, what a commit records about its container, and what the user should know."""

    reader: protocol.Source
    container: dict[str, Any]
    notes: tuple[str, ...] = ()
