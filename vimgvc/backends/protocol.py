"""Waist 2: a place for immutable blobs.

A name is `<area>` or `<area>/<lower-case words>` as `validate_name` says. A blob is put whole, once:
it is complete and durable under its final name, or absent. Nothing is ever overwritten.
Every failure is a `VimgvcError` (`BackendError`, `NoSpace`, `NotFound`); no `OSError` gets out.
All methods may be called from several threads at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vimgvc import errors

#: Anything with the buffer protocol that is contiguous.
Buffer = bytes | bytearray | memoryview

_NAME = re.compile(r"[a-z0-9]+(?:[-/][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a place can promise; declared, never sniffed."""

    durable: bool
    exclusive_create: bool
    read_only: bool = False


class Backend(Protocol):
    @property
    def url(self) -> str:
        """For messages; without credentials."""

    @property
    def capabilities(self) -> Capabilities: ...

    def put(self, name: str, parts: Sequence[Buffer]) -> bool:
        """Store the concatenation of `parts`, if the name is free; durable on return (see `sync`).

        Returns False when the name exists already (nothing written). The caller may reuse the
        buffers after the return.
        """

    def sync(self) -> None:
        """Return when everything put before is durable, names included.

        `put` makes a blob's bytes durable before it has its name; the name itself is promised
        only after `sync`.
        """

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly `length` bytes from `offset` (None: to the end).

        Raises `NotFound` when absent, `IntegrityError` when the blob ends before the range does.
        """

    def size(self, name: str) -> int:
        """Size in bytes; raises `NotFound`."""

    def list(self, area: str) -> Iterator[Item]:
        """Every blob below `area`, in no order. Foreign names (temporary files, lost+found, …) are skipped."""

    def delete(self, name: str) -> None:
        """Remove a blob; absent is fine. Only `gc` and the removal of key slots call this."""


def validate_name(name: str) -> str:
    """`name`, or `ValueError`: relative, lower-case ASCII, no `..`, at most 200 characters."""
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise ValueError(f"not a blob name: {name!r}")
    return name


def missing(name: str) -> errors.NotFound:
    return errors.NotFound("object", name, hint="run 'vimgvc verify' to see what is affected")
