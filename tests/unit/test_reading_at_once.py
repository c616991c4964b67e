"""Many small blobs of a place far away are read several at once."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from tests import repos
from vimgvc.backends import memory, protocol
from vimgvc.repo import collect, heads, repository

_COUNT, _PARALLEL = 60, 8


class _Crowded(memory.MemoryBackend):
    """Answers the first reads in `area` only when as many are under way as it says are worth it."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        super().__init__(locks=False)
        self._blobs = dict(blobs)
        self.patience = 100.0
        self.look_at("")

    def look_at(self, area: str) -> None:
        self.area = area
        self._all = threading.Barrier(_PARALLEL, timeout=self.patience)
        self._left = _PARALLEL if area else 0
        self.calls.clear()

    @property
    def capabilities(self) -> protocol.Capabilities:
        return dataclasses.replace(super().capabilities, parallel=_PARALLEL)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        blob = super().get(name, offset, length)
        if name.startswith(self.area):
            with self._guard:
                self._left -= 1
                is_early = self._left >= 0
            if is_early:
                self._all.wait()
        return blob

    def reads(self) -> int:
        return sum(operation == "get" and name.startswith(self.area) for operation, name in self.calls)


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    for number in range(_COUNT):
        repos.commit(repo, ("vm", b"%d" % number * 5000), branch=f"b{number}")
    return backend._blobs


@pytest.fixture
def place(made: dict[str, bytes]) -> _Crowded:
    """A repository with 60 branches of one entry, each at a commit of its own."""
    return _Crowded(made)


def _opened(place: _Crowded, area: str) -> repository.Repository:
    repo = repos.reopen(repository.Repository.open(place, [repos.SECRET]))
    place.look_at(area)
    return repo


@pytest.mark.parametrize("area", ["refs/", "commits/"])
def test_gc(place: _Crowded, area: str) -> None:
    """A collection reads each of 60 ref entries, and each of 60 commits, once, and never one by one."""
    _opened(place, area).collect(collect.Options())
    assert place.reads() == _COUNT


@pytest.mark.parametrize("area", ["refs/", "commits/"])
def test_verify(place: _Crowded, area: str) -> None:
    """So does `verify`."""
    assert _opened(place, area).verify("structure").problems == []
    assert place.reads() == _COUNT


def test_last(place: _Crowded) -> None:
    """The ends of 60 logs, which every command looks at, are not read one by one."""
    repo = _opened(place, "refs/")
    assert len(repo.branches()) == place.reads() == _COUNT
    place.look_at("refs/")
    assert len(heads.read(repo)) == place.reads() == _COUNT


def test_one_long_log() -> None:
    """The entries of one log are not read one by one either, also where the log is looked through for its rest."""
    place = _Crowded({})
    repo = repos.create(place)
    for number in range(_COUNT):
        repos.commit(repo, ("vm", b"%d" % number * 5000))
    repo = _opened(place, "refs/")
    assert repo.verify("structure").problems == []
    assert place.reads() == _COUNT
    (blind,) = repo.logs.ends()
    place.look_at("refs/")
    assert [ref.seq for ref in repo.logs.readable(blind)] == [*range(1, _COUNT + 1)]
    assert place.reads() == _COUNT


def test_one_by_one_is_seen(place: _Crowded) -> None:
    """One by one the test's place answers nothing: what the others prove could have failed."""
    repo = _opened(place, "refs/")
    place.patience = 0.01
    place.look_at("refs/")
    with pytest.raises(threading.BrokenBarrierError):
        repo.logs.read(*next(iter(repo.logs.ends().items())))
