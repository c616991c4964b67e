"""Writers and collections beside each other, each stopped at any operation: K1, K3, K4, K5, K7, K8, K10."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import pytest

from tests import depth
from tests.gc import beside, past, scenarios
from vimgvc import errors
from vimgvc.model import reflog
from vimgvc.repo import gcrecords, pins, publication, repository

TAKE_OVER = dataclasses.replace(past.FORCE, take_over=True)
#: Where a writer decides something.
POINTS = {
    "before the pin": ("put", "pins", 0),
    "before the second look": ("list", "gc", 1),
    "before the ref entry": ("put", "refs", 0),
    "before it looks for its pin": ("size", "pins", 0),
    "before the pin goes": ("delete", "pins", 0),
}


@pytest.fixture(scope="module")
def original() -> past.Past:
    return past.build()


def _some(total: int, count: int, seed: int) -> list[int]:
    """Numbers of operations: `count` of them, twice as many with `--all`, and all with `VIMGVC_GC_MODEL=all`."""
    everything = os.environ.get("VIMGVC_GC_MODEL") == "all"
    return depth.some(range(total), 2 * count if depth.ALL else count, seed, everything=everything)


def _name(original: past.Past) -> Callable[[repository.Repository], object]:
    """Give a name to a commit that has none."""
    return lambda repo: repo.set_ref(reflog.TAG, "other", original.gone[2], expect=None)


def _writer_stops(original: past.Past, at: int) -> bool:
    """A commit is stopped while a whole collection runs; whether it was stopped at all."""
    world = beside.World(original)
    writer = world.start(beside.commit_again, beside.at(at))
    stopped = not writer.result
    world.open().collect(past.FORCE)
    writer.finish()
    assert writer.error is None
    assert world.check()["other"] == writer.result
    world.open().collect(past.FORCE)
    assert world.check()["other"] == writer.result
    return stopped


@pytest.mark.slow
def test_k4_a_commit_is_stopped_anywhere(original: past.Past, seed: int) -> None:
    """K3, K4: for a whole collection, and then goes on: it is made, and whole, and stays so."""
    total = beside.World(original).count(beside.commit_again)
    for at in _some(total, 12, seed):
        assert _writer_stops(original, at), f"operation {at} of {total}"


@pytest.mark.parametrize("point", [("sync", "", 0), ("get", "commits", 0), ("put", "pins", 0), ("put", "refs", 0)])
def test_k4_a_commit_is_stopped_at_its_end(original: past.Past, point: tuple[str, str, int]) -> None:
    """K4: also while its commit is there and nobody may know of it yet: that one goes, and it makes another."""
    scenarios.a_commit_sleeps(original, point)


@pytest.mark.slow
def test_k4_a_name_is_given_anywhere(original: past.Past, seed: int) -> None:
    """K4: the same for a name for a commit that has none: it is refused, or given and whole."""
    work = _name(original)
    given = 0
    total = beside.World(original).count(work)
    for at in _some(total, 12, seed):
        world = beside.World(original)
        writer = world.start(work, beside.at(at))
        world.open().collect(past.FORCE)
        writer.finish()
        assert writer.error is None or isinstance(writer.error, publication.Swept | errors.NotFound)
        assert ("other" in world.check()) == (writer.error is None)
        given += writer.error is None
        world.open().collect(past.FORCE)
        world.check()
    assert 0 < given < total


@pytest.mark.slow
def test_k3_a_collection_is_stopped_anywhere(original: past.Past, seed: int) -> None:
    """K3: while a commit is made; neither gives up, and the next collection leaves what one alone would."""
    total = beside.World(original).count(beside.collect)
    spared = 0
    for at in _some(total, 20, seed):
        world = beside.World(original)
        collector = world.start(beside.collect, beside.at(at))
        made = beside.commit_again(world.open())
        collector.finish()
        assert collector.error is None
        assert world.check()["other"] == made
        spared += getattr(collector.result, "spared", 0)
    assert spared > 0


@pytest.mark.slow
@pytest.mark.parametrize("point", list(POINTS))
def test_k4_both_are_stopped(original: past.Past, point: str, seed: int) -> None:
    """K4: a writer where it decides, then a collection anywhere; the writer goes on first, then the collection."""
    total = beside.World(original).count(beside.collect)
    for at in _some(total, 4, seed):
        for work in (beside.commit_again, _name(original)):
            _both(original, work, beside.before(*POINTS[point]), at)


def _both(original: past.Past, work: Callable[[repository.Repository], object], when: beside.When, at: int) -> None:
    world = beside.World(original)
    writer = world.start(work, when)
    collector = world.start(beside.collect, beside.at(at))
    writer.finish()
    collector.finish()
    assert collector.error is None
    assert writer.error is None or isinstance(writer.error, publication.Swept | errors.NotFound)
    assert ("other" in world.check()) == (writer.error is None)


@pytest.mark.slow
def test_k5_a_stopped_collection_is_taken_over(original: past.Past, seed: int) -> None:
    """K5: one that is stopped anywhere keeps others out, until it is taken over; it then does no harm when it goes on.

    What is stored meanwhile stays, and nothing relies on what the first one may still remove.
    """
    total = beside.World(original).count(beside.collect)
    refused = 0
    for at in _some(total, 12, seed):
        world = beside.World(original)
        first = world.start(beside.collect, beside.at(at))
        if first.result is None and gcrecords.Records(first.backend, world.open().seals).unfinished():
            with pytest.raises(errors.Busy) as caught:
                world.open().collect(past.FORCE)
            assert "--take-over" in caught.value.hint
            refused += 1
            world.open().collect(TAKE_OVER)
        made = beside.commit_again(world.open())
        first.finish()
        assert first.error is None or isinstance(first.error, errors.Busy)
        assert world.check()["other"] == made
        world.open().collect(TAKE_OVER)
        assert world.check()["other"] == made
    assert refused > 2


def test_k5_two_that_begin_at_once(original: past.Past) -> None:
    """K5: of two collections that begin at the same moment one is told that it came second, and changes nothing."""
    world = beside.World(original)
    first = world.start(beside.collect, beside.before("put", "gc"))
    world.open().collect(past.FORCE)
    after = dict(world.blobs)
    first.finish()
    assert isinstance(first.error, errors.Busy)
    assert first.error.exit_code == 11
    assert world.blobs == after


@pytest.mark.slow
def test_k1_many_writers_and_a_collection(original: past.Past, seed: int) -> None:
    """K1, K8: writers of overlapping content, stopped at random, with collections between: all are made."""
    draw = np.random.default_rng(seed)
    for _ in range(2):
        world = beside.World(original)
        total = beside.World(original).count(beside.commit_again)
        writers = {}
        for number in range(4):
            branch = f"b{number}"

            def work(repo: repository.Repository, branch: str = branch) -> str:
                return past.commit(repo, past.contents()["side"], branch, branch).id

            writers[branch] = world.start(work, beside.at(int(draw.integers(total))))
            if draw.random() < 0.5:
                world.open().collect(past.FORCE)
        world.open().collect(past.FORCE)
        for branch in draw.permutation(sorted(writers)).tolist():
            writers[branch].finish()
            assert writers[branch].error is None
        world.open().collect(past.FORCE)
        found = world.check()
        assert {branch: found[branch] for branch in writers} == {b: task.result for b, task in writers.items()}


def test_k7_the_base_goes_meanwhile(original: past.Past) -> None:
    """K7: the branch that is committed to is deleted and collected: the commit is kept apart, without that history."""
    world = beside.World(original)
    side = past.contents()["side"]
    made = past.commit(world.open(), side, "base", "base").id
    writer = world.start(lambda repo: past.commit(repo, side, "base", "next").id, beside.before("put", "pins"))
    other = world.open()
    other.set_ref(reflog.BRANCH, "base", None, expect=made)
    other.collect(past.FORCE)
    writer.finish()
    found = world.check()
    assert writer.error is None
    repo = world.open()
    assert found["base"] == writer.result
    assert repo.graph.load(found["base"]).parents == ()


def test_k7_a_name_that_went_meanwhile(original: past.Past) -> None:
    """K7: who names what a branch led to is safe although that branch came and went while a collection was at work."""
    scenarios.a_name_that_went(original)


def test_k8_nothing_is_put_under_a_name_in_doubt(original: past.Past) -> None:
    """K8, N19: packs that a stopped collection may still remove are not put again under their names."""
    scenarios.a_pack_put_again(original)


def test_close_ends_the_doubt(original: past.Past) -> None:
    """A collection that was taken over is unfinished until it is closed; its names can be used again then."""
    world = beside.World(original)
    world.start(beside.collect, beside.before("delete", "packs"))
    left = world.open().collect(TAKE_OVER).unfinished
    assert [(one.epoch, one.host, one.taken) for one in left] == [(1, "", True)]
    assert publication.Publication.begin(world.open()).avoid
    closed = world.open().collect(dataclasses.replace(past.FORCE, close=frozenset({1})))
    assert closed.unfinished == ()
    assert not publication.Publication.begin(world.open()).avoid
    world.check()


# -- dead writers --------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
def test_k10_a_pin_of_a_dead_writer(original: past.Past, old: bool) -> None:
    """K10: it holds its commit and keeps nobody away; after a day it is told of, and goes when it is said to."""
    world = beside.World(original)
    world.start(beside.commit_again, beside.before("put", "refs"))
    (pin,) = pins.Pins(world.open().backend, world.open().seals).all().values()
    late = world.open()
    late.clock = lambda: 1_800_001_000.0 + (90_000 if old else 0)
    done = late.collect(past.FORCE)
    assert [(one.commit, one.host, one.old) for one in done.pins] == [(pin.commit, "host", old)]
    assert past.read(late, late.graph.load(pin.commit)) == past.contents()["side"]
    again = late.collect(dataclasses.replace(past.FORCE, expire_old=True))
    assert (again.commits_deleted, len(again.pins)) == ((1, 0) if old else (0, 1))
    world.check()


def test_k10_one_pin_by_name(original: past.Past) -> None:
    """K10: a pin can be removed by its name at once, also when it cannot be read."""
    world = beside.World(original)
    world.start(beside.commit_again, beside.before("put", "refs"))
    repo = world.open()
    (pin,) = pins.Pins(repo.backend, repo.seals).ids()
    world.blobs[pins.name(pin)] = b"damaged"
    with pytest.raises(errors.IntegrityError) as caught:
        repo.collect(past.FORCE)
    assert pin in caught.value.hint
    assert repo.collect(dataclasses.replace(past.FORCE, expire=frozenset({pin}))).commits_deleted == 2
    world.check()


def test_k10_a_pin_goes_with_its_name(original: past.Past) -> None:
    """K10: where a writer may not remove its pin, the next collection does, once a name leads to the commit."""
    world = beside.World(original)
    writer = world.start(beside.commit_again, beside.before("delete", "pins"))
    done = world.open().collect(past.FORCE)
    assert (done.pins_deleted, done.pins) == (1, ())
    writer.finish()
    assert world.check()["other"] == writer.result


def test_k10_a_pin_of_what_is_gone_stops_nobody(original: past.Past) -> None:
    """K10: a writer that died with a pin and what it needs was removed: collections go on."""
    world = beside.World(original)
    writer = world.start(beside.commit_again, beside.before("put", "pins"))
    world.open().collect(past.FORCE)
    writer.backend.again(beside.before("list", "gc"))
    assert len(pins.Pins(world.open().backend, world.open().seals).ids()) == 1
    done = world.open().collect(past.FORCE)
    assert len(done.pins) == 1
    world.check()
