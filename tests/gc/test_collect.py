"""What a collection keeps, removes and tells."""

from __future__ import annotations

import dataclasses

import pytest

from tests import repos
from tests.gc import hooked, past
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import reflog
from vimgvc.repo import collect, gcrecords
from vimgvc.store import catalog, pack


@pytest.fixture
def place() -> past.Past:
    return past.build()


def test_what_is_needed_stays_and_the_rest_goes(place: past.Past) -> None:
    """Live commits restore; what only forgotten or unreachable ones had is not stored any more."""
    before = sum(past.content(place.backend).values())
    done = place.open().collect(past.FORCE)
    repo = past.check(place)
    after = sum(past.content(place.backend).values())
    assert (before - after, after) == (done.freed_bytes, done.stored_bytes)
    assert repo.verify("data").problems == []
    # 60,000 bytes of `side` alone, 70,000 and 50,000 of what was forgotten: nearly all of it.
    assert done.freed_bytes > 100_000


def test_as_small_as_a_fresh_repository() -> None:
    """With nothing unneeded allowed, packs take no more than 2 % over those that held only what is kept."""
    place = past.build()
    place.open().collect(dataclasses.replace(past.FORCE, max_unused=0.0))
    # With the same key, so that content is cut alike.
    fresh = past.Past(memory.MemoryBackend(), place.unlocked)
    fresh.backend.put("config", [place.backend.get("config")])
    for disks in place.kept.values():
        past.commit(fresh.open(), disks, "vm")
    assert _pack_bytes(place) <= 1.02 * _pack_bytes(fresh)


def _pack_bytes(of: past.Past) -> int:
    return sum(size for name, size in past.stored(of.backend).items() if name.startswith("packs/"))


def test_a_dry_run_tells_the_truth_and_writes_nothing(place: past.Past) -> None:
    """Its figures are those of the real run, to the byte, and the repository is as it was."""
    before = past.stored(place.backend)
    would = place.open().collect(dataclasses.replace(past.FORCE, dry_run=True))
    assert past.stored(place.backend) == before
    done = place.open().collect(past.FORCE)
    assert dataclasses.replace(would, seconds=0) == dataclasses.replace(done, seconds=0)


def test_a_dry_run_may_suppose_that_commits_are_forgotten() -> None:
    """What `forget` and `gc` would free together is known before; a real run supposes nothing."""
    place = past.build()
    place.open().collect(past.FORCE)
    repo = place.open()
    extra = past.commit(repo, {"vm": repos.noise(50, 80_000)}, "vm", "extra")
    past.commit(repo, {"vm": b"x" * 4096}, "vm", "after")
    options = dataclasses.replace(past.FORCE, dry_run=True, forgotten=frozenset({extra.id}))
    would = place.open().collect(options)
    assert would.freed_bytes > 75_000
    assert place.open().collect(dataclasses.replace(past.FORCE, dry_run=True)).freed_bytes < 5_000
    past.forget(repo, extra.id)
    assert place.open().collect(past.FORCE).freed_bytes == would.freed_bytes
    with pytest.raises(ValueError, match="dry run"):
        place.open().collect(dataclasses.replace(options, dry_run=False))


def test_the_second_time_there_is_nothing_to_do(place: past.Past) -> None:
    """A collection right after another one writes and removes nothing."""
    place.open().collect(past.FORCE)
    before = past.content(place.backend)
    done = place.open().collect(past.FORCE)
    assert (done.epoch, done.freed_bytes, done.packs_written) == (None, 0, 0)
    assert past.content(place.backend) == before


def test_history_stays_connected(place: past.Past) -> None:
    """Forgotten commits that are reachable stay as commits, without their data; unreachable ones go."""
    place.open().collect(past.FORCE)
    repo = place.open()
    first, third, side = place.gone
    assert [repo.graph.load(item).id for item in (first, third)] == [first, third]
    assert side not in repo.graph.ids()
    with pytest.raises(errors.IntegrityError):
        past.read(repo, repo.graph.load(third))


def test_a_record_goes_with_its_commit(place: past.Past) -> None:
    """The record that a commit was forgotten is removed when the commit is, and not before."""
    repo = place.open()
    past.forget(repo, place.gone[2])
    repo.collect(past.FORCE)
    assert sorted(item.name for item in place.backend.list("forgotten")) == sorted(
        f"forgotten/{item}" for item in (*place.gone[:2], _second(place))
    )


