"""Which identifier is where: the index objects of a repository and what is being added to them.

Entries live in runs (runs.py). The base is what sealed index objects say, kept merged in a local
cache; on top of it are the session's runs, what `add_pack` was told since. Each set of runs is a
tuple that is replaced, never changed, so looking up takes no lock.

The cache is believed only as far as its checksums go: damage met at any time makes the base anew
from the repository, and the caller notices nothing but the time.
"""

from __future__ import annotations

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from vimgvc import errors, monitor
from vimgvc.store import index_base, index_object, pack_table, runs

_LOOKUP_SLICE = 1 << 16
_SORT_FROM = 4096
_MOST_REBUILDS = 2

_Result = TypeVar("_Result")


class Place(NamedTuple):
    """Slot `slot` of segment `segment` of the pack with the number `pack`."""

    pack: int
    segment: int
    slot: int


@dataclass(frozen=True, slots=True)
class Places:
    """One place for each identifier; where `found` is false the other columns mean nothing."""

    found: npt.NDArray[np.bool_]
    pack: npt.NDArray[np.uint32]
    segment: npt.NDArray[np.uint16]
    slot: npt.NDArray[np.uint16]


class Unsaved:
    """Entries that no index object holds yet: an `index_object.Body` that reads them when it is asked."""

    def __init__(self, run: runs.Run, table: pack_table.PackTable) -> None:
        self._run = run
        self._numbers = runs.distinct(self._records()[:, 4] >> np.uint64(32))
        self.packs = table.rows[self._numbers]

    def __len__(self) -> int:
        return self._run.count

    @property
    def ids(self) -> index_object.Ids:
        return self._records()[:, :4].astype(runs.WORD).view(np.uint8)

    @property
    def places(self) -> index_object.Rows:
        packed = self._records()[:, 4]
        places = np.empty(len(packed), index_object.PLACE)
        places["pack"] = self._numbers.searchsorted(packed >> np.uint64(32))
        places["segment"], places["slot"] = packed >> np.uint64(16) & np.uint64(0xFFFF), packed & np.uint64(0xFFFF)
        return places

    def _records(self) -> runs.Words:
        return self._run.source.slice(0, self._run.count)


