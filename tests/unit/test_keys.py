"""Purpose keys, secrets, the KDF and recovery codes (specs/crypto.md)."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import unicodedata
from typing import Any

import hypothesis
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import strategies

from tests import programs
from vimgvc import errors
from vimgvc.codec import aead, keys, recovery

VECTORS: dict[str, Any] = json.loads(pathlib.Path(__file__).with_name("keys_vectors.json").read_text())
ROOT = bytes.fromhex(VECTORS["root"])
PURPOSES = {
    "chunk id": "chunk",
    "node id": "node",
    "commit id": "commit",
    "segment": "segment",
    "metadata": "meta",
    "ref name": "ref",
    "cut": "cut",
    "hedge": "hedge",
}


@pytest.mark.parametrize(("purpose", "name"), PURPOSES.items())
def test_purpose_keys_are_those_of_an_independent_blake3(purpose: str, name: str) -> None:
    """Every purpose key is what another implementation of BLAKE3 derives with the context of formats.md."""
    assert getattr(keys.PurposeKeys(ROOT), name).hex() == VECTORS["purposes"][purpose]


def test_fingerprint_is_the_beginning_of_its_key() -> None:
    """The fingerprint is the first 8 bytes of K_print, in lower-case hex."""
    fingerprint = keys.PurposeKeys(ROOT).fingerprint
    assert fingerprint == VECTORS["purposes"]["fingerprint"][:16]
    assert keys.is_fingerprint(fingerprint)
    assert not any(map(keys.is_fingerprint, [fingerprint[1:], fingerprint.upper(), fingerprint + "\n", None]))


def test_purpose_keys_differ_from_each_other_and_between_roots() -> None:
    """No two purposes and no two roots share a key, and none is the root."""
    first, second = keys.PurposeKeys(ROOT), keys.PurposeKeys(bytes([1]) + ROOT[1:])
    made = [getattr(each, name) for each in (first, second) for name in PURPOSES.values()]
    assert len({ROOT, *made}) == 1 + 2 * len(PURPOSES)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_root_key_has_32_bytes(size: int) -> None:
    """A root key of another size is never stretched into keys."""
    with pytest.raises(ValueError, match="32 bytes"):
        keys.PurposeKeys(bytes(size))


def test_argon2id_is_that_of_rfc_9106() -> None:
    """The library behind our door computes the test vector of RFC 9106, section 5.3."""
    kdf = Argon2id(salt=b"\2" * 16, length=32, iterations=3, lanes=4, memory_cost=32, ad=b"\4" * 12, secret=b"\3" * 8)
    assert kdf.derive(b"\1" * 32).hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


def test_stretching_is_that_of_the_reference_implementation() -> None:
    """Our door passes its parameters in the right places: the same 64 bytes as argon2-cffi and another BLAKE3 give."""
    profile = keys.KdfProfile("", memory_kib=8192, passes=3, lanes=4)
    assert keys.stretch_passphrase(b"password", b"\x11" * 32, profile).hex() == (
        "77256ff4dab86fbd98f31986a68eb456e82f55cc551059cefc32daa8ca742e3a"
        "7104cef486cdc9cfe7d1f28f5b8518f208fa2268b32c27225bd2a74ec862748b"
    )
    assert keys.stretch_random(b"k" * 32, b"\x11" * 32).hex() == (
        "0fb0486437937b942b9129a1888f88f9cdff14fb3393d3a5c8a22cb782612877"
        "1f10ed07f3460c3e8535497cbedf94c4213886e6c5f1a8dc65cbb07660dde5aa"
    )


def test_profiles_for_users_cost_at_least_the_floor() -> None:
    """What is written for a user takes 64 MiB or more to guess once; the default 256 MiB."""
    assert keys.DEFAULT.memory_kib == 256 << 10
    assert keys.DEFAULT.memory_kib > keys.FLOOR_64.memory_kib >= 64 << 10
    assert min(keys.DEFAULT.passes, keys.FLOOR_64.passes) >= 3
    assert keys.DEFAULT.memory_kib << 10 <= keys.MEMORY_ALWAYS


def test_too_little_memory_is_an_error_with_advice() -> None:
    """A machine that cannot give the memory says so and what else opens the repository; no traceback."""
    script = (
        "import resource\n"
        "from vimgvc import errors\n"
        "from vimgvc.codec import keys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({300 << 20}, {300 << 20}))\n"
        "try:\n"
        "    keys.stretch_passphrase(b'x', bytes(32), keys.KdfProfile('', 1 << 20, 1, 1))\n"
        "except errors.VimgvcError as error:\n"
        "    print(error.message, '|', error.hint)\n"
    )
    printed = programs.run(sys.executable, "-c", script)
    assert "1024 MiB" in printed
    assert "recovery code" in printed


def test_passphrases_are_the_same_however_accents_are_composed() -> None:
    """The NFC and NFD spellings of one passphrase are one secret, in UTF-8."""
    text = "Grüße, Ångström, ﬁx x²"  # the ligature and the raised digit stay what they are
    spellings = {keys.Secret("passphrase", unicodedata.normalize(form, text).encode()).value for form in ("NFC", "NFD")}
    assert spellings == {unicodedata.normalize("NFC", text).encode()}


def test_passphrases_that_are_not_text_stand_as_they_are() -> None:
    """Bytes that are no UTF-8 are used unchanged, and so are key files and recovery codes, even if they are text."""
    assert keys.Secret("passphrase", b"\xff\xfe!").value == b"\xff\xfe!"
    decomposed = unicodedata.normalize("NFD", "ü" * 16).encode()
    assert keys.Secret("keyfile", decomposed).value == decomposed


@pytest.mark.parametrize(
    ("kind", "size"),
    [("passphrase", 0), ("passphrase", 1025), ("keyfile", 31), ("keyfile", 1025), ("recovery", 19), ("recovery", 21)],
)
def test_secrets_of_impossible_sizes_are_refused(kind: str, size: int) -> None:
    """An empty passphrase, or any secret outside its sizes, is a usage error before anything is derived."""
    with pytest.raises(errors.UsageError):
        keys.Secret(kind, b"x" * size)


@pytest.mark.parametrize(
    ("kind", "size"), [("passphrase", 1), ("passphrase", 1024), ("keyfile", 32), ("keyfile", 1024)]
)
def test_secrets_of_the_sizes_at_the_edge_are_taken(kind: str, size: int) -> None:
    """The smallest and the largest key file, and a passphrase as long, are accepted."""
    assert len(keys.Secret(kind, b"x" * size).value) == size


def test_c20_keys_and_secrets_do_not_show() -> None:
    """No repr, str or format of a secret or of the purpose keys holds any of their bytes."""
    made = keys.PurposeKeys(ROOT)
    secret = keys.Secret("passphrase", b"correct horse")
    shown = f"{made} {made!r} {secret} {secret!r} {[secret]} {dataclasses.fields(secret)}"
    hidden = [b"correct horse", ROOT, *(getattr(made, name) for name in PURPOSES.values())]
    assert not [value for value in hidden if any(form in shown for form in _spellings(value))]
    assert not hasattr(made, "root")


def _spellings(value: bytes) -> list[str]:
    return [value.hex(), repr(value)[2:-1], value.decode("latin-1")]


def test_secrets_are_not_compared_by_value() -> None:
    """`==` between secrets is identity: no comparison leaks through its timing."""
    assert keys.Secret("passphrase", b"x") != keys.Secret("passphrase", b"x")
    assert keys.PurposeKeys(ROOT) != keys.PurposeKeys(ROOT)


@pytest.mark.parametrize(("value", "code"), VECTORS["recovery_codes"].items())
def test_recovery_codes_are_those_of_an_independent_encoder(value: str, code: str) -> None:
    """Bytes and code belong together as another implementation has it, in both directions."""
    assert recovery.format_code(bytes.fromhex(value)) == code
    assert recovery.parse_recovery_code(code).value.hex() == value


@hypothesis.given(strategies.binary(min_size=20, max_size=20))
def test_recovery_codes_come_back(value: bytes) -> None:
    """Any code is read back, also in lower case, with other separators and with O for 0, l for 1."""
    code = recovery.make_recovery_code(lambda _size: value)
    careless = code.lower().replace("0", "o").replace("1", "l").replace("-", " ")
    for text in (code, code.replace("-", ""), careless, code.replace("1", "I"), f"\t{code}\n"):
        secret = recovery.parse_recovery_code(text)
        assert (secret.kind, secret.value) == ("recovery", value)


@hypothesis.given(strategies.binary(min_size=20, max_size=20), strategies.integers(0, 35), strategies.integers(1, 31))
def test_one_wrong_letter_in_a_recovery_code_is_a_typing_error(value: bytes, at: int, shift: int) -> None:
    """Every single wrong letter (of the 2^-20 that get through none is among the examples) is told as such."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    text = recovery.format_code(value).replace("-", "")
    wrong = alphabet[(alphabet.index(text[at]) + shift) % 32]
    with pytest.raises(errors.UsageError, match="mistyped"):
        recovery.parse_recovery_code(text[:at] + wrong + text[at + 1 :])


