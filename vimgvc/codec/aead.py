"""The one door to AES-256-GCM, and sealed objects (specs/formats.md §12)."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vimgvc import errors

NONCE_SIZE, TAG_SIZE, SALT_SIZE, CHECKSUM_SIZE = 12, 16, 32, 32
MAX_OBJECT = 512 << 20
EMPTY = "is an empty file (power cut while it was copied?)"
COMMIT, INDEX, REF, TABLE = b"C", b"I", b"R", b"T"
FORGOTTEN, COLLECTION, PIN, PROMISED = b"F", b"G", b"P", b"E"
DELIVERY, ADMITTED = b"D", b"A"
_HEADER_SIZE = 44
_ZERO_NONCE = bytes(NONCE_SIZE)

Rng = Callable[[int], bytes]


def random_bytes(rng: Rng, length: int) -> bytes:
    """`length` bytes from `rng`, which may not come up short."""
    data = rng(length)
    if len(data) != length:
        raise errors.VimgvcError("the system's random generator failed", hint="do not use this machine for keys")
    return data


def seal_into(key: bytes, nonce: bytes, data: bytes | memoryview, associated: bytes, out: memoryview) -> None:
    """Write ciphertext and tag to `out`, which has exactly their length."""
    AESGCM(key).encrypt_into(nonce, data, associated, out)


def unseal(key: bytes, nonce: bytes, sealed: bytes | memoryview, associated: bytes, where: str) -> bytes:
    """The plaintext; raises `IntegrityError` unless the tag fits."""
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError) as error:
        raise errors.IntegrityError(where, "fails authentication") from error


def unseal_into(
    key: bytes, nonce: bytes, sealed: bytes | memoryview, associated: bytes, *, out: memoryview, where: str
) -> None:
    """Like `unseal`, into `out`, which has exactly the plaintext's length."""
    try:
        AESGCM(key).decrypt_into(nonce, sealed, associated, out)
    except (InvalidTag, ValueError) as error:
        raise errors.IntegrityError(where, "fails authentication") from error


def padme(length: int) -> int:
    """`length` rounded up so that few sizes remain, at most 12 % more."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return length + mask & ~mask


def seal_object(keys: tuple[bytes, bytes], kind: bytes, context: bytes, body: bytes, rng: Rng) -> bytes:
    """The stored form of `body`; `keys` are the metadata and the hedge key.

    The salt is hashed from randomness *and* content, so that not even a random generator that
    repeats itself gives two bodies one key.
    """
    meta, hedge = keys
    salt = blake3(random_bytes(rng, SALT_SIZE) + kind + context + body, key=hedge).digest()
    length = 4 + len(body)
    plain = struct.pack("<I", len(body)) + body + bytes(padme(length) - length)
    header = b"vimgvc" + kind + b"\x01" + salt + struct.pack("<I", len(plain) + TAG_SIZE)
    sealed = AESGCM(blake3(kind + salt, key=meta).digest()).encrypt(_ZERO_NONCE, plain, header + context)
    return header + sealed + blake3(header + sealed).digest()


def check_object(kind: bytes, blob: bytes | memoryview, where: str) -> memoryview:
    """Everything that can be checked of a sealed object without a key; returns its ciphertext."""
    view = memoryview(blob)
    if len(view) == 0:
        raise errors.FormatError(where, EMPTY)
    if not _HEADER_SIZE + TAG_SIZE + CHECKSUM_SIZE <= len(view) <= MAX_OBJECT:
        raise errors.FormatError(where, "has an impossible size")
    body, checksum = view[:-CHECKSUM_SIZE], view[-CHECKSUM_SIZE:]
    if not hmac.compare_digest(blake3(body).digest(), checksum):
        raise errors.IntegrityError(where, "is damaged (its checksum does not fit)")
    if bytes(view[:7]) != b"vimgvc" + kind:
        raise errors.FormatError(where, "is not an object of this kind")
    if view[7] != 1:
        raise errors.Unsupported(f"object version {view[7]} in {where}")
    (length,) = struct.unpack_from("<I", view, 40)
    if length != len(body) - _HEADER_SIZE:
        raise errors.FormatError(where, "has a wrong length field")
    return body[_HEADER_SIZE:]


def open_object(keys: tuple[bytes, bytes], kind: bytes, context: bytes, blob: bytes | memoryview, where: str) -> bytes:
    """The body; raises `IntegrityError` or `FormatError` for anything but what `seal_object` wrote."""
    sealed = check_object(kind, blob, where)
    header = bytes(memoryview(blob)[:_HEADER_SIZE])
    key = blake3(kind + header[8:40], key=keys[0]).digest()
    plain = unseal(key, _ZERO_NONCE, sealed, header + context, where)
    if len(plain) < 4:
        raise errors.FormatError(where, "has a wrong length field")
    (length,) = struct.unpack_from("<I", plain)
    if padme(4 + length) != len(plain):
        raise errors.FormatError(where, "has a wrong padding length")
    if any(memoryview(plain)[4 + length :]):
        raise errors.FormatError(where, "has padding that is not zero")
    return plain[4 : 4 + length]
