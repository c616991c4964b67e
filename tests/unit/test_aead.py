"""AES-256-GCM and sealed objects: formats.md §12."""

from __future__ import annotations

import dataclasses
import mmap
import os

import hypothesis
import pytest
from blake3 import blake3
from hypothesis import strategies as st

from tests import mutate
from vimgvc import errors
from vimgvc.codec import aead

_KEYS = (bytes(range(32)), bytes(range(32, 64)))
_CONTEXT = b"repository" + b"place"


@dataclasses.dataclass(frozen=True)
class Known:
    """One known answer."""

    key: str
    nonce: str
    plain: str
    associated: str
    sealed: str
    tag: str


#: McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test cases 13 to 16;
#: they are also the first of NIST's examples for AES-256.
_ANSWERS = [
    Known("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    Known(
        "00" * 32,
        "00" * 12,
        "00" * 16,
        "",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    Known(
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        "b094dac5d93471bdec1a502270e3cc6c",
    ),
    Known(
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]


@pytest.mark.parametrize("known", _ANSWERS)
def test_known_answers(known: Known) -> None:
    """Our door gives and takes what the authors of GCM computed, and refuses it with any bit of it changed."""
    key, nonce, plain, associated, sealed = (
        bytes.fromhex(text)
        for text in (known.key, known.nonce, known.plain, known.associated, known.sealed + known.tag)
    )
    out = bytearray(len(sealed))
    aead.seal_into(key, nonce, plain, associated, memoryview(out))
    assert bytes(out) == sealed
    assert aead.unseal(key, nonce, sealed, associated, "known") == plain
    into = bytearray(len(plain))
    aead.unseal_into(key, nonce, sealed, associated, out=memoryview(into), where="known")
    assert bytes(into) == plain
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.IntegrityError):
            aead.unseal(key, nonce, bytes(changed), associated, "known")
        with pytest.raises(errors.IntegrityError):
            aead.unseal_into(key, nonce, bytes(changed), associated, out=memoryview(into), where="known")
    with pytest.raises(errors.IntegrityError):
        aead.unseal(key, nonce, sealed, associated + b"\0", "known")


@pytest.mark.parametrize("length", range(aead.TAG_SIZE))
def test_less_than_a_tag(length: int) -> None:
    """What is too short to hold a tag fails authentication like anything else."""
    with pytest.raises(errors.IntegrityError):
        aead.unseal(bytes(32), bytes(12), bytes(length), b"", "short")


def _seal(body: bytes, kind: bytes = b"C", context: bytes = _CONTEXT) -> bytes:
    return aead.seal_object(_KEYS, kind, context, body, os.urandom)


def _open(blob: bytes, kind: bytes = b"C", context: bytes = _CONTEXT) -> bytes:
    return aead.open_object(_KEYS, kind, context, blob, "sample")


@hypothesis.given(st.binary(max_size=5000), st.sampled_from([b"C", b"I", b"R", b"T"]), st.binary(max_size=50))
def test_objects_come_back(body: bytes, kind: bytes, context: bytes) -> None:
    """A body comes back from its sealed form, whose length is a function of the Padmé length alone."""
    blob = aead.seal_object(_KEYS, kind, context, body, os.urandom)
    assert aead.open_object(_KEYS, kind, context, blob, "sample") == body
    assert len(blob) == 44 + aead.padme(4 + len(body)) + 16 + 32
    assert len(aead.check_object(kind, blob, "sample")) == len(blob) - 44 - 32


def test_any_bit(seed: int) -> None:
    """A sealed object with any bit changed is refused, and so is every truncation of it."""
    blob = _seal(b"body")
    for bit in range(8 * len(blob)):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.IntegrityError):
            _open(bytes(changed))
    for length in range(len(blob)):
        with pytest.raises(errors.IntegrityError):
            _open(blob[:length])


