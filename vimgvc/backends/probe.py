"""What a place was found to promise by trying it, and who remembers that (specs/places.md).

A server may say that it knows a rule and not keep it. So before anything is written to a place over
the network, it is tried with names of the program's own, and refused if two writers could overwrite
each other there. What was found is remembered, by `repo.places`, so that it costs its requests once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vimgvc import errors


@dataclass(frozen=True, slots=True)
class Answer:
    """What a place does. Made by a backend's own trial, so it says only what has been seen.

    exclusive_create: a name that is taken is not given again. ranges: a part of a blob can be read.
    removes: blobs may be removed. durable: what is confirmed survives a power cut, as far as the
    place lets that be asked for.
    """

    exclusive_create: bool
    ranges: bool
    removes: bool
    durable: bool


class Memory(Protocol):
    """Remembers answers between runs, by the canonical URL of a place; loses them rather than fail."""

    def recall(self, url: str) -> Answer | None: ...

    def note(self, url: str, answer: Answer) -> None: ...


class Probing:
    """Finds out once, before the first blob is put, what `url` does. Thread-safe.

    `ask` tries the place. `unsafe` gives the reason not to write to a place that answered so, or nothing.
    """

    def __init__(
        self, url: str, ask: Callable[[], Answer], unsafe: Callable[[Answer], str], memory: Memory | None
    ) -> None:
        self._url, self._ask, self._unsafe, self._memory = url, ask, unsafe, memory
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._recalled = False

    def known(self) -> Answer | None:
        """The answer, if there is one without asking."""
        if self._answer is None and not self._recalled:
            self._recalled = True
            self._answer = self._memory.recall(self._url) if self._memory else None
        return self._answer

    def settle(self, *, anew: bool = False) -> Answer:
        """The answer, asked for now if need be (or in any case, `anew`). Raises `RemoteError` when it is unsafe."""
        with self._lock:
            answer = None if anew else self.known()
            if answer is None or self._unsafe(answer):
                answer = self._ask()
                if reason := self._unsafe(answer):
                    raise errors.RemoteError(
                        self._url, "unsafe", reason, hint="use another server; specs/places.md says what one must do"
                    )
                self._answer = answer
                if self._memory is not None:
                    self._memory.note(self._url, answer)
            return answer
