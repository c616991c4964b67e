"""Runs: immutable sorted columns that answer many identifiers at once.

A record is five little-endian words: the identifier (32 bytes) and its place (pack number << 32 |
segment << 16 | slot). A run is records sorted by identifier, equal records once, plus a column of
keys: the first four bytes of each identifier as a number. A search goes

    fence (every 64th key, in the processor's cache) → 64 keys → the record, compared in full.

The key decides only where to look: nothing is found unless all 32 bytes are equal. Identifiers
are keyed hashes, so a key that fits by chance is rare (1 in 270 misses at 16 million entries), and
most of what is not stored costs no access to the records at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

WORD = np.dtype("<u8")
RECORD_WORDS = 5
RECORD_SIZE = 40
FENCE = 64

#: The place of what is not there. No repository has 2^32 - 1 packs.
ABSENT = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

_LAST_KEY = 0xFFFF_FFFF
_PACK_SHIFT = np.uint64(32)
_QUERY_SLICE = 8192
_MERGE_SLICE = 1 << 17

Words = npt.NDArray[np.uint64]
Keys = npt.NDArray[np.uint32]
Positions = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.unsignedinteger[Any] | np.signedinteger[Any])


def distinct(numbers: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Each number once, ascending. As of `np.unique`, which imports `numpy.ma` first: 10 ms of every command."""
    ordered = np.sort(numbers, axis=None)
    result: npt.NDArray[Number] = ordered[np.concatenate([ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]])]
    return result


class Source(Protocol):
    """Where a run's columns are. Thread-safe; `count` ≥ 1.

    A file raises `IntegrityError` from any method when it is not what was written.
    """

    count: int

    def keys(self) -> Keys:
        """The keys, filled with 0xffffffff to a multiple of FENCE."""

    def take(self, positions: Positions) -> Words:
        """(n, 5): the records at these positions."""

    def slice(self, start: int, stop: int) -> Words:
        """(stop - start, 5): the records from `start` on."""


class Sink(Protocol):
    """Takes the records of a new run in order, in pieces."""

    def append(self, records: Words) -> None: ...
    def finish(self) -> Source: ...


class MemorySource:
    def __init__(self, records: Words) -> None:
        self.count = len(records)
        self._records = records

    def keys(self) -> Keys:
        return fill_keys(keys_of(self._records))

    def take(self, positions: Positions) -> Words:
        return self._records.take(positions, axis=0)

    def slice(self, start: int, stop: int) -> Words:
        return self._records[start:stop]


class MemorySink:
    def __init__(self) -> None:
        self._parts: list[Words] = []

    def append(self, records: Words) -> None:
        self._parts.append(records)

    def finish(self) -> MemorySource:
        return MemorySource(np.concatenate(self._parts))


class Run:
    """Sorted records of one `Source`. Immutable, so threads share it without a lock."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.count = source.count
        self._columns: tuple[Keys, Keys, Keys] | None = None

    def find(self, words: Words, keys: Keys, alive: Flags) -> Words:
        """The place of each identifier, or ABSENT.

        `words` is (n, 4), `keys` their first four bytes; ascending ones are found faster. A place in a
        pack `p` that is not `alive[p]` is passed over for the next one of the same identifier.
        """
        places = np.full(len(keys), ABSENT, WORD)
        at = self.lower(keys)
        queries = self._fitting(np.arange(len(keys)), at, keys)
        while queries.size:
            records = self.source.take(at[queries])
            same = (records[:, :4] == words[queries]).all(axis=1)
            same &= alive[records[:, 4] >> _PACK_SHIFT]
            places[queries[same]] = records[same, 4]
            queries = queries[~same]
            if queries.size:
                at[queries] += 1
                queries = self._fitting(queries, at, keys)
        return places

    def find_all(self, words: Words, key: int) -> list[int]:
        """Every place of one identifier; `words` is (4,)."""
        start = int(self.lower(np.array([key], np.uint32))[0])
        stop = self.count if key == _LAST_KEY else int(self.lower(np.array([key + 1], np.uint32))[0])
        records = self.source.slice(start, stop)
        return [int(place) for place in records[(records[:, :4] == words).all(axis=1), 4]]

    def lower(self, keys: Keys) -> Positions:
        """For each key: how many of the run's keys are below it."""
        _, rows, fence = self._open()
        result = np.empty(len(keys), np.int64)
        for start in range(0, len(keys), _QUERY_SLICE):
            piece = keys[start : start + _QUERY_SLICE]
            row = np.maximum(fence.searchsorted(piece) - 1, 0)
            below = np.count_nonzero(rows.take(row, axis=0) < piece[:, None], axis=1)
            result[start : start + _QUERY_SLICE] = row * FENCE + below
        return result

    def _fitting(self, queries: Positions, at: Positions, keys: Keys) -> Positions:
        """Those of `queries` whose key is the run's key at their position."""
        column, _, _ = self._open()
        positions = at[queries]
        fits = column.take(positions, mode="clip") == keys[queries]
        fits &= positions < self.count
        fitting: Positions = queries[fits]
        return fitting

    def _open(self) -> tuple[Keys, Keys, Keys]:
        if self._columns is None:
            column = self.source.keys()
            self._columns = column, column.reshape(-1, FENCE), column[::FENCE].copy()
        return self._columns


