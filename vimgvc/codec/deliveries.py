"""Write keys, and what they seal: the key of a delivery (specs/crypto.md §10, layouts in specs/formats.md §17).

Whoever holds a write key seals the root key of a delivery to a public key and forgets it. The private key, and the
slot that lists the write key, come from the repository's root key.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from blake3 import blake3

from vimgvc import errors
from vimgvc.codec import aead, keys, slots
from vimgvc.model import encoding

#: No blob of a sealed key is larger.
MAX_KEY = 4096

_FILE = "write key"
_SLOT_SIZE = 16
_POINT_SIZE = 32
_START = b'{"checksum":"'
_MARK = b',"type":"write-only",'


@dataclass(frozen=True, slots=True)
class WriteKey:
    """What a write key file holds; `repo` and `slot` are hexadecimal."""

    repo: str
    slot: str
    writer: bytes = field(repr=False)
    public: bytes

    def encode(self) -> bytes:
        members: dict[str, object] = {
            "public": self.public.hex(),
            "repository": self.repo,
            "slot": self.slot,
            "type": keys.WRITE,
            "v": 1,
            "writer": self.writer.hex(),
        }
        return encoding.dumps_canonical({**members, "checksum": _checksum(members)}) + b"\n"


@dataclass(frozen=True, slots=True)
class Fresh:
    """What is drawn for one delivery: its root key, its identifier, and a private key for one message."""

    root: bytes = field(repr=False)
    id: bytes
    ephemeral: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the key of a delivery says: its root key, the commit (hexadecimal) that it brings, and when it was made.

    `moment` is in nanoseconds since 1970, by the clock of the host.
    """

    root: bytes = field(repr=False)
    commit: str
    moment: int


def write_key(repo: str, slot: slots.WriteSlot) -> WriteKey:
    return WriteKey(repo, slot.info.id, slot.writer, keys.public_key(slot.private))


def is_write_key(content: bytes) -> bool:
    """Whether a file is, or was, a write key."""
    return content.startswith(_START) and _MARK in content


def parse_write_key(content: bytes) -> WriteKey:
    """Raises `IntegrityError` for one that was damaged, `Unsupported`."""
    value = encoding.loads_canonical(content.removesuffix(b"\n"), _FILE)
    members = encoding.Members(value, _FILE)
    checksum = members.hex("checksum", 32)
    if not hmac.compare_digest(checksum, _checksum({name: value[name] for name in value if name != "checksum"})):
        raise errors.IntegrityError(_FILE, "is damaged (its checksum does not fit)", hint="copy the file again")
    members.version(_FILE)
    if members.text("type") != keys.WRITE:
        raise errors.FormatError(_FILE, "is none")
    key = WriteKey(
        repo=members.hex("repository", 16),
        slot=members.hex("slot", _SLOT_SIZE),
        writer=bytes.fromhex(members.hex("writer", 32)),
        public=bytes.fromhex(members.hex("public", _POINT_SIZE)),
    )
    members.end()
    return key


def draw(key: WriteKey, moment: bytes, rng: aead.Rng) -> Fresh:
    """From randomness and the `moment`: the clone of a running machine draws the same, but not at the same time."""
    stream = blake3(b"draw\0" + aead.random_bytes(rng, 64) + moment, key=key.writer).digest(32 + 16 + 32)
    return Fresh(stream[:32], stream[32:48], stream[48:])


def seal(key: WriteKey, fresh: Fresh, said: tuple[str, int], rng: aead.Rng) -> bytes:
    """The blob that makes a delivery: only the repository's root key opens it, only the write key makes it.

    `said`: commit and moment.
    """
    start = bytes.fromhex(key.slot) + keys.public_key(fresh.ephemeral)
    secret = keys.agree(fresh.ephemeral, key.public, _FILE)
    context = bytes.fromhex(key.repo) + fresh.id + start
    body = encoding.dumps_canonical({"commit": said[0], "moment": said[1], "root": fresh.root.hex(), "v": 1})
    both = _key(key.writer, secret, key.public + context), keys.derive("hedge", fresh.root)
    return start + aead.seal_object(both, aead.DELIVERY, context, body, rng)


def slot_of(blob: bytes, where: str) -> str:
    """The slot of the write key that a blob says it was made with."""
    if not _SLOT_SIZE + _POINT_SIZE < len(blob) <= MAX_KEY:
        raise errors.FormatError(where, "has an impossible size")
    return blob[:_SLOT_SIZE].hex()


def unseal(blob: bytes, slot: slots.WriteSlot, repo: bytes, delivery: bytes, where: str) -> Sealed:
    """Raises `IntegrityError` for anything but what the write key sealed for this delivery."""
    start, sealed = blob[: _SLOT_SIZE + _POINT_SIZE], blob[_SLOT_SIZE + _POINT_SIZE :]
    if slot_of(blob, where) != slot.info.id:
        raise errors.FormatError(where, "was made with another write key")
    secret = keys.agree(slot.private, start[_SLOT_SIZE:], where)
    context = repo + delivery + start
    key = _key(slot.writer, secret, keys.public_key(slot.private) + context)
    members = encoding.Members(
        encoding.loads_canonical(aead.open_object((key, b""), aead.DELIVERY, context, sealed, where), where), where
    )
    members.version("delivery")
    root, commit, moment = members.hex("root", keys.ROOT_SIZE), members.hex("commit", 32), members.number("moment")
    members.end()
    return Sealed(bytes.fromhex(root), commit, moment)


def _key(writer: bytes, secret: bytes, rest: bytes) -> bytes:
    return blake3(b"seal\0" + secret + rest, key=writer).digest()


def _checksum(members: dict[str, object]) -> str:
    return blake3(encoding.dumps_canonical(members)).hexdigest()
