"""A few threads over one stream of work.

Workers pull; the stream is advanced under a lock, so it may be a generator. The first error wins
and stops the others after the item they are at. Every thread is joined before `run` returns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from vimgvc import threads as threads_module

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Worker(Protocol[T_contra]):
    """Made, used and closed in one thread."""

    def work(self, item: T_contra) -> None: ...

    def close(self) -> None:
        """Called after the last item, unless something failed."""


def default_threads(parallel: int = 1) -> int:
    """One a core, or as many as calls in flight are worth it (`Capabilities.parallel`) where blobs are read."""
    return max(len(os.sched_getaffinity(0)), parallel)


class _Crew(Generic[T]):
    def __init__(self, items: Iterator[T], make: Callable[[], Worker[T]]) -> None:
        self._items, self._make = items, make
        self._lock = threading.Lock()
        self._stopped = False
        self.failure: BaseException | None = None

    def labour(self) -> None:
        try:
            worker = self._make()
            while (item := self._next()) is not None:
                worker.work(item)
            if not self._stopped:
                worker.close()
        except BaseException as error:  # noqa: BLE001 the thread's boundary: raised again by run()
            self.stop(error)

    def stop(self, error: BaseException) -> None:
        with self._lock:
            self._stopped = True
            self.failure = self.failure or error

    def _next(self) -> T | None:
        with self._lock:
            return None if self._stopped else next(self._items, None)


def run(items: Iterator[T], make: Callable[[], Worker[T]], threads: int) -> None:
    """Have `threads` workers from `make` do all `items`; raises the first failure."""
    crew = _Crew(items, make)
    team = [threads_module.Thread(target=crew.labour, name=f"vimgvc-{number}") for number in range(max(1, threads))]
    try:
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
    except BaseException as error:
        crew.stop(error)
        for thread in team:
            if thread.ident is not None:  # was started
                thread.join()
        raise
    if crew.failure is not None:
        raise crew.failure
