"""Collections of damaged repositories: nothing that could be restored before is lost by them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests import repos
from tests.gc import past
from vimgvc import errors
from vimgvc.backends import memory, protocol
from vimgvc.codec import aead, sealing, segment
from vimgvc.repo import gcrecords, repository
from vimgvc.store import catalog, index_object, pack, reindex, writer


@pytest.fixture(scope="module")
def original() -> past.Past:
    return past.build()


@pytest.fixture
def place(original: past.Past) -> past.Past:
    return past.Past(copy(original.backend), original.unlocked, dict(original.kept), list(original.gone))


def copy(source: protocol.Backend) -> memory.MemoryBackend:
    made = memory.MemoryBackend()
    for name in past.stored(source):
        made.put(name, [source.get(name)])
    made.put("config", [source.get("config")])
    return made


def replace(place: past.Past, name: str, blob: bytes) -> None:
    place.backend.delete(name)
    place.backend.put(name, [blob])


def flip(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 0x10]) + blob[at + 1 :]


def restorable(place: past.Past) -> set[str]:
    """The kept commits that restore as they should."""
    repo = place.open()
    found = set()
    for commit_id, disks in place.kept.items():
        try:
            if past.read(repo, repo.graph.load(commit_id)) == disks:
                found.add(commit_id)
        except errors.VimgvcError:
            continue
    return found


_DAMAGE: dict[str, Callable[[bytes, np.random.Generator], bytes | None]] = {
    "flipped": lambda blob, rng: flip(blob, int(rng.integers(len(blob)))),
    "short": lambda blob, rng: blob[: int(rng.integers(1, len(blob)))],
    "empty": lambda _blob, _rng: b"",
    "gone": lambda _blob, _rng: None,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", _DAMAGE)
def test_any_blob_damaged(original: past.Past, kind: str, seed: int) -> None:
    """Whichever blob is damaged: commits that restored before the collection restore after it, done or refused."""
    rng = np.random.default_rng(seed)
    for name in sorted(past.stored(original.backend)):
        if name.startswith("keys/"):
            continue
        place = past.Past(copy(original.backend), original.unlocked, dict(original.kept))
        blob = _DAMAGE[kind](place.backend.get(name), rng)
        place.backend.delete(name)
        if blob is not None:
            place.backend.put(name, [blob])
        before = restorable(place)
        with contextlib.suppress(errors.VimgvcError):
            place.open().collect(past.FORCE)
        # Whoever deletes all of a ref log deletes the name: with `force` that is believed.
        if kind == "gone" and name.startswith("refs/"):
            continue
        assert restorable(place) >= before, f"{name} {kind}"


def _last_entries(place: past.Past) -> Iterator[str]:
    for blind, seq in place.open().logs.ends().items():
        yield f"refs/{blind}/{seq:016x}"


def _refuses(place: past.Past, error: type[errors.VimgvcError] = errors.IntegrityError) -> None:
    before = past.content(place.backend)
    with pytest.raises(error):
        place.open().collect(past.FORCE)
    assert past.content(place.backend) == before


def test_an_unreadable_ref_entry_stops_it(place: past.Past) -> None:
    """Not the entry before it counts then, as for readers: nothing is removed."""
    for name in _last_entries(place):
        blob = place.backend.get(name)
        replace(place, name, flip(blob, len(blob) // 2))
        _refuses(place)
        replace(place, name, blob)
    place.open().collect(past.FORCE)


def test_an_entry_far_away_stops_it_at_once(place: past.Past) -> None:
    """A ref entry with the highest number there is, which nobody can have written, is read and refused."""
    name = next(_last_entries(place))
    place.backend.put(f"{name.rpartition('/')[0]}/{2**64 - 1:016x}", [place.backend.get(name)])
    _refuses(place)


def test_an_unreadable_commit_stops_it(place: past.Past) -> None:
    """A commit that is damaged or missing, forgotten or not: what it leads to is not known."""
    reachable = [*place.kept, *place.gone[:2]]
    for commit_id in reachable:
        name = f"commits/{commit_id}"
        blob = place.backend.get(name)
        replace(place, name, flip(blob, 60))
        _refuses(place)
        place.backend.delete(name)
        _refuses(place)
        place.backend.put(name, [blob])


def test_an_unreadable_record_stops_it(place: past.Past) -> None:
    """Whether a commit is forgotten must be known."""
    name = f"forgotten/{place.gone[0]}"
    replace(place, name, flip(place.backend.get(name), 70))
    _refuses(place)


def test_missing_content_stops_it(place: past.Past) -> None:
    """A pack that live commits need is not there: nothing else is removed, and the message names a commit."""
    repo = place.open()
    name = max(past.packs(place.backend), key=lambda name: place.backend.size(pack.blob_name(name)))
    place.backend.delete(pack.blob_name(name))
    before = past.content(place.backend)
    with pytest.raises(errors.IntegrityError, match=r"nothing is removed while a commit is not whole") as caught:
        repo.collect(past.FORCE)
    assert any(commit_id.startswith(caught.value.where[:12]) for commit_id in place.kept)
    assert past.content(place.backend) == before


def _mixed_pack(place: past.Past) -> str:
    """A data pack that holds what is needed and what is not."""
    before = past.packs(place.backend)
    trial = past.Past(copy(place.backend), place.unlocked)
    trial.open().collect(past.FORCE)
    index = catalog.open_catalog(place.backend, place.open().seals, None, repos.Collector()).index
    gone = [item for item in index.packs() if item.name in before - past.packs(trial.backend)]
    wanted = [item for item in gone if item.kind == segment.DATA]
    return max(wanted, key=lambda item: item.size).name


def test_what_cannot_be_read_stays_where_it_is(place: past.Past) -> None:
    """A pack with a damaged segment is not removed: what is left of it is for `repair`, and is told."""
    name = pack.blob_name(_mixed_pack(place))
    replace(place, name, flip(place.backend.get(name), 500))
    before = restorable(place)
    told = repos.Collector()
    place.open().collect(past.FORCE, told)
    assert name in past.stored(place.backend)
    assert [text for text in told.problems if "stays as it is" in text]
    assert restorable(place) == before


def test_damage_is_not_copied() -> None:
    """A segment that is needed as a whole moves only if its tag fits: else its pack stays, and the others move."""
    repo = repos.create(average=16384)
    place = past.Past(repo.backend, repo.unlocked)
    for number in range(12):
        disks = {"vm": repos.noise(200 + number, 20_000)}
        place.kept[past.commit(repo, disks, f"b{number}").id] = disks
    name = max(past.stored(repo.backend), key=lambda name: (name.startswith("packs/"), repo.backend.size(name)))
    replace(place, name, flip(repo.backend.get(name), 9000))
    assert len(restorable(place)) == 11
    told = repos.Collector()
    done = place.open().collect(past.FORCE, told)
    assert (done.packs_deleted, len(told.problems)) == (23, 1)
    assert name in past.stored(place.backend)
    replace(place, name, flip(repo.backend.get(name), 9000))
    past.check(place)


def _twice(place: past.Past) -> tuple[repository.Repository, dict[str, str]]:
    """Store everything that is stored a second time; returns the new packs by the old ones they repeat."""
    repo = place.open()
    index = catalog.open_catalog(place.backend, repo.seals, None, repos.Collector()).index
    store = repo.objects(repos.Collector())
    pairs = {}
    for item in list(index.packs()):
        before = past.packs(place.backend)
        out = writer.Writer(place.backend, repo.seals, reindex.empty_index())
        table = store.table(item.number)
        for number in range(len(table.segments)):
            offset, shape = table.shape(number)
            stored = place.backend.get(pack.blob_name(item.name), offset, shape.stored_length)
            ids, _, lengths = table.slots(number)
            out.add(shape, memoryview(stored), ids, lengths.tolist())
        out.finish()
        (pairs[item.name],) = past.packs(place.backend) - before
    return repo, pairs


@pytest.mark.parametrize("damaged", ["old", "new"])
def test_the_copy_that_stays_can_be_read(place: past.Past, damaged: str) -> None:
    """Of what is stored twice a copy that is damaged never makes the other one go."""
    _, pairs = _twice(place)
    for old, new in pairs.items():
        name = pack.blob_name(old if damaged == "old" else new)
        blob = place.backend.get(name)
        replace(place, name, flip(flip(blob, 60), len(blob) // 3))
    assert restorable(place) == set(place.kept)
    place.open().collect(past.FORCE, repos.Collector())
    past.check(place, healthy=False)


def test_what_is_stored_twice_is_stored_once_afterwards(place: past.Past) -> None:
    """Sound copies: one goes, as after an interrupted collection."""
    single = past.Past(copy(place.backend), place.unlocked, place.kept)
    single.open().collect(past.FORCE)
    _twice(place)
    place.open().collect(past.FORCE)
    past.check(place)
    sizes = [sum(past.stored(one.backend).values()) for one in (single, place)]
    assert sizes[1] <= 1.05 * sizes[0]


def test_an_index_that_is_wrong_costs_nothing(place: past.Past) -> None:
    """Index objects that exchange the slots of segments: what they would have made unneeded is still in the packs."""
    seals = place.open().seals
    for item in list(place.backend.list("index")):
        body = index_object.decode(catalog.load_index(place.backend, seals, item.name.partition("/")[2]))
        places = body.places.copy()
        for pack_number, number in {(int(row["pack"]), int(row["segment"])) for row in places}:
            mine = (places["pack"] == pack_number) & (places["segment"] == number)
            places["slot"][mine] = places["slot"][mine].max() - places["slot"][mine]
        blob = seals.seal(aead.INDEX, index_object.encode(index_object.IndexBody(body.packs, body.ids, places)))
        place.backend.delete(item.name)
        place.backend.put(f"index/{sealing.blob_hash(blob)}", [blob])
    told = repos.Collector()
    with contextlib.suppress(errors.IntegrityError):
        place.open().collect(past.FORCE, told)
    for item in list(place.backend.list("index")):
        place.backend.delete(item.name)
    past.check(place, healthy=False)


def test_damaged_index_objects_cost_nothing(place: past.Past) -> None:
    """Packs that no readable index object names are known by their tables, and named again afterwards."""
    for item in list(place.backend.list("index"))[:3]:
        replace(place, item.name, flip(place.backend.get(item.name), 50))
    place.open().collect(past.FORCE, repos.Collector())
    past.check(place, healthy=False)
    for item in list(place.backend.list("index")):
        place.backend.delete(item.name)
    past.check(place)


def test_a_damaged_record_of_a_collection_is_told(place: past.Past) -> None:
    """Commits and collections go on: nobody removes anything because of an old list."""
    repo = place.open()
    records = gcrecords.Records(place.backend, repo.seals)
    records.put(gcrecords.Record(3, gcrecords.BEGIN, "2027-01-15T08:00:00Z", "host", locked=True))
    records.put(gcrecords.Record(3, gcrecords.CONDEMN, "2027-01-15T08:00:00Z", "host", locked=True))
    name = gcrecords.name(3, gcrecords.CONDEMN)
    replace(place, name, flip(place.backend.get(name), 60))
    told = repos.Collector()
    assert records.condemned(told).packs == frozenset()
    assert len(told.problems) == 1
    past.commit(place.open(), {"vm": b"z" * 5000}, "vm")
    assert place.open().collect(past.FORCE).epoch == 4
    assert records.unfinished() == []
    past.check(place)


def test_a_tree_that_cannot_be_read_stops_it(place: past.Past) -> None:
    """A manifest node that is damaged: what it leads to would seem unneeded."""
    index = catalog.open_catalog(place.backend, place.open().seals, None, repos.Collector()).index
    refused = 0
    for item in [item for item in index.packs() if item.kind == segment.TREE]:
        name = pack.blob_name(item.name)
        blob = place.backend.get(name)
        replace(place, name, flip(blob, 60))
        before = past.content(place.backend)
        try:
            past.Past(copy(place.backend), place.unlocked).open().collect(past.FORCE)
        except errors.IntegrityError:
            _refuses(place)
            refused += 1
        assert past.content(place.backend) == before
        replace(place, name, blob)
    assert refused >= len(place.kept)
