"""The keyring of a repository: unlocking, adding, changing and removing key slots."""

from __future__ import annotations

import errno
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import pytest
from blake3 import blake3

from vimgvc import errors, monitor
from vimgvc.backends import local, memory, protocol
from vimgvc.codec import keys, slots
from vimgvc.repo import keyring

ROOT = bytes(range(32))
CONFIG = b'{"id":"000102030405060708090a0b0c0d0e0f"}'
CREATED = "2026-01-02T03:04:05Z"
OPEN = keyring.Unlocked(ROOT, CONFIG)
FIRST = keys.Secret("keyfile", b"first" * 8)
SECOND = keys.Secret("keyfile", b"second" * 8)
WRONG = keys.Secret("keyfile", b"wrong" * 8)
PASSPHRASE = keys.Secret("passphrase", b"correct horse")


class Collected(monitor.NullMonitor):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, message: str) -> None:
        self.problems.append(message)


def counted() -> Callable[[int], bytes]:
    """Randomness that differs from call to call and is the same in every run."""
    calls = itertools.count()
    return lambda size: blake3(next(calls).to_bytes(8, "little")).digest(size)


def add(ring: keyring.Keyring, secret: keys.Secret, label: str = "", created: str = CREATED) -> str:
    return ring.add(OPEN, secret, label=label, created=created, rng=counted(), profile=keys.CHEAPEST).id


