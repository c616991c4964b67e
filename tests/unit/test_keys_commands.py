"""`vimgvc key …` without the command line: what the verbs do and return."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import stat

import pytest

from vimgvc import errors, monitor
from vimgvc.backends import local
from vimgvc.codec import keys, recovery
from vimgvc.commands import key
from vimgvc.repo import keyfile, keyring, remember, repository, trust

SILENT = monitor.NullMonitor()
FIRST = keys.Secret("keyfile", b"first" * 8)
SECOND = keys.Secret("keyfile", b"second" * 8)


@dataclasses.dataclass(frozen=True)
class Place:
    """A repository opened by `FIRST`, and the environment of its user."""

    path: pathlib.Path
    environment: dict[str, str]

    def open(self, secret: keys.Secret = FIRST) -> repository.Repository:
        return repository.Repository.open(local.LocalBackend.open(self.path), [secret])

    def opens(self, secret: keys.Secret) -> bool:
        try:
            return self.open(secret) is not None
        except errors.NoKey:
            return False

    def cached(self) -> set[str]:
        repo = self.open()
        store = trust.TrustStore.of_user(self.environment, repo.id, repo.backend.url)
        return set(store.cached_slots())


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")  # not the desktop of who runs this
    path = tmp_path / "repository"
    backend = local.LocalBackend.create(path)
    repository.Repository.create(backend, FIRST, label="first", clock=lambda: 1767323045.0)
    return Place(path, {"HOME": str(tmp_path / "home")})


def ids(place: Place) -> set[str]:
    return {slot.id for slot in key.list_slots(str(place.path), place.environment, SILENT)}


def test_add_lets_another_secret_open(place: Place) -> None:
    """After `add` both secrets open, both slots are listed with their labels and cached for the user."""
    added = key.add(place.open(), SECOND, "second", place.environment, SILENT)
    assert place.opens(FIRST)
    assert place.opens(SECOND)
    assert {slot.label for slot in key.list_slots(str(place.path), place.environment, SILENT)} == {"first", "second"}
    assert added.slot.id in ids(place) == place.cached()


def test_c16_add_key_file_makes_a_private_file(place: Place, tmp_path: pathlib.Path) -> None:
    """`add_key_file` makes a file of mode 0600 that opens the repository."""
    path = tmp_path / "disks.key"
    key.add_key_file(place.open(), str(path), "", place.environment, SILENT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert place.opens(keyfile.load(path))


def test_add_key_file_that_fails_leaves_no_file(place: Place, tmp_path: pathlib.Path) -> None:
    """When the slot cannot be added (here: a label of two lines) the key file that opens nothing is removed."""
    path = tmp_path / "disks.key"
    before = ids(place)
    with pytest.raises(errors.UsageError):
        key.add_key_file(place.open(), str(path), "two\nlines", place.environment, SILENT)
    assert not path.exists()
    assert ids(place) == before


def test_add_key_file_touches_no_existing_file(place: Place, tmp_path: pathlib.Path) -> None:
    """A path that is taken is a usage error, its file stays, and no slot is added."""
    path = tmp_path / "disks.key"
    path.write_bytes(b"precious")
    before = ids(place)
    with pytest.raises(errors.UsageError):
        key.add_key_file(place.open(), str(path), "", place.environment, SILENT)
    assert path.read_bytes() == b"precious"
    assert ids(place) == before


def test_add_recovery_code_opens_and_does_not_show(place: Place) -> None:
    """The code that is returned opens the repository, and is not in the repr of what is returned (C20)."""
    made = key.add_recovery_code(place.open(), "paper", place.environment, SILENT)
    assert place.opens(recovery.parse_recovery_code(made.code))
    assert made.slot.type == "recovery"
    assert made.code not in repr(made)
    assert made.code[:4] not in repr(made)


def test_remove_takes_a_secret_away(place: Place) -> None:
    """A removed slot neither opens nor stays in the user's cache; the last one stays."""
    added = key.add(place.open(), SECOND, "", place.environment, SILENT)
    assert key.remove(place.open(), added.slot.id[:8], place.environment, SILENT) == added.slot.id
    assert not place.opens(SECOND)
    assert place.cached() == ids(place)
    with pytest.raises(errors.UsageError):
        key.remove(place.open(), next(iter(ids(place))), place.environment, SILENT)
    assert place.opens(FIRST)


