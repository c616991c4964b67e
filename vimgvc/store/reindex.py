"""Index objects written again: without packs that will go, and few instead of many."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vimgvc import errors, monitor
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.store import index, index_object, objects, pack_table, writer

#: Objects below this size are merged when there are `_MANY`.
_SMALL = 40 << 16
_MANY = 8

Column = npt.NDArray[np.uint16]


@dataclass(slots=True)
class Reindexed:
    """Names of index objects: `replaced` by the others, and `written`."""

    replaced: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Output:
    """Collects entries and stores them as index objects of bounded size."""

    backend: protocol.Backend
    seals: sealing.Sealing
    written: list[str]
    batch: index.Index = field(init=False)

    def __post_init__(self) -> None:
        self.batch = empty_index()

    def add(self, row: np.void, ids: index_object.Ids, segments: Column, slots: Column) -> None:
        self.batch.add_pack(
            row["name"].tobytes(), int(row["size"]), int(row["table_length"]), int(row["kind"]), ids, segments, slots
        )
        if self.batch.unsaved >= writer.INDEX_ENTRIES:
            self.flush()

    def flush(self) -> None:
        for body in self.batch.take_unsaved():
            blob = self.seals.seal(aead.INDEX, index_object.encode(body))
            self.written.append(sealing.blob_hash(blob))
            self.backend.put(f"index/{self.written[-1]}", [blob])
        self.batch = empty_index()


def empty_index() -> index.Index:
    """An index that knows nothing yet."""
    return index.Index.open([], _nothing, None, monitor.NullMonitor())


def _nothing(name: str) -> bytes:
    raise errors.NotFound("index object", name)


def reindex(
    store: objects.Objects,
    sizes: dict[str, int],
    load: Callable[[str], bytes],
    gone: Collection[str],
    kept: Collection[pack_table.Pack],
    *,
    merge_small: bool = True,
) -> Reindexed:
    """Replace the index objects that name a pack of `gone`, and with `merge_small` small ones when there are many.

    `sizes` are the index objects of which to choose, with their sizes; `load` returns the body of one. Packs of
    `kept` that none of them names are taken in by their tables. What is written is durable on return; nothing is
    removed. An object that cannot be read is left as it is.
    """
    done = Reindexed()
    out = _Output(store.backend, store.seals, done.written)
    small = [name for name, size in sizes.items() if merge_small and size < _SMALL]
    merge = set(small) if len(small) >= _MANY else set()
    absent = {bytes.fromhex(name) for name in gone}
    named: set[bytes] = set()
    late: list[tuple[str, index_object.IndexBody]] = []
    for name in sorted(sizes):
        try:
            body = index_object.decode(load(name), f"index/{name}")
        except (errors.IntegrityError, errors.NotFound):
            continue
        rows = [row["name"].tobytes() for row in body.packs]
        named.update(rows)
        if name not in merge and absent.isdisjoint(rows):
            if name in small:
                late.append((name, body))
            continue
        _take(body, absent, out)
        done.replaced.append(name)
    if done.replaced:
        # Small ones join what is written anyway.
        for name, body in late:
            _take(body, absent, out)
            done.replaced.append(name)
    for item in kept:
        if bytes.fromhex(item.name) not in named:
            _take_table(store, item, out)
    out.flush()
    store.backend.sync()
    return done


def _take(body: index_object.IndexBody, absent: set[bytes], out: _Output) -> None:
    order = np.argsort(body.places["pack"], kind="stable")
    edges = np.searchsorted(body.places["pack"][order], np.arange(len(body.packs) + 1))
    for number, row in enumerate(body.packs):
        mine = order[edges[number] : edges[number + 1]]
        if row["name"].tobytes() not in absent and mine.size:
            places = body.places[mine]
            out.add(row, body.ids[mine], places["segment"], places["slot"])


def _take_table(store: objects.Objects, item: pack_table.Pack, out: _Output) -> None:
    table, length = objects.load_table(store.backend, store.seals, item.name, item.table_length)
    row = np.array(
        [(np.frombuffer(bytes.fromhex(item.name), np.uint8), item.size, length, table.kind)], index_object.PACK
    )
    out.add(row[0], table.ids, *table.places())
