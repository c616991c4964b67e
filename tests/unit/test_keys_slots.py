"""Key slots: round trips, known answers, and every rule of specs/formats.md §5."""

from __future__ import annotations

import json
import pathlib
import traceback
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import strategies

from vimgvc import errors
from vimgvc.codec import keys, slots

VECTORS: dict[str, Any] = json.loads(pathlib.Path(__file__).with_name("keys_vectors.json").read_text())
ROOT = bytes.fromhex(VECTORS["root"])
CONFIG = bytes.fromhex(VECTORS["config"])
CREATED = "2026-01-02T03:04:05Z"
MEMORY = keys.MEMORY_ALWAYS
KEYFILE = keys.Secret("keyfile", bytes(range(100, 164)))
PASSPHRASE = keys.Secret("passphrase", b"correct horse")
RECOVERY = keys.Secret("recovery", bytes(range(200, 220)))


def make(
    secret: keys.Secret = KEYFILE,
    *,
    root: bytes = ROOT,
    config: bytes = CONFIG,
    label: str = "laptop",
    created: str = CREATED,
    rng: Callable[[int], bytes] = lambda size: b"\xaa" * size,
    profile: keys.KdfProfile = keys.CHEAPEST,
) -> bytes:
    return slots.make_slot(secret, root, config, label=label, created=created, rng=rng, profile=profile)


def changed(blob: bytes, **members: Any) -> bytes:
    """The slot with other members (None: without) and a checksum that fits, as an attacker would write it."""
    value = json.loads(blob) | members
    value.pop("checksum")
    value = {name: item for name, item in value.items() if item is not None}
    value["checksum"] = blake3(_canonical(value)).hexdigest()
    return _canonical(value)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("vector", VECTORS["slots"], ids=lambda vector: f"{vector['type']}-{vector['label']}")
def test_slots_are_those_of_an_independent_writer(vector: dict[str, str]) -> None:
    """The same inputs give the very bytes that another implementation of every primitive gives, and open again."""
    blob = vector["blob"].encode()
    kdf = json.loads(blob)["kdf"]
    secret = keys.Secret(vector["type"], bytes.fromhex(vector["secret"]))
    profile = keys.KdfProfile("", kdf["m"], kdf["t"], kdf["p"]) if "m" in kdf else keys.DEFAULT
    assert make(secret, label=vector["label"], profile=profile) == blob
    assert slots.open_slot(blob, secret, memory_limit=MEMORY) == (ROOT, CONFIG)


@hypothesis.given(
    root=strategies.binary(min_size=32, max_size=32),
    config=strategies.binary(min_size=2, max_size=4096),
    secret=strategies.one_of(
        strategies.binary(min_size=32, max_size=1024).map(lambda value: keys.Secret("keyfile", value)),
        strategies.binary(min_size=20, max_size=20).map(lambda value: keys.Secret("recovery", value)),
    ),
    label=strategies.text(strategies.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=200),
    random=strategies.binary(min_size=32, max_size=32),
)
def test_slots_come_back(root: bytes, config: bytes, secret: keys.Secret, label: str, random: bytes) -> None:
    """Whatever is put into a slot comes out with the same secret, and its facts are readable without."""
    blob = make(secret, root=root, config=config, label=label, rng=lambda _size: random)
    assert slots.open_slot(blob, secret, memory_limit=MEMORY) == (root, config)
    info = slots.describe_slot(blob)
    assert (info.type, info.label, info.created) == (secret.kind, label, CREATED)
    assert len(blob) <= slots.MAX_SLOT


@hypothesis.settings(max_examples=15)
@hypothesis.given(strategies.text(min_size=1, max_size=60), strategies.sampled_from([1, 2, 4]))
def test_passphrase_slots_come_back(text: str, lanes: int) -> None:
    """Any passphrase opens its slot; the cost written in the slot is the cost asked for."""
    secret = keys.Secret("passphrase", text.encode())
    blob = make(secret, profile=keys.KdfProfile("", 8192, 1, lanes))
    assert slots.open_slot(blob, secret, memory_limit=MEMORY) == (ROOT, CONFIG)
    assert slots.describe_slot(blob).kdf == f"argon2id, 8 MiB, 1 passes, {lanes} lanes"


