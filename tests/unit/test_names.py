"""Branches and tags: made, moved, renamed, deleted, brought back, and what happens when two do so at once."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.commands import log, naming
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import ingest
from vimgvc.repo import names, publication, repository


@pytest.fixture
def repo() -> repository.Repository:
    """Branch `vm` with two commits."""
    made = repos.create()
    for step in range(2):
        repos.commit(made, ("vm", f"state {step}".encode()))
    return made


def _place(repo: repository.Repository, kind: str = "branch") -> naming.Place:
    return naming.Place(repo, kind, "here", {}, repos.Collector())


def test_two_branches_from_one_commit(repo: repository.Repository) -> None:
    """A second branch begins where it is told to, each goes its own way, and what they share is stored once."""
    base = repo.resolve("vm~1")
    [change] = _place(repo).create("test", "vm~1", force=False)
    assert change == names.Change("branch", "test", None, base.id)
    mine = repos.commit(repo, ("vm", b"another"), branch="test").commit
    assert mine.parents == (base.id,)
    assert repo.branches() == {"test": mine.id, "vm": repo.resolve("vm").id}
    assert repos.restore(repo, "test") == b"another"
    assert repos.restore(repo, "vm") == b"state 1"


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_deleted_and_brought_back(repo: repository.Repository, kind: str) -> None:
    """A deleted name is gone, its commits and its past are not; it comes back as what it was, any number of times."""
    place, tip = _place(repo, kind), repo.resolve("vm").id
    place.create("other", "vm", force=False)
    repo.set_ref("branch", "vm", None, expect=tip)
    for _ in range(2):
        place.delete(["other"])
        assert repo.branches() == repo.tags() == {}
        with pytest.raises(errors.NotFound):
            place.delete(["other"])
        place.create("other", "other@{1}", force=False)
        assert {**repo.branches(), **repo.tags()} == {"other": tip}
    values = [ref.entry.commit for ref in repos.reopen(repo).reflog(kind, "other")]
    assert values == [tip, None, tip, None, tip]
    assert repos.reopen(repo).verify().problems == []


def test_delete_is_all_or_nothing_named(repo: repository.Repository) -> None:
    """When one of the names is not there, none is deleted; a name given twice is deleted once."""
    with pytest.raises(errors.NotFound):
        _place(repo).delete(["vm", "nothing"])
    assert "vm" in repo.branches()
    assert len(_place(repo).delete(["vm", "vm"])) == 1


def test_rename(repo: repository.Repository) -> None:
    """The new name is where the old one was; the old one's log says that it ended, and stays."""
    tip = repo.resolve("vm").id
    changes = _place(repo).rename("vm", "web/1", force=False)
    assert changes == [names.Change("branch", "web/1", None, tip), names.Change("branch", "vm", tip, None)]
    assert repo.branches() == {"web/1": tip}
    assert repo.resolve("vm@{1}").id == tip
    assert repos.commit(repo, ("vm", b"next"), branch="web/1").commit.parents == (tip,)


def test_rename_over_another(repo: repository.Repository) -> None:
    """A name that is taken is replaced only by force, and what it was can be had back."""
    repos.commit(repo, ("vm", b"other"), branch="other")
    tip, other = repo.resolve("vm").id, repo.resolve("other").id
    with pytest.raises(errors.UsageError, match="exists already"):
        _place(repo).rename("vm", "other", force=False)
    assert repo.branches() == {"other": other, "vm": tip}
    _place(repo).rename("vm", "other", force=True)
    assert repo.branches() == {"other": tip}
    assert repo.resolve("other@{1}").id == other


def test_what_is_refused(repo: repository.Repository) -> None:
    """Names that are taken, malformed or missing are refused before anything is written."""
    place, tags = _place(repo), _place(repo, "tag")
    tags.create("v1", "vm", force=False)
    ends = repo.logs.ends()
    refused: list[tuple[type[errors.VimgvcError], Callable[[], object]]] = [
        (errors.UsageError, lambda: place.create("vm", "vm~1", force=False)),
        (errors.UsageError, lambda: place.create("v1", "vm", force=True)),
        (errors.UsageError, lambda: tags.create("vm", "vm", force=True)),
        (errors.UsageError, lambda: place.create("a..b", "vm", force=False)),
        (errors.UsageError, lambda: place.create("-x", "vm", force=False)),
        (errors.UsageError, lambda: place.rename("vm", "a b", force=False)),
        (errors.UsageError, lambda: place.rename("vm", "vm", force=True)),
        (errors.NotFound, lambda: place.rename("nothing", "new", force=False)),
        (errors.NotFound, lambda: place.create("new", "nothing", force=False)),
        (errors.NotFound, lambda: repo.set_ref("branch", "new", "ab" * 32, expect=None)),
        (errors.RefMoved, lambda: repo.set_ref("branch", "vm", None, expect="ab" * 32)),
        (errors.RefMoved, lambda: repo.set_ref("branch", "new", None, expect="ab" * 32)),
    ]
    for kind, attempt in refused:
        with pytest.raises(kind):
            attempt()
    assert repo.logs.ends() == ends
    place.create("vm", "vm", force=True)
    assert repo.logs.ends() == ends, "what is so already needs no entry"


