"""LUKS version 1: header of 592 bytes, big-endian, eight key slots, the encrypted disk behind them.

Field table: specs/foreign-formats.md, "luks".
"""

from __future__ import annotations

import itertools
import struct

from vimgvc import errors
from vimgvc.images.gates import judge

_HEADER = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
_ACTIVE, _INACTIVE = 0x00AC71F3, 0x0000DEAD
_STRIPES = 4000
# Deriving a key costs time in proportion; a minute at a million a second is more than any tool makes.
_MAX_ITERATIONS = 60_000_000
_CIPHERS = (b"aes", b"serpent", b"twofish", b"cast5")
_MODES = (b"ecb", b"cbc", b"xts", b"ctr")
_HASHES = (b"sha1", b"sha224", b"sha256", b"sha384", b"sha512", b"ripemd160", b"md5")


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    head = j.read(0, 592, "the header")
    (magic, version, cipher, mode, digest, payload, key, _, _, iterations, _) = _HEADER.unpack_from(head)
    j.among("the magic", magic, [b"LUKS\xba\xbe"])
    if version != 1:
        raise j.unsupported(
            f"LUKS version {version}",
            hint="decrypt it with cryptsetup, or store the encrypted file itself with --format raw",
        )
    cipher, mode, digest = (
        _text(j, what, text) for what, text in (("cipher", cipher), ("mode", mode), ("hash", digest))
    )
    j.among("the cipher", cipher, _CIPHERS)
    j.among("the cipher's mode", mode.partition(b"-")[0], _MODES)
    j.among("the hash", digest, _HASHES)
    j.between("the key's length", key, 16, 64)
    j.between("the iterations of the master key", iterations, 1, _MAX_ITERATIONS)
    if not payload:
        raise j.unsupported("LUKS headers without their disk")
    j.between("the disk's sector", payload, 2, j.size // 512)
    _check_slots(j, head, payload, key)
    del tables
    container = {
        "format": "luks",
        "cipher": cipher.decode(),
        "cipher_mode": mode.decode(),
        "hash": digest.decode(),
        "key_bytes": key,
    }
    return judge.Facts("luks", j.size - payload * 512, container)


def _check_slots(j: judge.Judge, head: bytes, payload: int, key: int) -> None:
    places = []
    for number in range(8):
        active, iterations, _, at, stripes = _SLOT.unpack_from(head, 208 + number * _SLOT.size)
        what = f"key slot {number}'s"
        j.among(f"{what} state", active, [_ACTIVE, _INACTIVE])
        if active == _INACTIVE:
            continue
        j.among(f"{what} stripes", stripes, [_STRIPES])
        j.between(f"{what} iterations", iterations, 1, _MAX_ITERATIONS)
        sectors = -(-(key * _STRIPES) // 512)
        j.between(f"{what} sector", at, 2, payload - sectors)
        places.append((at, at + sectors))
    places.sort()
    for (_, end), (start, _) in itertools.pairwise(places):
        if start < end:
            raise j.refuse("a key slot's sector", start, f"behind the one before, which ends at {end}")
    if not places:
        raise errors.UnsafeImage(f"{j.name}: no key slot is in use, so nothing can open it")


def _text(j: judge.Judge, what: str, data: bytes) -> bytes:
    text, _, rest = data.partition(b"\0")
    if len(text) == len(data) or any(rest) or not text.isascii() or not text.decode("latin-1").isprintable():
        raise j.refuse(f"the name of the {what}", data, "printable ASCII with zeros behind it")
    return text
