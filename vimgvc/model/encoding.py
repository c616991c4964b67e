"""Bounded reading of untrusted bytes, and canonical JSON (specs/formats.md §1).

The only place that slices bytes that came from outside; everything that goes wrong is a
`FormatError` naming the structure.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from typing import Any, NoReturn

from vimgvc import errors

MAX_JSON = 64 << 20
MAX_DEPTH = 16
_MAX_INT = (1 << 63) - 1
_HEX = re.compile(r"[0-9a-f]*")


class Cursor:
    """Reads fields in order from `data`; `where` names the structure in errors."""

    def __init__(self, data: bytes | memoryview, where: str) -> None:
        self._data = memoryview(data)
        self._at = 0
        self.where = where

    def take(self, length: int) -> memoryview:
        end = self._at + length
        if end > len(self._data):
            self.fail("ends too early")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def end(self) -> None:
        if self._at != len(self._data):
            self.fail("has trailing bytes")

    def zeros(self, length: int) -> None:
        if any(self.take(length)):
            self.fail("has non-zero reserved bytes")

    def fail(self, reason: str) -> NoReturn:
        raise errors.FormatError(self.where, reason)


def dumps_canonical(value: object) -> bytes:
    """The one JSON encoding of `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def loads_canonical(data: bytes, where: str) -> Any:
    """Parse canonical JSON.

    Raises `FormatError` for anything that is not exactly the canonical encoding of its value.
    """
    if len(data) > MAX_JSON:
        raise errors.FormatError(where, "is larger than 64 MiB")
    try:
        value = json.loads(data, parse_float=_refuse_number, parse_constant=_refuse_number)
        _check((value,), 1, where)
        same = dumps_canonical(value) == data
    except (ValueError, RecursionError) as error:
        raise errors.FormatError(where, "is not canonical JSON") from error
    if not same:
        raise errors.FormatError(where, "is not canonical JSON")
    return value


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(text)


def _check(values: Iterable[object], depth: int, where: str) -> None:
    for value in values:
        kind = type(value)
        if kind is dict or kind is list:
            if depth > MAX_DEPTH:
                raise errors.FormatError(where, "is nested too deeply")
            _check(value.values() if isinstance(value, dict) else value, depth + 1, where)  # type: ignore[arg-type]
        elif kind is int and not -_MAX_INT <= value <= _MAX_INT:  # type: ignore[operator]
            raise errors.FormatError(where, "has a number out of range")


class Members:
    """Typed access to the members of a parsed object; each must be read, none may be left over."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise errors.FormatError(where, "is not an object")
        self._left: dict[str, Any] = dict(value)
        self.where = where

    def get(self, name: str, kind: type) -> Any:
        if name not in self._left:
            raise errors.FormatError(self.where, f"lacks the member '{name}'")
        value = self._left.pop(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise errors.FormatError(self.where, f"has a member '{name}' of the wrong type")
        return value

    def text(self, name: str) -> str:
        value: str = self.get(name, str)
        return value

    def number(self, name: str) -> int:
        value: int = self.get(name, int)
        if value < 0:
            raise errors.FormatError(self.where, f"has a negative '{name}'")
        return value

    def hex(self, name: str, size: int) -> str:
        """A lower-case hexadecimal member of `size` bytes."""
        return check_hex(self.text(name), size, self.where)

    def hex_or_none(self, name: str, size: int) -> str | None:
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.hex(name, size)

    def version(self, what: str) -> None:
        """Read the member `v`; raises `Unsupported` for a later version of `what`."""
        version = self.number("v")
        if version != 1:
            raise errors.Unsupported(f"{what} version {version}")

    def end(self) -> None:
        if self._left:
            raise errors.FormatError(self.where, f"has an unknown member '{min(self._left)}'")


def check_hex(text: object, size: int, where: str) -> str:
    if not isinstance(text, str) or len(text) != 2 * size or not _HEX.fullmatch(text):
        raise errors.FormatError(where, f"does not hold {2 * size} lower-case hexadecimal digits")
    return text
