"""Writing: new segments into packs, packs to the backend, and the index after them.

Order (specs/repository.md): a pack is durable before an index object names it. Workers hand in
sealed segments; other threads hash and store full packs, so that storing overlaps with compressing: one where a call
costs no round trip, else as many as the place says are worth it, within a bound.
The first failure wins and is raised in whoever calls next.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vimgvc import errors
from vimgvc import threads as threads_module
from vimgvc.codec import aead, sealing, segment
from vimgvc.model import geometry
from vimgvc.store import arrived, index_object, pack, runs

if TYPE_CHECKING:
    from vimgvc.backends import protocol
    from vimgvc.store import index, pack_table

#: Entries after which an index object is written, so that an interrupted commit is found again.
INDEX_ENTRIES = 1 << 18
#: Packs that are on their way at once, at most: each is as large as `pack.TARGET_SIZE`, and memory is bounded.
_MOST_AT_ONCE = 3


class Writer:
    """Stores what one commit adds. `claim`, `add` are thread-safe; `finish` or `abort` ends it."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing, found: index.Index) -> None:
        self._backend, self._seals, self._index = backend, seals, found
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._reused: set[int] = set()
        #: Packs that were put and that no index object names yet, with their sizes.
        self._put: dict[str, int] = {}
        self._spare: list[bytearray] = []
        self._builders = {kind: self._builder(kind) for kind in (segment.DATA, segment.TREE)}
        # A signal may raise in the main thread at any moment, even inside queue.Queue, whose lock or wake-up is
        # lost then. So that thread only puts, and into a queue without Python code; workers wait for room.
        self._full: queue.SimpleQueue[pack.Builder | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(1)
        self._failure: BaseException | None = None
        self._saving = threading.Lock()
        count = min(backend.capabilities.parallel, _MOST_AT_ONCE)
        self._threads = [threads_module.Thread(target=self._store_packs, name="vimgvc-packs") for _ in range(count)]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            # Interrupted while they began: nobody gets this writer to end them, and the program would wait for ever.
            for _ in self._threads:
                self._full.put(None)
            raise

    def claim(self, ids: Sequence[bytes]) -> list[int]:
        """Positions of the identifiers that nobody has stored or promised to store: the caller now must."""
        with self._lock:
            unknown = [at for at, item in enumerate(ids) if item not in self._claimed]
        if not unknown:
            return []
        wanted = np.frombuffer(b"".join([ids[at] for at in unknown]), np.uint8)
        places = self._index.lookup(wanted.reshape(-1, geometry.ID_SIZE))
        mine = []
        with self._lock:
            self._reused.update(runs.distinct(places.pack[places.found]).tolist())
            for at, found in zip(unknown, places.found.tolist(), strict=True):
                if not found and ids[at] not in self._claimed:
                    self._claimed.add(ids[at])
                    mine.append(at)
        return mine

    def add(self, shape: segment.Shape, stored: memoryview, ids: bytes, lengths: Sequence[int]) -> None:
        """Take a sealed segment whose slots were claimed; `stored` is copied."""
        with self._lock:
            builder = self._builders[shape.kind]
            builder.add(shape, stored, ids, lengths)
            if not builder.is_full:
                return
            self._builders[shape.kind] = self._builder(shape.kind)
        self._raise()
        self._room.acquire()
        self._full.put(builder)

    def _builder(self, kind: int) -> pack.Builder:
        return pack.Builder(kind, self._seals.repo, self._spare.pop() if self._spare else bytearray())

    def finish(self) -> None:
        """Everything added is durable and indexed; raises what went wrong."""
        self._put_rest()
        self._stop()
        self._raise()
        self._check_reused()
        self._flush_index()
        self._backend.sync()

    def abort(self, *, keep: bool) -> None:
        """Stop early, also when `finish` was interrupted; never raises.

        `keep`: store what was collected, so that the next try finds it.
        """
        if keep:
            with contextlib.suppress(Exception):
                self._put_rest()
        self._stop()
        # Packs that are complete are found again by their tables even without an index object.
        with contextlib.suppress(Exception):
            self._flush_index()

    def _put_rest(self) -> None:
        for kind in list(self._builders):
            # Taken out first: whoever comes again after an interruption must not put it twice.
            builder = self._builders.pop(kind)
            if builder:
                self._raise()
                self._full.put(builder)

    def _stop(self) -> None:
        for thread in self._threads:
            if thread.is_alive():
                self._full.put(None)
        for thread in self._threads:
            thread.join()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _store_packs(self) -> None:
        while (builder := self._full.get()) is not None:
            self._room.release()
            if self._failure is None:
                try:
                    self._store(builder)
                except BaseException as error:  # noqa: BLE001 the thread's boundary: handed to the next caller
                    self._failure = error

    def _store(self, builder: pack.Builder) -> None:
        done = builder.finish(lambda body: self._seals.seal(aead.TABLE, body))
        arrived.put(self._backend, done.name, done.parts, done.size)
        done.parts.clear()
        self._spare.append(builder.buffer)
        self._enter(done.name, done.size, done.table_length, done.table)
        with self._lock:
            self._claimed.difference_update(item.tobytes() for item in done.table.ids)

    def adopt(self, item: pack_table.Pack, table: pack.Table) -> None:
        """Name a pack that somebody else put in the index objects."""
        self._enter(item.name, item.size, item.table_length, table)

    def _enter(self, name: str, size: int, table_length: int, table: pack.Table) -> None:
        segments, slots = table.places()
        with self._lock:
            self._put[name] = size
        self._index.add_pack(bytes.fromhex(name), size, table_length, table.kind, table.ids, segments, slots)
        if self._index.unsaved >= INDEX_ENTRIES:
            self._flush_index()

    def _check_reused(self) -> None:
        """Packs relied on but not written here must still be there, whole, before anything names them."""
        known_packs = [self._index.pack(number) for number in sorted(self._reused)]
        if self._backend.capabilities.parallel > 1:
            arrived.check(self._backend, {known.name: known.size for known in known_packs})
            return
        for known in known_packs:
            if self._backend.size(pack.blob_name(known.name)) != known.size:
                raise errors.IntegrityError(f"pack {known.name[:12]}", "changed its size")

    def _flush_index(self) -> None:
        with self._saving:
            self._save_index()

    def _save_index(self) -> None:
        bodies = self._index.take_unsaved()
        if bodies:
            self._backend.sync()
            with self._lock:
                put = dict(self._put)
            arrived.check(self._backend, put)
            with self._lock:
                for name in put:
                    del self._put[name]
        for body in bodies:
            blob = self._seals.seal(aead.INDEX, index_object.encode(body))
            name = sealing.blob_hash(blob)
            self._backend.put(f"index/{name}", [blob])
            self._index.mark_saved(body, name)
