"""The packs that an index knows, numbered in the order in which they became known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vimgvc.store import index_object


class Pack(NamedTuple):
    """One pack: its `name` in hexadecimal, its `size` and the length of its sealed table in bytes."""

    number: int
    name: str
    size: int
    table_length: int
    kind: int


class PackTable:
    """Grows only. Whoever changes it holds a lock; readers need none.

    A pack of which two index objects tell different facts has a number for each of them.
    """

    def __init__(self, rows: index_object.Rows) -> None:
        self._rows = rows
        self._count = len(rows)
        self._numbers: dict[bytes, int] | None = None
        #: For each number: whether its entries count. May be longer than the table.
        self.alive = np.ones(len(rows), np.bool_)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> index_object.Rows:
        return self._rows[: self._count]

    def pack(self, number: int) -> Pack:
        row = self.rows[number]
        return Pack(number, row["name"].tobytes().hex(), int(row["size"]), int(row["table_length"]), int(row["kind"]))

    def living(self) -> Iterator[Pack]:
        """The packs that were not dropped, by number."""
        rows = self.rows
        names = rows["name"].tobytes().hex()
        columns = (rows["size"].tolist(), rows["table_length"].tolist(), rows["kind"].tolist())
        for number, (size, table_length, kind) in enumerate(zip(*columns, strict=True)):
            if self.alive[number]:
                yield Pack(number, names[64 * number : 64 * number + 64], size, table_length, kind)

    def number_all(self, rows: index_object.Rows) -> npt.NDArray[np.uint64]:
        """The numbers of these packs; unknown ones get the next numbers."""
        if self._numbers is None:
            self._numbers = {row.tobytes(): number for number, row in enumerate(self.rows)}
        numbers = np.empty(len(rows), np.uint64)
        for at, row in enumerate(rows):
            key = row.tobytes()
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = self._append(row)
            numbers[at] = number
        return numbers

    def drop(self, names: Iterable[str]) -> None:
        """Packs of these names no longer count."""
        gone = set(names)
        for known in self.living():
            if known.name in gone:
                self.alive[known.number] = False

    def revive(self, number: int) -> None:
        """This pack counts again."""
        self.alive[number] = True

    def _append(self, row: np.void) -> int:
        if self._count == len(self._rows):
            # Copies, because readers may hold the old arrays.
            spare = np.zeros(max(64, self._count // 2), index_object.PACK)
            self._rows = np.concatenate((self.rows, spare))
            self.alive = np.append(self.alive[: self._count], np.zeros(len(spare), np.bool_))
        self._rows[self._count] = row
        self.alive[self._count] = True
        self._count += 1
        return self._count - 1
