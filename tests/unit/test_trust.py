"""What a user has seen of a repository: rollback, forks, and swapped repositories are noticed."""

from __future__ import annotations

import json
import pathlib
import stat
import threading

import pytest

from vimgvc import errors, monitor
from vimgvc.backends import memory
from vimgvc.codec import keys
from vimgvc.repo import keyring, trust

REPO, OTHER = "00" * 16, "11" * 16
PLACE = "/backup/disks"
PRINT, OTHER_PRINT = "0123456789abcdef", "fedcba9876543210"
VM, TAG = "aa" * 16, "bb" * 16
HASHES = [f"{number:064x}" for number in range(10)]


class Noted(monitor.NullMonitor):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def store(directory: pathlib.Path, repo: str = REPO, place: str = PLACE) -> trust.TrustStore:
    return trust.TrustStore(directory, repo, place)


def seen(directory: pathlib.Path) -> trust.TrustStore:
    """A store that has seen five entries of a branch and one of a tag."""
    first = store(directory)
    first.check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})
    first.update(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})
    return store(directory)


def test_the_same_state_again_is_fine(tmp_path: pathlib.Path) -> None:
    """What was seen before may be seen again."""
    seen(tmp_path).check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})


def test_growing_logs_are_fine(tmp_path: pathlib.Path) -> None:
    """Later entries and new logs are no rollback, and become what is expected from then on."""
    later = {VM: (7, HASHES[7]), TAG: (1, HASHES[1]), "cc" * 16: (1, HASHES[2])}
    again = seen(tmp_path)
    again.check(PRINT, later, lambda _blind, seq: HASHES[seq])
    again.update(PRINT, later)
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, later | {VM: (6, HASHES[6])})


@pytest.mark.parametrize(
    "now",
    [
        pytest.param({VM: (4, HASHES[4]), TAG: (1, HASHES[1])}, id="shorter"),
        pytest.param({TAG: (1, HASHES[1])}, id="gone"),
        pytest.param({}, id="all-gone"),
        pytest.param({VM: (5, HASHES[9]), TAG: (1, HASHES[1])}, id="another-entry"),
    ],
)
def test_c10_older_or_other_states_are_refused(tmp_path: pathlib.Path, now: dict[str, trust.Now]) -> None:
    """A log that ends earlier, is gone, or has another last entry than this user saw is a rollback: exit 22."""
    again = seen(tmp_path)
    with pytest.raises(errors.Rollback) as caught:
        again.check(PRINT, now)
    assert caught.value.exit_code == 22
    assert PLACE in caught.value.message


def test_c10_a_longer_log_with_another_past_is_refused(tmp_path: pathlib.Path) -> None:
    """A log that has grown from another entry than the one seen is a fork."""
    now: dict[str, trust.Now] = {VM: (7, HASHES[7]), TAG: (1, HASHES[1])}
    with pytest.raises(errors.Rollback):
        seen(tmp_path).check(PRINT, now, lambda _blind, _seq: HASHES[9])


def test_c10_what_was_seen_is_not_forgotten_for_something_older(tmp_path: pathlib.Path) -> None:
    """Updating with an older state does not lower what is expected."""
    again = seen(tmp_path)
    again.update(PRINT, {VM: (2, HASHES[2])})
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {VM: (4, HASHES[4]), TAG: (1, HASHES[1])})


def test_damage_is_no_rollback(tmp_path: pathlib.Path) -> None:
    """An entry that is there but unreadable, the last or an earlier one, is left to `verify`."""
    again = seen(tmp_path)
    again.check(PRINT, {VM: (5, None), TAG: (1, HASHES[1])})

    def damaged(_blind: str, _seq: int) -> str:
        raise errors.IntegrityError("ref log", "is damaged")

    again.check(PRINT, {VM: (6, HASHES[6]), TAG: (1, HASHES[1])}, damaged)
    again.update(PRINT, {VM: (6, None)})
    again.check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})


def test_n15_a_meaningless_entry_with_a_high_number_hides_no_rollback(tmp_path: pathlib.Path) -> None:
    """Where the last entry cannot be read, one that was seen and is missing is no gap, but gone."""

    def missing(_blind: str, _seq: int) -> str:
        raise errors.NotFound("object", "x")

    with pytest.raises(errors.Rollback):
        seen(tmp_path).check(PRINT, {VM: (1 << 60, None), TAG: (1, HASHES[1])}, missing)


