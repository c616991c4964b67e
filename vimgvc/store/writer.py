"""Writing: new segments into packs, packs to the backend, and the index after them.

Order (specs/repository.md): a pack is durable before an index object names it. Workers hand in
sealed segments; one thread hashes and stores full packs, so that storing overlaps with compressing.
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
from vimgvc.codec import aead, sealing, segment
from vimgvc.model import geometry
from vimgvc.store import index_object, pack

if TYPE_CHECKING:
    from vimgvc.backends import protocol
    from vimgvc.store import index

#: Entries after which an index object is written, so that an interrupted commit is found again.
INDEX_ENTRIES = 1 << 18


class Writer:
    """Stores what one commit adds. `claim`, `add` are thread-safe; `finish` or `abort` ends it."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing, found: index.Index) -> None:
        self._backend, self._seals, self._index = backend, seals, found
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._reused: set[int] = set()
        self._spare: list[bytearray] = []
        self._builders = {kind: self._builder(kind) for kind in (segment.DATA, segment.TREE)}
        self._full: queue.Queue[pack.Builder | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._store_packs, name="vimgvc-packs")
        try:
            self._thread.start()
        except BaseException:
            # Interrupted while it began: nobody gets this writer to end it, and the program would wait for ever.
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
            self._reused.update(np.unique(places.pack[places.found]).tolist())
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
        self._put(builder)

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
                self._put(builder)

    def _put(self, builder: pack.Builder) -> None:
        self._raise()
        self._full.put(builder)

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._full.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _store_packs(self) -> None:
        while (builder := self._full.get()) is not None:
            if self._failure is None:
                try:
                    self._store(builder)
                except BaseException as error:  # noqa: BLE001 the thread's boundary: handed to the next caller
                    self._failure = error

    def _store(self, builder: pack.Builder) -> None:
        done = builder.finish(lambda body: self._seals.seal(aead.TABLE, body))
        self._backend.put(pack.blob_name(done.name), done.parts)
        done.parts.clear()
        self._spare.append(builder.buffer)
        segments, slots = done.table.places()
        self._index.add_pack(
            bytes.fromhex(done.name), done.size, done.table_length, builder.kind, done.table.ids, segments, slots
        )
        with self._lock:
            self._claimed.difference_update(item.tobytes() for item in done.table.ids)
        if self._index.unsaved >= INDEX_ENTRIES:
            self._flush_index()

    def _check_reused(self) -> None:
        """Packs relied on but not written here must still be there, whole, before anything names them."""
        for number in sorted(self._reused):
            known = self._index.pack(number)
            if self._backend.size(pack.blob_name(known.name)) != known.size:
                raise errors.IntegrityError(f"pack {known.name[:12]}", "changed its size")

    def _flush_index(self) -> None:
        bodies = self._index.take_unsaved()
        if bodies:
            self._backend.sync()
        for body in bodies:
            blob = self._seals.seal(aead.INDEX, index_object.encode(body))
            name = sealing.blob_hash(blob)
            self._backend.put(f"index/{name}", [blob])
            self._index.mark_saved(body, name)
