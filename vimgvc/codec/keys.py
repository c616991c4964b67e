"""The root key, the keys derived from it, and the secrets that open it (specs/crypto.md).

Nothing here shows a key or a secret in a `repr`, a message or a comparison.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import InitVar, dataclass, field

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vimgvc import errors

ROOT_SIZE = 32
FINGERPRINT_SIZE = 8
RECOVERY_SIZE = 20
PASSPHRASE, KEYFILE, RECOVERY = "passphrase", "keyfile", "recovery"
KINDS = (PASSPHRASE, KEYFILE, RECOVERY)
#: Not one of them: what opens nothing, and only adds.
WRITE = "write-only"
#: Bounds of what the KDF of a slot may ask for: KiB, passes, lanes.
MEMORY_KIB = range(8 << 10, (2 << 20) + 1)
PASSES = range(1, 17)
LANES = range(1, 17)

_SIZES = {
    PASSPHRASE: range(1, 1025),
    KEYFILE: range(32, 1025),
    RECOVERY: range(RECOVERY_SIZE, RECOVERY_SIZE + 1),
    WRITE: range(32, 1025),
}
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


def derive(purpose: str, material: bytes, size: int = 32) -> bytes:
    """`derive("vimgvc 1 " ‖ purpose; material)` of formats.md §1."""
    return blake3(material, derive_key_context=f"vimgvc 1 {purpose}").digest(size)


@dataclass(frozen=True, slots=True, eq=False)
class PurposeKeys:
    """What the root key is used for, 32 bytes each (formats.md §3); the root key itself is not kept.

    `fingerprint` is public: 16 hexadecimal digits that tell two root keys apart.
    """

    root: InitVar[bytes]
    chunk: bytes = field(init=False, repr=False)
    node: bytes = field(init=False, repr=False)
    commit: bytes = field(init=False, repr=False)
    segment: bytes = field(init=False, repr=False)
    meta: bytes = field(init=False, repr=False)
    ref: bytes = field(init=False, repr=False)
    cut: bytes = field(init=False, repr=False)
    hedge: bytes = field(init=False, repr=False)
    fingerprint: str = field(init=False)

    def __post_init__(self, root: bytes) -> None:
        if len(root) != ROOT_SIZE:
            raise ValueError("a root key has 32 bytes")
        for name, purpose in _PURPOSES.items():
            object.__setattr__(self, name, derive(purpose, root))
        object.__setattr__(self, "fingerprint", derive("fingerprint", root, FINGERPRINT_SIZE).hex())


_PURPOSES = {
    "chunk": "chunk id",
    "node": "node id",
    "commit": "commit id",
    "segment": "segment",
    "meta": "metadata",
    "ref": "ref name",
    "cut": "cut",
    "hedge": "hedge",
}


def is_fingerprint(text: object) -> bool:
    return isinstance(text, str) and _FINGERPRINT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Secret:
    """What a user has to open a slot with: `kind` is one of `KINDS`, or `WRITE`.

    A passphrase that is UTF-8 is kept in Unicode's composed form (NFC), so that it does not matter
    how a keyboard or a file spells an accent. Raises `UsageError` for an empty or oversized one.
    """

    kind: str
    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.kind == PASSPHRASE:
            object.__setattr__(self, "value", _composed(self.value))
        if len(self.value) not in _SIZES[self.kind]:
            raise _bad_size(self.kind)


def _composed(value: bytes) -> bytes:
    try:
        return unicodedata.normalize("NFC", value.decode()).encode()
    except UnicodeDecodeError:
        return value  # not text: the bytes are the passphrase


def _bad_size(kind: str) -> errors.UsageError:
    if kind == PASSPHRASE:
        return errors.UsageError("a passphrase has 1 to 1024 bytes", hint="give one that is not empty")
    if kind == KEYFILE:
        return errors.UsageError("a key file has 32 to 1024 bytes", hint="make one with 'vimgvc key add --new-keyfile'")
    return errors.UsageError("a recovery code stands for 20 bytes")


@dataclass(frozen=True, slots=True)
class KdfProfile:
    """What guessing one passphrase costs: `memory_kib` KiB, `passes` over them, in `lanes` parallel lanes."""

    name: str
    memory_kib: int
    passes: int
    lanes: int

    def check(self, where: str, memory_limit: int) -> None:
        """Raise `FormatError` unless within the bounds of formats.md §5; `memory_limit` is in bytes."""
        if self.memory_kib < MEMORY_KIB[0]:
            raise errors.FormatError(where, "asks for so little memory that its passphrase could be guessed")
        if self.memory_kib > MEMORY_KIB[-1] or self.memory_kib << 10 > memory_limit:
            raise errors.FormatError(
                where,
                f"asks for {self.memory_kib >> 10} MiB of memory",
                hint="open it on a machine with more memory, if you trust where the repository comes from",
            )
        if self.passes not in PASSES:
            raise errors.FormatError(where, f"asks for {self.passes} passes")
        if self.lanes not in LANES:
            raise errors.FormatError(where, f"asks for {self.lanes} lanes")


#: About half a second and 256 MiB for each guess.
DEFAULT = KdfProfile("default", 256 << 10, 3, 4)
#: The least that is written for a user.
FLOOR_64 = KdfProfile("floor", 64 << 10, 3, 4)
#: The least that is read. For tests, which pass it as an argument.
CHEAPEST = KdfProfile("cheapest", MEMORY_KIB[0], 1, 1)
#: Readers accept this much on any machine (bytes), so that what one machine wrote another one opens.
MEMORY_ALWAYS = DEFAULT.memory_kib << 10


def stretch_passphrase(secret: bytes, salt: bytes, profile: KdfProfile) -> bytes:
    """64 bytes from a passphrase that can be guessed."""
    kdf = Argon2id(salt=salt, length=64, iterations=profile.passes, lanes=profile.lanes, memory_cost=profile.memory_kib)
    try:
        return kdf.derive(secret)
    except MemoryError as error:
        raise errors.VimgvcError(
            f"opening a key slot takes {profile.memory_kib >> 10} MiB of memory, which this machine does not have free",
            hint="close other programs, or use a key file or the recovery code",
        ) from error


def stretch_random(secret: bytes, salt: bytes, size: int = 64) -> bytes:
    """`size` bytes from a secret that cannot be guessed."""
    return blake3(derive("slot secret", secret), key=salt).digest(size)


def public_key(private: bytes) -> bytes:
    """Of 32 bytes that are a private key of X25519."""
    return x25519.X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, where: str) -> bytes:
    """What X25519 makes of the two; raises `FormatError` for a public key that makes nothing secret."""
    try:
        other = x25519.X25519PublicKey.from_public_bytes(public)
        return x25519.X25519PrivateKey.from_private_bytes(private).exchange(other)
    except ValueError as error:
        raise errors.FormatError(where, "has an impossible public key") from error
