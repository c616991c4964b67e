"""Where a result goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A new file, or with `force` also one that is there, outside the `forbidden` folders.

    `tag` is the same for the same result, so that an interrupted run is continued.
    """

    path: str
    tag: str
    force: bool = False
    forbidden: Sequence[str] = ()