def keys_of(records: Words) -> Keys:
    """The first four bytes of each row's identifier as a number; `records` is (n, 4) or (n, 5)."""
    keys: Keys = records.view(">u4")[:, 0].astype(np.uint32)
    return keys


def fill_keys(keys: Keys) -> Keys:
    """`keys` with 0xffffffff behind it up to a multiple of FENCE."""
    return np.append(keys, np.full(-len(keys) % FENCE, _LAST_KEY, np.uint32))


def make_records(words: Words, places: Words) -> Words:
    """(n, 5) from identifiers (n, 4) and places (n,)."""
    records = np.empty((len(places), RECORD_WORDS), WORD)
    records[:, :4] = words
    records[:, 4] = places
    return records


def sort_records(records: Words) -> Words:
    """`records` by identifier, then place; of equal ones only one."""
    prefix = records.view(">u8")[:, 0].astype(np.uint64)
    # Stable is timsort: what comes in sorted pieces is merged, not sorted.
    order = np.argsort(prefix, kind="stable")
    prefix = prefix[order]
    records = records.take(order, axis=0)
    if not (prefix[1:] == prefix[:-1]).any():
        return records
    columns = records[:, :4].astype(WORD).view(">u8")
    order = np.lexsort((records[:, 4], columns[:, 3], columns[:, 2], columns[:, 1], columns[:, 0]))
    records = records.take(order, axis=0)
    keep = np.ones(len(records), np.bool_)
    keep[1:] = (records[1:] != records[:-1]).any(axis=1)
    return records[keep]


def from_records(records: Words) -> Run:
    """A run in memory from records in any order."""
    return Run(MemorySource(sort_records(records)))


def merge(runs: Sequence[Run], sink: Sink, *, slice_records: int = _MERGE_SLICE) -> Run:
    """One run with all records of `runs`, at least one of which there must be.

    Works through ranges of keys that hold about `slice_records` records each, so memory does not
    grow with the runs (identifiers are hashes: ranges of equal width are about equally full).
    """
    ranges = sum(run.count for run in runs) // slice_records + 1
    edges = (np.arange(1, ranges, dtype=np.uint64) * np.uint64((_LAST_KEY + 1) // ranges)).astype(np.uint32)
    cuts = [[0, *run.lower(edges).tolist(), run.count] for run in runs]
    for number in range(ranges):
        pieces = [run.source.slice(cut[number], cut[number + 1]) for run, cut in zip(runs, cuts, strict=True)]
        sink.append(sort_records(np.concatenate(pieces)))
    return Run(sink.finish())


def first_to_merge(counts: Sequence[int], minimum: int) -> int:
    """Where the tail begins that becomes one run, so that few runs remain and each entry moves rarely.

    `counts` are the sizes of the runs, oldest first. A run joins when it is less than four times what
    follows it, or when both together have at most `minimum` entries.
    """
    start = len(counts) - 1
    total = counts[start]
    while start and (counts[start - 1] < 4 * total or counts[start - 1] + total <= minimum):
        start -= 1
        total += counts[start]
    return start