def test_copies_elsewhere_may_be_older(tmp_path: pathlib.Path) -> None:
    """What was seen in one place says nothing about a copy of the repository in another place."""
    seen(tmp_path)
    copy = store(tmp_path, place="/usb/disks")
    copy.check(PRINT, {VM: (3, HASHES[3])})
    copy.update(PRINT, {VM: (3, HASHES[3])})
    store(tmp_path).check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})
    with pytest.raises(errors.Rollback):
        store(tmp_path, place="/usb/disks").check(PRINT, {})


@pytest.mark.parametrize("place", [PLACE, "/usb/disks"])
def test_c7_another_key_is_refused(tmp_path: pathlib.Path, place: str) -> None:
    """A repository whose key is another one than before is refused, at any place, and is not remembered."""
    seen(tmp_path)
    changed = store(tmp_path, place=place)
    with pytest.raises(errors.Rollback):
        changed.check(OTHER_PRINT, {})
    with pytest.raises(errors.Rollback):
        changed.update(OTHER_PRINT, {})
    store(tmp_path).check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})


def test_c7_c8_another_repository_in_its_place_is_refused(tmp_path: pathlib.Path) -> None:
    """Another repository at a known place is refused, whatever its key; accepted, both are welcome, and no third."""
    seen(tmp_path)
    swapped = store(tmp_path, OTHER)
    with pytest.raises(errors.Rollback) as caught:
        swapped.check(OTHER_PRINT, {})
    assert caught.value.exit_code == 22
    assert "--accept-rollback" in caught.value.hint
    swapped.accept_identity(OTHER_PRINT)
    store(tmp_path, OTHER).check(OTHER_PRINT, {})
    store(tmp_path).check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})
    with pytest.raises(errors.Rollback):
        store(tmp_path, "22" * 16).check(PRINT, {})


def test_c7_another_key_that_is_accepted_is_a_first_use(tmp_path: pathlib.Path) -> None:
    """After the user accepted another key, that one is expected, the old one is not, and nothing older counts."""
    seen(tmp_path)
    changed = store(tmp_path)
    changed.accept_identity(OTHER_PRINT)
    changed.check(OTHER_PRINT, {})
    changed.update(OTHER_PRINT, {VM: (1, HASHES[1])})
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})


def test_c7_opening_does_not_make_a_swap_welcome(tmp_path: pathlib.Path) -> None:
    """Updating without being new does not change which repository is expected at a place."""
    seen(tmp_path)
    store(tmp_path, OTHER).update(OTHER_PRINT, {})
    with pytest.raises(errors.Rollback):
        store(tmp_path, OTHER).check(OTHER_PRINT, {})


def test_a_new_repository_takes_the_place_of_an_old_one(tmp_path: pathlib.Path) -> None:
    """After `init` where another repository was before, the new one is expected, and the old one is not."""
    seen(tmp_path)
    store(tmp_path, OTHER).update(OTHER_PRINT, {}, new=True)
    store(tmp_path, OTHER).check(OTHER_PRINT, {})
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})


def accept(at: trust.TrustStore, now: dict[str, trust.Now]) -> None:
    """What `--accept-rollback` does with a log that was cut or is another."""
    at.accept(PRINT, now, at.compare(now, lambda _blind, seq: HASHES[seq]), time="2026-01-02T03:04:05Z")


def test_n15_a_rollback_is_accepted_once(tmp_path: pathlib.Path) -> None:
    """What was accepted is expected from then on: neither the state before nor an older one is taken for it."""
    seen(tmp_path)
    now: dict[str, trust.Now] = {VM: (3, HASHES[3])}
    accept(store(tmp_path), now)
    store(tmp_path).check(PRINT, now)
    assert store(tmp_path).accepted() == {VM: [(3, 5)], TAG: [(0, 1)]}
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {VM: (2, HASHES[2])})
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {VM: (3, HASHES[9])})
    store(tmp_path).update(PRINT, now | {VM: (6, HASHES[6])})
    assert store(tmp_path).accepted() == {VM: [(3, 5)], TAG: [(0, 1)]}


def test_n15_a_decision_says_what_was_seen_and_what_is_now(tmp_path: pathlib.Path) -> None:
    """The file keeps of each decision when it was made, and where the logs ended before and after it."""
    seen(tmp_path)
    accept(store(tmp_path), {VM: (3, HASHES[3])})
    kept = json.loads((tmp_path / f"{REPO}.json").read_bytes())["decisions"][PLACE]
    assert [(one["time"], one["before"], one["after"]) for one in kept] == [
        ("2026-01-02T03:04:05Z", {VM: [5, HASHES[5]], TAG: [1, HASHES[1]]}, {VM: [3, HASHES[3]]})
    ]


