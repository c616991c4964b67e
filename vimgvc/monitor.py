"""How long work reports progress and problems; library code never prints.

`Monitor` is the last argument of whatever takes long. Implementations: `NullMonitor` (here), the
collecting one of the tests, the terminal one in `cli.progress`. All methods may be called from
any thread.
"""

from __future__ import annotations

from typing import Protocol


class Monitor(Protocol):
    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        """A phase begins: `total` units are expected (0: unknown)."""

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        """`amount` units done, of which `new` bytes were not known before and took `stored` bytes."""

    def problem(self, message: str) -> None:
        """Something is wrong that does not stop the work."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class NullMonitor:
    """Ignores everything."""

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        pass

    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None:
        pass

    def problem(self, message: str) -> None:
        pass

    def note(self, message: str) -> None:
        pass