@pytest.mark.parametrize("blob_of", [PASSPHRASE, KEYFILE, RECOVERY], ids=lambda secret: secret.kind)
def test_c1_wrong_password(blob_of: keys.Secret) -> None:
    """Another secret of the same kind, and a secret of another kind, are told as such and nothing else."""
    blob = make(blob_of)
    near = keys.Secret(blob_of.kind, blob_of.value[:-1] + bytes([blob_of.value[-1] ^ 1]))
    others = [secret for secret in (PASSPHRASE, KEYFILE, RECOVERY) if secret.kind != blob_of.kind]
    for secret in [near, *others]:
        with pytest.raises(errors.NoKey):
            slots.open_slot(blob, secret, memory_limit=MEMORY)


def test_a_key_file_is_not_a_passphrase() -> None:
    """A passphrase that spells the content of the key file does not open the key file's slot."""
    blob = make(keys.Secret("keyfile", b"the same bytes for both, 32 and more"))
    with pytest.raises(errors.NoKey):
        slots.open_slot(blob, keys.Secret("passphrase", b"the same bytes for both, 32 and more"), memory_limit=MEMORY)


def test_c2_any_flipped_bit_is_damage(seed: int) -> None:
    """A slot with any bit flipped is damaged: it neither opens, nor is taken for a wrong secret, nor described."""
    blob = make()
    places = np.random.default_rng(seed).permutation(len(blob) * 8)[:600]
    for place in map(int, places):
        damaged = bytearray(blob)
        damaged[place // 8] ^= 1 << place % 8
        for call in (lambda bad: slots.open_slot(bad, KEYFILE, memory_limit=MEMORY), slots.describe_slot):
            with pytest.raises(errors.SlotDamaged):
                call(bytes(damaged))


NO_SLOTS = {
    "empty": b"",
    "zeros": bytes(900),
    "deep": b"[" * 10000,
    "list": b"[]",
    "bare": b"{}",
    "number": b'{"checksum":1}',
    "text": b"\xff\xfe",
    "huge": changed(make(), more="x" * slots.MAX_SLOT),
    "cut": make()[:-1],
    "half": make()[:300],
    "newline": make() + b"\n",
    "twice": make() + make(),
    "spaces": make().replace(b",", b", "),
    "repeated": make().replace(b'"v":1', b'"v":1,"v":1'),
}


@pytest.mark.parametrize("name", NO_SLOTS)
def test_c2_whatever_is_no_slot_is_damage(name: str) -> None:
    """Truncated, empty, zeroed, oversized or non-canonical bytes are a damaged slot, never a wrong secret."""
    with pytest.raises(errors.SlotDamaged):
        slots.open_slot(NO_SLOTS[name], KEYFILE, memory_limit=MEMORY)


def refused_before_work(blob: bytes, *, memory_limit: int = MEMORY) -> errors.VimgvcError:
    """The error for a slot that must be refused before any key derivation.

    What was changed in the slot no longer fits its commitment. So a reader that derived keys before
    it checked would raise `NoKey`, which callers of this exclude.
    """
    secret = {"passphrase": PASSPHRASE, "recovery": RECOVERY}.get(json.loads(blob)["type"], KEYFILE)
    with pytest.raises(errors.VimgvcError) as caught:
        slots.open_slot(blob, secret, memory_limit=memory_limit)
    return caught.value


def kdf(**parameters: int) -> dict[str, object]:
    return {"m": 8192, "name": "argon2id", "p": 1, "salt": "00" * 32, "t": 1} | parameters


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"m": 64 << 20}, id="slot_kdf_memory"),
        pytest.param({"m": (2 << 20) + 1}, id="slot_kdf_memory_edge"),
        pytest.param({"m": (1 << 63) - 1}, id="slot_kdf_memory_most"),
        pytest.param({"t": 1 << 31}, id="slot_kdf_passes"),
        pytest.param({"t": 17}, id="slot_kdf_passes_edge"),
        pytest.param({"t": 0}, id="slot_kdf_passes_none"),
        pytest.param({"p": 0}, id="slot_kdf_lanes_none"),
        pytest.param({"p": 17}, id="slot_kdf_lanes"),
    ],
)
def test_c3_kdf_of_a_hostile_slot(parameters: dict[str, int]) -> None:
    """Parameters above their bounds, or none, are refused before any work, however much memory the machine has."""
    blob = changed(make(PASSPHRASE), kdf=kdf(**parameters))
    assert isinstance(refused_before_work(blob, memory_limit=1 << 60), errors.FormatError)
    with pytest.raises(errors.FormatError):
        slots.describe_slot(blob)