def test_n15_the_message_names_branches_with_what_was_seen_and_what_is_there(tmp_path: pathlib.Path) -> None:
    """Logs are called by their names where these are known, also of logs that are gone."""
    first = store(tmp_path)
    first.update(
        PRINT,
        {VM: (5, HASHES[5]), TAG: (1, HASHES[1])},
        details=trust.Details({VM: ("branch", "vm"), TAG: ("tag", "v1")}),
    )
    with pytest.raises(errors.Rollback, match="branch 'vm' ends with entry 4, it had 5 entries") as caught:
        store(tmp_path).check(PRINT, {VM: (4, HASHES[4])})
    assert "tag 'v1' is gone, it had 1 entry" in caught.value.message
    many: dict[str, trust.Now] = {f"{number:032x}": (2, HASHES[2]) for number in range(20)}
    store(tmp_path).update(PRINT, many)
    with pytest.raises(errors.Rollback, match="and 17 more"):
        store(tmp_path).check(PRINT, {})


def test_d18_two_copies_that_went_different_ways_at_two_places(tmp_path: pathlib.Path) -> None:
    """Where a copy was seen with the same entries, another entry in one of the two is told, once, and by either."""
    copy = "/usb/disks"
    seen(tmp_path)
    store(tmp_path, place=copy).update(PRINT, {VM: (5, HASHES[5])})
    ahead: dict[str, trust.Now] = {VM: (6, HASHES[6]), TAG: (1, HASHES[1])}
    store(tmp_path).check(PRINT, ahead, lambda _blind, seq: HASHES[seq])
    store(tmp_path).update(PRINT, ahead)
    other: dict[str, trust.Now] = {VM: (7, HASHES[7])}
    again = store(tmp_path, place=copy)
    with pytest.raises(errors.Rollback, match="went different ways") as caught:
        again.check(PRINT, other, lambda _blind, seq: HASHES[5 if seq == 5 else 9])
    assert PLACE in caught.value.message
    assert copy in caught.value.message
    found = again.compare(other, lambda _blind, seq: HASHES[5 if seq == 5 else 9])
    again.accept(PRINT, other, found, time="2026-01-02T03:04:05Z")
    again.update(PRINT, other)
    for _ in range(2):
        store(tmp_path, place=copy).check(PRINT, other, lambda _blind, seq: HASHES[5 if seq == 5 else 9])
        store(tmp_path).check(PRINT, ahead)
        store(tmp_path).update(PRINT, ahead)


def test_d18_copies_that_follow_each_other_are_fine(tmp_path: pathlib.Path) -> None:
    """A copy that is behind, or ahead of the same entries, is no fork, and what was compared is not read again."""
    copy = "/usb/disks"
    seen(tmp_path)
    store(tmp_path, place=copy).update(PRINT, {VM: (5, HASHES[5])})
    asked: list[int] = []

    def hash_at(_blind: str, seq: int) -> str:
        asked.append(seq)
        return HASHES[seq]

    later: dict[str, trust.Now] = {VM: (7, HASHES[7]), TAG: (1, HASHES[1])}
    ahead = store(tmp_path)
    ahead.check(PRINT, later, hash_at)
    ahead.update(PRINT, later)
    store(tmp_path, place=copy).check(PRINT, {VM: (6, HASHES[6])}, hash_at)
    asked.clear()
    store(tmp_path).check(PRINT, later, hash_at)
    assert asked == []


def test_a_lost_store_at_a_known_place_is_a_note(tmp_path: pathlib.Path) -> None:
    """Without the file the repository is believed as at first use, which is told."""
    seen(tmp_path)
    (tmp_path / f"{REPO}.json").unlink()
    noted = Noted()
    trust.TrustStore(tmp_path, REPO, PLACE, noted).check(PRINT, {VM: (1, HASHES[1])})
    assert len(noted.notes) == 1


def test_a_store_from_before_decisions_is_read(tmp_path: pathlib.Path) -> None:
    """A file without the later members is what it was."""
    seen(tmp_path)
    path = tmp_path / f"{REPO}.json"
    value = json.loads(path.read_bytes())
    for member in ("checked", "copies", "decisions", "names"):
        del value[member]
    path.write_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {VM: (4, HASHES[4])})