def _second(place: past.Past) -> str:
    return next(item for item, disks in place.kept.items() if disks == past.contents()["second"])


def test_a_tag_brings_a_forgotten_commit_back(place: past.Past) -> None:
    """Before the collection a new name for a forgotten or unreachable commit keeps all of it."""
    repo = place.open()
    names = ["first", "third", "side"]
    for name, commit_id in zip(names, place.gone, strict=True):
        past.point(repo, reflog.TAG, f"again-{name}", commit_id)
        place.kept[commit_id] = past.contents()[name]
    repo.collect(past.FORCE)
    past.check(place)


def test_attachments_are_kept() -> None:
    """The files beside the disks are roots like the disks."""
    place = past.build()
    repo = place.open()
    note = {"notes.xml": repos.text(60, 20_000)}
    kept = past.commit(repo, {"vm": b"y" * 9000}, "machine", attached=note)
    place.kept[kept.id] = {"vm": b"y" * 9000} | note
    repo.collect(past.FORCE)
    past.check(place)


def test_content_that_went_is_stored_again(place: past.Past) -> None:
    """After a collection a commit of what was removed stores it anew, and restores."""
    place.open().collect(past.FORCE)
    again = past.commit(place.open(), past.contents()["side"], "vm", "again")
    place.kept[again.id] = past.contents()["side"]
    past.check(place)


def test_most_of_the_bytes_need_force() -> None:
    """More than half of what is stored goes only with `force`; the dry run says so."""
    place = past.build()
    repo = place.open()
    repo.collect(past.FORCE)
    past.commit(repo, {"vm": repos.noise(70, 900_000)}, "huge")
    past.point(repo, reflog.BRANCH, "huge", None)
    before = past.content(place.backend)
    assert repo.collect(collect.Options(dry_run=True)).needs_force
    with pytest.raises(errors.VimgvcError, match="most of what is stored"):
        place.open().collect(collect.Options())
    assert past.content(place.backend) == before
    assert place.open().collect(past.FORCE).freed_bytes > 850_000
    past.check(place)


def test_fewer_refs_than_others_have_seen_need_force(place: past.Past) -> None:
    """A log that ends before what an entry of another log tells of it stops the collection: a rollback."""
    repo = place.open()
    blind = repo.seals.blind(reflog.BRANCH, "web")
    past.point(repo, reflog.TAG, "later", next(iter(place.kept)))
    for item in list(place.backend.list(f"refs/{blind}")):
        place.backend.delete(item.name)
    before = past.content(place.backend)
    with pytest.raises(errors.Rollback, match="tells of 1 entry"):
        place.open().collect(collect.Options())
    assert past.content(place.backend) == before
    assert place.open().collect(past.FORCE).commits_deleted == 2