@pytest.mark.parametrize("memory", [0, 1, 8, 8191])
def test_c4_kdf_downgraded(memory: int) -> None:
    """A slot whose passphrase could be guessed cheaply is refused before anything is derived from the passphrase."""
    blob = changed(make(PASSPHRASE), kdf=kdf(m=memory))
    assert isinstance(refused_before_work(blob), errors.FormatError)


def test_c4_kdf_parameters_are_authenticated() -> None:
    """A slot whose parameters were changed within bounds, its checksum with them, does not open."""
    blob = make(PASSPHRASE)
    parameters = json.loads(blob)["kdf"]
    for other in (parameters | {"t": 2}, parameters | {"m": 16384}, parameters | {"p": 2}):
        with pytest.raises(errors.NoKey):
            slots.open_slot(changed(blob, kdf=other), PASSPHRASE, memory_limit=MEMORY)


def test_c3_memory_beyond_this_machine() -> None:
    """A slot within the format's bounds that would take more than the given limit is refused before any work."""
    blob = changed(make(PASSPHRASE), kdf=kdf(m=8193))
    refused = refused_before_work(blob, memory_limit=8 << 20)
    assert isinstance(refused, errors.FormatError)
    assert "memory" in refused.hint


@pytest.mark.parametrize("parameters", [{"t": 16}, {"p": 16}, {"m": 8192}], ids=str)
def test_kdf_at_its_bounds_is_worked_on(parameters: dict[str, int]) -> None:
    """Parameters at the bounds of the format are no reason to refuse: the secret is tried."""
    with pytest.raises(errors.NoKey):
        slots.open_slot(changed(make(PASSPHRASE), kdf=kdf(**parameters)), PASSPHRASE, memory_limit=MEMORY)


def test_most_memory_of_the_format_is_described() -> None:
    """A slot that asks for exactly 2 GiB is valid."""
    assert "2048 MiB" in slots.describe_slot(changed(make(PASSPHRASE), kdf=kdf(m=2 << 20))).kdf


def test_writer_keeps_to_the_bounds_of_readers() -> None:
    """A profile that a reader would refuse is not written."""
    for profile in (
        keys.KdfProfile("", 8191, 1, 1),
        keys.KdfProfile("", 8192, 0, 1),
        keys.KdfProfile("", 8192, 1, 17),
        keys.KdfProfile("", keys.DEFAULT.memory_kib + 1, 1, 1),
    ):
        with pytest.raises(errors.FormatError):
            make(PASSPHRASE, profile=profile)


def test_c5_commitment_comes_before_decryption() -> None:
    """A slot that commits to another key is refused as a wrong secret.

    The commitment is associated data of the cipher: had the cipher been first, the tag would have failed.
    """
    with pytest.raises(errors.NoKey):
        slots.open_slot(changed(make(), commitment="00" * 32), KEYFILE, memory_limit=MEMORY)