class Index:
    """Thread-safe. `open` makes it."""

    def __init__(self, reader: index_base.Reader, table: pack_table.PackTable, base: tuple[runs.Run, ...]) -> None:
        self._reader = reader
        self._table = table
        self._base = base
        self._session: tuple[runs.Run, ...] = ()
        self._recent: list[runs.Run] = []
        self._pending: list[Unsaved] = []
        self._lock = threading.Lock()
        self._rebuilds = 0

    @classmethod
    def open(
        cls,
        names: Iterable[str],
        load: Callable[[str], bytes],
        cache_dir: pathlib.Path | None,
        progress: monitor.Monitor,
        *,
        limits: index_base.Limits = index_base.DEFAULT,
    ) -> Index:
        """The index of the repository whose index objects are `names`.

        `load` returns the body of one; what it raises passes through, except that an object which is
        damaged or gone is skipped and reported. `cache_dir` belongs to this repository alone; None, or
        one that cannot be used, only costs time.
        """
        reader = index_base.Reader(names, load, cache_dir, progress, limits)
        return cls(reader, *reader.read())

    @property
    def damaged(self) -> list[str]:
        """The index objects that could not be read: what they held is not in the index."""
        return self._reader.damaged

    def __len__(self) -> int:
        """How many entries there are; an identifier in several packs counts several times."""
        return sum(run.count for run in self._base + self._session)

    # -- finding ---------------------------------------------------------------------------------

    def lookup(self, ids: index_object.Ids) -> Places:
        """Where each of `ids`, shape (n, 32), is; any place when there are several."""
        packed = self._find(ids)
        return Places(
            packed != runs.ABSENT,
            (packed >> np.uint64(32)).astype(np.uint32),
            (packed >> np.uint64(16)).astype(np.uint16),
            packed.astype(np.uint16),
        )

    def contains(self, ids: index_object.Ids) -> npt.NDArray[np.bool_]:
        """Which of `ids`, shape (n, 32), are stored."""
        found: npt.NDArray[np.bool_] = self._find(ids) != runs.ABSENT
        return found

    def lookup_all(self, item: bytes) -> list[Place]:
        """Every place of one identifier, of packs that were not dropped."""
        words = np.frombuffer(item, runs.WORD)
        key = int.from_bytes(item[:4], "big")
        packed = self._in_base(lambda base: {place for run in base for place in run.find_all(words, key)})
        packed.update(place for run in self._session for place in run.find_all(words, key))
        places = [Place(place >> 32, place >> 16 & 0xFFFF, place & 0xFFFF) for place in sorted(packed)]
        return [place for place in places if self._table.alive[place.pack]]

    def records(self) -> Iterator[runs.Words]:
        """Every entry at least once, as (n, 5): identifier and packed place; of packs that were not dropped.

        One comes again when the base is made anew meanwhile, or two index objects hold it.
        """
        for run in self._session:
            yield from self._slices(run)
        while True:
            base = self._base
            try:
                for run in base:
                    yield from self._slices(run)
            except errors.IntegrityError as damage:
                self._rebuild(base, damage)
            else:
                return

    def _slices(self, run: runs.Run) -> Iterator[runs.Words]:
        for start in range(0, run.count, _LOOKUP_SLICE):
            records = run.source.slice(start, min(start + _LOOKUP_SLICE, run.count))
            yield records[self._table.alive[records[:, 4] >> np.uint64(32)]]

    def _find(self, ids: index_object.Ids) -> runs.Words:
        assert ids.ndim == 2
        assert ids.shape[1] == 32
        words = np.ascontiguousarray(ids).view(runs.WORD)
        if len(words) <= _LOOKUP_SLICE:
            return self._find_slice(words)
        pieces = range(0, len(words), _LOOKUP_SLICE)
        return np.concatenate([self._find_slice(words[at : at + _LOOKUP_SLICE]) for at in pieces])

    def _find_slice(self, words: runs.Words) -> runs.Words:
        keys = runs.keys_of(words)
        if len(keys) < _SORT_FROM:
            return self._find_keys(words, keys)
        order = np.argsort(keys)
        places = np.empty(len(keys), runs.WORD)
        places[order] = self._find_keys(words[order], keys[order])
        return places

    def _find_keys(self, words: runs.Words, keys: runs.Keys) -> runs.Words:
        places = self._in_base(lambda base: self._find_in(base, words, keys, None))
        return self._find_in(self._session, words, keys, places)

    def _find_in(
        self, layers: Sequence[runs.Run], words: runs.Words, keys: runs.Keys, places: runs.Words | None
    ) -> runs.Words:
        """`places`, with what `layers` know about the absent ones."""
        for run in layers:
            # Read after the runs were: a pack is in the table before an entry names it.
            alive = self._table.alive
            if places is None:
                places = run.find(words, keys, alive)
                continue
            wanted = np.flatnonzero(places == runs.ABSENT)
            if not wanted.size:
                break
            places[wanted] = run.find(words[wanted], keys[wanted], alive)
        return np.full(len(keys), runs.ABSENT, runs.WORD) if places is None else places

    def _in_base(self, search: Callable[[tuple[runs.Run, ...]], _Result]) -> _Result:
        """The result of `search` in the base, which is made again when it turns out to be damaged."""
        while True:
            base = self._base
            try:
                return search(base)
            except errors.IntegrityError as damage:
                self._rebuild(base, damage)

    def _rebuild(self, damaged: tuple[runs.Run, ...], damage: errors.IntegrityError) -> None:
        """Make the base again, unless another thread did since `damaged` was read."""
        with self._lock:
            if self._base is not damaged:
                return
            if self._rebuilds == _MOST_REBUILDS:
                raise damage
            self._rebuilds += 1
            self._base = self._reader.read_again(self._table)

    # -- packs -----------------------------------------------------------------------------------

    def pack(self, number: int) -> pack_table.Pack:
        return self._table.pack(number)

    def packs(self) -> Iterator[pack_table.Pack]:
        """The packs that readable index objects name or that were added, without the dropped ones."""
        return self._table.living()

    def drop_packs(self, names: Iterable[str]) -> None:
        """Forget what is in these packs (hexadecimal names) until one of them is added again."""
        with self._lock:
            self._table.drop(names)

    @contextlib.contextmanager
    def without(self, numbers: Sequence[int]) -> Iterator[None]:
        """As if these packs were dropped; not while others use the index."""
        chosen = [number for number in numbers if self._table.alive[number]]
        self._table.alive[chosen] = False
        try:
            yield
        finally:
            self._table.alive[chosen] = True

    def add_pack(  # noqa: PLR0917 a row of the table of packs, then the columns of its entries
        self,
        name: bytes,
        size: int,
        table_length: int,
        kind: int,
        ids: index_object.Ids,
        segments: npt.NDArray[np.uint16],
        slots: npt.NDArray[np.uint16],
    ) -> int:
        """Entries of one more pack, found from now on and to be saved. Returns the pack's number."""
        row = np.array([(np.frombuffer(name, np.uint8), size, table_length, kind)], index_object.PACK)
        words = np.ascontiguousarray(ids).view(runs.WORD)
        with self._lock:
            number = self._table.number_all(row)[0]
            self._table.revive(int(number))
            places = number << np.uint64(32) | segments.astype(np.uint64) << np.uint64(16) | slots.astype(np.uint64)
            run = runs.from_records(runs.make_records(words, places))
            self._recent.append(run)
            layers = [*self._session, run]
            start = runs.first_to_merge([layer.count for layer in layers], self._reader.limits.smallest_added)
            if start < len(layers) - 1:
                layers[start:] = [self._reader.merge(layers[start:])]
            self._session = tuple(layers)
            if self._recent_count() >= self._reader.limits.unsaved:
                self._close_recent()
        return int(number)

    # -- saving ----------------------------------------------------------------------------------

    @property
    def unsaved(self) -> int:
        """How many entries were added that no index object is known to hold."""
        with self._lock:
            return sum(map(len, self._pending)) + self._recent_count()

    def take_unsaved(self) -> list[Unsaved]:
        """Bodies that together hold the unsaved entries; each stays unsaved until `mark_saved`."""
        with self._lock:
            self._close_recent()
            return list(self._pending)

    def mark_saved(self, body: Unsaved, name: str) -> None:
        """`body` is stored durably as the index object `name`."""
        assert index_base.NAME.fullmatch(name)
        with self._lock:
            self._pending.remove(body)

    def _recent_count(self) -> int:
        return sum(run.count for run in self._recent)

    def _close_recent(self) -> None:
        """Turn the recent entries into bodies, each with an identifier once."""
        if not self._recent:
            return
        rest = self._reader.merge(self._recent)
        while rest.count:
            records = rest.source.slice(0, rest.count)
            again = np.zeros(len(records), np.bool_)
            again[1:] = (records[1:, :4] == records[:-1, :4]).all(axis=1)
            once = runs.Run(runs.MemorySource(records[~again])) if again.any() else rest
            self._pending.append(Unsaved(once, self._table))
            rest = runs.Run(runs.MemorySource(records[again]))
        self._recent = []
