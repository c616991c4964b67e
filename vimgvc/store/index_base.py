"""Reading what the index objects of a repository hold, through the local cache."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vimgvc import errors, monitor
from vimgvc.store import index_cache, index_object, pack_table, run_file, runs

NAME = re.compile(r"[0-9a-f]{64}")

Base = tuple[runs.Run, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of entries: what bounds memory, and how small a run may be before it joins its neighbour.

    `unsaved`: kept in memory before they become a body; also the largest run in memory. `loaded`: kept in
    memory while index objects are read, as `parts` files at most.
    """

    unsaved: int = 1 << 18
    loaded: int = 1 << 19
    parts: int = 64
    smallest_cached: int = 1 << 16
    smallest_added: int = 1 << 14


DEFAULT = Limits()


class Reader:
    """Makes the runs of all readable index objects. Not thread-safe, except `merge`.

    `damaged` names the index objects that could not be read.
    """

    def __init__(
        self,
        names: Iterable[str],
        load: Callable[[str], bytes],
        cache_dir: pathlib.Path | None,
        progress: monitor.Monitor,
        limits: Limits,
    ) -> None:
        self.limits = limits
        self.damaged: list[str] = []
        self._names = sorted(name for name in set(names) if NAME.fullmatch(name))
        self._load = load
        self._cache = index_cache.Cache(cache_dir) if cache_dir is not None else None
        self._monitor = progress

    def read(self) -> tuple[pack_table.PackTable, Base]:
        """The packs that index objects name, and the entries; from the cache as far as it is right."""
        known = self._cache.read() if self._cache else index_cache.EMPTY
        if not known.objects <= set(self._names):
            known = index_cache.EMPTY
        try:
            return self._extend(known)
        except errors.IntegrityError:
            return self._extend(index_cache.EMPTY)

    def read_again(self, table: pack_table.PackTable) -> Base:
        """The entries without the cache, which turned out to be damaged and is given up.

        It is not made again here: `table` may hold packs that no index object names yet.
        """
        if self._cache:
            self._cache.discard()
        return self._compact(self._load_objects(self._names, set(), table))

    def merge(self, parts: Sequence[runs.Run]) -> runs.Run:
        """`parts` as one run: in memory when it is small, else in a file without a name."""
        if sum(run.count for run in parts) > self.limits.unsaved:
            for make_file in (self._cache.temporary if self._cache else None, index_cache.anonymous_file):
                if make_file:
                    with contextlib.suppress(OSError):
                        return runs.merge(parts, run_file.FileSink(make_file()))
        return runs.merge(parts, runs.MemorySink())

    def _extend(self, known: index_cache.Snapshot) -> tuple[pack_table.PackTable, Base]:
        """The runs of `known` and of the index objects it does not cover; updates the cache."""
        table = pack_table.PackTable(known.packs)
        covered = set(known.objects)
        added = self._load_objects([name for name in self._names if name not in covered], covered, table)
        if len(covered) == len(known.objects) or self._cache is None:
            return table, self._compact([*known.runs, *added])
        with self._cache.update() as update, contextlib.suppress(OSError):
            if update:
                return table, self._store(update, frozenset(covered), table, known.runs, added)
        return table, self._compact([*known.runs, *added])

    def _store(
        self,
        update: index_cache.Update,
        covered: frozenset[str],
        table: pack_table.PackTable,
        kept: Base,
        added: list[runs.Run],
    ) -> Base:
        if added:
            counts = [*(run.count for run in kept), sum(run.count for run in added)]
            start = runs.first_to_merge(counts, self.limits.smallest_cached)
            kept = (*kept[:start], update.merge([*kept[start:], *added]))
        update.publish(index_cache.Snapshot(covered, table.rows, kept))
        return kept

    def _compact(self, layers: list[runs.Run]) -> Base:
        if not layers:
            return ()
        start = runs.first_to_merge([run.count for run in layers], self.limits.smallest_cached)
        return (*layers[:start], self.merge(layers[start:]) if start < len(layers) - 1 else layers[start])

    def _load_objects(self, names: Sequence[str], covered: set[str], table: pack_table.PackTable) -> list[runs.Run]:
        """The entries of the index objects `names`; those that could be read join `covered`, their packs `table`."""
        parts: list[runs.Run] = []
        small: list[runs.Run] = []
        for name in names:
            body = self._read_object(name)
            if body is None:
                continue
            covered.add(name)
            small += self._runs_of(body, table.number_all(body.packs))
            if sum(run.count for run in small) >= self.limits.loaded:
                parts.append(self.merge(small))
                small = []
            if len(parts) == self.limits.parts:
                parts = [self.merge(parts)]
        return parts + ([self.merge(small)] if small else [])

    def _runs_of(self, body: index_object.IndexBody, numbers: runs.Words) -> Iterator[runs.Run]:
        step = self.limits.loaded
        for start in range(0, len(body.ids), step):
            places = body.places[start : start + step]
            packed = numbers[places["pack"]] << np.uint64(32) | places["segment"].astype(np.uint64) << np.uint64(16)
            words = body.ids[start : start + step].view(runs.WORD)
            yield runs.Run(runs.MemorySource(runs.make_records(words, packed | places["slot"])))

    def _read_object(self, name: str) -> index_object.IndexBody | None:
        try:
            return index_object.decode(self._load(name), f"index/{name}")
        except (errors.IntegrityError, errors.NotFound) as error:
            if name not in self.damaged:
                self.damaged.append(name)
                self._monitor.problem(f"index object skipped: {error.message}")
            return None