@pytest.mark.parametrize("size", [0, 1, 48, 49, 48 + 4097], ids=lambda size: f"slot_wrap_length-{size}")
def test_c5_wrap_of_an_impossible_length(size: int) -> None:
    """A wrap that cannot hold exactly a root key and a configuration is refused before any work."""
    blob = changed(make(), wrap="00" * size)
    assert isinstance(refused_before_work(blob), errors.FormatError)


@pytest.mark.parametrize("size", [2, 4096])
def test_configurations_of_the_sizes_at_the_edge_fit(size: int) -> None:
    """The smallest and the largest configuration come back."""
    assert slots.open_slot(make(config=b"c" * size), KEYFILE, memory_limit=MEMORY) == (ROOT, b"c" * size)


def test_slot_wrap_tag() -> None:
    """A wrapped key that was changed under the right commitment is an integrity error, not a wrong secret."""
    blob = make()
    wrap = json.loads(blob)["wrap"]
    for bad in (wrap[:-1] + f"{int(wrap[-1], 16) ^ 1:x}", f"{int(wrap[0], 16) ^ 1:x}" + wrap[1:], wrap[:-2]):
        with pytest.raises(errors.IntegrityError) as caught:
            slots.open_slot(changed(blob, wrap=bad), KEYFILE, memory_limit=MEMORY)
        assert not isinstance(caught.value, errors.SlotDamaged)


@pytest.mark.parametrize(
    "members", [{"label": "mine"}, {"id": "00" * 16}, {"created": "2026-01-02T03:04:06Z"}], ids=lambda m: next(iter(m))
)
def test_public_facts_are_authenticated(members: dict[str, str]) -> None:
    """A slot under another label, identifier or date does not open, checksum or not."""
    with pytest.raises(errors.NoKey):
        slots.open_slot(changed(make(), **members), KEYFILE, memory_limit=MEMORY)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({"v": 2}, errors.Unsupported, id="slot_version_unknown"),
        pytest.param({"v": 0}, errors.Unsupported, id="slot_version_zero"),
        pytest.param({"type": "x25519"}, errors.Unsupported, id="slot_type_unknown"),
        pytest.param({"v": True}, errors.FormatError, id="slot_member-bool"),
        pytest.param({"v": None}, errors.FormatError, id="slot_member-no-v"),
        pytest.param({"label": None}, errors.FormatError, id="slot_member-no-label"),
        pytest.param({"extra": 1}, errors.FormatError, id="slot_member-extra"),
        pytest.param({"kdf": 1}, errors.FormatError, id="slot_member-kdf"),
        pytest.param({"kdf": {"name": "blake3"}}, errors.FormatError, id="slot_member-no-salt"),
        pytest.param({"kdf": {"name": "blake3", "salt": "00" * 31}}, errors.FormatError, id="slot_member-salt"),
        pytest.param({"kdf": {"name": "blake3", "salt": "AA" * 32}}, errors.FormatError, id="slot_member-upper"),
        pytest.param({"kdf": kdf()}, errors.FormatError, id="slot_kdf_name-argon2id"),
        pytest.param({"type": "passphrase"}, errors.FormatError, id="slot_kdf_name-blake3"),
        pytest.param({"kdf": {"name": "md5", "salt": "00" * 32}}, errors.FormatError, id="slot_kdf_name-unknown"),
        pytest.param({"id": "00" * 15}, errors.FormatError, id="slot_member-id"),
        pytest.param({"id": "../" + "0" * 29}, errors.FormatError, id="slot_member-id-path"),
        pytest.param({"commitment": "00" * 33}, errors.FormatError, id="slot_member-commitment"),
        pytest.param({"wrap": "0" * 301}, errors.FormatError, id="slot_member-odd"),
        pytest.param({"wrap": "zz" * 150}, errors.FormatError, id="slot_member-no-hex"),
        pytest.param({"created": "yesterday"}, errors.FormatError, id="slot_member-created"),
        pytest.param({"label": "x" * 201}, errors.FormatError, id="slot_label-long"),
        pytest.param({"label": "a\x1b[2Jb"}, errors.FormatError, id="slot_label-escape"),
        pytest.param({"label": "a\u202eb"}, errors.FormatError, id="slot_label-direction"),
    ],
)
def test_slots_that_break_a_rule(members: dict[str, Any], expected: type[errors.VimgvcError]) -> None:
    """A slot written against a rule of the format is refused before any work, by its reader and by its describer."""
    blob = changed(make(), **members)
    assert type(refused_before_work(blob)) is expected
    with pytest.raises(expected):
        slots.describe_slot(blob)


