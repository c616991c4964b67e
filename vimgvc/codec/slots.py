"""Key slots: the root key wrapped by a secret (specs/formats.md §5, reasons in specs/crypto.md).

A slot comes from a place that nobody needs to trust. In this order: its public checksum, its form,
the bounds of its KDF, the KDF, the commitment to the key, the tag. What fails before the checksum
fits is damage (`SlotDamaged`), what fails after it was written on purpose (`FormatError`).
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
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
_WRAPPED = range(keys.ROOT_SIZE + CONFIG_SIZES[0], keys.ROOT_SIZE + CONFIG_SIZES[-1] + 1)
_ZERO_NONCE = bytes(aead.NONCE_SIZE)
#: Bytes of the branch inside a slot of a write key, padded with zeros.
_BRANCH_SIZE = 1024
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
class WriteSlot:
    """A slot of a write key, opened: `branch` is what it may write, ending with `/` for all below it.

    `writer` is the key that who delivers has, `private` the one that he has not.
    """

    info: SlotInfo
    branch: str
    writer: bytes = field(repr=False)
    private: bytes = field(repr=False)


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
    if secret.kind not in keys.KINDS:
        raise errors.UsageError("a write key opens nothing", hint="give a passphrase or another key file")
    kdf: dict[str, object] = {"name": "blake3"}
    if secret.kind == keys.PASSPHRASE:
        profile.check(WHERE, memory_limit)
        kdf = {"m": profile.memory_kib, "name": "argon2id", "p": profile.lanes, "t": profile.passes}
    facts = _facts(secret.kind, label, created, kdf)
    slot_id, salt = _hedge(secret, root, config, facts, rng)
    return _wrap((secret, profile), (slot_id, salt), facts, root + config)


def make_write_slot(root: bytes, branch: str, *, label: str, created: str, rng: aead.Rng) -> bytes:
    """A new slot of a write key, which may add to `branch`; only the root key opens it."""
    body = branch.encode().ljust(_BRANCH_SIZE, b"\0")
    if len(body) != _BRANCH_SIZE or b"\0" in branch.encode():
        raise ValueError("not the name of a branch")
    secret, facts = _inbox_secret(root), _facts(keys.WRITE, label, created, {"name": "blake3"})
    return _wrap((secret, keys.DEFAULT), _hedge(secret, root, body, facts, rng), facts, body)


def open_write_slot(blob: bytes, root: bytes) -> WriteSlot:
    """What the root key makes of a slot of a write key. Raises as `open_slot`."""
    slot, secret = _parse(blob), _inbox_secret(root)
    if slot.info.type != keys.WRITE:
        raise errors.NoKey("this key slot is not of a write key")
    body = _open(slot, secret)
    stretched = keys.stretch_random(secret.value, slot.salt, 128)
    try:
        branch = body.rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise errors.FormatError(WHERE, "holds a branch that is not text") from error
    return WriteSlot(slot.info, branch, stretched[64:96], stretched[96:])


def open_slot(blob: bytes, secret: keys.Secret, *, memory_limit: int) -> tuple[bytes, bytes]:
    """The root key and the configuration in the slot; `memory_limit` is in bytes.

    Raises `NoKey` for a secret of another slot, `SlotDamaged`, `FormatError` for a slot that no
    writer wrote, `Unsupported` for one of a later version.
    """
    slot = _parse(blob)
    if slot.profile is not None:
        slot.profile.check(WHERE, memory_limit)
    if slot.info.type != secret.kind or secret.kind not in keys.KINDS:
        raise errors.NoKey(f"this key slot takes a {slot.info.type}")
    plain = _open(slot, secret)
    return plain[: keys.ROOT_SIZE], plain[keys.ROOT_SIZE :]


def describe_slot(blob: bytes) -> SlotInfo:
    """What anyone can see of a slot, after every check that needs no secret."""
    return _parse(blob).info


def check_label(label: str) -> None:
    if len(label) > MAX_LABEL or _CONTROLS.search(label) is not None:
        raise errors.UsageError(f"a label has at most {MAX_LABEL} characters, on one line")


def _inbox_secret(root: bytes) -> keys.Secret:
    """What opens the slots of write keys."""
    return keys.Secret(keys.WRITE, keys.derive("inbox", root))


def _facts(kind: str, label: str, created: str, kdf: dict[str, object]) -> dict[str, object]:
    check_label(label)
    commit.check_time(created, WHERE)
    return {"created": created, "kdf": kdf, "label": label, "type": kind, "v": _VERSION}


def _wrap(
    opener: tuple[keys.Secret, keys.KdfProfile], names: tuple[bytes, bytes], facts: dict[str, Any], plain: bytes
) -> bytes:
    """The slot; `names` are its identifier and its salt."""
    slot_id, salt = names
    header = encoding.dumps_canonical({**facts, "id": slot_id.hex(), "kdf": {**facts["kdf"], "salt": salt.hex()}})
    kek, committer = _stretch(opener[0], salt, opener[1])
    commitment = blake3(header, key=committer).digest()
    wrap = bytearray(len(plain) + aead.TAG_SIZE)
    aead.seal_into(kek, _ZERO_NONCE, plain, header + commitment, memoryview(wrap))
    return _with_checksum(
        {**encoding.loads_canonical(header, WHERE), "commitment": commitment.hex(), "wrap": wrap.hex()}
    )


def _open(slot: _Slot, secret: keys.Secret) -> bytes:
    kek, committer = _stretch(secret, slot.salt, slot.profile)
    if not hmac.compare_digest(blake3(slot.header, key=committer).digest(), slot.commitment):
        raise errors.NoKey(f"this key slot does not open with that {slot.info.type}")
    return aead.unseal(kek, _ZERO_NONCE, slot.wrap, slot.header + slot.commitment, WHERE)


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
    if kind not in (*keys.KINDS, keys.WRITE):
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
    wrap = _parse_wrap(members.text("wrap"), kind)
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


def _parse_wrap(text: str, kind: str) -> bytes:
    size, odd = divmod(len(text), 2)
    known = range(_BRANCH_SIZE, _BRANCH_SIZE + 1) if kind == keys.WRITE else _WRAPPED
    if odd or size - aead.TAG_SIZE not in known:
        raise errors.FormatError(WHERE, "has a wrapped key of an impossible length")
    return bytes.fromhex(encoding.check_hex(text, size, WHERE))


def _describe(profile: keys.KdfProfile) -> str:
    return f"argon2id, {profile.memory_kib >> 10} MiB, {profile.passes} passes, {profile.lanes} lanes"
