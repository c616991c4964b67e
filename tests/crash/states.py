"""Every state that a power cut may leave, and the check of a promise in each of them.

After each operation of a log:

    killed   no power cut yet: the process is gone, everything is seen, the same things are unsynced
    all      everything has reached the disk
    synced   only what was synced
    names    every name, but of the contents only what was synced
    data     every content, but of the names only those that were synced
    drawn    each name and each 4 KiB block of content on its own, or not: with torn blocks, garbage
             in blocks that are new, and sizes ahead of the content; by a seed
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tests import depth
from tests.crash import model, recorder

BLOCK = 4096
SECTOR = 512

CERTAIN = ("all", "synced", "names", "data")


@dataclasses.dataclass(frozen=True, slots=True)
class Certain:
    """One of the states that no seed is needed for."""

    kind: str

    def changes(self, changes: Sequence[model.Change]) -> Sequence[model.Change]:
        return changes if self.kind in ("all", "names") else []

    def content(self, durable: bytes, written: bytes) -> bytes:
        return written if self.kind in ("all", "data") else durable


class Drawn:
    """Keeps each change with a probability that is drawn first: never, rarely, half of them, or mostly."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._names = float(self._rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]))
        self._blocks = float(self._rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]))

    def changes(self, changes: Sequence[model.Change]) -> Sequence[model.Change]:
        kept = self._rng.random(len(changes)) < self._names
        return [change for change, keep in zip(changes, kept, strict=True) if keep]

    def content(self, durable: bytes, written: bytes) -> bytes:
        rng = self._rng
        between = int(rng.integers(len(durable), len(written) + 1))
        size = int(rng.choice([len(durable), len(written), between]))
        result = bytearray(durable.ljust(size, b"\0"))
        for start in range(len(durable) // BLOCK * BLOCK, size, BLOCK):
            end = min(start + BLOCK, size)
            fate = rng.random()
            if fate < self._blocks:
                result[start:end] = written[start:end]
            elif fate > 0.9:
                for sector in range(start, end, SECTOR):
                    if rng.random() < 0.5:
                        result[sector : min(sector + SECTOR, end)] = written[sector : min(sector + SECTOR, end)]
            elif fate > 0.8 and start >= len(durable):
                result[start:end] = rng.bytes(end - start)
        return bytes(result)


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """The files after a power cut, and what had been promised until then."""

    files: model.ModelFiles
    promises: Sequence[object]
    after: int
    kind: str
    seed: int


def states(
    log: Sequence[recorder.Operation], start: model.ModelFiles, *, seed: int, drawn: int, first: int = 0
) -> Iterator[State]:
    """The states after each operation from number `first` on; `drawn` says how many drawn ones after each.

    Where nothing was left unsynced all states are that of the killed process.
    """
    player = recorder.Player(start.copy())
    for after, operation in enumerate(log):
        player.play(operation)
        if after < first:
            continue
        promises = tuple(player.promises)
        yield State(player.target.copy(), promises, after, "killed", 0)
        if not player.target.pending():
            continue
        for kind in CERTAIN:
            yield State(player.target.crash(Certain(kind)), promises, after, kind, 0)
        for sample in range(drawn):
            own = int(np.random.default_rng([seed, after, sample]).integers(1 << 62))
            yield State(player.target.crash(Drawn(own)), promises, after, "drawn", own)


def replay(
    log: Sequence[recorder.Operation],
    start: model.ModelFiles,
    check: Callable[[State], None],
    *,
    seed: int,
    drawn: int,
    first: int = 0,
    sample: int | None = None,
) -> int:
    """`check` every state, or a sample of so many (`depth`); returns how many there are. A failure names the state.

    Two of the same kind that nothing tells apart, neither the files nor the promises, are checked once.
    """

    def found() -> Iterator[State]:
        return states(log, start, seed=seed, drawn=drawn, first=first)

    seen: set[object] = set()
    chosen = None
    if sample is not None:
        chosen = set(depth.some([at for at, state in enumerate(found()) if _is_new(state, seen)], sample, seed))
    count = 0
    for at, state in enumerate(found()):
        count += 1
        if not (_is_new(state, seen) if chosen is None else at in chosen):
            continue
        try:
            check(state)
        except Exception as error:
            where = f"after operation {state.after} of {len(log)} ({log[state.after]})"
            raise AssertionError(f"state {state.kind}, seed {state.seed}, {where}: {error!r}") from error
    return count


def _is_new(state: State, seen: set[object]) -> bool:
    """Whether something tells it apart from all that were `seen`."""
    if state.kind == "killed":  # in which is also what was not synced
        return True
    known = state.kind, len(state.promises), state.files.fingerprint()
    is_new = known not in seen
    seen.add(known)
    return is_new