def test_changed_slot_without_changes_opens() -> None:
    """The helper that forges slots here makes valid ones when nothing is changed: refusals are due to the change."""
    assert slots.open_slot(changed(make()), KEYFILE, memory_limit=MEMORY) == (ROOT, CONFIG)


@pytest.mark.parametrize("label", ["x" * 201, "two\nlines", "\x1b[2J", "\udce4"])
def test_labels_that_no_reader_takes_are_not_written(label: str) -> None:
    """A label that is too long, not one line, or not text is a usage error."""
    with pytest.raises(errors.UsageError):
        make(label=label)


@pytest.mark.parametrize(
    "change",
    [
        {"secret": keys.Secret("keyfile", bytes(32))},
        {"root": bytes(32)},
        {"config": b"{}"},
        {"label": "other"},
        {"created": "2026-01-02T03:04:06Z"},
        {"rng": bytes},
    ],
    ids=lambda change: next(iter(change)),
)
def test_c11_salt_depends_on_everything(change: dict[str, Any]) -> None:
    """With a stuck random generator two slots that differ in anything have different salts and identifiers."""
    first, second = json.loads(make()), json.loads(make(**change))
    assert first["kdf"]["salt"] != second["kdf"]["salt"]
    assert first["id"] != second["id"]


def test_c11_salt_depends_on_the_cost() -> None:
    """With a stuck random generator two slots that differ in their KDF only have different salts."""
    first, second = (make(PASSPHRASE, profile=keys.KdfProfile("", 8192, passes, 1)) for passes in (1, 2))
    assert json.loads(first)["kdf"]["salt"] != json.loads(second)["kdf"]["salt"]


def test_c12_short_randomness_makes_no_slot() -> None:
    """A random generator that comes up short, or fails, stops the making of a slot."""
    with pytest.raises(errors.VimgvcError, match="random generator"):
        make(rng=lambda size: bytes(size - 1))
    with pytest.raises(errors.VimgvcError, match="random generator"):
        make(rng=lambda _size: b"")


def test_c20_no_secret_in_what_errors_show() -> None:
    """Neither secrets nor keys are in any error, with its causes, that opening a slot can raise."""
    blob = make(PASSPHRASE)
    wrong = keys.Secret("passphrase", b"incorrect zebra")
    bad = [blob, blob[:-1], changed(blob, wrap="00" * 200), changed(blob, kdf=kdf(m=1)), changed(blob, v=7)]
    shown = ""
    for slot, secret in [(each, secret) for each in bad for secret in (wrong, PASSPHRASE)][:-1]:
        try:
            slots.open_slot(slot, secret, memory_limit=MEMORY)
        except errors.VimgvcError as error:
            shown += f"{error!r} {error} {error.hint} {vars(error)} " + "".join(traceback.format_exception(error))
    assert "damaged" in shown
    assert not [secret for secret in ("correct horse", "incorrect zebra", ROOT.hex(), repr(ROOT)) if secret in shown]


def test_secrets_are_not_in_slots() -> None:
    """A slot holds neither the secret nor the root key nor the configuration in the clear."""
    blob = make(PASSPHRASE, config=CONFIG)
    wrapped = bytes.fromhex(json.loads(blob)["wrap"])
    for hidden in (b"correct horse", ROOT, CONFIG):
        assert hidden not in blob
        assert hidden.hex().encode() not in blob
        assert hidden not in wrapped
