"""An event loop on a thread of its own, for libraries that have no other way of working.

Other threads hand it coroutines and wait. Whoever is interrupted while waiting (Ctrl-C in the main thread) takes the
coroutine back, so that nothing reads the caller's buffers any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from vimgvc import errors
from vimgvc import threads as threads_module

T = TypeVar("T")

#: How long somebody who is interrupted waits until a coroutine has taken note.
_PATIENCE = 2.0


class Loop:
    """Started by the first `run`. `at_end` is awaited in the loop when it ends: by `close`, or when it is forgotten."""

    def __init__(self, name: str, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name, self._at_end = name, at_end
        self._guard = threading.Lock()
        self._errands: set[_Errand] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None

    @property
    def is_running(self) -> bool:
        return self._end is not None and self._loop is not None and not self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises; called from any other thread. `Interrupted` when the loop ends meanwhile."""
        loop = self._started()
        errand = _Errand(work)
        self._errands.add(errand)
        try:
            try:
                loop.call_soon_threadsafe(errand.start, loop)
            except RuntimeError:  # it has ended
                errand.abandon()
            errand.over.wait()
        except BaseException:
            _tell(loop, errand.cancel)
            errand.over.wait(_PATIENCE)
            raise
        finally:
            self._errands.discard(errand)
        if errand.task is None or errand.task.cancelled():
            raise errors.Interrupted("the connection was closed")
        result: T = errand.task.result()
        return result

    def close(self) -> None:
        """End what is under way, and the thread. May be called twice."""
        with self._guard:
            if self._end is not None:
                self._end()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                # A daemon: the interpreter waits for other threads before it lets anybody end this one.
                thread = threads_module.Thread(
                    target=_serve, args=(loop, self._errands, self._at_end), name=self._name, daemon=True
                )
                thread.start()
                self._end = weakref.finalize(self, _stop, loop, thread)
                self._loop = loop
            return self._loop


class _Errand:
    """A coroutine on its way through the loop; `over` when it has a result, or never will."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work
        self.over = threading.Event()
        self.task: asyncio.Task[Any] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self._work)
        self.task.add_done_callback(lambda _: self.over.set())

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def abandon(self) -> None:
        if self.task is None:
            self._work.close()
        self.over.set()


def _serve(
    loop: asyncio.AbstractEventLoop, errands: set[_Errand], at_end: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        _cancel_all(loop)
        loop.run_until_complete(at_end())
        _cancel_all(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        for errand in tuple(errands):
            errand.abandon()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))


def _stop(loop: asyncio.AbstractEventLoop, thread: threads_module.Thread) -> None:
    _tell(loop, loop.stop)
    thread.join()


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Have the loop do something, if it has not ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what)
