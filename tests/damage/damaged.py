"""A repository whose blobs can be tampered with, and what each commit is known to need."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import keys
from vimgvc.repo import check, keyring, repository

KIB = 1024


@dataclass(frozen=True)
class Healthy:
    """Three commits on one branch and one on another: blobs, contents by commit, blobs that each reads."""

    blobs: dict[str, bytes]
    unlocked: keyring.Unlocked
    contents: dict[str, bytes]
    needs: dict[str, frozenset[str]]

    def of_kind(self, kind: str) -> list[str]:
        """Names of all blobs of an area, sorted; packs by kind as `data` and `tree`."""
        if kind in ("data", "tree"):
            repo = open_repository(self.blobs, self.unlocked)
            wanted = {"data": 1, "tree": 2}[kind]
            found = repo.objects(repos.Collector()).index.packs()
            return sorted(f"packs/{item.name[:2]}/{item.name}" for item in found if item.kind == wanted)
        return sorted(name for name in self.blobs if name.partition("/")[0] == kind)


def backend(blobs: dict[str, bytes]) -> memory.MemoryBackend:
    place = memory.MemoryBackend()
    place._blobs = dict(blobs)
    return place


def open_repository(
    blobs: dict[str, bytes], unlocked: keyring.Unlocked | None, monitor: repos.Collector | None = None
) -> repository.Repository:
    return repository.Repository.open(
        backend(blobs), None if unlocked else [repos.SECRET], unlocked=unlocked, monitor=monitor
    )


def build() -> Healthy:
    place = memory.MemoryBackend()
    repo = repos.create(place)
    second = keys.Secret(keys.PASSPHRASE, b"second")
    created = repository.timestamp(repo.clock)
    repo.keyring.add(repo.unlocked, second, label="", created=created, rng=os.urandom, profile=keys.CHEAPEST)
    base = bytearray(repos.text(1, 700 * KIB) + bytes(100 * KIB) + repos.noise(2, 200 * KIB + 77))
    contents = {}
    for step in range(3):
        base[step * 150 * KIB : step * 150 * KIB + 5000] = repos.noise(10 + step, 5000)
        contents[repos.commit(repo, ("vm", bytes(base))).commit.id] = bytes(base)
    other = repos.noise(77, 300 * KIB)
    contents[repos.commit(repo, ("other", other), branch="other").commit.id] = other
    blobs = dict(place._blobs)
    needs = {}
    for commit_id in contents:
        opened = open_repository(blobs, repo.unlocked)
        watched = opened.backend
        assert isinstance(watched, memory.MemoryBackend)
        watched.calls.clear()
        repos.restore(opened, commit_id)
        needs[commit_id] = frozenset(name for kind, name in watched.calls if kind == "get")
    return Healthy(blobs, repo.unlocked, contents, needs)


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged repository; `refused` is the error with which it did not open."""

    refused: errors.VimgvcError | None
    problems: list[check.Problem]
    restored: frozenset[str]


def examine(
    healthy: Healthy,
    blobs: dict[str, bytes],
    level: str = "default",
    *,
    with_key: bool = True,
    wanted: list[str] | None = None,
) -> Outcome:
    """Verify, and restore the wanted commits (None: all). Fails on wrong bytes and on any error outside the tree."""
    try:
        repo = open_repository(blobs, healthy.unlocked if with_key else None)
    except errors.VimgvcError as error:
        return Outcome(error, [], frozenset())
    problems = repo.verify(level).problems
    restored = set()
    for commit_id in wanted or healthy.contents:
        content = healthy.contents[commit_id]
        try:
            found = repos.restore(repo, commit_id)
        except errors.VimgvcError:
            continue
        assert found == content, f"wrong bytes of {commit_id}"
        restored.add(commit_id)
    return Outcome(None, problems, frozenset(restored))


def flips(blob: bytes, header: int, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Every byte of the first `header` and the last 16 changed, then `count` random bits: where, and by what mask."""
    ends = (*range(min(header, len(blob))), *range(len(blob) - 16, len(blob)))
    places = [(at, int(rng.integers(1, 256))) for at in ends]
    return places + [(int(rng.integers(len(blob))), 1 << int(rng.integers(8))) for _ in range(count)]


def replace(blobs: dict[str, bytes], name: str, changed: bytes | None) -> dict[str, bytes]:
    """The blobs with one changed, or gone when `changed` is None."""
    copy = {other: blob for other, blob in blobs.items() if other != name}
    if changed is not None:
        copy[name] = changed
    return copy


def flip(blobs: dict[str, bytes], name: str, at: int, mask: int = 8) -> dict[str, bytes]:
    """The blobs with one byte changed, of one bit unless `mask` says more."""
    blob = blobs[name]
    return replace(blobs, name, blob[:at] + bytes([blob[at] ^ mask]) + blob[at + 1 :])
