"""Written QCOW version 1: header, two levels of tables, clusters. Field table: specs/foreign-formats.md, "qcow"."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from vimgvc.images.makers import plan as plans
from vimgvc.images.makers import tables

_HEADER = struct.Struct(">4sI QII Q BBH I Q")
_CLUSTER, _CLUSTER_BITS, _L2_BITS = 4096, 12, 9
_MAX_FIRST = 256 << 20


class Qcow(tables.TwoLevels):
    fmt = "qcow"
    dtype = ">u8"

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        super().__init__(size, options, _CLUSTER, 8 << _L2_BITS)
        self._first = -(-self.count // self.per_table) * 8
        self.at_most("its first table", self._first, _MAX_FIRST)

    def first_offset(self) -> int:
        return _HEADER.size

    def second_offset(self) -> int:
        return plans.rounded(_HEADER.size + self._first, _CLUSTER)

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        del name
        yield (
            0,
            _HEADER.pack(b"QFI\xfb", 1, 0, 0, 0, self.size, _CLUSTER_BITS, _L2_BITS, 0, 0, _HEADER.size),
        )
        yield from self.levels(plan)
