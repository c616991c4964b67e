"""Vectors of pins (formats.md §15)."""

from __future__ import annotations

from collections.abc import Iterator

from vectors import kit

_PLACE, _COMMIT = bytes(range(16)), bytes(range(32))
#: name: (expect, comment, what differs; None is left out)
_PINS: dict[str, tuple[str, str, dict[str, object]]] = {
    "pin_plain": ("success", "of a host", {}),
    "pin_text": ("success", "of a host in another script", {"host": 'é\n"鍵"\t\x00'}),
    "pin_version_unknown": ("Unsupported", "of version 2", {"v": 2, "more": 1}),
    "pin_member": ("FormatError", "an unknown member", {"more": 1}),
    "pin_member_missing": ("FormatError", "no host", {"host": None}),
    "pin_time": ("FormatError", "a time with an offset", {"time": "2026-01-02T03:04:05+00:00"}),
    "pin_commit_short": ("FormatError", "31 bytes", {"commit": _COMMIT[:31].hex()}),
}


def vectors() -> Iterator[kit.Vector]:
    for name, (expect, comment, changes) in _PINS.items():
        yield _vector(name, expect, comment, kit.seal(b"P", kit.dumps(_pin(**changes)), _PLACE))
    yield _vector("pin_not_object", "FormatError", "a list", kit.seal(b"P", b"[]", _PLACE))
    elsewhere = kit.seal(b"P", kit.dumps(_pin()), bytes(16))
    yield _vector("pin_place", "IntegrityError", "sealed for the place of another pin", elsewhere)
    other = kit.seal(b"F", kit.dumps(_pin()), _PLACE)
    yield _vector("pin_type", "FormatError", "sealed as the record of a forgotten commit", other)


def _pin(**changes: object) -> dict[str, object]:
    members: dict[str, object] = {"commit": _COMMIT.hex(), "host": "h", "time": kit.TIME, "v": 1}
    return {name: value for name, value in {**members, **changes}.items() if value is not None}


def _vector(name: str, expect: str, comment: str, blob: bytes) -> kit.Vector:
    facts = {"name": _PLACE.hex(), "random": kit.RANDOM.hex()}
    return kit.Vector(name, expect, "pin", comment, blob, facts)