def test_mutants(seed: int) -> None:
    """Ten thousand variations of sealed objects, with a trailing hash that fits, are refused unless nothing changed."""
    samples = [_seal(b""), _seal(b"body"), _seal(bytes(1000)), _seal(b"other", b"R")]

    def decode(data: bytes) -> bytes:
        _open(data)
        return data if data in samples else b"forged"

    mutants = list(mutate.mutants(seed, samples, 5000))
    fitting = (blake3(data[:-32]).digest() for data in mutants)
    forged = (data[:-32] + fits for data, fits in zip(mutants, fitting, strict=True))
    assert sum(mutate.survey(decode, iter(mutants))) == 5000
    assert mutate.survey(decode, forged)[1] > 4000


@pytest.mark.parametrize("claimed", [0, 1, 2**31, 2**32 - 1])
def test_lengths_are_checked_before_use(claimed: int) -> None:
    """A length field that claims gigabytes costs no memory."""
    blob = bytearray(_seal(b"body"))
    blob[40:44] = claimed.to_bytes(4, "little")
    blob[-32:] = blake3(bytes(blob[:-32])).digest()
    assert mutate.peak(lambda: _open(bytes(blob))) < 100_000


def test_largest_object() -> None:
    """More than 512 MiB are refused before they are hashed."""
    untouched = memoryview(mmap.mmap(-1, aead.MAX_OBJECT + 1))  # takes no memory until it is read
    assert mutate.peak(lambda: aead.check_object(b"C", untouched, "sample")) < 100_000


def test_place_and_type_are_part_of_the_seal() -> None:
    """An object opens in its own place, as its own type and with its own keys, and nowhere else."""
    blob = _seal(b"body")
    assert _open(blob) == b"body"
    for kind, context in ((b"R", _CONTEXT), (b"C", _CONTEXT + b"\0"), (b"C", b""), (b"T", b"")):
        with pytest.raises(errors.IntegrityError):
            _open(blob, kind, context)
    forged = bytearray(blob)
    forged[6:7] = b"R"
    forged[-32:] = blake3(bytes(forged[:-32])).digest()
    with pytest.raises(errors.IntegrityError, match="authentication"):
        _open(bytes(forged), b"R")
    with pytest.raises(errors.IntegrityError, match="authentication"):
        aead.open_object((bytes(32), _KEYS[1]), b"C", _CONTEXT, blob, "sample")


def test_c11_salts_depend_on_everything() -> None:
    """With a stuck generator objects that differ in type, place or body have different salts; equal ones are equal."""

    def stuck(length: int) -> bytes:
        return b"\x55" * length

    def salt(kind: bytes, context: bytes, body: bytes) -> bytes:
        return aead.seal_object(_KEYS, kind, context, body, stuck)[8:40]

    salts = {
        salt(kind, context, body) for kind in (b"C", b"R") for context in (b"1", b"2") for body in (b"", b"a", b"b")
    }
    assert len(salts) == 12
    assert salt(b"C", b"1", b"a") == salt(b"C", b"1", b"a")


@pytest.mark.parametrize("more", [-32, -1, 1])
def test_c12_short_randomness_seals_nothing(more: int) -> None:
    """A generator that gives another number of bytes stops the sealing."""

    def rng(length: int) -> bytes:
        return bytes(max(length + more, 0))

    with pytest.raises(errors.VimgvcError, match="random"):
        aead.seal_object(_KEYS, b"C", b"", b"body", rng)
    with pytest.raises(errors.VimgvcError, match="random"):
        aead.random_bytes(rng, 12)


@hypothesis.given(st.integers(1, 2**40))
def test_padme(length: int) -> None:
    """Padded lengths are no shorter, at most 12 % longer, stable, and share few leading bits."""
    padded = aead.padme(length)
    assert length <= padded <= length * 1.12 + 1
    assert aead.padme(padded) == padded
    exponent = length.bit_length() - 1
    assert padded % (1 << exponent - exponent.bit_length() if exponent else 1) == 0
    assert aead.padme(length + 1) >= padded


def test_padme_leaves_few_lengths() -> None:
    """Of the million lengths up to a MiB 300 remain."""
    assert len({aead.padme(length) for length in range(1, 1 << 20)}) == 300
