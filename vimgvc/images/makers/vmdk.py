"""Written VMDK in one file (monolithicSparse). Field table: specs/foreign-formats.md, "vmdk"."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

import numpy as np

from vimgvc.disk import protocol
from vimgvc.images import units, vmdk
from vimgvc.images.makers import plan as plans

HEADER = struct.Struct("<4sII QQQQ I QQQ B 4s H 433x")
GRAIN = 65536
PER_TABLE = 512
_TEXT_AT, _TEXT_SECTORS = 1, 20
_TABLE = PER_TABLE * 4 // plans.SECTOR
_FLAGS, _ZEROED = 3, 4
#: What QEMU opens.
_MAX_TABLES = 32 << 20
#: Grains are counted in sectors, with 32 bits.
_MAX_FILE = 1 << 41
_TOOLS = "2147483647"


class Vmdk(plans.Maker):
    fmt = "vmdk"

    def __init__(self, size: int, options: Mapping[str, str]) -> None:
        super().__init__(size, options, GRAIN)
        self._tables = -(-self.count // PER_TABLE)
        self.at_most("the number of its tables", self._tables, _MAX_TABLES)
        directory = plans.rounded(self._tables * 4) // plans.SECTOR
        self._spare_at = _TEXT_AT + _TEXT_SECTORS
        self._directory_at = self._spare_at + directory + self._tables * _TABLE
        end = self._directory_at + directory + self._tables * _TABLE
        self._start = plans.rounded(end * plans.SECTOR, GRAIN)

    def data_offset(self, there: units.UnitSet) -> int:
        self.at_most("the file's size", self._start + there.total * GRAIN, _MAX_FILE)
        return self._start

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        zeroed = self.options.get("zeroed_grain") == "on"
        yield (
            0,
            HEADER.pack(
                b"KDMV", 2 if zeroed else 1, _FLAGS | (_ZEROED if zeroed else 0), self.size // plans.SECTOR,
                GRAIN // plans.SECTOR, _TEXT_AT, _TEXT_SECTORS, PER_TABLE, self._spare_at, self._directory_at,
                self._start // plans.SECTOR, 0, b"\n \r\n", 0,
            ),
        )  # fmt: skip
        yield _TEXT_AT * plans.SECTOR, text("monolithicSparse", self.size, name, self.options)
        for at in (self._spare_at, self._directory_at):
            first = at + plans.rounded(self._tables * 4) // plans.SECTOR
            yield at * plans.SECTOR, (first + np.arange(self._tables, dtype="<u4") * _TABLE).astype("<u4").tobytes()
            yield from plan.table(first * plans.SECTOR, self.count, "<u4", self._sectors)

    def opened(self, file: protocol.Source, name: str, plan: plans.Plan) -> protocol.Source:
        del plan
        return vmdk.open_sparse(file, name)

    def _sectors(self, places: plans.Places) -> np.ndarray:
        return places // plans.SECTOR


def text(kind: str, size: int, name: str, options: Mapping[str, str]) -> bytes:
    """The descriptor of a disk in one file, which is called `name`."""
    adapter = options.get("adapter_type", "ide")
    version = "6" if options.get("compat6") == "on" else options.get("hwversion", "4")
    heads = 16 if adapter == "ide" else 255
    cylinders = size // (63 * heads * plans.SECTOR)
    identity = int.from_bytes(os.urandom(4), "little") % 0xFFFFFFFE
    return f"""# Disk DescriptorFile
version=1
CID={identity:08x}
parentCID=ffffffff
createType="{kind}"

# Extent description
RW {size // plans.SECTOR} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "{version}"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "63"
ddb.adapterType = "{adapter}"
ddb.toolsVersion = "{options.get("toolsversion", _TOOLS)}"
""".encode()
