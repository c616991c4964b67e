"""Ctrl-C, SIGTERM and SIGHUP mean the same: stop in order; at the second time: at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

_SHOW_CURSOR = b"\x1b[?25h"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_CODE = 130


def install() -> None:
    """Let the first signal raise `KeyboardInterrupt` in the main thread and the second end the process."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt
        # no clean-up: the store is consistent at every moment, only the terminal needs its cursor back
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
        os._exit(EXIT_CODE)

    for number in _SIGNALS:
        # what the parent ignores (nohup, background jobs of a plain shell) stays ignored
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
