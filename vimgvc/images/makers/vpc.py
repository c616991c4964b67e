"""Written VHD: dynamic ones with a table and blocks, fixed ones a disk with a footer.

Field table: specs/foreign-formats.md, "vpc".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

import numpy as np

from vimgvc.disk import protocol
from vimgvc.images import pieces, table_reader, units
from vimgvc.images.makers import plan as plans
from vimgvc.images.makers import tables

_FOOTER = struct.Struct(">8s II Q I 4s I 4s QQ HBB II 16s B 427x")
_DYNAMIC = struct.Struct(">8s QQ IIII 16s II 512s 192s 256x")
_BLOCK, _BITMAP = 2 << 20, 512
_TABLE_AT = 1536
_NOWHERE = (1 << 64) - 1
_FREE = 0xFFFFFFFF
_MAX_SECTORS = 0xFF000000
#: The largest geometry: programs that would believe it take the size instead.
_GEOMETRY = (65535, 16, 255)
_FIXED, _GROWING = 2, 3


class _Vpc(plans.Maker):
    fmt = "vpc"

    def __init__(self, size: int, options: Mapping[str, str], unit: int) -> None:
        super().__init__(size, options, unit)
        self.at_most("its size in sectors", size // plans.SECTOR, _MAX_SECTORS)

    def footer(self, kind: int, after: int) -> bytes:
        def packed(checksum: int) -> bytes:
            return _FOOTER.pack(
                b"conectix", 2, 0x10000, after, 0, b"vgvc", 0x10000, b"Wi2k", self.size, self.size,
                *_GEOMETRY, kind, checksum, identity, 0,
            )  # fmt: skip

        identity = os.urandom(16)
        return packed(_checksum(packed(0)))


class Dynamic(_Vpc):
    gap = _BITMAP

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        super().__init__(size, options, _BLOCK)
        self._table = plans.rounded(self.count * 4)

    def data_offset(self, there: units.UnitSet) -> int:
        del there
        return _TABLE_AT + self._table

    def file_size(self, data_end: int) -> int:
        return data_end + _FOOTER.size

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        del name
        footer = self.footer(_GROWING, _FOOTER.size)

        def packed(checksum: int) -> bytes:
            return _DYNAMIC.pack(
                b"cxsparse", _NOWHERE, _TABLE_AT, 0x10000, self.count, _BLOCK, checksum, b"", 0, 0, b"", b""
            )

        yield 0, footer + packed(_checksum(packed(0)))
        filled = self._table // 4
        yield from plan.table(_TABLE_AT, filled, ">u4", self._numbers, _FREE)
        for rank in range(plan.there.total):
            yield plan.place(rank) - _BITMAP, b"\xff" * _BITMAP
        yield plan.data_end, footer

    def opened(self, file: protocol.Source, name: str, plan: plans.Plan) -> protocol.Source:
        def places(entries: np.ndarray) -> np.ndarray:
            found = entries.astype(np.int64) * plans.SECTOR + _BITMAP
            found[entries == _FREE] = table_reader.HOLE
            return found

        del plan
        return tables.OneLevel(file, name, self, places, at=_TABLE_AT, dtype=">u4")

    def _numbers(self, places: plans.Places) -> np.ndarray:
        return (places - _BITMAP) // plans.SECTOR


class Fixed(_Vpc):
    everything = True

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        super().__init__(size, options, _BLOCK)

    def data_offset(self, there: units.UnitSet) -> int:
        del there
        return 0

    def file_size(self, data_end: int) -> int:
        del data_end  # the last block ends with the disk
        return self.size + _FOOTER.size

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        del plan, name
        yield self.size, self.footer(_FIXED, _NOWHERE)

    def opened(self, file: protocol.Source, name: str, plan: plans.Plan) -> protocol.Source:
        del name, plan
        return pieces.SliceReader(file, 0, self.size)


def _checksum(data: bytes) -> int:
    """The complement of the sum of all bytes."""
    return ~sum(data) & 0xFFFFFFFF
