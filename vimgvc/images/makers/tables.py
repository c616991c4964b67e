"""Tables as they were written, read back; and containers whose tables have two levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vimgvc.disk import protocol
from vimgvc.images import table_reader, units
from vimgvc.images.makers import plan as plans

#: Places of pieces from the entries of a table, which are as wide as they are in the file.
Decode = Callable[[np.ndarray], np.ndarray]

#: Entries read at once.
_PART = 8192


class OneLevel(table_reader.TableReader):
    """A disk with one table at `at`: `per_table` entries together, `apart` bytes from where the next ones begin."""

    def __init__(
        self,
        file: protocol.Source,
        name: str,
        maker: plans.Maker,
        decode: Decode,
        *,
        at: int,
        dtype: str,
        per_table: int = _PART,
        apart: int | None = None,
    ) -> None:
        super().__init__(file, name, maker.size, maker.unit, per_table)
        self._at, self._dtype, self._decode, self._count = at, np.dtype(dtype), decode, maker.count
        self._apart = apart or per_table * self._dtype.itemsize

    def load(self, number: int) -> np.ndarray:
        count = min(self.per_table, self._count - number * self.per_table)
        entries = np.empty(count, self._dtype)
        self.file.pread_into(self._at + number * self._apart, entries.view(np.uint8).data)
        return self._decode(entries)


class TwoLevels(plans.Maker):
    """A table of the places of tables of the places of clusters; nothing is 0, all in bytes.

    `second`: bytes of a table of the second level, and `dtype` of an entry of either.
    """

    dtype: str

    def __init__(self, size: int, options: Mapping[str, str], cluster: int, second: int) -> None:
        super().__init__(size, options, cluster)
        self.second, self.per_table = second, second // 8

    def first_offset(self) -> int:
        """Where the first table lies."""
        raise NotImplementedError

    def second_offset(self) -> int:
        """Where the tables of the second level begin, each a multiple of the cluster."""
        raise NotImplementedError

    def data_offset(self, there: units.UnitSet) -> int:
        return self.second_offset() + there.grouped(self.per_table).total * self.second

    def levels(self, plan: plans.Plan) -> Iterator[tuple[int, bytes]]:
        """The tables of both levels."""
        at, start = self.first_offset(), self.second_offset()
        tables = plan.there.grouped(self.per_table)
        for first in range(0, tables.count, plans.STEP):
            end = min(first + plans.STEP, tables.count)
            there = tables.mask(first, end)
            entries = np.zeros(end - first, self.dtype)
            ranks = tables.rank(first) + np.arange(int(there.sum()), dtype=np.int64)
            entries[there] = start + ranks * self.second
            yield at + first * 8, entries.tobytes()
        for low, high in tables.runs():
            at = start + tables.rank(low) * self.second
            for first in range(low * self.per_table, high * self.per_table, plans.STEP):
                end = min(first + plans.STEP, high * self.per_table)
                yield at, plan.entries(first, end, self.dtype, np.asarray)
                at += (end - first) * 8

    def opened(self, file: protocol.Source, name: str, plan: plans.Plan) -> protocol.Source:
        del plan
        return _TwoLevelReader(file, name, self)


class _TwoLevelReader(table_reader.TableReader):
    """Tables of the second level can have a GiB: they are read in parts."""

    def __init__(self, file: protocol.Source, name: str, maker: TwoLevels) -> None:
        super().__init__(file, name, maker.size, maker.unit, min(maker.per_table, _PART))
        self._maker = maker

    def load(self, number: int) -> np.ndarray | int:
        maker = self._maker
        table, first = divmod(number * self.per_table, maker.per_table)
        at = int(self._entries(maker.first_offset() + table * 8, 1)[0])
        if not at:
            return table_reader.HOLE
        places = self._entries(at + first * 8, self.per_table).astype(np.int64)
        places[places == 0] = table_reader.HOLE
        return places

    def _entries(self, at: int, count: int) -> np.ndarray:
        found = np.empty(count, self._maker.dtype)
        self.file.pread_into(at, found.view(np.uint8).data)
        return found
