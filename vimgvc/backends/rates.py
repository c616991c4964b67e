"""How fast bytes may go to a place over the network, and come from it: for all threads together.

What is counted are the bodies of blobs, piece by piece as they pass. Headers, names and what encryption adds are not.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vimgvc import errors

#: Environment variables; the command line puts its options there.
UPLOAD, DOWNLOAD = "VIMGVC_LIMIT_UPLOAD", "VIMGVC_LIMIT_DOWNLOAD"

_RATE = re.compile(r"([0-9]{1,12})([KMGT])(i?B?)(?:/s)?", re.IGNORECASE)
#: Below that a server would take a connection for dead that waits for its turn.
_LEAST = 16 << 10
#: Pieces are this part of a second, so that many connections have their turn soon, and this large at least.
_TURNS, _SMALLEST = 8, 4 << 10


class Limit:
    """At most `rate` bytes a second (0: any number), whoever asks, after a first piece that does not wait.

    `clock` in seconds. Bytes are charged before they pass; `charged` is how many there were.
    """

    def __init__(self, rate: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._paid_until = clock()
        self.charged = 0

    def piece(self, most: int) -> int:
        """How many bytes are to pass at once, at most `most`."""
        return min(most, max(_SMALLEST, self._rate // _TURNS)) if self._rate else most

    def charge(self, count: int) -> float:
        """Seconds to wait until `count` bytes may pass: until all that were charged before have."""
        with self._lock:
            self.charged += count
            if not self._rate:
                return 0.0
            now = self._clock()
            start = max(self._paid_until, now)
            self._paid_until = start + count / self._rate
            return start - now


@dataclass(frozen=True, slots=True)
class Limits:
    up: Limit = field(default_factory=Limit)
    down: Limit = field(default_factory=Limit)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Limits:
        """Those that the environment asks for. Raises `UsageError`."""
        return cls(_limit(environ.get(UPLOAD), "--limit-upload"), _limit(environ.get(DOWNLOAD), "--limit-download"))


def _limit(given: str | None, option: str) -> Limit:
    if not given:
        return Limit()
    match = _RATE.fullmatch(given)
    if match is None:
        raise errors.UsageError(
            f"not a rate for {option}: {given}", hint="write it like 500K, 10M or 10MiB: bytes a second"
        )
    number, unit, binary = match.groups()
    base = 1000 if binary.lower() == "b" else 1024
    rate = int(number) * base ** " KMGT".index(unit.upper())
    if rate < _LEAST:
        raise errors.UsageError(f"{option} {given} is too slow for a connection to stay", hint="give at least 16K")
    return Limit(rate)
