"""Vectors of records that a commit is forgotten (formats.md §14)."""

from __future__ import annotations

from collections.abc import Iterator

from vectors import kit

_COMMIT = bytes(range(32))
#: name: (expect, comment, what differs; None is left out)
_RECORDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "forgotten_plain": ("success", "with a reason", {"reason": "too old"}),
    "forgotten_text": ("success", "a reason of several lines and scripts", {"reason": 'é\n"鍵"\t\x00', "host": ""}),
    "forgotten_version_unknown": ("Unsupported", "of version 2", {"v": 2, "more": 1}),
    "forgotten_member": ("FormatError", "an unknown member", {"more": 1}),
    "forgotten_member_missing": ("FormatError", "no reason", {"reason": None}),
    "forgotten_time": ("FormatError", "a time with an offset", {"time": "2026-01-02T03:04:05+00:00"}),
    "forgotten_commit_short": ("FormatError", "31 bytes", {"commit": _COMMIT[:31].hex()}),
    "forgotten_commit_other": ("FormatError", "about another commit than its place", {"commit": "ab" * 32}),
}


def vectors() -> Iterator[kit.Vector]:
    for name, (expect, comment, changes) in _RECORDS.items():
        yield _vector(name, expect, comment, kit.seal(b"F", kit.dumps(_record(**changes)), _COMMIT))
    yield _vector("forgotten_not_object", "FormatError", "a list", kit.seal(b"F", b"[]", _COMMIT))
    elsewhere = kit.seal(b"F", kit.dumps(_record()), bytes(32))
    yield _vector("forgotten_place", "IntegrityError", "sealed for the place of another commit", elsewhere)
    other = kit.seal(b"C", kit.dumps(_record()), _COMMIT)
    yield _vector("forgotten_type", "FormatError", "sealed as a commit", other)


def _record(**changes: object) -> dict[str, object]:
    members: dict[str, object] = {"commit": _COMMIT.hex(), "host": "h", "reason": "", "time": kit.TIME, "v": 1}
    return {name: value for name, value in {**members, **changes}.items() if value is not None}


def _vector(name: str, expect: str, comment: str, blob: bytes) -> kit.Vector:
    facts = {"name": _COMMIT.hex(), "random": kit.RANDOM.hex()}
    return kit.Vector(name, expect, "forgotten", comment, blob, facts)
