"""A repository's life for the rig: made, three commits, a key added, a key removed; and what must hold of it."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib

import numpy as np

from tests import repos
from tests.crash import model, recorder, states
from tests.gc import past
from vimgvc import errors, monitor
from vimgvc.backends import files, local
from vimgvc.codec import aead, keys
from vimgvc.disk import memory
from vimgvc.pipeline import ingest
from vimgvc.repo import keyring, repository

ROOT = pathlib.Path("/disk/repository")
FIRST = repos.SECRET
SECOND = keys.Secret(keys.KEYFILE, bytes(range(32)))

Disks = dict[str, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Committed:
    """From now on the commit with this message restores."""

    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Opens:
    """From now on these secrets open the repository, and `refused` does not."""

    secrets: tuple[keys.Secret, ...]
    refused: tuple[keys.Secret, ...] = ()


def contents() -> dict[str, Disks]:
    """By message: the disks of each commit. They share most of their blocks, moved and not."""
    first = bytearray(repos.noise(1, 90_000) + bytes(40_000) + repos.text(2, 110_001))
    second = bytes(first[:50_000]) + repos.noise(3, 8192) + bytes(first[50_000 + 8192 :])
    third = repos.text(4, 4096) + bytes(first)
    return {
        "one": {"vm": bytes(first)},
        "two": {"vm": second, "data": repos.noise(5, 30_000)},
        "three": {"vm": third, "data": repos.noise(5, 30_000)},
        "next": {"vm": second + repos.noise(6, 20_000)},
    }


CONTENTS = contents()


def start() -> model.ModelFiles:
    return model.ModelFiles([str(ROOT.parent)])


def few_shards(disk: model.ModelFiles) -> model.ModelFiles:
    """The files as they are when all is durable, without most of the shards of `packs` that are empty.

    They come with their first pack. All that lists packs looks through all of the 256, which is half of the work.
    """
    durable = disk.crash(states.Certain("all"))
    durable.drop_empty(f"{ROOT}/packs", keep=lambda shard: shard.startswith(("0", "8")))
    return durable


def repeatable() -> aead.Rng:
    """The same random bytes each time, for runs that are compared operation by operation."""
    return np.random.default_rng(8).bytes


def create(target: files.Files, kind: type[local.LocalBackend] = local.LocalBackend) -> repository.Repository:
    """Always with the same root key, so that content is cut alike in each run."""
    ticks = itertools.count(1_800_000_000)
    return repository.Repository.create(
        kind.create(ROOT, target),
        FIRST,
        average=16384,
        profile=keys.CHEAPEST,
        clock=lambda: float(next(ticks)),
        rng=repeatable(),
    )


def reopen(
    target: files.Files,
    unlocked: keyring.Unlocked,
    kind: type[local.LocalBackend] = local.LocalBackend,
    rng: aead.Rng = os.urandom,
) -> repository.Repository:
    """Opened afresh, without deriving a key."""
    return repository.Repository.open(kind.open(ROOT, target), unlocked=unlocked, rng=rng)


def unlock(target: files.Files, *secrets: keys.Secret) -> repository.Repository:
    """Opened afresh by one of the secrets."""
    return repository.Repository.open(local.LocalBackend.open(ROOT, target), secrets)


def commit(repo: repository.Repository, message: str) -> repository.CommitResult:
    sources = [
        ingest.Source(name, memory.MemoryDisk.of(content), {"format": "raw"})
        for name, content in CONTENTS[message].items()
    ]
    request = repository.CommitRequest("vm", message, "tester", "host")
    return repo.commit(sources, request, repository.Effort(threads=1))


def live(
    recording: recorder.RecordingFiles, unlocked: keyring.Unlocked, kind: type[local.LocalBackend] = local.LocalBackend
) -> None:
    """The life of a repository that was created, with what is acknowledged in the log."""
    recording.acknowledge(Opens((FIRST,)))
    for message in ("one", "two", "three"):
        assert commit(reopen(recording, unlocked, kind), message).created
        recording.acknowledge(Committed(message))
    ring = reopen(recording, unlocked, kind).keyring
    added = add_key(ring, unlocked)
    recording.acknowledge(Opens((FIRST, SECOND)))
    ring.remove(next(slot.id for slot in ring.slots() if slot.id != added))
    recording.acknowledge(Opens((SECOND,), refused=(FIRST,)))


def add_key(ring: keyring.Keyring, unlocked: keyring.Unlocked) -> str:
    info = ring.add(unlocked, SECOND, label="", created="2027-01-15T08:00:00Z", rng=os.urandom, profile=keys.CHEAPEST)
    return info.id


def change_key(ring: keyring.Keyring, unlocked: keyring.Unlocked, slot_id: str) -> None:
    """A new slot for SECOND in place of one that has it."""
    ring.change(unlocked, slot_id, SECOND, created="2027-01-15T09:00:00Z", rng=os.urandom, profile=keys.CHEAPEST)


def check_commits(repo: repository.Repository, promised: set[str]) -> None:
    """All promised commits are there, and whatever the history shows restores byte for byte."""
    seen = set()
    store = repo.objects(monitor.NullMonitor())
    for found in repo.history():
        seen.add(found.message)
        assert past.read(repo, found, store) == CONTENTS[found.message], f"wrong bytes in commit {found.message!r}"
    assert seen >= promised, f"lost: {sorted(promised - seen)}"


def check_keys(target: files.Files, opens: Opens) -> None:
    for secret in opens.secrets:
        unlock(target, secret)
    for secret in opens.refused:
        try:
            unlock(target, secret)
        except errors.NoKey:
            continue
        raise AssertionError("a removed key opens")
