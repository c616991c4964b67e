"""Waist 2: a place for immutable blobs.

A blob is put whole, once: it is complete and durable under its final name, or absent. Nothing is
ever overwritten. Blobs have the names of specs/formats.md §2 and no others: `validate_name` holds
on the way in and on the way out, so what else lies in the place is never taken for a blob.
Every failure is a `VimgvcError` (`BackendError`, `NoSpace`, `NotFound`, `IntegrityError`); no
`OSError` gets out. All methods may be called from several threads at once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vimgvc import errors

#: Anything with the buffer protocol that is contiguous.
Buffer = bytes | bytearray | memoryview

#: Packs can be this large or larger, and are read in parts; nothing else is (specs/formats.md §12).
MAX_WHOLE = 512 << 20

#: The only blob outside an area.
CONFIG = "config"

_HASH = re.compile(r"[0-9a-f]{64}")
_HALF = re.compile(r"[0-9a-f]{32}")

#: The areas, and what the parts of a name below each look like.
AREAS: dict[str, tuple[re.Pattern[str], ...]] = {
    "keys": (re.compile(r"[0-9a-f]{32}-[01]"),),
    "packs": (re.compile(r"[0-9a-f]{2}"), _HASH),
    "index": (_HASH,),
    "commits": (_HASH,),
    "refs": (_HALF, re.compile(r"[0-9a-f]{16}")),
    "forgotten": (_HASH,),
    "gc": (re.compile(r"[0-9a-f]{16}-(?:begin|reserve|condemn|sweep|spared|taken|done)|[0-9a-f]{64}-promised"),),
    "pins": (_HALF,),
    "inbox": (_HALF, re.compile(r"key|done|(?:packs|index|commits)-[0-9a-f]{64}")),
}

#: Areas that a repository may lack: there they are empty, and made by the first blob.
LATER = frozenset({"forgotten", "gc", "pins", "inbox"})


#: What is smaller: sealed JSON of at most 64 MiB; secrets and parameters.
_SEALED = ("commits", "refs", "forgotten", "pins", "gc")
_MOST = dict.fromkeys(_SEALED, 65 << 20) | {"keys": 1 << 20, CONFIG: 1 << 20}


class Item(NamedTuple):
    """A stored blob. A listing may have hundreds of thousands of them."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a place can promise.

    `durable`: what `sync` confirmed survives a power cut. `exclusive_create`: of several that put one name exactly
    one is told True. `locks`: `lock_exclusive` keeps everybody out that adds. `removes`: `delete` may be called, as
    far as is known. `parallel`: calls in flight at once that are worth it; 1 where a call costs no round trip.
    `listing`: how many of `size` take as long as listing all packs.
    """

    durable: bool
    exclusive_create: bool
    read_only: bool = False
    locks: bool = True
    removes: bool = True
    parallel: int = 1
    listing: int = 1


class Backend(Protocol):
    @property
    def url(self) -> str:
        """For messages; without credentials."""

    @property
    def capabilities(self) -> Capabilities: ...

    def put(self, name: str, parts: Sequence[Buffer]) -> bool:
        """Store the concatenation of `parts`, if the name is free; durable on return (see `sync`).

        Returns False when the name exists already (nothing written): of several that put one name
        at once, exactly one is told True. The parts are not copied, and the caller may reuse them
        after the return.
        """

    def sync(self) -> None:
        """Return when every blob is durable that this object put, found in `put` or `size`, or read.

        `put` makes a blob's bytes durable before it has its name; the name itself is promised
        only after `sync`. Blobs that were found count, because whoever put them may have been
        killed before its own `sync`; that a blob was listed does not count. Once `sync` has failed
        it fails for good: what was put is in doubt, and only another process can find out.
        """

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly `length` bytes from `offset` (None: to the end).

        Raises `NotFound` when absent, `IntegrityError` when the blob ends before the range does, or
        has more bytes than `most` allows and is wanted to the end.
        """

    def size(self, name: str) -> int:
        """Size in bytes; raises `NotFound`."""

    def list(self, area: str) -> Iterator[Item]:
        """Every blob below `area` (`packs`, `packs/ab`, `refs/<blind>`, …), in no order.

        Foreign names (temporary files, lost+found, …) are skipped. A listing that cannot be had
        raises; it is never taken for an empty one.
        """

    def lock_shared(self) -> AbstractContextManager[None]:
        """Held by whoever adds, so that nothing is removed meanwhile; raises `Busy`.

        Does nothing where the place has no locks: nothing is removed there either.
        """

    def lock_exclusive(self) -> AbstractContextManager[None]:
        """Held by whoever removes: nobody adds meanwhile. Raises `Busy`, or that the place has no locks."""

    def delete(self, name: str) -> None:
        """Remove a blob, durably on return; absent is fine.

        Called by `gc`, by `admit`, by the removal of key slots, and for pins and promises that have done their work.
        """

    def delete_all(self, names: Iterable[str]) -> None:
        """As `delete` for many, in no order; what is left after an error is the rest or part of it."""

    def set_aside(self, name: str) -> None:
        """Take a damaged blob out of its area without losing it, durably on return; absent is fine.

        It goes to `quarantine/` below the same name, where no listing looks; one that is there
        already stays, and this one gets a number behind its name. Only `repair` calls this.
        """

    def remove_stale(self, now: float) -> int:
        """Remove what writers left that died more than a week before `now` (seconds since 1970); how many."""

    def close(self) -> None:
        """End connections and threads; what is under way in other threads fails. Nothing may be called afterwards.

        May be called twice, and from a signal handler's exception. What was put stays as durable as `sync` left it.
        """


