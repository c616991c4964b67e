"""Vectors of records of a collection (formats.md §13)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vectors import kit

_ONE, _TWO = bytes(31) + b"\1", bytes(31) + b"\2"
_EPOCH = 258
_OTHERS = ("begin", "sweep", "spared", "taken", "done")
_REFS: dict[str, object] = {"00" * 16: [3, "ab" * 32], "ff" * 16: [2**63 - 1, "cd" * 32]}
#: name: (expect, comment, what differs; None is left out)
_RECORDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "collection_nothing": ("success", "names nothing", {}),
    "collection_all": ("success", "names of all kinds", {"packs": [_ONE.hex(), _TWO.hex()], "refs": _REFS}),
    "collection_sweep": ("success", "the second phase", {"phase": "sweep", "index": [_ONE.hex()]}),
    "collection_done": ("success", "the last phase", {"phase": "done", "commits": [_TWO.hex()]}),
    "collection_begin": ("success", "before anything is read, under a lock", {"phase": "begin", "locked": True}),
    "collection_spared": ("success", "what stays after all", {"phase": "spared", "packs": [_ONE.hex()]}),
    "collection_taken": ("success", "given up for another one", {"phase": "taken"}),
    "collection_locked_number": ("FormatError", "a number for a truth value", {"locked": 1}),
    "collection_version_unknown": ("Unsupported", "of version 2", {"v": 2, "more": 1}),
    "collection_member": ("FormatError", "an unknown member", {"more": 1}),
    "collection_member_missing": ("FormatError", "no commits", {"commits": None}),
    "collection_time": ("FormatError", "a time without Z", {"time": "2026-01-02T03:04:05"}),
    "collection_phase_unknown": ("FormatError", "of no known phase, in the place of the first", {"phase": "start"}),
    "collection_epoch_other": ("FormatError", "of another epoch than its place", {"epoch": _EPOCH + 1}),
    "collection_order": ("FormatError", "packs that descend", {"packs": [_TWO.hex(), _ONE.hex()]}),
    "collection_twice": ("FormatError", "an index object twice", {"index": [_ONE.hex(), _ONE.hex()]}),
    "collection_name_short": ("FormatError", "31 bytes", {"packs": [_ONE[:31].hex()]}),
    "collection_refs": ("FormatError", "a ref log with no entry", {"refs": {"00" * 16: [0, "ab" * 32]}}),
    "collection_refs_name": ("FormatError", "a name in the clear", {"refs": {"vm": [1, "ab" * 32]}}),
}


def vectors() -> Iterator[kit.Vector]:
    for name, (expect, comment, changes) in _RECORDS.items():
        phase = str(changes["phase"]) if changes.get("phase") in _OTHERS else "condemn"
        blob = kit.seal(b"G", kit.dumps(_record(**changes)), _context(_EPOCH, phase))
        yield _vector(name, expect, comment, blob, phase)
    other = kit.seal(b"G", kit.dumps(_record(phase="sweep")), _context(_EPOCH, "condemn"))
    yield _vector("collection_phase_other", "FormatError", "of another phase than its place", other)
    zero = kit.seal(b"G", kit.dumps(_record(epoch=0)), _context(0, "condemn"))
    yield _vector("collection_epoch_zero", "FormatError", "epoch 0, in the place for it", zero, epoch=0)
    yield _vector("collection_not_object", "FormatError", "a list", kit.seal(b"G", b"[]", _context(_EPOCH, "condemn")))
    elsewhere = kit.seal(b"G", kit.dumps(_record()), _context(_EPOCH, "done"))
    yield _vector("collection_place", "IntegrityError", "sealed for the place of another phase", elsewhere)


def _context(epoch: int, phase: str) -> bytes:
    return struct.pack("<Q", epoch) + phase.encode()


def _record(**changes: object) -> dict[str, object]:
    names: dict[str, object] = {"commits": [], "index": [], "packs": [], "refs": {}, "locked": False}
    members = {"epoch": _EPOCH, "host": "h", "phase": "condemn", "time": kit.TIME, "v": 1, **names, **changes}
    return {name: value for name, value in members.items() if value is not None}


def _vector(
    name: str, expect: str, comment: str, blob: bytes, phase: str = "condemn", *, epoch: int = _EPOCH
) -> kit.Vector:
    facts = {"name": f"{epoch:016x}-{phase}", "random": kit.RANDOM.hex()}
    return kit.Vector(name, expect, "collection", comment, blob, facts)
