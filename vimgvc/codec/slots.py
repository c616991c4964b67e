"""Key slots: the root key wrapped by a secret (specs/formats.md §5, reasons in specs/crypto.md).

A slot comes from a place that nobody needs to trust. In this order: its public checksum, its form,
the bounds of its KDF, the KDF, the commitment to the key, the tag. What fails before the checksum
fits is damage (`SlotDamaged`), what fails after it was written on purpose (`FormatError`).
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from vimgvc import errors
from vimgvc.codec import aead, keys
from vimgvc.model import commit, encoding

MAX_SLOT = 16384
MAX_LABEL = 200
#: Bytes of a configuration inside a slot.
CONFIG_SIZES = range(2, 4097)
WHERE = "key slot"

_VERSION = 1
_ZERO_NONCE = bytes(aead.NONCE_SIZE)
#: What would let a label write on a terminal what is not there: control characters, direction marks
#: (and halves of surrogate pairs, which cannot be written at all).
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """The public facts of a slot; `kdf` in words."""

    id: str
    type: str
    label: str
    created: str
    kdf: str


@dataclass(frozen=True, slots=True)
class _Slot:
    info: SlotInfo
    profile: keys.KdfProfile | None
    salt: bytes
    header: bytes
    commitment: bytes
    wrap: bytes


def make_slot(
    secret: keys.Secret,
    root: bytes,
    config: bytes,
    *,
    label: str,
    created: str,
    rng: aead.Rng,
    profile: keys.KdfProfile = keys.DEFAULT,
    memory_limit: int = keys.MEMORY_ALWAYS,
) -> bytes:
    """A new slot in which `secret` opens `root` and `config`; `memory_limit` is in bytes."""
    if len(root) != keys.ROOT_SIZE or len(config) not in CONFIG_SIZES:
        raise ValueError("a slot holds a root key and a configuration")
    check_label(label)
    commit.check_time(created, WHERE)
    kdf: dict[str, object] = {"name": "blake3"}
    if secret.kind == keys.PASSPHRASE:
        profile.check(WHERE, memory_limit)
        kdf = {"m": profile.memory_kib, "name": "argon2id", "p": profile.lanes, "t": profile.passes}
    facts: dict[str, object] = {"created": created, "kdf": kdf, "label": label, "type": secret.kind, "v": _VERSION}
    slot_id, salt = _hedge(secret, root, config, facts, rng)
    header = encoding.dumps_canonical({**facts, "id": slot_id.hex(), "kdf": {**kdf, "salt": salt.hex()}})
    kek, committer = _stretch(secret, salt, profile)
    commitment = blake3(header, key=committer).digest()
    wrap = bytearray(len(root) + len(config) + aead.TAG_SIZE)
    aead.seal_into(kek, _ZERO_NONCE, root + config, header + commitment, memoryview(wrap))
    return _with_checksum(
        {**encoding.loads_canonical(header, WHERE), "commitment": commitment.hex(), "wrap": wrap.hex()}
    )


def open_slot(blob: bytes, secret: keys.Secret, *, memory_limit: int) -> tuple[bytes, bytes]:
    """The root key and the configuration in the slot; `memory_limit` is in bytes.

    Raises `NoKey` for a secret of another slot, `SlotDamaged`, `FormatError` for a slot that no
    writer wrote, `Unsupported` for one of a later version.
    """
    slot = _parse(blob)
    if slot.profile is not None:
        slot.profile.check(WHERE, memory_limit)
    if slot.info.type != secret.kind:
        raise errors.NoKey(f"this key slot takes a {slot.info.type}")
    kek, committer = _stretch(secret, slot.salt, slot.profile)
    if not hmac.compare_digest(blake3(slot.header, key=committer).digest(), slot.commitment):
        raise errors.NoKey(f"this key slot does not open with that {slot.info.type}")
    plain = aead.unseal(kek, _ZERO_NONCE, slot.wrap, slot.header + slot.commitment, WHERE)
    return plain[: keys.ROOT_SIZE], plain[keys.ROOT_SIZE :]


def describe_slot(blob: bytes) -> SlotInfo:
    """What anyone can see of a slot, after every check that needs no secret."""
    return _parse(blob).info


def check_label(label: str) -> None:
    if len(label) > MAX_LABEL or _CONTROLS.search(label) is not None:
        raise errors.UsageError(f"a label has at most {MAX_LABEL} characters, on one line")


def _hedge(
    secret: keys.Secret, root: bytes, config: bytes, facts: dict[str, object], rng: aead.Rng
) -> tuple[bytes, bytes]:
    """Identifier and salt from randomness *and* everything the slot is made of.

    The nonce of a slot is fixed, so the salt is all that keeps (key, nonce) from coming back. Even
    when the random generator repeats itself, it only does so for a slot that is the same throughout.
    """
    hedge = keys.PurposeKeys(root).hedge
    everything = encoding.dumps_canonical(
        {
            "config": config.hex(),
            "facts": facts,
            "random": aead.random_bytes(rng, 32).hex(),
            "secret": blake3(secret.value, key=hedge).hexdigest(),
        }
    )
    stream = blake3(everything, key=hedge).digest(48)
    return stream[:16], stream[16:]


def _stretch(secret: keys.Secret, salt: bytes, profile: keys.KdfProfile | None) -> tuple[bytes, bytes]:
    """The key that wraps, and the key that commits to it."""
    if secret.kind == keys.PASSPHRASE and profile is not None:
        both = keys.stretch_passphrase(secret.value, salt, profile)
    else:
        both = keys.stretch_random(secret.value, salt)
    return both[:32], both[32:]


def _with_checksum(members: dict[str, object]) -> bytes:
    checksum = blake3(encoding.dumps_canonical(members)).hexdigest()
    return encoding.dumps_canonical({**members, "checksum": checksum})


def _parse(blob: bytes) -> _Slot:
    value = _check_sum(blob)
    members = encoding.Members(value, WHERE)
    version = members.number("v")
    if version != _VERSION:
        raise errors.Unsupported(f"key slot version {version}")
    kind = members.text("type")
    if kind not in keys.KINDS:
        raise errors.Unsupported("a key slot that takes neither passphrase, key file nor recovery code")
    members.get("checksum", str)
    commitment = bytes.fromhex(members.hex("commitment", 32))
    profile, salt = _parse_kdf(members.get("kdf", dict), kind)
    info = SlotInfo(
        id=members.hex("id", 16),
        type=kind,
        label=_parse_label(members.text("label")),
        created=members.text("created"),
        kdf="blake3" if profile is None else _describe(profile),
    )
    commit.check_time(info.created, WHERE)
    wrap = _parse_wrap(members.text("wrap"))
    members.end()
    header = {name: item for name, item in value.items() if name not in ("checksum", "commitment", "wrap")}
    return _Slot(info, profile, salt, encoding.dumps_canonical(header), commitment, wrap)


def _check_sum(blob: bytes) -> dict[str, Any]:
    """The parsed slot, if it is as it was written."""
    if len(blob) > MAX_SLOT:
        raise errors.SlotDamaged(WHERE, f"is larger than {MAX_SLOT} bytes")
    try:
        value = encoding.loads_canonical(blob, WHERE)
        checksum = encoding.check_hex(value.get("checksum") if isinstance(value, dict) else None, 32, WHERE)
    except errors.FormatError as error:
        raise errors.SlotDamaged(WHERE, f"is damaged ({error.reason})") from error
    rest = encoding.dumps_canonical({name: item for name, item in value.items() if name != "checksum"})
    if not hmac.compare_digest(blake3(rest).digest(), bytes.fromhex(checksum)):
        raise errors.SlotDamaged(WHERE, "is damaged (its checksum does not fit)")
    return dict(value)


def _parse_kdf(value: object, kind: str) -> tuple[keys.KdfProfile | None, bytes]:
    members = encoding.Members(value, WHERE)
    name = members.text("name")
    if name != ("argon2id" if kind == keys.PASSPHRASE else "blake3"):
        raise errors.FormatError(WHERE, f"has a key derivation that does not belong to a {kind}")
    salt = bytes.fromhex(members.hex("salt", 32))
    profile = None
    if kind == keys.PASSPHRASE:
        profile = keys.KdfProfile("stored", members.number("m"), members.number("t"), members.number("p"))
        profile.check(WHERE, memory_limit=keys.MEMORY_KIB[-1] << 10)
    members.end()
    return profile, salt


def _parse_label(label: str) -> str:
    if len(label) > MAX_LABEL or _CONTROLS.search(label) is not None:
        raise errors.FormatError(WHERE, "has a label that is too long or holds control characters")
    return label


def _parse_wrap(text: str) -> bytes:
    size, odd = divmod(len(text), 2)
    if odd or size - keys.ROOT_SIZE - aead.TAG_SIZE not in CONFIG_SIZES:
        raise errors.FormatError(WHERE, "has a wrapped key of an impossible length")
    return bytes.fromhex(encoding.check_hex(text, size, WHERE))


def _describe(profile: keys.KdfProfile) -> str:
    return f"argon2id, {profile.memory_kib >> 10} MiB, {profile.passes} passes, {profile.lanes} lanes"
