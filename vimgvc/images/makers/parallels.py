"""Written Parallels: header, table, clusters. Field table: specs/foreign-formats.md, "parallels"."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np

from vimgvc.disk import protocol
from vimgvc.images import table_reader, units
from vimgvc.images.makers import plan as plans
from vimgvc.images.makers import tables

_HEADER = struct.Struct("<16sIIIII QIIIQ")
_HEADS, _TRACK = 16, 32


class Parallels(plans.Maker):
    fmt = "parallels"

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        super().__init__(size, options, int(options.get("cluster_size", 1 << 20)))
        self.at_most("the number of its clusters", self.count, 0x7FFFFFFF // 4)
        self._start = plans.rounded(_HEADER.size + self.count * 4, self.unit)

    def data_offset(self, there: units.UnitSet) -> int:
        del there
        return self._start

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        del name
        sectors = self.size // plans.SECTOR
        yield (
            0,
            _HEADER.pack(
                b"WithouFreSpacExt", 2, _HEADS, min(sectors // (_HEADS * _TRACK), 0xFFFFFFFF),
                self.unit // plans.SECTOR, self.count, sectors, 0, self._start // plans.SECTOR, 0, 0,
            ),
        )  # fmt: skip
        yield from plan.table(_HEADER.size, self.count, "<u4", self._numbers)

    def opened(self, file: protocol.Source, name: str, plan: plans.Plan) -> protocol.Source:
        def places(entries: np.ndarray) -> np.ndarray:
            found = entries.astype(np.int64) * self.unit
            found[entries == 0] = table_reader.HOLE
            return found

        del plan
        return tables.OneLevel(file, name, self, places, at=_HEADER.size, dtype="<u4")

    def _numbers(self, places: plans.Places) -> np.ndarray:
        return places // self.unit
