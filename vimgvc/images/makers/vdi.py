"""Written VDI: header, map, blocks of 1 MiB. Field table: specs/foreign-formats.md, "vdi"."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

import numpy as np

from vimgvc.disk import protocol
from vimgvc.images import table_reader, units
from vimgvc.images.makers import plan as plans
from vimgvc.images.makers import tables

_HEADER = struct.Struct("<64s IIIII 256s II IIII I Q IIII 16s16s16s16s")
_BLOCK = 1 << 20
_FREE = 0xFFFFFFFF
#: What QEMU opens.
_MAX_BLOCKS = 0x1FFFFF80
#: File systems allocate by this much.
_GRID = 4096


class Vdi(plans.Maker):
    fmt = "vdi"

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        super().__init__(size, options, _BLOCK)
        self.everything = options.get("static") == "on"
        self.at_most("the number of its blocks", self.count, _MAX_BLOCKS)
        self._start = plans.rounded(512 + self.count * 4, _GRID)

    def data_offset(self, there: units.UnitSet) -> int:
        del there
        return self._start

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        del name
        total = plan.there.total
        made, state = os.urandom(16), os.urandom(16)
        yield (
            0,
            _HEADER.pack(
                b"<<< disk image made by vimgvc >>>\n", 0xBEDA107F, 0x00010001, 0x180, 2 if self.everything else 1, 0,
                b"", 512, self._start, 0, 0, 0, 512, 0, self.size, _BLOCK, 0, self.count, total, made, state, b"", b"",
            ),
        )  # fmt: skip
        yield from plan.table(512, self.count, "<u4", self._numbers, _FREE)

    def opened(self, file: protocol.Source, name: str, plan: plans.Plan) -> protocol.Source:
        def places(entries: np.ndarray) -> np.ndarray:
            found = entries.astype(np.int64) * _BLOCK + self._start
            found[entries == _FREE] = table_reader.HOLE
            return found

        del plan
        return tables.OneLevel(file, name, self, places, at=512, dtype="<u4")

    def _numbers(self, places: plans.Places) -> np.ndarray:
        return (places - self._start) // _BLOCK
