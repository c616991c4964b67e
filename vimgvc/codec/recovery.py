"""Recovery codes: 160 random bits to be written on paper (specs/crypto.md §6).

Nine groups of four letters and digits. The last group is a checksum, so that a typing error is
told from the code of another repository.
"""

from __future__ import annotations

import hmac

from vimgvc import errors
from vimgvc.codec import aead, keys

#: Crockford's base32: without I, L, O and U, which are mistaken for others or make words.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CONFUSED = str.maketrans({"O": "0", "I": "1", "L": "1", "-": "", " ": "", "\t": "", "\n": "", "\r": ""})
_GROUP = 4
_BODY = keys.RECOVERY_SIZE * 8 // 5
_LENGTH = _BODY + _GROUP


def make_recovery_code(rng: aead.Rng) -> str:
    """A new code, as it is shown and written down."""
    return format_code(aead.random_bytes(rng, keys.RECOVERY_SIZE))


def format_code(value: bytes) -> str:
    """The code that stands for the 20 bytes `value`."""
    text = _encode(value, _BODY) + _checksum(value)
    return "-".join(text[at : at + _GROUP] for at in range(0, _LENGTH, _GROUP))


def parse_recovery_code(code: str) -> keys.Secret:
    """The secret; case, spaces, hyphens and O, I, L for 0, 1, 1 do not matter.

    Raises `UsageError` saying what is mistyped: never repeats what was typed.
    """
    text = code.upper().translate(_CONFUSED)
    for at, letter in enumerate(text):
        if letter not in _ALPHABET:
            raise errors.UsageError(
                f"group {at // _GROUP + 1} of the recovery code has a sign that no code has",
                hint="codes have digits and letters, without I, L, O and U",
            )
    if len(text) != _LENGTH:
        raise errors.UsageError(
            f"a recovery code has {_LENGTH} letters and digits, this has {len(text)}",
            hint="it is written in nine groups of four",
        )
    number = 0
    for letter in text[:_BODY]:
        number = number << 5 | _ALPHABET.index(letter)
    value = number.to_bytes(keys.RECOVERY_SIZE, "big")
    if not hmac.compare_digest(_checksum(value), text[_BODY:]):
        raise errors.UsageError("the recovery code is mistyped: its last group does not fit the others")
    return keys.Secret(keys.RECOVERY, value)


def _checksum(value: bytes) -> str:
    """The first 20 bits of a digest."""
    return _encode(keys.derive("recovery checksum", value, 5), 8)[:_GROUP]


def _encode(value: bytes, letters: int) -> str:
    number = int.from_bytes(value, "big")
    return "".join(_ALPHABET[number >> 5 * at & 31] for at in reversed(range(letters)))
