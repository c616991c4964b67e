"""Defects that other collectors have had, each as a test (the `gc-*` lines of the ledger)."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

import pytest

from tests import repos
from tests.gc import hooked, past
from vimgvc import errors
from vimgvc.backends import local, memory, protocol
from vimgvc.codec import segment
from vimgvc.model import reflog
from vimgvc.repo import collect, gcrecords, repository
from vimgvc.store import catalog, pack, reindex, writer

_YEAR = 365 * 86400.0


@pytest.fixture(scope="module")
def original() -> past.Past:
    return past.build()


@pytest.fixture
def place(original: past.Past) -> past.Past:
    return moved(original, hooked.Hooked(hooked.blobs(original)))


def moved(original: past.Past, backend: protocol.Backend) -> past.Past:
    return past.Past(backend, original.unlocked, dict(original.kept), list(original.gone))


def on_disk(original: past.Past, folder: pathlib.Path) -> past.Past:
    """The same in a directory."""
    backend = local.LocalBackend.create(folder)
    for name, blob in sorted(hooked.blobs(original).items(), key=lambda item: item[0] == protocol.CONFIG):
        backend.put(name, [blob])
    backend.sync()
    return moved(original, backend)


class Interrupting(local.LocalBackend):
    """Calls `between` before each blob is put, found or removed."""

    between = staticmethod(lambda: None)

    def put(self, name: str, parts: object) -> bool:
        self.between()
        return super().put(name, parts)  # type: ignore[arg-type]

    def delete_all(self, names: object) -> None:
        self.between()
        super().delete_all(names)  # type: ignore[arg-type]


def _years_later(repo: repository.Repository, years: float) -> repository.Repository:
    return dataclasses.replace(repo, clock=lambda: 1_800_000_000 + years * _YEAR)


@pytest.mark.slow
def test_gc_lease_expiry(original: past.Past, tmp_path: pathlib.Path) -> None:
    """gc-lease-expiry: the right to remove does not run out, however late others think it is."""
    place = on_disk(original, tmp_path / "repo")
    tried = []
    backend = Interrupting(tmp_path / "repo")

    def between() -> None:
        other = _years_later(place.open(local.LocalBackend(tmp_path / "repo")), 10)
        with pytest.raises(errors.Busy):
            other.collect(past.FORCE)
        with pytest.raises(errors.Busy):
            past.commit(other, {"vm": b"x" * 5000}, "vm")
        tried.append(1)

    backend.between = between
    place.open(backend).collect(past.FORCE)
    assert len(tried) > 5
    past.check(place)


@pytest.mark.parametrize("area", hooked.AREAS)
def test_gc_list_error_is_not_empty(original: past.Past, area: str) -> None:
    """gc-list-error-is-not-empty: a listing that fails stops the collection; what it would show is not absent."""

    def broken(operation: str, name: str) -> bool:
        return operation == "list" and name == area

    backend = hooked.Failing(hooked.blobs(original), broken, lambda name: errors.BackendError(name, "EIO", "broken"))
    place = moved(original, backend)
    before = set(backend._blobs)
    with pytest.raises(errors.BackendError):
        place.open().collect(past.FORCE)
    assert set(backend._blobs) == before


def test_gc_mark_enospc(original: past.Past) -> None:
    """gc-mark-enospc: where nothing can be written, what could not be written is not taken for unneeded."""
    full = hooked.Room(hooked.blobs(original), 0, errors.NoSpace)
    place = moved(original, full)
    before = set(full._blobs)
    with pytest.raises(errors.NoSpace):
        place.open().collect(past.FORCE)
    assert set(full._blobs) == before
    past.check(place)


def test_gc_dup_chunk_in_one_pack(place: past.Past) -> None:
    """gc-dup-chunk-in-one-pack: what one pack has twice is counted once, and stays once."""
    repo = place.open()
    index = catalog.open_catalog(place.backend, repo.seals, None, repos.Collector()).index
    store = repo.objects(repos.Collector())
    (item,) = sorted(index.packs(), key=lambda item: (item.kind == segment.DATA, item.size))[-1:]
    table = store.table(item.number)
    out = writer.Writer(place.backend, repo.seals, reindex.empty_index())
    for _ in range(2):
        for number in range(len(table.segments)):
            offset, shape = table.shape(number)
            stored = place.backend.get(pack.blob_name(item.name), offset, shape.stored_length)
            ids, _, lengths = table.slots(number)
            out.add(shape, memoryview(stored), ids, lengths.tolist())
    before = past.packs(place.backend)
    out.finish()
    (double,) = past.packs(place.backend) - before
    place.backend.delete(pack.blob_name(item.name))
    past.check(place, healthy=False)
    place.open().collect(dataclasses.replace(past.FORCE, max_unused=0.0))
    past.check(place, healthy=False)
    assert double not in past.packs(place.backend)
    found = catalog.open_catalog(place.backend, repo.seals, None, repos.Collector()).index
    assert all(len(found.lookup_all(one)) == 1 for one in {row.tobytes() for row in table.ids} if found.lookup_all(one))


def test_gc_stale_index_delayed_flush(place: past.Past) -> None:
    """gc-stale-index-delayed-flush: an index object that comes late and names packs that went does no harm."""
    late = {item.name: place.backend.get(item.name) for item in place.backend.list("index")}
    place.open().collect(past.FORCE)
    for name, blob in late.items():
        place.backend.put(name, [blob])
    again = past.commit(place.open(), past.contents()["side"], "vm", "again")
    place.kept[again.id] = past.contents()["side"]
    past.check(place, healthy=False)
    place.open().collect(past.FORCE)
    past.check(place)


@pytest.mark.slow
def test_gc_two_collectors(original: past.Past) -> None:
    """gc-two-collectors: where there are no locks the second one is told, and neither removes what is needed."""
    backend = hooked.Hooked(hooked.blobs(original))
    place = moved(original, backend)
    total = _operations(original)
    for at in range(0, total, 4):
        backend = hooked.Hooked(hooked.blobs(original), lambda number, *_, at=at: _second(place, number == at))
        place.backend = backend
        with contextlib.suppress(errors.Busy, errors.IntegrityError, errors.NotFound):
            place.open().collect(past.FORCE)
        past.check(place, healthy=False)


def _second(place: past.Past, now: bool) -> None:
    if now:
        place.open().collect(past.FORCE)


def _operations(original: past.Past) -> int:
    backend = hooked.Hooked(hooked.blobs(original), lambda *_: None)
    moved(original, backend).open(backend).collect(past.FORCE)
    return backend.count


@pytest.mark.slow
def test_gc_suspend_resume(original: past.Past, tmp_path: pathlib.Path) -> None:
    """gc-suspend-resume: a collector that sleeps for a year anywhere goes on as if nothing was; so does its clock."""
    place = on_disk(original, tmp_path / "repo")
    backend = Interrupting(tmp_path / "repo")
    now = [1_800_000_000.0]

    def between() -> None:
        now[0] += _YEAR

    backend.between = between
    repo = dataclasses.replace(place.open(backend), clock=lambda: now[0])
    repo.collect(past.FORCE)
    past.check(place)
    assert gcrecords.Records(place.backend, repo.seals).unfinished() == []


def test_gc_existing_chunk_touched(original: past.Past) -> None:
    """gc-existing-chunk-touched: content that nobody needed, and a new commit uses again, is needed again."""
    place = moved(original, memory.MemoryBackend())
    place.backend = hooked.Hooked(hooked.blobs(original))
    before = past.packs(place.backend)
    again = past.commit(place.open(), past.contents()["side"], "vm", "again")
    place.kept[again.id] = past.contents()["side"]
    assert sum(place.backend.size(pack.blob_name(name)) for name in past.packs(place.backend) - before) < 5000
    place.open().collect(past.FORCE)
    past.check(place)


@pytest.mark.parametrize("years", [-40, 40])
def test_gc_clock_from_before_mark(original: past.Past, years: int) -> None:
    """gc-clock-from-before-mark: what is kept does not depend on any clock, neither here nor in what was recorded."""
    results = []
    for clock in (0, years):
        place = moved(original, hooked.Hooked(hooked.blobs(original)))
        repo = place.open()
        late = past.commit(_years_later(repo, -years), {"vm": b"late" * 5000}, "late")
        place.kept[late.id] = {"vm": b"late" * 5000}
        done = _years_later(place.open(), clock).collect(past.FORCE)
        past.check(place)
        results.append((done.commits_deleted, done.packs_deleted))
    assert results[0] == results[1]


def test_gc_two_writers_one_ref(place: past.Past) -> None:
    """gc-two-writers-one-ref: of two commits on one branch the one that lost goes, and takes nothing along."""
    one, two = place.open(), place.open()
    disks = past.contents()["last"] | {"new": repos.noise(90, 40_000)}
    known = one.last_refs()
    won = past.commit(one, disks, "vm", "won")
    draft = dataclasses.replace(won, id="", message="lost", parents=won.parents)
    lost = two.graph.store(draft.encode())
    with pytest.raises(errors.RefMoved):
        two.logs.publish(reflog.BRANCH, "vm", lost, known, time=repository.timestamp(two.clock), host="host")
    place.kept[won.id] = disks
    done = place.open().collect(past.FORCE)
    assert done.commits_deleted == 2
    past.check(place)


@pytest.mark.slow
def test_gc_vs_foreign_tool(original: past.Past) -> None:
    """gc-vs-foreign-tool: a program that knows no locks names a commit at any moment: it restores, or was too late."""
    revived = original.gone[2]
    for at in range(0, _operations(original), 3):
        place = moved(original, memory.MemoryBackend())
        done: list[int] = []

        def point(number: int, *_: str, place: past.Past = place, done: list[int] = done, at: int = at) -> None:
            if number == at:
                repo = place.open()
                condemned = gcrecords.Records(place.backend, repo.seals).condemned(repos.Collector())
                if revived in repo.graph.ids() and revived not in condemned.commits:
                    past.point(repo, reflog.TAG, "again", revived)
                    done.append(1)

        place.backend = hooked.Hooked(hooked.blobs(original), point)
        try:
            place.open().collect(past.FORCE)
        except errors.Busy:
            assert done
        if done:
            place.kept[revived] = past.contents()["side"]
        past.check(place, healthy=False)


def test_gc_vs_a_tool_that_removes(original: past.Past) -> None:
    """gc-vs-foreign-tool: a pack that something else removes meanwhile stops the collection before it removes more."""
    for at in range(0, _operations(original), 11):
        place = moved(original, memory.MemoryBackend())
        victim: list[str] = []

        def remove(number: int, *_: str, place: past.Past = place, victim: list[str] = victim, at: int = at) -> None:
            if number == at:
                victim.append(max(past.packs(place.backend)))
                place.backend.delete(pack.blob_name(victim[0]))

        backend = hooked.Hooked(hooked.blobs(original), remove)
        place.backend = backend
        before = set(backend._blobs)
        try:
            place.open().collect(past.FORCE)
        except errors.VimgvcError:
            lost = {name for name in before - set(backend._blobs) if name.startswith("packs/")}
            assert lost <= {pack.blob_name(name) for name in victim}


def test_collections_are_options_not_defaults() -> None:
    """What is unneeded but cheap to keep is at most a twentieth of what is needed."""
    assert collect.Options().max_unused == 0.05
