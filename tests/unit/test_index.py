"""The index as a whole: what is in index objects, what was added, what was dropped."""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

from tests import index_model
from vimgvc import monitor
from vimgvc.store import index, index_base, index_object

# Everything that needs hundreds of thousands of entries happens with dozens.
SMALL = index_base.Limits(unsaved=24, loaded=40, parts=2, smallest_cached=16, smallest_added=8)

_SILENT = monitor.NullMonitor()

# Identifiers that share four or eight bytes with others, and some at the ends of the order.
_POOL = [
    head * 4 + middle * 4 + bytes([tail]) * 24
    for head in (b"\0", b"\xff")
    for middle in (b"\0", b"\xff")
    for tail in b"abcdefgh"
]
_SOME = st.lists(st.sampled_from(_POOL), min_size=1, max_size=12)


def _open(objects: index_model.Objects, cache: pathlib.Path | None, limits: index_base.Limits = SMALL) -> index.Index:
    return index.Index.open(list(objects.bodies), objects.load, cache, _SILENT, limits=limits)


class IndexMachine(stateful.RuleBasedStateMachine):
    """Any order of adding, dropping, saving and opening again, with the model of a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.cache = pathlib.Path(self.folder.name) / "cache"
        self.objects = index_model.Objects()
        self.index = _open(self.objects, self.cache)
        self.saved: dict[bytes, set[index_model.Entry]] = {}
        self.added: dict[bytes, set[index_model.Entry]] = {}
        self.dropped: set[bytes] = set()
        self.packs: set[bytes] = set()
        self.count = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @stateful.rule(ids=_SOME)
    def add(self, ids: list[bytes]) -> None:
        self.count += 1
        self._add(index_model.pack_name(self.count), ids)

    @stateful.rule(ids=_SOME, data=st.data())
    def add_to_a_pack_known_before(self, ids: list[bytes], data: st.DataObject) -> None:
        if self.packs:
            self._add(data.draw(st.sampled_from(sorted(self.packs))), ids)

    def _add(self, pack: bytes, ids: list[bytes]) -> None:
        index_model.add(self.index, pack, index_model.as_array(ids))
        for slot, item in enumerate(ids):
            self.added.setdefault(item, set()).add((pack, 0, slot))
        self.packs.add(pack)
        self.dropped.discard(pack)

    @stateful.rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if self.packs:
            names = data.draw(st.sets(st.sampled_from(sorted(self.packs)), max_size=3))
            self.index.drop_packs(name.hex() for name in names)
            self.dropped |= names

    @stateful.rule()
    def save(self) -> None:
        self.objects.save(self.index)
        assert self.index.unsaved == 0
        for item, entries in self.added.items():
            self.saved.setdefault(item, set()).update(entries)
        self.added = {}

    @stateful.rule(cached=st.booleans())
    def open_again(self, cached: bool) -> None:
        self.index = _open(self.objects, self.cache if cached else None)
        self.added, self.dropped = {}, set()
        self.packs = {pack for entries in self.saved.values() for pack, _, _ in entries}

    @stateful.invariant()
    def answers_as_the_model(self) -> None:
        found = index_model.answers(self.index, index_model.as_array(_POOL))
        assert self.index.contains(index_model.as_array(_POOL)).tolist() == [one is not None for one in found]
        for item, one in zip(_POOL, found, strict=True):
            every = self.saved.get(item, set()) | self.added.get(item, set())
            living = {entry for entry in every if entry[0] not in self.dropped}
            assert index_model.places_of(self.index, item) == living
            assert one in living if living else one is None
        assert {bytes.fromhex(pack.name) for pack in self.index.packs()} == self.packs - self.dropped


@pytest.mark.slow
def test_an_index_answers_as_a_dictionary() -> None:
    """Whatever was added, dropped, saved and opened again: the answers are those of a dictionary."""
    stateful.run_state_machine_as_test(IndexMachine, settings=settings(max_examples=60, stateful_step_count=25))


def test_facts_of_packs_survive() -> None:
    """Name, size, table length and kind of a pack are what was added, before and after saving."""
    objects = index_model.Objects()
    first = _open(objects, None)
    ids = index_model.random_ids(3, 1)
    column = np.zeros(3, np.uint16)
    number = first.add_pack(b"\xab" * 32, 1 << 33, 77, 2, ids, column, column)
    assert first.pack(number) == (number, "ab" * 32, 1 << 33, 77, 2)
    objects.save(first)
    assert list(_open(objects, None).packs()) == [(0, "ab" * 32, 1 << 33, 77, 2)]


def test_a_shared_prefix_is_no_identity() -> None:
    """An identifier that differs only in its last byte from a stored one is absent."""
    of = _open(index_model.Objects(), None)
    stored = index_model.random_ids(100, 1)
    index_model.add(of, index_model.pack_name(1), stored)
    for column in (4, 8, 16, 24, 31):
        near = stored.copy()
        near[:, column] ^= 1
        assert not of.contains(near).any()


def test_no_identifiers_no_places() -> None:
    """An empty question has an empty answer, of an empty index and of one that is not."""
    of = _open(index_model.Objects(), None)
    none = np.empty((0, 32), np.uint8)
    assert len(of.lookup(none).found) == 0
    index_model.add(of, index_model.pack_name(1), index_model.random_ids(3, 1))
    assert len(of.contains(none)) == 0
    assert not _open(index_model.Objects(), None).contains(index_model.random_ids(3, 1)).any()


def test_questions_may_be_of_any_shape_in_memory() -> None:
    """Strided identifiers are found as contiguous ones are."""
    of = _open(index_model.Objects(), None)
    ids = index_model.random_ids(100, 1)
    index_model.add(of, index_model.pack_name(1), ids)
    wide = np.zeros((100, 64), np.uint8)
    wide[:, 16:48] = ids
    assert of.contains(wide[:, 16:48]).all()
    assert of.contains(ids[::-3]).all()


@pytest.mark.slow
def test_batches_of_any_size_agree(seed: int) -> None:
    """One question, and one question in many pieces, have the same answer in the same order."""
    objects = index_model.Objects()
    of = _open(objects, None, index_base.DEFAULT)
    ids = index_model.random_ids(90_000, seed)
    for start in range(0, len(ids), 900):
        part = ids[start : start + 900]
        index_model.add(of, index_model.pack_name(start), part, (np.arange(len(part)) % 50).tolist())
    generator = np.random.default_rng(seed)
    mixed = np.concatenate((ids, index_model.random_ids(90_000, seed + 1)))[generator.permutation(180_000)]
    whole = of.lookup(mixed)
    assert int(whole.found.sum()) == 90_000
    for size in (64, 5000):
        for start in generator.integers(0, 175_000, 20).tolist():
            answer = of.lookup(mixed[start : start + size])
            for name in ("found", "pack", "segment", "slot"):
                assert (getattr(answer, name) == getattr(whole, name)[start : start + size]).all()


def test_what_is_not_marked_saved_stays_unsaved() -> None:
    """Entries are offered again until their index object is known to be stored."""
    of = _open(index_model.Objects(), None)
    index_model.add(of, index_model.pack_name(1), index_model.random_ids(10, 1))
    assert of.unsaved == 10
    (body,) = of.take_unsaved()
    index_model.add(of, index_model.pack_name(2), index_model.random_ids(5, 2))
    assert of.unsaved == 15
    assert [len(one) for one in of.take_unsaved()] == [10, 5]
    of.mark_saved(body, "00" * 32)
    assert [len(one) for one in of.take_unsaved()] == [5]
    assert of.unsaved == 5


def test_unsaved_entries_come_in_bodies_of_bounded_size() -> None:
    """A body closes when it has as many entries as may wait in memory, and names only its own packs."""
    of = _open(index_model.Objects(), None)
    for number in range(20):
        index_model.add(of, index_model.pack_name(number), index_model.random_ids(10, number))
    bodies = of.take_unsaved()
    assert [len(body) for body in bodies] == [30] * 6 + [20]
    assert [len(body.packs) for body in bodies] == [3] * 6 + [2]
    assert all(index_object.encode(body) for body in bodies)


def test_r5_a_missing_pack_counts_as_not_stored() -> None:
    """What only a dropped pack holds is absent; what another pack holds too is found there; adding revives."""
    objects = index_model.Objects()
    both, one = index_model.random_ids(40, 1), index_model.random_ids(10, 2)
    first = _open(objects, None)
    lost, kept = index_model.pack_name(1), index_model.pack_name(2)
    index_model.add(first, lost, np.concatenate((both, one)))
    index_model.add(first, kept, both)
    objects.save(first)
    of = _open(objects, None)
    of.drop_packs([lost.hex(), "ee" * 32])
    assert not of.contains(one).any()
    assert {answer and answer[0] for answer in index_model.answers(of, both)} == {kept}
    assert [bytes.fromhex(pack.name) for pack in of.packs()] == [kept]
    index_model.add(of, lost, one)
    assert of.contains(one).all()


def test_r8_damaged_index_object() -> None:
    """An index object that cannot be opened, or breaks a rule, is named and skipped; the others count."""
    objects, problems = index_model.Objects(), index_model.Problems()
    ids = index_model.random_ids(30, 1)
    for number in range(3):
        of = _open(objects, None)
        index_model.add(of, index_model.pack_name(number), ids[10 * number : 10 * number + 10])
        objects.save(of)
    names = list(objects.bodies)
    objects.damaged.add(names[0])
    objects.bodies[names[1]] += b"\0"
    of = index.Index.open(names, objects.load, None, problems)
    assert sorted(of.damaged) == sorted(names[:2])
    assert len(problems.messages) == 2
    assert of.contains(ids).tolist() == [False] * 20 + [True] * 10
    assert [pack.name for pack in of.packs()] == [index_model.pack_name(2).hex()]


def test_r8_index_object_gone_while_opening() -> None:
    """A name that was listed and is gone when it is read counts as damaged, not as an error."""
    objects = index_model.Objects()
    of = index.Index.open(["ab" * 32], objects.load, None, _SILENT)
    assert of.damaged == ["ab" * 32]
    assert len(of) == 0


def test_r8_duplicated_index_object() -> None:
    """The same entries in two index objects are found once."""
    objects = index_model.Objects()
    ids = index_model.random_ids(10, 1)
    packs = [index_model.pack_name(1), index_model.pack_name(2)]
    entries = [(item.tobytes(), (packs[0], 0, 3)) for item in ids]
    objects.store(index_model.body_of(entries, packs[:1]))
    objects.store(index_model.body_of(entries, packs))
    of = _open(objects, None)
    assert len(objects.bodies) == 2
    assert all(index_model.places_of(of, item.tobytes()) == {(packs[0], 0, 3)} for item in ids)


def test_r8_foreign_names_are_ignored() -> None:
    """Files beside index objects are not read."""
    objects = index_model.Objects()
    index.Index.open([".tmp-1", "lost+found", "AB" * 32, "ab" * 31], objects.load, None, _SILENT)
    assert objects.loads == []


def test_r9_all_indexes_lost() -> None:
    """Packs taken in from their own tables are found at once, and the next save makes whole index objects."""
    objects = index_model.Objects()
    ids = index_model.random_ids(400, 1)
    of = _open(objects, None)
    for number in range(40):
        index_model.add(of, index_model.pack_name(number), ids[10 * number : 10 * number + 10])
    assert of.contains(ids).all()
    before = index_model.answers(of, ids)
    objects.save(of)
    assert index_model.answers(_open(objects, None), ids) == before


def test_r17_every_copy_is_known() -> None:
    """One identifier in several packs: any is found, all are listed, and all survive saving."""
    objects = index_model.Objects()
    ids = index_model.random_ids(10, 1)
    packs = [index_model.pack_name(number) for number in range(4)]
    of = _open(objects, None)
    for pack in packs:
        index_model.add(of, pack, ids)
    objects.save(of)
    for opened in (of, _open(objects, None)):
        for slot, item in enumerate(ids):
            assert index_model.places_of(opened, item.tobytes()) == {(pack, 0, slot) for pack in packs}
        assert all(answer and answer[0] in packs for answer in index_model.answers(opened, ids))


def test_r18_entries_that_disagree() -> None:
    """Two index objects that place an identifier differently in one pack: both places are listed."""
    objects = index_model.Objects()
    item, pack = b"\x55" * 32, index_model.pack_name(1)
    objects.store(index_model.body_of([(item, (pack, 1, 2))], [pack]))
    objects.store(index_model.body_of([(item, (pack, 3, 4))], [pack]))
    assert index_model.places_of(_open(objects, None), item) == {(pack, 1, 2), (pack, 3, 4)}


@pytest.mark.slow
def test_lookups_while_others_add(seed: int, tmp_path: pathlib.Path) -> None:
    """What was added before a lookup began is found by it, in every thread, and nothing else is."""
    objects = index_model.Objects()
    old = index_model.random_ids(500, seed)
    first = _open(objects, None)
    index_model.add(first, index_model.pack_name(10**6), old)
    objects.save(first)
    of = _open(objects, tmp_path / "cache")
    new = index_model.random_ids(6000, seed + 1)
    never = index_model.random_ids(50, seed + 2)
    added = [0, 0]

    def adder(half: int) -> None:
        for start in range(half * 3000, half * 3000 + 3000, 10):
            index_model.add(of, index_model.pack_name(start), new[start : start + 10])
            added[half] = start + 10 - half * 3000
            if start % 500 == 0 and half == 0:
                objects.save(of)

    def asker() -> None:
        while sum(added) < 6000:
            counts = list(added)
            asked = np.concatenate((old, never, new[: counts[0]], new[3000 : 3000 + counts[1]]))
            found = of.lookup(asked)
            assert found.found[:500].all()
            assert not found.found[500:550].any()
            assert found.found[550:].all()
            assert all(of.pack(number).size == 1000 for number in np.unique(found.pack[found.found]).tolist())

    index_model.run_all([lambda: adder(0), lambda: adder(1), asker, asker])
    objects.save(of)
    assert _open(objects, tmp_path / "cache").contains(new).all()
