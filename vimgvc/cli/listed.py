"""JSON that may be too long to be made at once: lines of a document, as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def member(name: str, value: Any, *, last: bool = False) -> Iterator[str]:
    """The lines of one member of a document, indented as `json.dumps(…, indent=2)` does."""
    lines = f"{json.dumps(name)}: {json.dumps(value, indent=2)}{'' if last else ','}".splitlines()
    return (f"  {line}" for line in lines)


def separated(items: Iterator[str]) -> Iterator[str]:
    """The items of a list, with commas between them."""
    held = next(items, None)
    for item in items:
        yield f"{held},"
        held = item
    if held is not None:
        yield held