@pytest.fixture(params=["memory", "local"])
def backend(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> protocol.Backend:
    if request.param == "memory":
        return memory.MemoryBackend()
    return local.LocalBackend.create(tmp_path / "repository")


def damage(backend: protocol.Backend, name: str) -> None:
    blob = bytearray(backend.get(name))
    blob[len(blob) // 2] ^= 1
    overwrite(backend, name, bytes(blob))


def overwrite(backend: protocol.Backend, name: str, blob: bytes) -> None:
    backend.delete(name)
    backend.put(name, [blob])


def forge(blob: bytes, **members: object) -> bytes:
    """The slot with other members and a checksum that fits."""
    value = json.loads(blob) | members
    del value["checksum"]
    value["checksum"] = blake3(canonical(value)).hexdigest()
    return canonical(value)


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def names(backend: protocol.Backend) -> list[str]:
    return sorted(item.name for item in backend.list("keys"))


def opens(backend: protocol.Backend, secret: keys.Secret) -> bool:
    try:
        unlocked = keyring.Keyring(backend).unlock(secret)
    except (errors.NoKey, errors.SlotDamaged):
        return False
    assert (unlocked.root, unlocked.config) == (ROOT, CONFIG)
    return True


# --- unlocking -----------------------------------------------------------------------------------


def test_every_secret_opens_and_says_which_slot(backend: protocol.Backend) -> None:
    """Any of several secrets of any kind gives the root key, the configuration and its own slot."""
    ring = keyring.Keyring(backend)
    added = {secret: add(ring, secret) for secret in (FIRST, SECOND, PASSPHRASE)}
    for secret, slot_id in added.items():
        unlocked = ring.unlock(secret)
        assert (unlocked.root, unlocked.config, unlocked.slot_id) == (ROOT, CONFIG, slot_id)
        assert not unlocked.cached


def test_create_makes_the_first_slot(backend: protocol.Backend) -> None:
    """A new repository's first slot opens, and is what `create` returns as unlocked."""
    ring = keyring.Keyring(backend)
    made = ring.create(ROOT, CONFIG, FIRST, label="here", created=CREATED, rng=counted())
    again = ring.unlock(FIRST)
    assert (made.root, made.config, made.slot_id) == (again.root, again.config, again.slot_id)
    assert [info.label for info in ring.slots()] == ["here"]


def test_c1_wrong_password(backend: protocol.Backend) -> None:
    """A wrong secret is exit 12, says what kind of secret failed, and names no slot."""
    ring = keyring.Keyring(backend)
    ids = [add(ring, secret) for secret in (FIRST, SECOND, PASSPHRASE)]
    for secret in (WRONG, keys.Secret("passphrase", b"incorrect")):
        with pytest.raises(errors.NoKey) as caught:
            ring.unlock(secret)
        assert caught.value.exit_code == 12
        assert not [slot_id for slot_id in ids if slot_id[:6] in caught.value.message + caught.value.hint]


def test_a_kind_of_secret_that_no_slot_takes_is_named(backend: protocol.Backend) -> None:
    """A passphrase for a repository with key files only is told what the repository takes."""
    add(keyring.Keyring(backend), FIRST)
    with pytest.raises(errors.NoKey) as caught:
        keyring.Keyring(backend).unlock(PASSPHRASE)
    assert "key file" in caught.value.hint


def test_secrets_are_asked_for_one_by_one(backend: protocol.Backend) -> None:
    """The next secret is asked for only after the one before failed."""
    add(keyring.Keyring(backend), FIRST)
    asked = []

    def ask() -> Iterator[keys.Secret]:
        for secret in (WRONG, FIRST, SECOND):
            asked.append(secret)
            yield secret

    assert keyring.Keyring(backend).unlock_any(ask()).root == ROOT
    assert asked == [WRONG, FIRST]


def test_no_secret_at_all_is_no_key(backend: protocol.Backend) -> None:
    """Nothing to open with is exit 12, with the kinds of secret that would do."""
    add(keyring.Keyring(backend), FIRST)
    with pytest.raises(errors.NoKey) as caught:
        keyring.Keyring(backend).unlock_any([])
    assert "key file" in caught.value.hint


@pytest.mark.parametrize("copy", [0, 1])
def test_c2_one_damaged_copy_does_not_matter(backend: protocol.Backend, copy: int) -> None:
    """With either copy of the only slot damaged it opens, and the damage is reported."""
    slot_id = add(keyring.Keyring(backend), FIRST)
    damage(backend, f"keys/{slot_id}-{copy}")
    reported = Collected()
    assert keyring.Keyring(backend).unlock(FIRST, reported).root == ROOT
    assert len(reported.problems) == 1
    assert f"copy {copy + 1} of 2" in reported.problems[0]


@pytest.mark.parametrize("copy", [0, 1])
def test_c2_one_missing_copy_does_not_matter(backend: protocol.Backend, copy: int) -> None:
    """With either copy of the only slot missing it opens, and the loss is reported."""
    slot_id = add(keyring.Keyring(backend), FIRST)
    backend.delete(f"keys/{slot_id}-{copy}")
    reported = Collected()
    assert keyring.Keyring(backend).unlock(FIRST, reported).root == ROOT
    assert len(reported.problems) == 1


def test_c2_damage_is_not_a_wrong_password(backend: protocol.Backend) -> None:
    """When the only slot is damaged in both copies, the error is damage (20), not a wrong secret (12)."""
    slot_id = add(keyring.Keyring(backend), FIRST)
    damage(backend, f"keys/{slot_id}-0")
    overwrite(backend, f"keys/{slot_id}-1", b"")
    with pytest.raises(errors.SlotDamaged) as caught:
        keyring.Keyring(backend).unlock(FIRST)
    assert caught.value.exit_code == 20


def test_c2_other_slots_open_beside_a_damaged_one(backend: protocol.Backend) -> None:
    """A slot damaged in both copies keeps no other slot from opening; with a wrong secret the damage is in the hint."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    add(ring, SECOND)
    for copy in (0, 1):
        damage(backend, f"keys/{slot_id}-{copy}")
    assert ring.unlock(SECOND).root == ROOT
    with pytest.raises(errors.NoKey) as caught:
        ring.unlock(FIRST)
    assert "2 copies" in caught.value.hint


def test_oversized_slots_are_not_read(backend: protocol.Backend) -> None:
    """A blob in the place of a slot that is larger than any slot is reported and never fetched."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    overwrite(backend, f"keys/{slot_id}-0", bytes(slots.MAX_SLOT + 1))
    reported = Collected()
    if isinstance(backend, memory.MemoryBackend):
        backend.calls.clear()
    assert ring.unlock(FIRST, reported).root == ROOT
    assert len(reported.problems) == 1
    if isinstance(backend, memory.MemoryBackend):
        assert ("get", f"keys/{slot_id}-0") not in backend.calls


def test_slot_id(backend: protocol.Backend) -> None:
    """A healthy slot under another slot's name is reported and not opened."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    for copy in (0, 1):
        backend.put(f"keys/{'0' * 32}-{copy}", [backend.get(f"keys/{slot_id}-{copy}")])
        backend.delete(f"keys/{slot_id}-{copy}")
    reported = Collected()
    with pytest.raises(errors.FormatError):
        ring.unlock(FIRST, reported)
    assert len(reported.problems) == 2


def test_two_copies_that_differ_are_both_tried(backend: protocol.Backend) -> None:
    """When somebody replaced one copy by a slot of his own, the other copy opens, and the difference is reported."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    overwrite(backend, f"keys/{slot_id}-0", forge(backend.get(f"keys/{slot_id}-0"), commitment="00" * 32))
    reported = Collected()
    assert ring.unlock(FIRST, reported).root == ROOT
    assert any("differ" in problem for problem in reported.problems)


@pytest.mark.parametrize("wanted", [{"m": 64 << 20}, {"m": 8}, {"t": 1 << 31}, {"p": 0}], ids=str)
def test_c3_c4_hostile_slots_keep_no_other_slot_from_opening(backend: protocol.Backend, wanted: dict[str, int]) -> None:
    """Beside slots whose KDF is out of bounds the honest slot opens, and they are reported."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, PASSPHRASE)
    hostile = backend.get(f"keys/{slot_id}-0")
    kdf = json.loads(hostile)["kdf"] | wanted
    for name in ("0" * 32, "f" * 32):
        backend.put(f"keys/{name}-0", [forge(hostile, id=name, kdf=kdf)])
    reported = Collected()
    assert ring.unlock(PASSPHRASE, reported).slot_id == slot_id
    assert len(reported.problems) == 4


def test_c3_a_slot_beyond_the_memory_of_this_machine_is_not_opened() -> None:
    """A slot that takes more memory than the limit is refused as such; the same slot opens with a higher limit."""
    backend = memory.MemoryBackend()
    profile = keys.KdfProfile("", 16 << 10, 1, 1)
    keyring.Keyring(backend).add(OPEN, PASSPHRASE, label="", created=CREATED, rng=counted(), profile=profile)
    with pytest.raises(errors.FormatError):
        keyring.Keyring(backend, memory_limit=8 << 20).unlock(PASSPHRASE)
    assert keyring.Keyring(backend, memory_limit=16 << 20).unlock(PASSPHRASE).root == ROOT


def test_slots_of_later_versions_keep_no_other_slot_from_opening(backend: protocol.Backend) -> None:
    """A slot of an unknown version or type is reported and passed over; alone it is `Unsupported`, not damage."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    later = forge(backend.get(f"keys/{slot_id}-0"), id="0" * 32, v=2)
    for copy in (0, 1):
        backend.put(f"keys/{'0' * 32}-{copy}", [later])
    assert ring.unlock(FIRST).root == ROOT
    for copy in (0, 1):
        backend.delete(f"keys/{slot_id}-{copy}")
    with pytest.raises(errors.Unsupported):
        ring.unlock(FIRST)


class Unreadable(memory.MemoryBackend):
    """Fails to read some names, as a broken disk does."""

    def __init__(self, broken: Callable[[str], bool]) -> None:
        super().__init__()
        self.broken = broken

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self.broken(name):
            raise errors.from_os_error(OSError(errno.EIO, "Input/output error"), name)
        return super().get(name, offset, length)


def test_unreadable_copies_are_passed_over() -> None:
    """With one copy unreadable the other opens; with both the error is the disk's, not a wrong secret."""
    backend = Unreadable(lambda _name: False)
    add(keyring.Keyring(backend), FIRST)
    backend.broken = lambda name: name.endswith("-0")
    assert opens(backend, FIRST)
    backend.broken = lambda _name: True
    with pytest.raises(errors.BackendError):
        keyring.Keyring(backend).unlock(FIRST)


class Unlistable(memory.MemoryBackend):
    def list(self, area: str) -> Iterator[protocol.Item]:
        raise errors.from_os_error(OSError(errno.EIO, "Input/output error"), area)


def test_a_failed_listing_is_not_an_empty_one() -> None:
    """When the slots cannot be listed the error is that, never 'no key slots'."""
    ring = keyring.Keyring(Unlistable())
    calls: list[Callable[[], object]] = [
        lambda: ring.unlock(FIRST),
        ring.slots,
        lambda: ring.remove("0"),
        lambda: add(ring, FIRST),
    ]
    for call in calls:
        with pytest.raises(errors.BackendError):
            call()


def test_c6_all_slots_deleted(backend: protocol.Backend) -> None:
    """Without any slot the error is exit 12, says so, names the way back, and asks for no secret."""

    def ask() -> Iterator[keys.Secret]:
        pytest.fail("asked for a secret that cannot help")
        yield FIRST

    with pytest.raises(errors.NoKey) as caught:
        keyring.Keyring(backend).unlock_any(ask())
    assert caught.value.exit_code == 12
    assert "no key slots" in caught.value.message
    assert "key import" in caught.value.hint


def test_c6_cached_slots_open(backend: protocol.Backend) -> None:
    """Slots that this user saw before open a repository whose slots were deleted or replaced, and it is reported."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    cached = ring.blobs()
    for name in names(backend):
        backend.delete(name)
    for _ in range(2):
        reported = Collected()
        unlocked = keyring.Keyring(backend, cached=cached).unlock(FIRST, reported)
        assert (unlocked.root, unlocked.slot_id, unlocked.cached) == (ROOT, slot_id, True)
        assert "key import" in reported.problems[-1]
        overwrite(backend, f"keys/{'0' * 32}-0", b"junk")  # the second round: something else is there


def test_cached_slots_come_last_and_quietly(backend: protocol.Backend) -> None:
    """A cache is not noticed as long as the repository has the slots."""
    ring = keyring.Keyring(backend)
    add(ring, FIRST)
    reported = Collected()
    unlocked = keyring.Keyring(backend, cached=ring.blobs()).unlock(FIRST, reported)
    assert not unlocked.cached
    assert reported.problems == []


def test_a_damaged_cache_is_as_good_as_none(backend: protocol.Backend) -> None:
    """Cached bytes that are no slot, or another slot's, are never tried."""
    slot_id = add(keyring.Keyring(backend), FIRST)
    blob = backend.get(f"keys/{slot_id}-0")
    for name in names(backend):
        backend.delete(name)
    for cached in ({slot_id: b"junk"}, {"0" * 32: blob}, {slot_id: blob[:-1]}):
        with pytest.raises(errors.NoKey, match="no key slots"):
            keyring.Keyring(backend, cached=cached).unlock(FIRST)


def test_many_planted_slots_cost_little(backend: protocol.Backend) -> None:
    """Of very many slots only the first 64 are read, and that there are more is reported."""
    ring = keyring.Keyring(backend)
    slot_id = add(ring, FIRST)
    blob = backend.get(f"keys/{slot_id}-0")
    for number in range(keyring.MAX_SLOTS + 5):
        name = f"{number:032x}"
        backend.put(f"keys/{name}-0", [forge(blob, id=name)])
    reported = Collected()
    assert len(ring.slots(reported)) == keyring.MAX_SLOTS
    assert any("69" in problem or "70" in problem for problem in reported.problems)
    with pytest.raises(errors.UsageError):
        add(ring, SECOND)


# --- changing ------------------------------------------------------------------------------------


def test_slots_are_listed_oldest_first(backend: protocol.Backend) -> None:
    """The listing needs no secret, and shows identifier, type, label, date and cost."""
    ring = keyring.Keyring(backend)
    late = add(ring, FIRST, "late", "2026-05-01T00:00:00Z")
    early = add(ring, PASSPHRASE, "early", "2025-05-01T00:00:00Z")
    assert ring.slots() == [
        slots.SlotInfo(early, "passphrase", "early", "2025-05-01T00:00:00Z", "argon2id, 8 MiB, 1 passes, 1 lanes"),
        slots.SlotInfo(late, "keyfile", "late", "2026-05-01T00:00:00Z", "blake3"),
    ]


def test_two_identical_copies_are_stored(backend: protocol.Backend) -> None:
    """A slot is stored twice, byte for byte the same."""
    slot_id = add(keyring.Keyring(backend), FIRST)
    assert names(backend) == [f"keys/{slot_id}-0", f"keys/{slot_id}-1"]
    assert len({backend.get(name) for name in names(backend)}) == 1


def test_c19_new_slots_are_durable_and_reopened_before_old_ones_go() -> None:
    """Changing a secret: both copies put, sync, read back, and only then the old copies deleted."""
    backend = memory.MemoryBackend()
    ring = keyring.Keyring(backend)
    old = add(ring, FIRST)
    backend.calls.clear()
    new = ring.change(OPEN, old, SECOND, created=CREATED, rng=counted()).id
    steps = [call for call in backend.calls if call[0] in ("put", "sync", "delete") or new in call[1]]
    assert steps[:5] == [
        ("put", f"keys/{new}-0"),
        ("put", f"keys/{new}-1"),
        ("sync", ""),
        ("get", f"keys/{new}-0"),
        ("get", f"keys/{new}-1"),
    ]
    deletions = [number for number, step in enumerate(steps) if step[0] == "delete"]
    assert [steps[number][1] for number in deletions] == [f"keys/{old}-0", f"keys/{old}-1"]
    assert min(deletions) >= 5
    assert steps[-1][0] != "delete"


class PowerCut(BaseException):
    """The machine is off."""


class Failing(memory.MemoryBackend):
    """Performs `left` changes; the next one and everything after raises."""

    def __init__(self, blobs: dict[str, bytes], left: int) -> None:
        super().__init__()
        self.left = 1 << 30
        for name, blob in blobs.items():
            self.put(name, [blob])
        self.left = left

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        self._change()
        return super().put(name, parts)

    def delete(self, name: str) -> None:
        self._change()
        super().delete(name)

    def _change(self) -> None:
        if self.left <= 0:
            raise PowerCut
        self.left -= 1

    def survivor(self) -> memory.MemoryBackend:
        after = memory.MemoryBackend()
        for item in self.list("keys"):
            after.put(item.name, [self.get(item.name)])
        return after


def test_c19_crash_at_every_change() -> None:
    """After a crash before any of the changes of add, change and remove, the old or the new secret opens.

    And the same command run again finishes the work.
    """
    start = memory.MemoryBackend()
    first = add(keyring.Keyring(start), FIRST)
    second = add(keyring.Keyring(start), SECOND)
    blobs = {name: start.get(name) for name in names(start)}
    works: dict[str, Callable[[keyring.Keyring], object]] = {
        "add": lambda ring: ring.add(OPEN, WRONG, label="", created=CREATED, rng=counted()),
        "change": lambda ring: ring.change(OPEN, first, WRONG, created=CREATED, rng=counted()),
        "remove": lambda ring: ring.remove(first),
    }
    crashes = 0
    for name, work in works.items():
        for left in itertools.count():
            backend = Failing(blobs, left)
            try:
                work(keyring.Keyring(backend))
            except PowerCut:
                crashes += 1
            after = backend.survivor()
            assert opens(after, SECOND), (name, left)
            assert opens(after, FIRST) or opens(after, WRONG) or name == "remove", (name, left)
            if backend.left > 0:
                break
            if opens(after, FIRST) and name == "remove":
                keyring.Keyring(after).remove(first)
                assert names(after) == [f"keys/{second}-0", f"keys/{second}-1"]
    assert crashes == 2 + 4 + 2


class Full(memory.MemoryBackend):
    """Has no space for one name."""

    def __init__(self, suffix: str) -> None:
        super().__init__()
        self.suffix = suffix

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        if name.endswith(self.suffix):
            raise errors.NoSpace(f"{name}: no space left")
        return super().put(name, parts)


@pytest.mark.parametrize("suffix", ["-0", "-1"])
def test_a_slot_that_could_not_be_added_is_not_there(suffix: str) -> None:
    """When adding fails half way nothing of the new slot stays: its secret must not open later by surprise."""
    backend = Full(suffix)
    with pytest.raises(errors.NoSpace):
        add(keyring.Keyring(backend), FIRST)
    assert names(backend) == []


class Lying(memory.MemoryBackend):
    """Stores something else than it was given."""

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        blob = bytearray(b"".join(parts))
        if name.endswith("-1"):
            blob[-30] ^= 1
        return super().put(name, [bytes(blob)])


def test_c19_a_new_slot_that_does_not_reopen_replaces_nothing() -> None:
    """If what is read back is not what was written, changing fails and the old slot stays."""
    backend = Lying()
    honest = memory.MemoryBackend()
    old = add(keyring.Keyring(honest), FIRST)
    for name in names(honest):
        memory.MemoryBackend.put(backend, name, [honest.get(name)])
    with pytest.raises(errors.IntegrityError):
        keyring.Keyring(backend).change(OPEN, old, SECOND, created=CREATED, rng=counted())
    assert names(backend) == names(honest)
    assert opens(backend, FIRST)


def test_change_keeps_the_label_and_can_change_the_kind(backend: protocol.Backend) -> None:
    """After a change the new secret opens, the old one does not, and the label is the old one unless given."""
    ring = keyring.Keyring(backend)
    old = add(ring, FIRST, "laptop")
    info = ring.change(OPEN, old[:4], PASSPHRASE, created=CREATED, rng=counted(), profile=keys.CHEAPEST)
    assert (info.type, info.label) == ("passphrase", "laptop")
    assert opens(backend, PASSPHRASE)
    assert not opens(backend, FIRST)
    assert ring.change(OPEN, info.id, SECOND, created=CREATED, rng=counted(), label="new").label == "new"


def test_change_of_an_unknown_slot_adds_nothing(backend: protocol.Backend) -> None:
    """A mistyped identifier is an error before anything is written."""
    ring = keyring.Keyring(backend)
    add(ring, FIRST)
    before = names(backend)
    with pytest.raises(errors.NotFound):
        ring.change(OPEN, "zz", SECOND, created=CREATED, rng=counted())
    assert names(backend) == before


def test_the_last_slot_is_never_removed(backend: protocol.Backend) -> None:
    """Removing the only slot, or the only healthy one beside damaged ones, is refused and changes nothing."""
    ring = keyring.Keyring(backend)
    only = add(ring, FIRST)
    broken = add(ring, SECOND)
    for copy in (0, 1):
        damage(backend, f"keys/{broken}-{copy}")
    before = names(backend)
    with pytest.raises(errors.UsageError):
        ring.remove(only)
    assert names(backend) == before
    assert ring.remove(broken) == broken
    with pytest.raises(errors.UsageError):
        ring.remove(only)
    assert opens(backend, FIRST)


def test_removed_slots_do_not_open(backend: protocol.Backend) -> None:
    """A removed slot is gone in both copies; the others open as before."""
    ring = keyring.Keyring(backend)
    gone, kept = add(ring, FIRST), add(ring, SECOND)
    assert ring.remove(gone) == gone
    assert names(backend) == [f"keys/{kept}-0", f"keys/{kept}-1"]
    assert not opens(backend, FIRST)
    assert opens(backend, SECOND)


class Racing(memory.MemoryBackend):
    """Somebody else removes the other slots while one is being removed."""

    def __init__(self) -> None:
        super().__init__()
        self.race = False

    def delete(self, name: str) -> None:
        super().delete(name)
        if self.race:
            for item in self.list("keys"):
                super().delete(item.name)


def test_two_removals_at_once_leave_a_slot() -> None:
    """When the other slots vanish during a removal, the removed one is put back and the command fails."""
    backend = Racing()
    ring = keyring.Keyring(backend)
    mine = add(ring, FIRST)
    add(ring, SECOND)
    backend.race = True
    with pytest.raises(errors.Busy):
        ring.remove(mine)
    backend.race = False
    assert opens(backend, FIRST)
    assert names(backend) == [f"keys/{mine}-0", f"keys/{mine}-1"]


def test_prefixes_of_identifiers(backend: protocol.Backend) -> None:
    """A slot is found by any unique prefix, in either case; an ambiguous, unknown or empty one is an error."""
    ring = keyring.Keyring(backend)
    blob = backend.get(f"keys/{add(ring, FIRST)}-0")
    for name in names(backend):
        backend.delete(name)
    for slot_id in ("ab" + "0" * 30, "ac" + "0" * 30):
        backend.put(f"keys/{slot_id}-0", [forge(blob, id=slot_id)])
    assert ring.find("ab") == ring.find("AB0") == "ab" + "0" * 30
    with pytest.raises(errors.UsageError):
        ring.find("a")
    for unknown in ("b", "", "ab" + "0" * 31, "../"):
        with pytest.raises(errors.NotFound):
            ring.find(unknown)


def test_a_repeated_identifier_replaces_nothing() -> None:
    """A stuck random generator asked for the same slot again is refused, and the slot that is there stays."""
    backend = memory.MemoryBackend()
    add(keyring.Keyring(backend), FIRST)
    before = {name: backend.get(name) for name in names(backend)}
    with pytest.raises(errors.VimgvcError):
        add(keyring.Keyring(backend), FIRST)
    assert {name: backend.get(name) for name in names(backend)} == before


def test_c12_short_randomness_stores_nothing(backend: protocol.Backend) -> None:
    """When randomness comes up short no slot is stored and none is removed."""
    ring = keyring.Keyring(backend)
    old = add(ring, FIRST)
    before = names(backend)
    works: list[Callable[[], object]] = [
        lambda: ring.add(OPEN, SECOND, label="", created=CREATED, rng=lambda size: bytes(size - 1)),
        lambda: ring.change(OPEN, old, SECOND, created=CREATED, rng=lambda size: bytes(size - 1)),
    ]
    for work in works:
        with pytest.raises(errors.VimgvcError, match="random generator"):
            work()
    assert names(backend) == before


def test_c20_unlocked_keys_do_not_show(backend: protocol.Backend) -> None:
    """The root key is in no repr of what unlocking returns, and not compared by value."""
    ring = keyring.Keyring(backend)
    add(ring, FIRST)
    unlocked = ring.unlock(FIRST)
    shown = f"{unlocked!r} {unlocked} {ring!r}"
    assert ROOT.hex() not in shown
    assert repr(ROOT)[2:-1] not in shown
    assert unlocked != ring.unlock(FIRST)


@pytest.mark.parametrize(("memory", "limit"), [(512, 256), (1024, 256), (4096, 1024), (8192, 2048), (65536, 2048)])
def test_memory_limit_is_a_quarter_within_bounds(memory: int, limit: int) -> None:
    """A quarter of the machine's memory (MiB), at most what the format allows; what is written by default always."""
    assert keyring.machine_limit(memory << 20) == limit << 20
    assert keyring.machine_limit() >= keys.DEFAULT.memory_kib << 10


def test_a_slot_that_is_cached_as_well_is_tried_once() -> None:
    """Nobody waits twice for a slot that the repository and the cache both have."""
    backend = memory.MemoryBackend()
    profile = keys.KdfProfile("", 16 << 10, 1, 1)
    ring = keyring.Keyring(backend)
    ring.add(OPEN, PASSPHRASE, label="", created=CREATED, rng=counted(), profile=profile)
    reported = Collected()
    with pytest.raises(errors.FormatError):
        keyring.Keyring(backend, memory_limit=8 << 20, cached=ring.blobs()).unlock(PASSPHRASE, reported)
    assert len(reported.problems) == 1
