"""Repairs of repositories damaged at random: nothing that restored before is lost by them, and once is enough."""

from __future__ import annotations

import numpy as np
import pytest

from tests import depth, repos
from tests.damage import damaged
from tests.repair import left
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import commit as commits
from vimgvc.repo import repair, repository

Blobs = dict[str, bytes]


@pytest.fixture(scope="module")
def healthy() -> damaged.Healthy:
    return damaged.build()


def harm(blobs: Blobs, rng: np.random.Generator, wounds: int) -> Blobs:
    """The blobs with some wounds: flips, zeros, cuts, junk, losses, trades; never all copies of all key slots."""
    spared = next(name for name in sorted(blobs) if name.startswith("keys"))
    for _ in range(wounds):
        name = str(rng.choice(sorted(set(blobs) - {spared})))
        blobs = damaged.replace(blobs, name, _wound(blobs, name, rng))
    return blobs


def _wound(blobs: Blobs, name: str, rng: np.random.Generator) -> bytes | None:
    blob = blobs[name]
    at = int(rng.integers(max(1, len(blob))))
    match int(rng.integers(8)):
        case 0:
            return None
        case 1:
            return blob[:at]
        case 2:
            return blob + rng.bytes(int(rng.integers(1, 5000)))
        case 3:
            return blob[:at] + bytes(min(4096, len(blob) - at)) + blob[at + 4096 :]
        case 4:
            area = name.partition("/")[0]
            return blobs[str(rng.choice(sorted(other for other in blobs if other.startswith(area))))]
        case _:
            return blob[:at] + bytes([blob[at] ^ 1 << int(rng.integers(8))]) + blob[at + 1 :] if blob else blob


def restorable(repo: repository.Repository, healthy: damaged.Healthy) -> set[str]:
    """The commits that restore, each byte for byte."""
    found = set()
    for commit_id, content in healthy.contents.items():
        try:
            facts: commits.Commit = repo.graph.load(commit_id)
            restored = repos.restore(repo, facts.id)
        except errors.VimgvcError:
            continue
        assert restored == content
        found.add(commit_id)
    return found


def reopen(repo: repository.Repository) -> repository.Repository:
    return repository.Repository.open(repo.backend, unlocked=repo.unlocked, clock=repo.clock)


def place_of(repo: repository.Repository) -> memory.MemoryBackend:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend


@pytest.mark.slow
@pytest.mark.parametrize("wounds", [1, 2, 6, 20])
def test_r26_random_damage(healthy: damaged.Healthy, wounds: int, seed: int) -> None:
    """R26: what restored restores, single chunks too; nothing is overwritten or deleted; the second time is idle."""
    rng = np.random.default_rng([seed, wounds])
    for number in range(25 if depth.ALL else 8):
        blobs = harm(dict(healthy.blobs), rng, wounds)
        what = f"seed {seed}, {wounds} wounds, number {number}"
        repo = damaged.open_repository(blobs, healthy.unlocked)
        before, chunks = restorable(repo, healthy), left.readable(repo)
        trial = reopen(repo).repair(_options(dry_run=True))
        place = place_of(repo)
        assert (place._blobs, place.aside) == (blobs, {}), f"{what}: a dry run wrote"

        done = reopen(repo).repair()
        assert restorable(reopen(repo), healthy) >= before, what
        assert left.readable(reopen(repo)) >= chunks, what
        _check_kept(blobs, place, what)
        assert [one.kind for one in done.actions] == [one.kind for one in trial.actions], what
        assert {one.kind for one in done.remaining} <= {"commit", "ref", "disk", "key"}, f"{what}: {done.remaining}"
        assert bool(done.actions) or not place.aside

        after, aside = dict(place._blobs), dict(place.aside)
        again = reopen(repo).repair()
        assert (place._blobs, place.aside, again.actions) == (after, aside, ()), f"{what}: not idle"
        assert again.remaining == again.problems == tuple(reopen(repo).verify("default").problems)


def _options(*, dry_run: bool) -> repair.Options:
    return repair.Options(dry_run=dry_run)


def _check_kept(before: Blobs, place: memory.MemoryBackend, what: str) -> None:
    """Each blob is as it was, or in quarantine as it was."""
    for name, blob in before.items():
        if place._blobs.get(name) != blob:
            assert place.aside[name] == blob, f"{what}: {name} is lost"
