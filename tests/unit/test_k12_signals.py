"""K12: signals while threads seal and store packs, under a scheduler that switches at random."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests import repos
from vimgvc.backends import memory, protocol

pytestmark = pytest.mark.slow

_MIB = 1 << 20


class _Interrupting(memory.MemoryBackend):
    """Interrupts the main thread at its k-th call from now on, whichever thread makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        self._tick()
        done = super().put(name, parts)
        self._tick()
        return done

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._tick()
        return super().get(name, offset, length)

    def _tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.fixture(autouse=True)
def _restless_scheduler(seed: int) -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = sys.getswitchinterval()
    sys.setswitchinterval(10 ** np.random.default_rng(seed).uniform(-6, -3))
    yield
    sys.setswitchinterval(before)
    signal.signal(signal.SIGINT, handler)


def test_k12_a_signal_at_any_moment_leaves_a_good_repository(seed: int) -> None:
    """Commits by four threads, each interrupted somewhere: no thread stays, nothing is wrong, the next one works."""
    rng = np.random.default_rng(seed)
    place = _Interrupting()
    repo = repos.create(place)
    disk = bytearray(repos.noise(seed, 6 * _MIB))
    interrupted = 0
    for _ in range(12):
        at = int(rng.integers(0, 5)) * _MIB
        disk[at : at + _MIB] = rng.bytes(_MIB)
        threads = threading.active_count()
        place.left = int(rng.integers(1, 40))
        try:
            repos.commit(repo, ("vm", bytes(disk)), threads=4)
        except KeyboardInterrupt:
            interrupted += 1
        place.left = 0
        assert threading.active_count() == threads
    assert interrupted
    assert not repo.verify("data").problems
    repos.commit(repo, ("vm", bytes(disk)), allow_empty=True)
    assert repos.restore(repos.reopen(repo), "vm") == bytes(disk)
