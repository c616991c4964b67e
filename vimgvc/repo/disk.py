"""A disk inside a commit."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, materialize, salvage, tree
from vimgvc.store import objects


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """`lost` are the ranges (offset, length) that were filled with a pattern instead."""

    bytes_written: int
    seconds: float
    lost: tuple[tuple[int, int], ...] = ()


class StoredDisk:
    """Its manifest's root is read and checked; the rest is read as it is needed.

    With `survive` what is lost does not stop a restore of the rest.
    """

    def __init__(self, store: objects.Objects, facts: commits.Disk, *, survive: bool = False) -> None:
        self._store = store
        self._lost = salvage.Lost(facts.size) if survive else None
        self._tree = tree.Tree(store, bytes.fromhex(facts.manifest), self._lost.add if self._lost else None)
        self.size = facts.size
        if self._tree.size != facts.size:
            raise errors.IntegrityError(f"disk {facts.name}", "has another size than its manifest")

    def data_bytes(self) -> int:
        """Bytes that are not zeros, by whole chunks: what a sparse file of it takes at most."""
        return materialize.data_bytes(self._tree)

    def restore(self, target: protocol.Target, monitor: Monitor, threads: int | None = None) -> RestoreResult:
        """Write everything to `target` and finish it, or abort it and raise.

        Raises `IntegrityError` for what is damaged, and what the target raises.
        """
        started = time.monotonic()
        try:
            written = materialize.materialize(
                self._store, self._tree, target, threads or crew.default_threads(), monitor, lost=self._lost
            )
            target.finish()
        except BaseException:
            target.abort()
            raise
        lost = tuple(self._lost.ranges()) if self._lost else ()
        return RestoreResult(written, time.monotonic() - started, lost)