def is_name(name: str) -> bool:
    """Whether `name` is that of a blob."""
    if name == CONFIG:
        return True
    area, *parts = name.split("/")
    patterns = AREAS.get(area, ())
    return len(parts) == len(patterns) > 0 and _fits(area, parts, patterns)


def validate_name(name: str) -> str:
    """`name` if it is that of a blob, else `ValueError`: a mistake of the program, not of its input."""
    if not is_name(name):
        raise ValueError(f"not a blob name: {name!r}")
    return name


def validate_area(area: str) -> str:
    """`area` if it is an area or a directory in one, else `ValueError`."""
    top, *parts = area.split("/")
    patterns = AREAS.get(top, ())
    if len(parts) >= len(patterns) or not _fits(top, parts, patterns):
        raise ValueError(f"not an area: {area!r}")
    return area


def _fits(area: str, parts: Sequence[str], patterns: Sequence[re.Pattern[str]]) -> bool:
    """Whether `parts` are as the first of `patterns` say; a pack is in the shard of its name only."""
    if not all(pattern.fullmatch(part) for pattern, part in zip(patterns, parts, strict=False)):
        return False
    return area != "packs" or len(parts) < 2 or parts[1].startswith(parts[0])


def aside_names(name: str) -> Iterator[str]:
    """Where a blob that is set aside may go, below `quarantine/`, in the order of trying."""
    yield name
    for number in itertools.count(1):
        yield f"{name}.{number}"


def validate_range(offset: int, length: int | None) -> None:
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: {length} bytes from {offset}")


def most(name: str) -> int:
    """How many bytes of a blob of this name can be read at once to its end (N14)."""
    return _MOST.get(name.partition("/")[0], MAX_WHOLE)


def missing(name: str) -> errors.NotFound:
    return errors.NotFound("object", name, hint="run 'vimgvc verify' to see what is affected")


def too_large(name: str, size: int) -> errors.IntegrityError:
    return errors.IntegrityError(name, f"has an impossible size ({size} bytes)")


def too_short(name: str, size: int, end: int) -> errors.IntegrityError:
    """A blob of `size` bytes was asked for its bytes up to `end`."""
    if size == 0:
        return errors.IntegrityError(name, "is an empty file (a power cut?)")
    return errors.IntegrityError(name, f"ends at byte {size}, before byte {end}")