def test_many_small_packs_become_few() -> None:
    """Packs and index objects of many small commits are merged without being compressed again."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend, average=16384)
    place = past.Past(backend, repo.unlocked)
    for number in range(12):
        disks = {"vm": repos.noise(200 + number, 20_000)}
        place.kept[past.commit(repo, disks, f"b{number}").id] = disks
    done = place.open().collect(past.FORCE)
    assert (done.packs_deleted, done.packs_written, done.index_deleted) == (24, 2, 12)
    repo = past.check(place)
    assert len(past.packs(backend)) == 2
    assert repo.verify("data").problems == []


def test_max_unused_bounds_what_is_rewritten(place: past.Past) -> None:
    """With everything allowed to stay nothing is rewritten, with nothing allowed all of it is."""
    lazy = place.open().collect(dataclasses.replace(past.FORCE, dry_run=True, max_unused=1.0))
    eager = place.open().collect(dataclasses.replace(past.FORCE, dry_run=True, max_unused=0.0))
    assert lazy.repacked_bytes == 0 < eager.repacked_bytes
    assert lazy.freed_bytes < eager.freed_bytes


def test_threads_do_not_matter(place: past.Past) -> None:
    """The figures are the same with one thread and with four."""
    figures = [
        dataclasses.replace(
            place.open().collect(dataclasses.replace(past.FORCE, dry_run=True, threads=threads)), seconds=0
        )
        for threads in (1, 4)
    ]
    assert figures[0] == figures[1]


def test_records_are_left_of_the_last_collection_only(place: past.Past) -> None:
    """Each collection says four things under the next number, and removes the records of those before."""
    repo = place.open()
    for expected in (1, 2):
        done = repo.collect(past.FORCE)
        assert done.epoch == expected
        assert gcrecords.Records(place.backend, repo.seals).epochs() == {
            expected: {"begin", "condemn", "sweep", "done"}
        }
        past.commit(repo, {"vm": repos.noise(80 + expected, 50_000)}, "more")
        past.point(repo, reflog.BRANCH, "more", None)


def test_writers_do_not_rely_on_what_is_condemned(place: past.Past) -> None:
    """While a collection is unfinished its packs count as absent for a commit: it stores the content again."""
    repo = place.open()
    named = tuple(sorted(past.packs(place.backend)))
    gcrecords.Records(place.backend, repo.seals).put(
        gcrecords.Record(1, gcrecords.CONDEMN, "2027-01-15T08:00:00Z", "host", packs=named, locked=True)
    )
    again = past.commit(place.open(), past.contents()["last"], "vm", "again")
    place.kept[again.id] = past.contents()["last"]
    for name in named:
        place.backend.delete(f"packs/{name[:2]}/{name}")
    place.kept = {again.id: place.kept[again.id]}
    past.check(place, healthy=False)


def test_an_unfinished_collection_is_closed_by_the_next(place: past.Past) -> None:
    """Its list is not gone on with: what it named and is needed stays, and the packs count again."""
    repo = place.open()
    records = gcrecords.Records(place.backend, repo.seals)
    named = tuple(sorted(past.packs(place.backend)))
    records.put(gcrecords.Record(7, gcrecords.CONDEMN, "2027-01-15T08:00:00Z", "host", packs=named, locked=True))
    records.put(gcrecords.Record(7, gcrecords.SWEEP, "2027-01-15T08:00:00Z", "host", packs=named, locked=True))
    assert repo.collect(past.FORCE).epoch == 8
    assert records.unfinished() == []
    repo = past.check(place)
    found = catalog.open_catalog(
        place.backend, repo.seals, None, repos.Collector(), condemned=records.condemned(repos.Collector()).packs
    )
    assert {item.name for item in found.index.packs()} == past.packs(place.backend)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_in_doubt_is_copied(place: past.Past, share: float) -> None:
    """K5: packs that a collection which was taken over may still remove are not relied on: they can go at any time."""
    place.backend = hooked.Hooked(hooked.blobs(place))
    repo = place.open()
    records = gcrecords.Records(place.backend, repo.seals)
    named = tuple(sorted(past.packs(place.backend)))
    for phase in (gcrecords.BEGIN, gcrecords.CONDEMN, gcrecords.SWEEP):
        packs = () if phase == gcrecords.BEGIN else named
        records.put(gcrecords.Record(1, phase, "2027-01-15T08:00:00Z", "elsewhere", packs=packs))
    options = dataclasses.replace(past.FORCE, take_over=True, max_unused=share)
    done = repo.collect(options)
    assert [(one.epoch, one.taken) for one in done.unfinished] == [(1, True)]
    place.backend.delete_all([pack.blob_name(name) for name in named])
    past.check(place)


def test_copies_of_an_interrupted_collection_are_used() -> None:
    """When one ended before it removed anything, the next one rewrites nothing, and removes the same."""
    place = past.build()

    def stop(operation: str, name: str) -> bool:
        return operation == "delete" and not name.endswith("-reserve")

    content = hooked.blobs(place)
    done = place.open().collect(past.FORCE)
    after = sum(past.stored(place.backend).values())
    broken = hooked.Failing(content, stop, lambda name: errors.BackendError(name, "EIO", "broken"))
    place.backend = broken
    with pytest.raises(errors.BackendError):
        place.open().collect(past.FORCE)
    place.backend = memory.MemoryBackend()
    place.backend._blobs = dict(broken._blobs)
    assert past.stored(place.backend).keys() > content.keys() - {"config"}
    again = place.open().collect(past.FORCE)
    assert (again.repacked_bytes, again.packs_deleted) == (0, done.packs_deleted)
    assert sum(past.stored(place.backend).values()) <= 1.01 * after
    past.check(place)


def test_every_pack_is_named_afterwards(place: past.Past) -> None:
    """A pack that no index object names and that is needed is named after a collection."""
    for item in list(place.backend.list("index")):
        place.backend.delete(item.name)
    repo = place.open()
    repo.collect(past.FORCE)
    found = catalog.open_catalog(place.backend, repo.seals, None, repos.Collector())
    assert found.adopted == 0
    past.check(place)