def test_c19_change_replaces_the_slot_that_opened(place: Place) -> None:
    """Without a slot named, the one that opened the repository is replaced, under its label."""
    (old,) = ids(place)
    changed = key.change(place.open(), None, SECOND, place.environment, SILENT)
    assert (changed.removed, changed.slot.label) == (old, "first")
    assert ids(place) == {changed.slot.id}
    assert not place.opens(FIRST)
    assert place.opens(SECOND)


def test_change_with_a_remembered_key_needs_to_know_which(place: Place) -> None:
    """Opened without any slot, the only passphrase is meant; if there is none or several it is a usage error."""
    opened = place.open()
    remembered = dataclasses.replace(opened, unlocked=keyring.Unlocked(opened.unlocked.root, opened.unlocked.config))
    with pytest.raises(errors.UsageError):
        key.change(remembered, None, SECOND, place.environment, SILENT)
    passphrase = keys.Secret("passphrase", b"correct horse")
    slot = opened.keyring.add(
        opened.unlocked,
        passphrase,
        label="",
        created="2026-01-02T03:04:05Z",
        rng=opened.rng,
        profile=keys.CHEAPEST,
    )
    assert key.change(remembered, None, SECOND, place.environment, SILENT).removed == slot.id


def test_c6_export_and_import_bring_a_repository_back(place: Place, tmp_path: pathlib.Path) -> None:
    """A kit written to a private file puts deleted slots back without any key, also when `config` is lost."""
    key.add(place.open(), SECOND, "", place.environment, SILENT)
    before = ids(place)
    kit = tmp_path / "kit"
    exported = key.export(str(place.path), str(kit), place.environment, SILENT)
    assert (exported.slots, exported.path, exported.kit) == (2, str(kit), kit.read_bytes())
    assert stat.S_IMODE(kit.stat().st_mode) == 0o600
    with pytest.raises(errors.UsageError):
        key.export(str(place.path), str(kit), place.environment, SILENT)
    assert key.export(str(place.path), None, place.environment, SILENT).kit == kit.read_bytes()
    for lost in (place.path / "keys").iterdir():
        lost.unlink()
    (place.path / "config").write_bytes(b"junk")
    assert {slot.id for slot in key.import_kit(str(place.path), str(kit), place.environment, SILENT)} == before
    assert place.opens(FIRST)
    assert place.opens(SECOND)


def test_import_of_a_missing_or_foreign_kit(place: Place, tmp_path: pathlib.Path) -> None:
    """A path without a kit, and a kit of another repository, are usage errors."""
    with pytest.raises(errors.UsageError):
        key.import_kit(str(place.path), str(tmp_path / "missing"), place.environment, SILENT)
    kit = key.export(str(place.path), None, place.environment, SILENT).kit
    foreign = tmp_path / "foreign"
    value = json.loads(kit) | {"repository": "f" * 32}
    foreign.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))
    with pytest.raises(errors.UsageError):
        key.import_kit(str(place.path), str(foreign), place.environment, SILENT)


def test_remember_and_forget(place: Place) -> None:
    """A remembered key opens the repository without a secret until it is forgotten."""
    repo = place.open()
    where = key.remember_key(repo, place.environment).where
    assert where.startswith(place.environment["HOME"])
    unlocked = remember.KeyMemory.of_user(place.environment).recall(repo.id)
    assert unlocked is not None
    again = repository.Repository.open(local.LocalBackend.open(place.path), unlocked=unlocked)
    assert (again.id, again.fingerprint) == (repo.id, repo.fingerprint)
    assert key.forget_key(str(place.path), place.environment)
    assert not key.forget_key(str(place.path), place.environment)
    assert remember.KeyMemory.of_user(place.environment).recall(repo.id) is None


def test_c20_nothing_that_is_returned_shows_a_secret(place: Place) -> None:
    """No result and no file in the repository holds the root key or a secret."""
    repo = place.open()
    shown = [
        repr(key.add(repo, SECOND, "", place.environment, SILENT)),
        repr(key.export(str(place.path), None, place.environment, SILENT)),
        repr(key.list_slots(str(place.path), place.environment, SILENT)),
        repr(repo),
        *(path.read_bytes().decode("latin-1") for path in place.path.rglob("*") if path.is_file()),
    ]
    hidden = [repo.unlocked.root, FIRST.value, SECOND.value]
    spellings = [spelling for value in hidden for spelling in (value.hex(), value.decode("latin-1"), repr(value)[2:-1])]
    assert not [text for text in shown if any(spelling in text for spelling in spellings)]
