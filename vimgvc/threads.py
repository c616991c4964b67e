"""Threads that can be waited for although a signal may interrupt the waiting, and what threads themselves wait for."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import Protocol


class Waits(Protocol):
    """Something in which threads wait for others than this program."""

    def interrupt(self) -> None:
        """Let every waiting end at once with an error, and none begin any more. Called from a thread of its own."""


# One for the process, as signals and their handlers are: whoever handles one knows nothing of what is open.
_guard = threading.Lock()
_open: weakref.WeakSet[Waits] = weakref.WeakSet()


def can_wait(one: Waits) -> None:
    """Have `one` interrupted when the program is, as long as somebody uses it."""
    with _guard:
        _open.add(one)


def interrupt_all() -> None:
    with _guard:
        found = list(_open)
    for one in found:
        with contextlib.suppress(Exception):
            one.interrupt()


class Thread(threading.Thread):
    """Its `join` may be interrupted by what a signal handler raises, and called again; by one thread only.

    CPython's own marks the thread as ended then, while it goes on (from the fix of bpo-45274 until 3.13).
    """

    _over = False

    def start(self) -> None:
        self._running = threading.Lock()
        self._running.acquire()
        super().start()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._over = True
            self._running.release()

    def join(self, timeout: float | None = None) -> None:
        """As of `threading.Thread`."""
        if self.ident is not None and not self._over:
            # Interrupted before it has the lock, nothing has happened; behind that, the thread is over.
            if not self._running.acquire(timeout=-1 if timeout is None else timeout):
                return
            self._running.release()
        super().join(timeout)