def test_commit_that_cannot_be_read_gets_no_name(repo: repository.Repository) -> None:
    """V2: a name is never given to a commit that is lost or damaged, though it was read before."""
    lost = repo.resolve("vm~1").id
    for stored in (None, b"x" * 400):
        repo.backend.delete(f"commits/{lost}")
        if stored:
            repo.backend.put(f"commits/{lost}", [stored])
        with pytest.raises((errors.NotFound, errors.IntegrityError)):
            repo.set_ref("tag", "v1", lost, expect=None)
        assert repo.tags() == {}


def test_r14_listing(repo: repository.Repository) -> None:
    """R14: a branch whose commit is lost is listed as broken; it can be deleted, renamed and moved."""
    lost = repos.commit(repo, ("vm", b"x"), branch="other").commit.id
    repo.backend.delete(f"commits/{lost}")
    opened = repos.reopen(repo)
    other, vm = _place(opened).listing()
    assert (other.name, other.id, other.commit, bool(other.broken)) == ("other", lost, None, True)
    assert (vm.name, vm.commit, vm.broken) == ("vm", repo.resolve("vm"), "")
    _place(opened).create("other", "vm", force=True)
    assert [item.broken for item in _place(opened).listing()] == ["", ""]
    _place(opened).delete(["other"])
    assert list(opened.branches()) == ["vm"]


class _Racing(disk_memory.MemoryDisk):
    """A disk; when it has been read, somebody else does something."""

    meanwhile: Callable[[], object]

    def check_unchanged(self) -> None:
        self.meanwhile()


def _race(repo: repository.Repository, content: bytes, meanwhile: Callable[[], object]) -> repository.CommitResult:
    source = _Racing.of(content)
    assert isinstance(source, _Racing)
    source.meanwhile = meanwhile
    request = repository.CommitRequest("vm", "state of vm", "tester", "host")
    return repo.commit([ingest.Source("vm", source, {"format": "raw"})], request)


def test_k2_two_writers_of_one_branch(repo: repository.Repository) -> None:
    """K2: one wins, the other is told (26) and finds its commit under a name; nothing of either is lost."""
    with pytest.raises(errors.RefMoved) as caught:
        _race(repo, b"mine", lambda: repos.commit(repos.reopen(repo), ("vm", b"theirs")))
    kept = f"conflict/vm/{caught.value.commit[:12]}"
    assert kept in caught.value.hint
    assert caught.value.exit_code == 26
    opened = repos.reopen(repo)
    assert repos.restore(opened, "vm") == b"theirs"
    assert repos.restore(opened, kept) == b"mine"
    assert {item.id for item in log.run(opened, None, None).commits} >= {caught.value.commit, opened.resolve("vm").id}
    assert opened.verify().problems == []
    assert repos.commit(opened, ("vm", b"mine")).created


def test_k2_branch_that_was_deleted_meanwhile(repo: repository.Repository) -> None:
    """K2: a branch that somebody deletes while it is committed to stays deleted, and the commit is kept."""
    tip = repo.resolve("vm").id
    with pytest.raises(errors.RefMoved) as caught:
        _race(repo, b"mine", lambda: repos.reopen(repo).set_ref("branch", "vm", None, expect=tip))
    assert repo.branches() == {f"conflict/vm/{caught.value.commit[:12]}": caught.value.commit}


def test_k2_long_name(repo: repository.Repository) -> None:
    """K2: where the name of the branch leaves no room, the commit's digits are name enough."""
    assert names.conflict("b" * 200, "ab" * 32) == f"conflict/{'ab' * 6}"
    assert names.conflict("vm", "ab" * 32) == f"conflict/vm/{'ab' * 6}"
    tip = repo.resolve("vm").id
    with pytest.raises(errors.RefMoved):
        names.keep(publication.Publication.begin(repo), "b" * 200, tip, time="2027-01-15T08:00:00Z", host="h")
    assert repo.resolve(f"conflict/{tip[:12]}").id == tip


