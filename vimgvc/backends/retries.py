"""Trying again what failed for a reason that passes: how often, how long, and what is told in the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from vimgvc import errors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """`tries` in all, within `total` seconds of the first failure.

    Pauses grow from `first` to `longest` seconds, half of each by chance.
    """

    tries: int = 8
    total: float = 300.0
    first: float = 0.2
    longest: float = 30.0


PATIENCE = Patience()


class Again(Exception):
    """It failed, and may not fail the next time; `final` is what is raised when there is no next time.

    `pause`: seconds that the other side asked for. `at_once`: the next try is another one already.
    `doubt`: what was asked may have been done.
    """

    def __init__(
        self, final: errors.VimgvcError, *, pause: float = 0.0, at_once: bool = False, doubt: bool = True
    ) -> None:
        super().__init__(final.message)
        self.final, self.pause, self.at_once, self.doubt = final, pause, at_once, doubt


class Retrier:
    """Thread-safe. `stop` ends pauses, and lets nothing begin any more."""

    def __init__(self, patience: Patience, rng: Callable[[int], bytes] = os.urandom) -> None:
        self._patience, self._rng = patience, rng
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, called until it raises no `Again`; else what the last one says."""
        end, pause = 0.0, self._patience.first
        for left in reversed(range(self._patience.tries)):
            try:
                if self._stopped.is_set():
                    raise errors.Interrupted("interrupted", hint="run the same command again to continue")
                return attempt()
            except Again as again:
                wait = 0.0 if again.at_once else max(again.pause, pause * (0.5 + self._chance() / 2))
                now = time.monotonic()
                end = end or now + self._patience.total
                if left == 0 or now + wait > end:
                    raise again.final from None
                self._stopped.wait(wait)
                if not again.at_once:
                    pause = min(pause * 2, self._patience.longest)
        raise AssertionError

    def _chance(self) -> float:
        return int.from_bytes(self._rng(2)) / 65536
