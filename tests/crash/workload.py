"""A repository's writes without a repository: blobs in the legal order, and what must hold of them.

A round is what a commit does: packs, sync, index object, sync, commit, sync, ref entry, sync. The
last of its packs comes again in the next round, as content does.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from tests.crash import model, states
from vimgvc import errors
from vimgvc.backends import files, local, protocol

ROOT = pathlib.Path("/disk/repository")
ROUNDS = 3

#: How a check opens the files after a power cut.
Open = Callable[[pathlib.Path, files.Files], local.LocalBackend]


@dataclasses.dataclass(frozen=True, slots=True)
class Blobs:
    """Every blob of the workload, in the order of the rounds; what has to be there before what."""

    content: dict[str, bytes]
    rounds: list[list[list[str]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Promise:
    """The blobs that must be there from now on."""

    names: tuple[str, ...]


def make_blobs(seed: int) -> Blobs:
    rng = np.random.default_rng(seed)
    content = {protocol.CONFIG: b'{"format":1}'}
    rounds = []
    shared: list[str] = []
    for number in range(1, ROUNDS + 1):
        packs = []
        for size in (13_000, 4096):
            name = rng.bytes(32).hex()
            packs.append(f"packs/{name[:2]}/{name}")
            content[packs[-1]] = rng.bytes(size)
        index, commit, blind = rng.bytes(32).hex(), rng.bytes(32).hex(), "ab" * 16
        later = [[f"index/{index}"], [f"commits/{commit}"], [f"refs/{blind}/{number:016x}"]]
        for (name,) in later:
            content[name] = rng.bytes(700)
        rounds.append([[*packs, *shared], *later])
        shared = packs[-1:]
    return Blobs(content, rounds)


def start() -> model.ModelFiles:
    """A disk with nothing on it but the directory that the repository comes into."""
    return model.ModelFiles([str(ROOT.parent)])


def initialise(backend: local.LocalBackend, blobs: Blobs) -> None:
    backend.put(protocol.CONFIG, [blobs.content[protocol.CONFIG]])
    backend.sync()


def run(backend: protocol.Backend, blobs: Blobs, acknowledge: Callable[[Promise], None]) -> None:
    """All rounds; after each, the names that must now stay are acknowledged."""
    promised = [protocol.CONFIG]
    acknowledge(Promise(tuple(promised)))
    for steps in blobs.rounds:
        for step in steps:
            for name in step:
                content = memoryview(blobs.content[name])
                backend.put(name, [content[:5000], content[5000:]])
                promised.append(name)
            backend.sync()
        acknowledge(Promise(tuple(promised)))


def look(backend: protocol.Backend, blobs: Blobs) -> None:
    """Read what there is."""
    for area in ("packs/00", "index", "refs"):
        assert all(item.size == len(blobs.content[item.name]) for item in backend.list(area))
    for name in [names[0] for names in blobs.rounds[0]]:
        content = blobs.content[name]
        assert backend.size(name) == len(content)
        assert backend.get(name) == content
        assert backend.get(name, 100) == content[100:]


def check(state: states.State, blobs: Blobs, reopen: Open = local.LocalBackend.open) -> None:
    """All that was acknowledged is there, all that is there is whole and complete, and work goes on."""
    promised = promised_names(state)
    backend = _open_or_create(state, blobs, reopen, initialised=bool(promised))
    check_present(backend, blobs, promised)
    run(reopen(ROOT, state.files), blobs, lambda _promise: None)
    # A power cut after the recovery: what the recovery found counts like what it put.
    after = local.LocalBackend.open(ROOT, state.files.crash(states.Certain("synced")))
    check_present(after, blobs, set(blobs.content))


def promised_names(state: states.State) -> set[str]:
    names: set[str] = set()
    for promise in state.promises:
        assert isinstance(promise, Promise)
        names.update(promise.names)
    return names


def check_present(backend: local.LocalBackend, blobs: Blobs, promised: set[str]) -> None:
    """`promised` is there, and whatever is there has its bytes and everything that comes before it."""
    present = {item.name for area in protocol.AREAS for item in backend.list(area)}
    for name in promised - {protocol.CONFIG}:
        assert name in present, f"lost: {name}"
    for name in present | {protocol.CONFIG}:
        assert backend.get(name) == blobs.content[name], f"wrong bytes: {name}"
    for steps in blobs.rounds:
        for at, step in enumerate(steps):
            if any(name in present for later in steps[at + 1 :] for name in later):
                assert present.issuperset(step), f"order: not all of {step}, but what comes after them"


def _open_or_create(state: states.State, blobs: Blobs, reopen: Open, *, initialised: bool) -> local.LocalBackend:
    try:
        return reopen(ROOT, state.files)
    except errors.NoRepository:
        assert not initialised, "the repository is gone"
    backend = local.LocalBackend.create(ROOT, state.files)
    initialise(backend, blobs)
    return backend
