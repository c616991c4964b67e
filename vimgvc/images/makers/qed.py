"""Written QED: header, two levels of tables, clusters. Field table: specs/foreign-formats.md, "qed"."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from vimgvc import errors
from vimgvc.images.makers import plan as plans
from vimgvc.images.makers import tables

_HEADER = struct.Struct("<4sIII QQQ QQ II")
#: QEMU counts with 64 bits how large a disk could be.
_OVERFLOW = 1 << 64


class Qed(tables.TwoLevels):
    fmt = "qed"
    dtype = "<u8"

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        cluster, self._table = int(options.get("cluster_size", 65536)), int(options.get("table_size", 4))
        super().__init__(size, options, cluster, cluster * self._table)
        most = self.per_table * self.per_table * cluster
        if most >= _OVERFLOW:
            raise errors.UsageError(
                f"qed images with cluster_size={cluster} and table_size={self._table} are opened by no program",
                hint="choose smaller clusters or tables",
            )
        self.at_most("its size", size, most)

    def first_offset(self) -> int:
        return self.unit

    def second_offset(self) -> int:
        return self.unit + self.second

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        del name
        yield 0, _HEADER.pack(b"QED\0", self.unit, self._table, 1, 0, 0, 0, self.unit, self.size, 0, 0)
        yield from self.levels(plan)
