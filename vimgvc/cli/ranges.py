"""Parts of a disk as people type them: REV:DISK@1GiB..2GiB."""

from __future__ import annotations

import re

from vimgvc import errors
from vimgvc.cli import text

#: Sizes begin with a digit; `BRANCH@{…}` is another thing.
_RANGE = re.compile(r"(?P<revision>.+)@(?P<start>[0-9][^@{}:]*?)?\.\.(?P<end>[0-9][^@{}:]*)?", re.DOTALL)
#: No name has two dots, so somebody meant a range.
_MEANT = re.compile(r".+@[^@{}:]*\.\.[^@{}:]*", re.DOTALL)


def split(typed: str) -> tuple[str, tuple[int, int | None] | None]:
    """The revision, and if there is one the range (start, end), in bytes; an end of None: to the end of the disk.

    Raises `UsageError` for a range that is none.
    """
    match = _RANGE.fullmatch(typed)
    if match is None and _MEANT.fullmatch(typed):
        raise _no_range(typed)
    if match is None:
        return typed, None
    start, end = match["start"], match["end"]
    found = (_size(typed, start) if start else 0, _size(typed, end) if end else None)
    if found[1] is not None and found[1] <= found[0]:
        raise errors.UsageError(f"an empty range: {typed}", hint="write where it begins and where it ends: 1GiB..2GiB")
    return match["revision"], found


def _size(typed: str, part: str) -> int:
    found = text.parse_size(part)
    if found is None or found > 1 << 62:
        raise _no_range(typed)
    return found


def _no_range(typed: str) -> errors.UsageError:
    return errors.UsageError(f"not a range of a disk: {typed}", hint="write it like vm:disk@1GiB..2GiB")
