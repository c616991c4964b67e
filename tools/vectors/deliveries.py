"""Vectors of slots of write keys, keys of deliveries and records of deliveries (formats.md §5, §17, §18)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vectors import kit

_ID, _SALT = bytes([3]) * 16, bytes([3]) * 32
_SECRET, _DELIVERY, _EPHEMERAL = bytes(range(1, 33)), bytes(range(16)), bytes(range(2, 34))
_COMMIT = bytes(range(32))
_BRANCH, _MOMENT = b"web1/", 1_767_323_045_000_000_000


def vectors() -> Iterator[kit.Vector]:
    yield from _slots()
    yield from _keys()
    yield from _records()


def _stream(root: bytes = kit.ROOT) -> bytes:
    """KEK, C, W and X."""
    secret = blake3(kit.purpose("inbox", root), derive_key_context="vimgvc 1 slot secret").digest()
    return blake3(secret, key=_SALT).digest(128)


def _slot(
    branch: bytes = _BRANCH, *, root: bytes = kit.ROOT, size: int = 1024, after: dict[str, object] | None = None
) -> bytes:
    stream = _stream(root)
    facts: dict[str, object] = {
        "created": kit.TIME,
        "id": _ID.hex(),
        "kdf": {"name": "blake3", "salt": _SALT.hex()},
        "label": "web1",
        "type": "write-only",
        "v": 1,
    }
    header = kit.dumps(facts)
    commitment = blake3(header, key=stream[32:64]).digest()
    wrap = AESGCM(stream[:32]).encrypt(bytes(12), branch.ljust(size, b"\0"), header + commitment)
    facts = {**facts, "commitment": commitment.hex(), "wrap": wrap.hex(), **(after or {})}
    return kit.dumps({**facts, "checksum": blake3(kit.dumps(facts)).hexdigest()})


def _slots() -> Iterator[kit.Vector]:
    cases = {
        "slot_write": ("success", "for all branches below one", _slot(), "web1/"),
        "slot_write_exact": ("success", "for one branch", _slot("büro/鍵".encode()), "büro/鍵"),
        "slot_write_root": ("NoKey", "made with another root key", _slot(root=bytes(32)), ""),
        "slot_write_label": ("NoKey", "the label was changed, and the checksum", _slot(after={"label": "db"}), ""),
        "slot_write_wrap": ("FormatError", "one byte less than all others", _slot(size=1023), ""),
        "slot_write_branch": ("FormatError", "a branch that is not text", _slot(b"\xff"), ""),
    }
    for name, (expect, comment, body, branch) in cases.items():
        facts = {"branch": branch.encode().hex()} if branch else {}
        yield kit.Vector(name, expect, "write_slot", comment, body, facts)


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@dataclass(frozen=True)
class _How:
    """What a key is made for, and by whom."""

    delivery: bytes = _DELIVERY
    repo: bytes = kit.REPO
    writer: bytes = _stream()[64:96]
    point: bytes = b""


def _key(body: bytes, how: _How = _How(), slot: bytes = _ID) -> bytes:
    public = _public(_stream()[96:])
    shared = X25519PrivateKey.from_private_bytes(_EPHEMERAL).exchange(X25519PublicKey.from_public_bytes(public))
    start = slot + (how.point or _public(_EPHEMERAL))
    context = how.repo + how.delivery + start
    meta = blake3(b"seal\0" + shared + public + context, key=how.writer).digest()
    salt = blake3(kit.RANDOM + b"D" + context + body, key=kit.purpose("hedge", _SECRET)).digest()
    plain = kit.plaintext(body)
    head = b"vimgvcD\1" + salt + struct.pack("<I", len(plain) + 16)
    key = blake3(b"D" + salt, key=meta).digest()
    return start + kit.with_hash(head + AESGCM(key).encrypt(bytes(12), plain, head + context))


def _body(**changes: object) -> bytes:
    members: dict[str, object] = {"commit": _COMMIT.hex(), "moment": _MOMENT, "root": _SECRET.hex(), "v": 1, **changes}
    return kit.dumps({name: value for name, value in members.items() if value is not None})


def _keys() -> Iterator[kit.Vector]:
    good = _key(_body())
    cases = {
        "delivery_plain": ("success", "as a host makes it", good),
        "delivery_version_unknown": ("Unsupported", "of version 2", _key(_body(v=2, more=1))),
        "delivery_place": ("IntegrityError", "made for another delivery", _key(_body(), _How(delivery=bytes(16)))),
        "delivery_repo": ("IntegrityError", "made for another repository", _key(_body(), _How(repo=bytes(16)))),
        "delivery_slot": ("FormatError", "names another slot", _key(_body(), slot=bytes(16))),
        "delivery_writer": (
            "IntegrityError",
            "made without the key of the host",
            _key(_body(), _How(writer=bytes(32))),
        ),
        "delivery_point": ("FormatError", "a point that makes nothing secret", _key(_body(), _How(point=bytes(32)))),
        "delivery_short": ("FormatError", "nothing behind the point", good[:48]),
        "delivery_long": ("FormatError", "4097 bytes", good + bytes(4097 - len(good))),
        "delivery_changed": ("IntegrityError", "the commit in it was changed", good[:-40] + bytes(8) + good[-32:]),
        "delivery_member": ("FormatError", "an unknown member", _key(_body(more=1))),
        "delivery_member_missing": ("FormatError", "no commit", _key(_body(commit=None))),
        "delivery_commit_short": ("FormatError", "31 bytes", _key(_body(commit=_COMMIT[:31].hex()))),
        "delivery_root_short": ("FormatError", "31 bytes", _key(_body(root=_SECRET[:31].hex()))),
        "delivery_moment_text": ("FormatError", "a moment in words", _key(_body(moment=kit.TIME))),
        "delivery_not_object": ("FormatError", "a list", _key(b"[]")),
    }
    for name, (expect, comment, blob) in cases.items():
        facts = {
            "delivery": _DELIVERY.hex(),
            "slot": _slot().hex(),
            "ephemeral": _EPHEMERAL.hex(),
            "random": kit.RANDOM.hex(),
        }
        yield kit.Vector(name, expect, "delivery", comment, blob, facts)


def _records() -> Iterator[kit.Vector]:
    def sealed(kind: bytes = b"A", place: bytes = _DELIVERY, **changes: object) -> bytes:
        members = {"commit": _COMMIT.hex(), "host": "h", "time": kit.TIME, "v": 1, **changes}
        return kit.seal(kind, kit.dumps({name: item for name, item in members.items() if item != ""}), place)

    cases = {
        "admitted_plain": ("success", "recorded", sealed()),
        "admitted_discarded": ("success", "discarded", sealed(commit=None)),
        "admitted_version_unknown": ("Unsupported", "of version 2", sealed(v=2, more=1)),
        "admitted_place": ("IntegrityError", "made for another delivery", sealed(place=bytes(16))),
        "admitted_type": ("FormatError", "sealed as a pin", sealed(b"P")),
        "admitted_member": ("FormatError", "an unknown member", sealed(more=1)),
        "admitted_member_missing": ("FormatError", "no host", sealed(host="")),
        "admitted_time": ("FormatError", "a time with a fraction", sealed(time="2026-01-02T03:04:05.0Z")),
        "admitted_commit_short": ("FormatError", "31 bytes", sealed(commit=_COMMIT[:31].hex())),
        "admitted_not_object": ("FormatError", "a list", kit.seal(b"A", b"[]", _DELIVERY)),
    }
    for name, (expect, comment, blob) in cases.items():
        facts = {"name": _DELIVERY.hex(), "random": kit.RANDOM.hex()}
        yield kit.Vector(name, expect, "admitted", comment, blob, facts)