CONTENTS = [b"", b"junk", b"\xff\xfe", b"[]", b"{}", b'{"v":1}', b"{" * 100_000]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_damaged_store_is_a_first_use_with_a_note(tmp_path: pathlib.Path, content: bytes) -> None:
    """Whatever the file holds, nobody is locked out: it is noted, believed as at first use, and mended."""
    seen(tmp_path)
    (tmp_path / f"{REPO}.json").write_bytes(content)
    noted = Noted()
    damaged = trust.TrustStore(tmp_path, REPO, PLACE, noted)
    damaged.check(OTHER_PRINT, {})
    assert damaged.cached_slots() == {}
    damaged.update(OTHER_PRINT, {VM: (1, HASHES[1])})
    assert len(noted.notes) == 1
    noted.notes.clear()
    with pytest.raises(errors.Rollback):
        trust.TrustStore(tmp_path, REPO, PLACE, noted).check(OTHER_PRINT, {})
    assert noted.notes == []


def test_a_store_that_others_can_change_is_not_believed(tmp_path: pathlib.Path) -> None:
    """A store writable for others is noted and not used."""
    seen(tmp_path)
    (tmp_path / f"{REPO}.json").chmod(0o666)
    noted = Noted()
    trust.TrustStore(tmp_path, REPO, PLACE, noted).check(OTHER_PRINT, {})
    assert len(noted.notes) == 1


def test_a_store_of_another_repository_is_not_believed(tmp_path: pathlib.Path) -> None:
    """A store under another repository's name, as by a copy, is as good as none."""
    seen(tmp_path)
    (tmp_path / f"{OTHER}.json").write_bytes((tmp_path / f"{REPO}.json").read_bytes())
    store(tmp_path, OTHER, "/elsewhere").check(OTHER_PRINT, {})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("fingerprint", "short"),
        ("places", []),
        ("places", {PLACE: []}),
        ("places", {PLACE: {VM: [5]}}),
        ("places", {PLACE: {VM: [0, HASHES[5]]}}),
        ("places", {PLACE: {VM: [True, HASHES[5]]}}),
        ("places", {PLACE: {VM: [5, "x"]}}),
        ("places", {PLACE: {"x": [5, HASHES[5]]}}),
        ("slots", []),
        ("checked", {PLACE: {VM: "x"}}),
        ("copies", {PLACE: [PLACE]}),
        ("decisions", {PLACE: [{"time": "x"}]}),
        ("decisions", {PLACE: {}}),
        ("names", {VM: ["branch"]}),
        ("names", {VM: ["branch", 5]}),
    ],
    ids=str,
)
def test_malformed_members_are_damage(tmp_path: pathlib.Path, member: str, value: object) -> None:
    """Any member of another form makes the store a first use, not a crash."""
    seen(tmp_path)
    path = tmp_path / f"{REPO}.json"
    changed = json.loads(path.read_bytes()) | {member: value}
    path.write_bytes(json.dumps(changed, sort_keys=True, separators=(",", ":")).encode())
    noted = Noted()
    trust.TrustStore(tmp_path, REPO, PLACE, noted).check(OTHER_PRINT, {})
    assert len(noted.notes) == 1


def test_a_store_that_cannot_be_written_is_a_note(tmp_path: pathlib.Path) -> None:
    """Where nothing can be kept, or there is no home, opening goes on as at first use."""
    (tmp_path / "file").write_bytes(b"")
    noted = Noted()
    blocked = trust.TrustStore(tmp_path / "file" / "below", REPO, PLACE, noted)
    blocked.check(PRINT, {})
    blocked.update(PRINT, {VM: (1, HASHES[1])})
    assert noted.notes
    homeless = trust.TrustStore.of_user({}, REPO, PLACE)
    homeless.check(PRINT, {})
    homeless.update(PRINT, {VM: (1, HASHES[1])})
    assert homeless.cached_slots() == {}


def test_a_place_that_is_no_text_is_kept_apart(tmp_path: pathlib.Path) -> None:
    """Paths with bytes that are no UTF-8 work, and two of them are two places."""
    first, second = "/disks/\udce4", "/disks/\udcf6"
    store(tmp_path, place=first).update(PRINT, {VM: (2, HASHES[2])})
    store(tmp_path, OTHER, place=second).check(OTHER_PRINT, {})
    with pytest.raises(errors.Rollback):
        store(tmp_path, place=first).check(PRINT, {VM: (1, HASHES[1])})


