"""Vectors of key slots and recovery kits (formats.md §5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from vectors import kit

_CONFIG = kit.dumps(kit.config())
_KEYFILE, _RECOVERY, _PASSPHRASE = bytes(range(64)), bytes(range(20)), "Grüße".encode()
_OTHER = bytes(range(1, 65))
_SALT = (bytes([1]) * 32).hex()
_ARGON: dict[str, object] = {"m": 8192, "name": "argon2id", "p": 1, "salt": _SALT, "t": 1}


@dataclasses.dataclass(frozen=True)
class _Case:
    expect: str
    comment: str
    kind: str = "keyfile"
    #: Keywords of `kit.slot`.
    how: dict[str, Any] = dataclasses.field(default_factory=dict)
    secret: bytes = b""
    name: str = "01" * 16


def _kdf(**changes: object) -> dict[str, Any]:
    """An Argon2id slot whose parameters were changed after it was sealed, as a hostile place would."""
    return {"after": {"kdf": {**_ARGON, **changes}}}


_CASES = {
    "slot_passphrase": _Case("success", "the cheapest that a reader accepts", "passphrase"),
    "slot_keyfile": _Case("success", "a key file of 64 bytes"),
    "slot_recovery": _Case("success", "a recovery code", "recovery"),
    "slot_label_text": _Case("success", "a label in several scripts", how={"changes": {"label": "Büro 鍵 \U0001f511"}}),
    "slot_version_unknown": _Case("Unsupported", "of version 2", how={"changes": {"v": 2, "new": 1}}),
    "slot_type_unknown": _Case("Unsupported", "of a type of later versions", how={"changes": {"type": "x25519"}}),
    "slot_member": _Case("FormatError", "an unknown member", how={"changes": {"more": 1}}),
    "slot_member_missing": _Case("FormatError", "no label", how={"changes": {"label": None}}),
    "slot_label": _Case("FormatError", "a label with a control character", how={"changes": {"label": "\x1b[2J"}}),
    "slot_label_long": _Case("FormatError", "a label of 201 characters", how={"changes": {"label": "l" * 201}}),
    "slot_created": _Case(
        "FormatError", "a time with a fraction", how={"changes": {"created": "2026-01-02T03:04:05.0Z"}}
    ),
    "slot_kdf_name": _Case("FormatError", "a passphrase without Argon2id", how={"changes": {"type": "passphrase"}}),
    "slot_salt_upper": _Case(
        "FormatError",
        "a salt in upper case",
        how={"changes": {"kdf": {"name": "blake3", "salt": (b"\xab" * 32).hex().upper()}}},
    ),
    "slot_id": _Case("FormatError", "stored under another name", name="02" * 16),
    "slot_kdf_memory": _Case("FormatError", "asks for 2 GiB and 1 KiB", "passphrase", _kdf(m=2097153)),
    "slot_kdf_memory_low": _Case("FormatError", "asks for less than 8 MiB", "passphrase", _kdf(m=8191)),
    "slot_kdf_passes": _Case("FormatError", "asks for 17 passes", "passphrase", _kdf(t=17)),
    "slot_kdf_passes_zero": _Case("FormatError", "asks for no pass", "passphrase", _kdf(t=0)),
    "slot_kdf_lanes": _Case("FormatError", "asks for 17 lanes", "passphrase", _kdf(p=17)),
    "slot_kdf_lanes_zero": _Case("FormatError", "asks for no lane", "passphrase", _kdf(p=0)),
    "slot_wrap_length": _Case("FormatError", "a configuration of 1 byte", how={"after": {"wrap": "00" * 49}}),
    "slot_wrap_long": _Case("FormatError", "a configuration of 4097 bytes", how={"after": {"wrap": "00" * 4145}}),
    "slot_secret": _Case("NoKey", "the key file of another slot", secret=_OTHER),
    "slot_commitment": _Case("NoKey", "commits to another key", how={"bad_commitment": True}),
    "slot_header": _Case("NoKey", "the label was changed, and the checksum with it", how={"after": {"label": "new"}}),
    "slot_wrap_tag": _Case("IntegrityError", "the wrapped key was changed, and the checksum with it"),
}


def vectors() -> Iterator[kit.Vector]:
    for name, case in _CASES.items():
        how = dict(case.how)
        if name == "slot_wrap_tag":
            good = kit.slot("keyfile", _KEYFILE, _CONFIG)
            wrap = good.partition(b'"wrap":"')[2].decode()[:-2]
            how["after"] = {"wrap": f"{int(wrap[0], 16) ^ 1:x}{wrap[1:]}"}
        secrets = {"keyfile": _KEYFILE, "recovery": _RECOVERY, "passphrase": _PASSPHRASE}
        body = kit.slot(case.kind, secrets[case.kind], _CONFIG, **how)
        yield _slot(name, case, body, case.secret or secrets[case.kind])
    good = kit.slot("keyfile", _KEYFILE, _CONFIG)
    damaged = {
        "slot_checksum": ("one letter of the label differs", good.replace(b'"label":""', b'"label":"x"')),
        "slot_not_json": ("the first byte is zero", b"\0" + good[1:]),
        "slot_trailing": ("a line feed at the end", good + b"\n"),
        "slot_empty_file": ("an empty file", b""),
    }
    for name, (comment, body) in damaged.items():
        yield _slot(name, _Case("SlotDamaged", comment), body, _KEYFILE)
    yield from _kits()


def _slot(name: str, case: _Case, body: bytes, secret: bytes) -> kit.Vector:
    facts = {"name": case.name, "secret": f"{case.kind} {secret.hex()}"}
    if case.expect == "success":
        facts["config"] = _CONFIG.hex()
    return kit.Vector(name, case.expect, "slot", case.comment, body, facts)


def _kits() -> Iterator[kit.Vector]:
    slots = [kit.slot("keyfile", _KEYFILE, _CONFIG, number=number) for number in (1, 2)]
    damaged = slots[0].replace(b'"label":""', b'"label":"x"')
    cases = {
        "kit_two_slots": ("success", "two slots", _kit(*slots)),
        "kit_line_feed": ("success", "a line feed at the end", _kit(*slots) + b"\n"),
        "kit_version_unknown": ("Unsupported", "of version 2", _kit(*slots, tail=b'"v":2}')),
        "kit_order": ("FormatError", "the second slot first", _kit(*reversed(slots))),
        "kit_twice": ("FormatError", "the same slot twice", _kit(slots[0], slots[0])),
        "kit_empty": ("FormatError", "no slot", _kit()),
        "kit_slot_checksum": ("SlotDamaged", "a damaged slot", _kit(damaged)),
        "kit_member": ("FormatError", "an unknown member", _kit(*slots, tail=b'"v":1,"x":1}')),
    }
    for name, (expect, comment, body) in cases.items():
        yield kit.Vector(name, expect, "kit", comment, body)


def _kit(*slots: bytes, tail: bytes = b'"v":1}') -> bytes:
    return b'{"repository":"' + kit.REPO.hex().encode() + b'","slots":[' + b",".join(slots) + b"]," + tail