def test_k2_the_same_commit_twice(repo: repository.Repository) -> None:
    """K2: two who record the same at the same second have made one commit, and both are done."""
    frozen = repo.clock()
    theirs = []

    def meanwhile() -> None:
        other = repos.reopen(repo)
        other.clock = lambda: frozen
        theirs.append(repos.commit(other, ("vm", b"state 0")).commit)

    repo.clock = lambda: frozen
    made = _race(repo, b"state 0", meanwhile)
    assert made.commit == theirs[0]
    assert list(repo.branches()) == ["vm"]


def test_k2_many_writers(repo: repository.Repository) -> None:
    """K2: of many who move one branch at once each is either done or told; the log has what was done, in order."""
    ids = [
        repo.graph.store(dataclasses.replace(repo.resolve("vm"), message=str(number)).encode()) for number in range(12)
    ]
    start, before = threading.Barrier(len(ids)), repo.resolve("vm").id
    done: list[str] = []

    def work(commit_id: str) -> None:
        start.wait()
        try:
            repos.reopen(repo).set_ref("branch", "vm", commit_id, expect=before)
        except errors.RefMoved:
            return
        done.append(commit_id)

    threads = [threading.Thread(target=work, args=(commit_id,)) for commit_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert repos.reopen(repo).branches()["vm"] == done[0]
    assert len(repo.reflog("branch", "vm")) == 3


class _LosesRace(memory.MemoryBackend):
    """Somebody else appends to a log just before each of the first `races` of ours."""

    races = 0
    meanwhile: Callable[[], object]

    def put(self, name: str, parts: object) -> bool:
        if name.startswith("refs/") and self.races:
            self.races -= 1
            self.meanwhile()
        return super().put(name, parts)  # type: ignore[arg-type]


def test_rename_that_loses_the_race() -> None:
    """K2: when the old name moves while it is renamed, both stay: nobody's commit loses its name."""
    place = _LosesRace()
    repo = repos.create(place)
    tip = repos.commit(repo, ("vm", b"1")).commit.id
    steps = itertools.count()

    def meanwhile() -> None:
        if next(steps) == 1:
            repos.commit(repo, ("vm", b"2"))

    place.meanwhile, place.races = meanwhile, 2
    with pytest.raises(errors.RefMoved) as caught:
        _place(repo).rename("vm", "new", force=False)
    assert "vimgvc reflog vm" in caught.value.hint
    assert repos.restore(repo, "vm") == b"2"
    assert repo.branches()["new"] == tip


YEARS = 10 * 365 * 86400


@pytest.mark.parametrize("jump", [YEARS, -YEARS, 25 * 3600, -1e12, 1e12])
def test_d15_clock_that_jumps(repo: repository.Repository, jump: float) -> None:
    """D15: with a clock that jumps between any two steps everything works, in the order in which it was done."""
    first = repo.resolve("vm").id
    now = repo.clock()
    ids = []
    for step in range(4):
        repo.clock = lambda step=step: now + (jump if step % 2 else 0) + step  # type: ignore[misc]
        ids.append(repos.commit(repo, ("vm", f"later {step}".encode())).commit.id)
        _place(repo, "tag").create("last", "vm", force=True)
    opened = repos.reopen(repo)
    assert [item.id for item in log.run(opened, "vm", 4).commits] == ids[::-1]
    assert [opened.resolve(f"vm@{{{number}}}").id for number in range(5)] == [*ids[::-1], first]
    assert opened.resolve("last@{1}").id == ids[2]
    assert repos.restore(opened, "vm") == b"later 3"
    assert opened.verify().problems == []


@pytest.mark.parametrize(("seconds", "told"), [(0, False), (290, False), (400, True), (YEARS, True), (-YEARS, False)])
def test_k13_skew_is_told(repo: repository.Repository, seconds: float, told: bool) -> None:
    """K13, D15: more than five minutes between two clocks is worth a warning, and changes nothing."""
    now = repo.clock()
    repo.clock = lambda: now + seconds
    repos.commit(repo, ("vm", b"from another host"))
    repo.clock = lambda: now
    seen = repos.Collector()
    assert repos.commit(repo, ("vm", b"from here"), progress=seen).created
    assert ["clocks" in problem for problem in seen.problems] == [True] * told
    assert repos.commit(repo, ("vm", b"again"), progress=seen).created
    assert len(seen.problems) == told, "the next commit knows better"
