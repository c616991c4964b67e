"""Waiting for threads while signals come."""

from __future__ import annotations

import signal
import threading

import pytest

from vimgvc import threads


def test_an_interrupted_join_does_not_take_the_thread_for_ended() -> None:
    """Ctrl-C while a thread is waited for leaves it running, and waiting once more waits for its end."""
    begin, interrupted, go_on, over = (threading.Event() for _ in range(4))

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def work() -> None:
        begin.wait()
        while not interrupted.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        go_on.wait()
        over.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        thread = threads.Thread(target=work)
        thread.start()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - from whichever of the two it comes
            begin.set()
            thread.join()
        assert thread.is_alive()
        assert not over.is_set()
        go_on.set()
        thread.join()
        assert over.is_set()
        assert not thread.is_alive()
    finally:
        signal.signal(signal.SIGINT, before)


def test_join_with_a_timeout_and_after_the_end() -> None:
    """A timeout ends the waiting, not the thread; a thread that ended is joined at once, as often as one likes."""
    go_on = threading.Event()
    thread = threads.Thread(target=go_on.wait)
    with pytest.raises(RuntimeError):
        thread.join()
    thread.start()
    thread.join(0.01)
    assert thread.is_alive()
    go_on.set()
    thread.join()
    thread.join()
    assert not thread.is_alive()


def test_a_thread_that_fails_ends() -> None:
    """What is raised in a thread ends it, and whoever waits goes on."""
    told: list[object] = []
    before, threading.excepthook = threading.excepthook, told.append
    try:
        thread = threads.Thread(target=lambda: 1 // 0)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before
    assert len(told) == 1
