"""A disk, or an attachment, inside a commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, materialize, salvage, tree
from vimgvc.store import objects

if TYPE_CHECKING:
    from vimgvc.pipeline import in_place


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """`lost` are the ranges (offset, length) that were filled with a pattern instead."""

    bytes_written: int
    seconds: float
    lost: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What was read of the target to compare it, written to it, and zeroed in it, in bytes."""

    compared: int
    written: int
    zeroed: int
    seconds: float


class StoredDisk:
    """Its manifest's root is read and checked; the rest is read as it is needed.

    With `survive` what is lost does not stop a restore of the rest.
    """

    def __init__(self, store: objects.Objects, facts: commits.Stored, *, survive: bool = False) -> None:
        self._store = store
        self._lost = salvage.Lost(facts.size) if survive else None
        root = bytes.fromhex(facts.manifest)
        self._strict = tree.Tree(store, root)
        self._tree = tree.Tree(store, root, self._lost.add) if self._lost else self._strict
        self.size = facts.size
        if self._tree.size != facts.size:
            raise errors.IntegrityError(facts.name, "has another size than its manifest")

    def another(self, facts: commits.Stored) -> StoredDisk:
        """A disk that was stored before this one was opened; the index is not read again. Raises as `StoredDisk`."""
        return StoredDisk(self._store, facts)

    def data_bytes(self) -> int:
        """Bytes that are not zeros, by whole chunks: what a sparse file of it takes at most."""
        return materialize.data_bytes(self._tree)

    def changed_since(self, base: StoredDisk) -> Iterator[extents.Extent]:
        """What to write over `base`, another disk of this repository, so that it becomes this one.

        Ascending and merged: DATA is to be written, ZERO to be zeroed; both are whole chunks or
        blocks. Sizes may differ: `base` reads as zeros beyond its end. Reads of the manifests only
        what differs; raises `IntegrityError` where that is damaged.
        """
        from vimgvc.pipeline import treediff

        return treediff.changed(self._strict, base._strict)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """Cover `[offset, offset + length)` with DATA and HOLE, reading only the manifest.

        Raises `IntegrityError` where the manifest is damaged, also with `survive`.
        """
        from vimgvc.pipeline import random_access

        return random_access.data_extents(self._strict, offset, length)

    def reader(self, threads: int | None = None) -> protocol.Reader:
        """The disk for reading anywhere, by up to `threads` threads at once; memory is bounded.

        Reading raises `IntegrityError` for exactly the ranges that are lost, also with `survive`.
        """
        from vimgvc.pipeline import random_access

        return random_access.StoredReader(self._store, self._strict, threads or self._threads())

    def matches(self, reader: protocol.Reader, monitor: Monitor, threads: int | None = None) -> None:
        """Raise `IntegrityError` naming the first range in which `reader` is not this disk, by its hashes.

        Reads the manifest and what `reader` says to be data, and no stored data. `reader` may be
        larger if the rest is zeros. Also raises what `reader` raises.
        """
        from vimgvc.pipeline import compare

        compare.compare(self._strict, self._store.seals, reader, monitor, threads or crew.default_threads())

    def restore(
        self,
        target: protocol.Target,
        monitor: Monitor,
        threads: int | None = None,
        *,
        check: Callable[[], None] | None = None,
    ) -> RestoreResult:
        """Write everything to `target` and finish it, or abort it and raise.

        `check` is called when everything is written and before `target` gets its name; what it
        raises is what is raised. Raises `IntegrityError` for what is damaged, and what the target
        raises.
        """
        started = time.monotonic()
        try:
            written = materialize.materialize(
                self._store, self._tree, target, threads or self._threads(), monitor, lost=self._lost
            )
            if check is not None:
                check()
            target.finish()
        except BaseException:
            target.abort()
            raise
        lost = tuple(self._lost.ranges()) if self._lost else ()
        return RestoreResult(written, time.monotonic() - started, lost)

    def rewrite(
        self, target: protocol.Target, monitor: Monitor, threads: int | None = None, *, base: StoredDisk | None = None
    ) -> Rewritten:
        """Make `target`, which holds something else, this disk by writing what differs, and finish it.

        With `base` the target is taken to hold that disk, and zeros behind it: nothing of it is read.
        Else it is hashed. What fails leaves a mixture; another run without `base` makes that whole.
        Raises `IntegrityError` for what is damaged, and what the target raises.
        """
        from vimgvc.pipeline import in_place

        started = time.monotonic()
        threads = threads or self._threads()
        try:
            if base is None:
                done = in_place.compared(self._store, self._strict, target, threads=threads, monitor=monitor)
            else:
                done = self._write_over(base, target, threads, monitor)
            target.finish()
        except BaseException:
            target.abort()
            raise
        return Rewritten(done.compared, done.written, done.zeroed, time.monotonic() - started)

    def _threads(self) -> int:
        return crew.default_threads(self._store.backend.capabilities.parallel)

    def _write_over(
        self, base: StoredDisk, target: protocol.Target, threads: int, monitor: Monitor
    ) -> in_place.Written:
        from vimgvc.pipeline import in_place

        return in_place.from_base(self._store, self._strict, base._strict, target, threads=threads, monitor=monitor)


class Recorded:
    """A recorded disk as something to be committed."""

    def __init__(self, reader: protocol.Reader, allocated_bytes: int = 0) -> None:
        self._reader = reader
        self.size = reader.size
        self.allocated_bytes = allocated_bytes

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._reader.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._reader.extents(offset, length)

    def check_unchanged(self) -> None:
        """Nothing recorded ever changes."""

    def close(self) -> None:
        self._reader.close()
