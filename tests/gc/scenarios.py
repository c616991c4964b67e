"""Moments at which one rule alone keeps something from being lost; each raises `AssertionError` when it is."""

from __future__ import annotations

import dataclasses

from tests.gc import beside, past
from vimgvc.model import reflog
from vimgvc.repo import publication, repository
from vimgvc.store import pack


def a_commit_sleeps(original: past.Past, point: tuple[str, str, int]) -> None:
    """It stops before an operation while a whole collection runs."""
    world = beside.World(original)
    writer = world.start(beside.commit_again, beside.before(*point))
    world.open().collect(past.FORCE)
    writer.finish()
    assert writer.error is None, writer.error
    assert world.check()["other"] == writer.result
    assert world.open().verify("quick").problems == []


def a_removal_is_on_its_way(original: past.Past) -> None:
    """What a commit relies on is still there when it looks, and goes afterwards."""
    world = beside.World(original)
    writer = world.start(beside.commit_again, beside.before("put", "pins"))
    collector = world.start(beside.collect, beside.before("delete", "index"))
    writer.finish()
    collector.finish()
    assert (writer.error, collector.error) == (None, None)
    assert world.check()["other"] == writer.result


def a_commit_comes_before_the_sweep(original: past.Past) -> None:
    """It is made from beginning to end after a collection has read everything, and before it says what goes."""
    world = beside.World(original)
    collector = world.start(beside.collect, beside.before("put", "gc", 1))
    made = beside.commit_again(world.open())
    collector.finish()
    assert collector.error is None
    assert world.check()["other"] == made


def a_pin_goes_while_it_looks(original: past.Past) -> None:
    """A writer puts its ref entry and removes its pin while a collection has listed one of the two."""
    world = beside.World(original)
    collector = world.start(beside.collect, beside.before("put", "gc", 1))
    writer = world.start(beside.commit_again, beside.before("put", "refs"))
    collector.backend.again(beside.before("list", "pins"))
    writer.finish()
    collector.finish()
    assert (writer.error, collector.error) == (None, None)
    assert world.check()["other"] == writer.result


def a_name_that_went(original: past.Past) -> None:
    """A tag is made after a collection has read names, another one because of it, and the first one is deleted."""
    world = beside.World(original)
    revived = original.gone[2]
    collector = world.start(beside.collect, beside.before("put", "gc", 1))
    world.open().set_ref(reflog.TAG, "first", revived, expect=None)
    collector.backend.again(beside.before("list", "refs"))
    writer = world.start(
        lambda repo: repo.set_ref(reflog.TAG, "other", revived, expect=None), beside.before("put", "refs")
    )
    world.open().set_ref(reflog.TAG, "first", None, expect=revived)
    collector.finish()
    writer.finish()
    assert (writer.error, collector.error) == (None, None)
    assert world.check()["other"] == revived


def put_whole_packs(repo: repository.Repository, blobs: beside.Blobs, commit_id: str) -> None:
    """As a push does: packs and a commit go under the names they have elsewhere, if those are not in doubt."""
    with publication.Publication.begin(repo) as pub:
        packs = [name.rpartition("/")[2] for name in blobs if name.startswith("packs/")]
        if commit_id in pub.gone or not pub.avoid.isdisjoint(packs):
            raise publication.Swept("what this would put")
        known = repo.last_refs()
        for name, blob in sorted(blobs.items(), reverse=True):
            if name.startswith(("packs/", "commits/")):
                repo.backend.put(name, [blob])
        pub.pin(commit_id)
        pub.check(packs)
        pub.publish(reflog.TAG, "other", commit_id, known, time="2027-01-15T08:00:00Z", host="")


def a_pack_put_again(original: past.Past) -> None:
    """A collection stops before it removes packs, another one does that in its place, and somebody puts them again."""
    world = beside.World(original)
    before = dict(world.blobs)
    first = world.start(beside.collect, beside.before("delete", "packs"))
    world.open().collect(dataclasses.replace(past.FORCE, take_over=True))
    revived = original.gone[2]
    gone = {name: blob for name, blob in before.items() if name not in world.blobs and name.startswith("packs/")}
    assert any(name == pack.blob_name(name.rpartition("/")[2]) for name in gone)
    error = None
    try:
        put_whole_packs(world.open(), {**gone, f"commits/{revived}": before[f"commits/{revived}"]}, revived)
    except publication.Swept as swept:
        error = swept
    first.finish()
    assert ("other" in world.check()) == (error is None)
