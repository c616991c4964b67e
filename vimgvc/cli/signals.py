"""Ctrl-C, SIGTERM and SIGHUP mean the same: stop in order; at the second time: at once."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
from types import FrameType

_SHOW_CURSOR = b"\x1b[?25h"
_STOPPING = b"\r\x1b[Kvimgvc: stopping after what is under way; once more to stop at once\r\n"
#: Seconds that what is under way has to end by itself before connections are cut.
_GRACE = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_CODE = 130


def install() -> None:
    """Let the first signal raise `KeyboardInterrupt` in the main thread and the second end the process."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            if _others_work():
                _tell(_STOPPING)
            # Not `threading`, whose locks the interrupted thread may hold.
            _thread.start_new_thread(_cut_connections, ())
            raise KeyboardInterrupt
        # no clean-up: the store is consistent at every moment, only the terminal needs its cursor back
        _tell(_SHOW_CURSOR)
        os._exit(EXIT_CODE)

    for number in _SIGNALS:
        # what the parent ignores (nohup, background jobs of a plain shell) stays ignored
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def _cut_connections() -> None:
    """Whatever waits for a server, in whichever thread, and is waited for."""
    import time

    from vimgvc import threads

    time.sleep(_GRACE)
    threads.interrupt_all()


def _others_work() -> bool:
    """Whether there are threads that will end what they are at."""
    import threading

    # Daemons serve connections, and have nothing of their own to end.
    return sum(not thread.daemon for thread in threading.enumerate()) > 1


def _tell(words: bytes) -> None:
    """Write to the terminal, if that is where errors go and it is still there."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, words)