@hypothesis.given(strategies.binary(min_size=20, max_size=20), strategies.integers(0, 34))
def test_two_swapped_letters_in_a_recovery_code_are_a_typing_error(value: bytes, at: int) -> None:
    """Two neighbours the wrong way round are told as a typing error."""
    text = recovery.format_code(value).replace("-", "")
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    hypothesis.assume(swapped != text)
    with pytest.raises(errors.UsageError, match="mistyped"):
        recovery.parse_recovery_code(swapped)


@pytest.mark.parametrize(
    ("keep", "more", "said"),
    [
        (35, "", "has 36"),
        (36, "0", "has 36"),
        (0, "", "has 36"),
        (35, "U", "group 9 "),
        (0, "!" * 36, "group 1 "),
        (4, "é" + "0" * 31, "group 2 "),
    ],
)
def test_malformed_recovery_codes_are_named(keep: int, more: str, said: str) -> None:
    """A wrong length or sign is a usage error that says where, and does not repeat the code (C20)."""
    code = recovery.format_code(bytes(range(200, 220)))
    with pytest.raises(errors.UsageError) as caught:
        recovery.parse_recovery_code(code.replace("-", "")[:keep] + more)
    assert said in caught.value.message
    assert not [group for group in code.split("-") if group in caught.value.message + caught.value.hint]


def test_c12_short_randomness_makes_no_recovery_code() -> None:
    """A random generator that comes up short is an error, not a weak code."""
    with pytest.raises(errors.VimgvcError, match="random generator"):
        recovery.make_recovery_code(lambda size: bytes(size - 1))
    assert aead.random_bytes(bytes, 20) == bytes(20)
