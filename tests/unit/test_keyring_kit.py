"""Recovery kits: all key slots in one document, and back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import keys, slots
from vimgvc.repo import keyring

REPO = "000102030405060708090a0b0c0d0e0f"
OPEN = keyring.Unlocked(bytes(range(32)), b'{"id":"x"}')
SECRETS = [keys.Secret("keyfile", bytes([number]) * 40) for number in range(3)]


def filled() -> memory.MemoryBackend:
    backend = memory.MemoryBackend()
    for secret in SECRETS:
        keyring.Keyring(backend).add(
            OPEN, secret, label="", created="2026-01-02T03:04:05Z", rng=lambda size: b"\1" * size
        )
    return backend


def blobs(backend: memory.MemoryBackend) -> dict[str, bytes]:
    return {item.name: backend.get(item.name) for item in backend.list("keys")}


def overwrite(backend: memory.MemoryBackend, name: str, blob: bytes) -> None:
    backend.delete(name)
    backend.put(name, [blob])


def test_c6_a_kit_brings_back_deleted_slots() -> None:
    """After all slots were deleted, the kit puts back the same bytes and every secret opens again."""
    backend = filled()
    before = blobs(backend)
    kit = keyring.Keyring(backend).export_kit(REPO)
    for name in before:
        backend.delete(name)
    restored = keyring.Keyring(backend).import_kit(kit, REPO)
    assert blobs(backend) == before
    assert len(restored) == len(SECRETS)
    for secret in SECRETS:
        assert keyring.Keyring(backend).unlock(secret).root == OPEN.root


def test_c2_a_kit_mends_damaged_and_missing_copies() -> None:
    """Only slots with a damaged or missing copy are written, and are whole afterwards."""
    backend = filled()
    before = blobs(backend)
    kit = keyring.Keyring(backend).export_kit(REPO)
    first, second, _ = sorted({name[:-2] for name in before})
    overwrite(backend, f"{first}-0", b"junk")
    backend.delete(f"{second}-1")
    backend.calls.clear()
    restored = keyring.Keyring(backend).import_kit(kit, REPO)
    assert sorted(f"keys/{info.id}" for info in restored) == [first, second]
    assert blobs(backend) == before
    assert sorted(name for call, name in backend.calls if call == "delete") == [f"{first}-0"]
    assert [call for call, _ in backend.calls if call in ("put", "sync")][-1] == "sync"


def test_import_on_a_healthy_repository_changes_nothing() -> None:
    """Nothing is written when every slot of the kit is there and whole."""
    backend = filled()
    kit = keyring.Keyring(backend).export_kit(REPO)
    backend.calls.clear()
    assert keyring.Keyring(backend).import_kit(kit, REPO) == []
    assert not [call for call, _ in backend.calls if call in ("put", "delete")]


def test_import_replaces_no_healthy_slot() -> None:
    """A slot in the repository that is healthy but not the one of the kit stays, and the import fails."""
    backend = filled()
    kit = keyring.Keyring(backend).export_kit(REPO)
    name = min(blobs(backend))
    value = json.loads(backend.get(name)) | {"label": "another"}
    del value["checksum"]
    value["checksum"] = blake3(canonical(value)).hexdigest()
    for copy in (name, name[:-1] + "1"):
        overwrite(backend, copy, canonical(value))
    before = blobs(backend)
    with pytest.raises(errors.IntegrityError):
        keyring.Keyring(backend).import_kit(kit, REPO)
    assert blobs(backend) == before


def test_a_kit_of_another_repository_is_refused() -> None:
    """A kit made for another repository is a usage error and writes nothing; with a lost configuration it is taken."""
    kit = keyring.Keyring(filled()).export_kit(REPO)
    empty = memory.MemoryBackend()
    with pytest.raises(errors.UsageError):
        keyring.Keyring(empty).import_kit(kit, "f" * 32)
    assert blobs(empty) == {}
    assert len(keyring.Keyring(empty).import_kit(kit, None)) == len(SECRETS)


def test_nothing_to_export_is_no_key() -> None:
    """An empty kit is not written."""
    with pytest.raises(errors.NoKey):
        keyring.Keyring(memory.MemoryBackend()).export_kit(REPO)


def test_damaged_slots_are_not_exported() -> None:
    """A kit holds the healthy slots, from whichever copy is healthy."""
    backend = filled()
    first, second, third = sorted({name[:-2] for name in blobs(backend)})
    overwrite(backend, f"{first}-0", b"junk")
    overwrite(backend, f"{second}-0", b"junk")
    overwrite(backend, f"{second}-1", b"junk")
    repo, kept = keyring.parse_kit(keyring.Keyring(backend).export_kit(REPO))
    assert repo == REPO
    assert sorted(kept) == [first.removeprefix("keys/"), third.removeprefix("keys/")]


def test_c20_a_kit_opens_nothing_by_itself() -> None:
    """A kit holds neither the root key nor a secret."""
    kit = keyring.Keyring(filled()).export_kit(REPO)
    for hidden in (OPEN.root, *(secret.value for secret in SECRETS)):
        assert hidden not in kit
        assert hidden.hex().encode() not in kit


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


KIT = json.loads(keyring.Keyring(filled()).export_kit(REPO))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(lambda kit: canonical(kit)[:-1], errors.FormatError, id="cut"),
        pytest.param(lambda kit: canonical(kit) + b"\n\n", errors.FormatError, id="trailing"),
        pytest.param(lambda kit: json.dumps(kit).encode(), errors.FormatError, id="not-canonical"),
        pytest.param(lambda kit: canonical(kit["slots"]), errors.FormatError, id="no-object"),
        pytest.param(lambda kit: canonical(kit | {"v": 2}), errors.Unsupported, id="version"),
        pytest.param(lambda kit: canonical(kit | {"more": 1}), errors.FormatError, id="member"),
        pytest.param(lambda kit: canonical(kit | {"repository": "x"}), errors.FormatError, id="repository"),
        pytest.param(lambda kit: canonical(kit | {"slots": []}), errors.FormatError, id="empty"),
        pytest.param(lambda kit: canonical(kit | {"slots": kit["slots"][::-1]}), errors.FormatError, id="order"),
        pytest.param(lambda kit: canonical(kit | {"slots": kit["slots"][:1] * 2}), errors.FormatError, id="twice"),
        pytest.param(lambda kit: canonical(kit | {"slots": [1]}), errors.SlotDamaged, id="no-slot"),
        pytest.param(
            lambda kit: canonical(kit | {"slots": [kit["slots"][0] | {"label": "x"}]}), errors.SlotDamaged, id="damaged"
        ),
    ],
)
def test_malformed_kits_change_nothing(
    spoil: Callable[[dict[str, object]], bytes], expected: type[errors.VimgvcError]
) -> None:
    """A kit that is damaged or breaks a rule is refused before anything is written."""
    backend = memory.MemoryBackend()
    with pytest.raises(expected):
        keyring.Keyring(backend).import_kit(spoil(KIT), REPO)
    assert blobs(backend) == {}


def test_kits_survive_an_editor() -> None:
    """A kit is one line of JSON with a line end, and is taken without it as well."""
    backend = filled()
    kit = keyring.Keyring(backend).export_kit(REPO)
    assert kit == canonical(KIT) + b"\n"
    assert keyring.parse_kit(canonical(KIT)) == keyring.parse_kit(kit)
    assert all(slots.describe_slot(blob).id == slot_id for slot_id, blob in keyring.parse_kit(kit)[1].items())