def test_files_are_private_and_no_temporary_ones_stay(tmp_path: pathlib.Path) -> None:
    """What was seen names places and branches' logs: mode 0600 below 0700."""
    seen(tmp_path / "state")
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_nothing_new_writes_nothing(tmp_path: pathlib.Path) -> None:
    """Opening a repository again in the state that was seen replaces no file."""
    seen(tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    store(tmp_path).update(PRINT, {VM: (5, HASHES[5]), TAG: (1, HASHES[1])})
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def _update_often(directory: pathlib.Path, blind: str) -> None:
    for seq in range(1, 9):
        store(directory).update(PRINT, {blind: (seq, HASHES[seq])})


def test_concurrent_updates_forget_nothing_of_each_other(tmp_path: pathlib.Path) -> None:
    """Updates at the same time all arrive: none writes over what another saw."""
    blinds = [f"{number:032x}" for number in range(4)]
    workers = [threading.Thread(target=_update_often, args=(tmp_path, blind)) for blind in blinds]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    now: dict[str, trust.Now] = dict.fromkeys(blinds, (8, HASHES[8]))
    store(tmp_path).check(PRINT, now)
    for blind in blinds:
        with pytest.raises(errors.Rollback):
            store(tmp_path).check(PRINT, now | {blind: (7, HASHES[7])})


def test_c6_cached_slots_reopen_a_stripped_repository(tmp_path: pathlib.Path) -> None:
    """Slots that were cached are given back byte for byte and open the repository after all of its own are gone."""
    backend = memory.MemoryBackend()
    secret = keys.Secret("keyfile", b"k" * 40)
    opened = keyring.Unlocked(bytes(range(32)), b"{}")
    ring = keyring.Keyring(backend)
    slot_id = ring.add(opened, secret, label="", created="2026-01-02T03:04:05Z", rng=lambda size: b"\1" * size).id
    store(tmp_path).update(PRINT, {}, ring.blobs())
    for item in list(backend.list("keys")):
        backend.delete(item.name)
    cached = store(tmp_path).cached_slots()
    assert list(cached) == [slot_id]
    assert keyring.Keyring(backend, cached=cached).unlock(secret).root == opened.root


def test_cached_slots_are_kept_until_told_otherwise(tmp_path: pathlib.Path) -> None:
    """Seeing fewer slots forgets none, unless these are said to be all, or some are dropped."""
    one, two, three = ({name * 16: f'{{"id":"{name}"}}'.encode()} for name in ("01", "02", "03"))
    store(tmp_path).update(PRINT, {VM: (1, HASHES[1])}, one | two)
    store(tmp_path).update(PRINT, {}, three)
    assert store(tmp_path).cached_slots() == one | two | three
    store(tmp_path).drop_slots(two)
    assert store(tmp_path).cached_slots() == one | three
    store(tmp_path).update(PRINT, {}, two, only_these_slots=True)
    assert store(tmp_path).cached_slots() == two
    with pytest.raises(errors.Rollback):
        store(tmp_path).check(PRINT, {})


def test_c6_cached_slots_are_not_poisoned(tmp_path: pathlib.Path) -> None:
    """Another slot under a known identifier takes no place, and many of them push none out: a slot never changes."""
    slot = "01" * 16
    store(tmp_path).update(PRINT, {}, {slot: b'{"id":"1"}'})
    store(tmp_path).update(PRINT, {}, {slot: b'{"id":"2"}'})
    assert store(tmp_path).cached_slots() == {slot: b'{"id":"1"}'}
    floods = [{f"{number * 100 + item:032x}": b'{"id":"x"}' for item in range(64)} for number in range(3)]
    for flood in floods:
        store(tmp_path).update(PRINT, {}, flood)
    kept = store(tmp_path).cached_slots()
    assert kept[slot] == b'{"id":"1"}'
    assert len(kept) == 64
    opened = trust.Details(opened={"ff" * 16: b'{"id":"3"}'})
    store(tmp_path).update(PRINT, {}, floods[0], details=opened)
    kept = store(tmp_path).cached_slots()
    assert kept["ff" * 16] == b'{"id":"3"}'
    assert len(kept) == 65
    assert kept[slot] == b'{"id":"1"}'


def test_repository_identifiers_are_no_paths(tmp_path: pathlib.Path) -> None:
    """An identifier that is not 32 hexadecimal digits reaches no file."""
    for bad in ("../x", "", "A" * 32):
        with pytest.raises(errors.FormatError):
            store(tmp_path, bad)
