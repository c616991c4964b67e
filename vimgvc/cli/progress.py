"""Progress on a terminal; nothing of it in a pipe.

The bar appears once work has taken half a second: short commands stay quiet, and rich is imported
only where there is something to show. Warnings and notes are printed above the bar.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vimgvc import monitor
from vimgvc.cli import output, text

if TYPE_CHECKING:
    from rich import progress as rich_progress

_DELAY = 0.5


class Plain:
    """Prints warnings and notes only."""

    def __init__(self, out: output.Output) -> None:
        self._out = out

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self._out.detail(task)

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        pass

    def problem(self, message: str) -> None:
        self._out.problem(message)

    def note(self, message: str) -> None:
        self._out.note(message)


class Bar:
    """A bar with rate, time left and the savings so far. Thread-safe."""

    def __init__(self, out: output.Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._lock = threading.Lock()
        self._began = self._task_began = clock()
        self._shown: rich_progress.Progress | None = None
        self._task: rich_progress.TaskID | None = None
        self._name, self._unit = "", "bytes"
        self._total = self._done = self._new = self._stored = 0

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        with self._lock:
            self._name, self._total, self._unit = text.escape(task), total, unit
            self._done = self._new = self._stored = 0
            self._task_began = self._clock()
            if self._shown is not None and self._task is not None:
                self._shown.remove_task(self._task)
                self._task = None
            self._show()

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        with self._lock:
            self._done += amount
            self._new += new
            self._stored += stored
            self._show()

    def problem(self, message: str) -> None:
        self._above(lambda: self._out.problem(message))

    def note(self, message: str) -> None:
        self._above(lambda: self._out.note(message))

    def close(self) -> None:
        with self._lock:
            if self._shown is not None:
                self._shown.stop()

    def _above(self, say: Callable[[], None]) -> None:
        """Print while the bar is away: what is printed must not be torn by its redrawing."""
        with self._lock:
            if self._shown is None:
                say()
                return
            self._shown.stop()
            say()
            self._shown.start()

    def _show(self) -> None:
        if self._shown is None:
            if self._clock() - self._began < _DELAY:
                return
            self._shown = _new_bar(self._out)
            self._shown.start()
        if self._task is None:
            self._task = self._shown.add_task(self._name, total=self._total or None, facts="")
        self._shown.update(self._task, completed=self._done, facts=self.facts())

    def facts(self) -> str:
        """The words right of the bar."""
        elapsed = self._clock() - self._task_began
        rate = self._done / elapsed if elapsed > 0 else 0.0
        if self._unit == "bytes":
            words = [text.size(self._done), f"{text.size(round(rate))}/s"]
        else:
            words = [f"{self._done:,} {self._unit}"]
        if self._total and rate:
            words.append(f"{_clock_time(max(0, self._total - self._done) / rate)} left")
        return ", ".join(words + _savings(self._done, self._new, self._stored))


def _savings(done: int, new: int, stored: int) -> list[str]:
    """How much deduplication and compression have saved, where they had a chance."""
    words = []
    if new:
        words.append(f"dedup {done / new:.1f}:1")
    if stored:
        words.append(f"compression {new / stored:.1f}:1")
    return words


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _new_bar(out: output.Output) -> rich_progress.Progress:
    from rich import console, progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=30),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[facts]}", markup=False),
        console=console.Console(file=out.stderr, no_color=bool(out.environment.get("NO_COLOR"))),
        transient=True,
    )


@contextlib.contextmanager
def on_terminal(out: output.Output) -> Iterator[monitor.Monitor]:
    """The monitor that fits: a bar on a terminal, else only warnings and notes."""
    if out.quiet or not output.is_rich_terminal(out.stderr, out.environment):
        yield Plain(out)
        return
    bar = Bar(out)
    try:
        yield bar
    finally:
        bar.close()
