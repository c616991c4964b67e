"""Vectors of promises (formats.md §16)."""

from __future__ import annotations

from collections.abc import Iterator

from vectors import kit

_COMMIT = bytes(range(32))
#: name: (expect, comment, what differs; None is left out)
_RECORDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "promised_plain": ("success", "of a remote", {}),
    "promised_text": ("success", "of a remote in another script", {"remote": 'é\n"鍵"\t\x00'}),
    "promised_version_unknown": ("Unsupported", "of version 2", {"v": 2, "more": 1}),
    "promised_member": ("FormatError", "an unknown member", {"more": 1}),
    "promised_member_missing": ("FormatError", "no remote", {"remote": None}),
    "promised_time": ("FormatError", "a time with an offset", {"time": "2026-01-02T03:04:05+00:00"}),
    "promised_commit_short": ("FormatError", "31 bytes", {"commit": _COMMIT[:31].hex()}),
    "promised_commit_other": ("FormatError", "about another commit than its place", {"commit": "ab" * 32}),
}


def vectors() -> Iterator[kit.Vector]:
    for name, (expect, comment, changes) in _RECORDS.items():
        yield _vector(name, expect, comment, kit.seal(b"E", kit.dumps(_record(**changes)), _COMMIT))
    yield _vector("promised_not_object", "FormatError", "a list", kit.seal(b"E", b"[]", _COMMIT))
    elsewhere = kit.seal(b"E", kit.dumps(_record()), bytes(32))
    yield _vector("promised_place", "IntegrityError", "sealed for the place of another commit", elsewhere)
    other = kit.seal(b"F", kit.dumps(_record()), _COMMIT)
    yield _vector("promised_type", "FormatError", "sealed as the record of a forgotten commit", other)


def _record(**changes: object) -> dict[str, object]:
    members: dict[str, object] = {"commit": _COMMIT.hex(), "remote": "origin", "time": kit.TIME, "v": 1}
    return {name: value for name, value in {**members, **changes}.items() if value is not None}


def _vector(name: str, expect: str, comment: str, blob: bytes) -> kit.Vector:
    facts = {"name": _COMMIT.hex(), "random": kit.RANDOM.hex()}
    return kit.Vector(name, expect, "promised", comment, blob, facts)
