"""The index cache under a whole repository."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests import repos
from vimgvc import monitor
from vimgvc.repo import check, repository


def _data(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(300_000)


def _cached(repo: repository.Repository, cache: pathlib.Path) -> repository.Repository:
    return repository.Repository.open(repo.backend, [repos.SECRET], clock=repo.clock, cache=cache)


def test_d17_verify_sees_what_the_cache_hides(tmp_path: pathlib.Path) -> None:
    """An index object that was damaged after it was cached is a problem for verify, and for nobody else."""
    cache = tmp_path / "cache"
    repo = _cached(repos.create(), cache)
    repos.commit(repo, ("vm", _data(1)))
    assert check.verify(repo, "quick", None, monitor.NullMonitor()).problems == []
    repos.restore(_cached(repo, cache), "vm")
    assert (cache / "contents").exists()
    (item,) = repo.backend.list("index")
    blob = bytearray(repo.backend.get(item.name))
    blob[60] ^= 1
    repo.backend.delete(item.name)
    repo.backend.put(item.name, [bytes(blob)])
    assert repos.restore(_cached(repo, cache), "vm") == _data(1)
    problems = check.verify(_cached(repo, cache), "quick", None, monitor.NullMonitor()).problems
    assert [(problem.kind, problem.object) for problem in problems] == [("index", item.name.partition("/")[2])]


@pytest.mark.slow
def test_d17_no_state_of_the_cache_changes_a_history(tmp_path: pathlib.Path) -> None:
    """Commits and restores give the same with a cache that is kept, lost, damaged, or from an earlier time."""
    cache = tmp_path / "cache"
    repo = _cached(repos.create(), cache)
    states = [_data(1) + _data(number) for number in range(5)]
    for number, state in enumerate(states):
        opened = _cached(repo, cache)
        repos.commit(opened, ("vm", state))
        assert repos.restore(_cached(repo, cache), "vm") == state
        for path in cache.glob("run-*" if number % 2 else "contents"):
            if number > 2:
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:-5] + b"?" * 5)
    for back, state in enumerate(reversed(states)):
        assert repos.restore(_cached(repo, cache), f"vm~{back}") == state
    assert check.verify(_cached(repo, cache), "data", None, monitor.NullMonitor()).problems == []
