"""VMDK disks in several files, and sparse extents, read without a foreign program.

A foreign program opens an extent only together with the descriptor that names it, and then opens what
that names. So the files are found by us, below the descriptor's folder, and the tables are read here.
Compressed images are in one file and are not for this module. Spec: specs/foreign-formats.md, "vmdk".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import pieces, raw, table_reader
from vimgvc.images.gates import judge, vmdk, vmdk_text

if TYPE_CHECKING:
    import numpy as np

#: Opens the file `name` below a folder: (roots, folder, name, who names it).
Opener = Callable[[Sequence[str], str, bytes, str], raw.RawReader]


def is_text(file: protocol.Reader) -> bool:
    """Whether a VMDK is a descriptor that names other files."""
    head = bytearray(min(4, file.size))
    file.pread_into(0, memoryview(head))
    return bytes(head) not in (b"KDMV", b"COWD")


def open_text(file: raw.RawReader, opener: Opener) -> protocol.Source:
    """The disk that a descriptor describes; its extents lie beside it. Closing it closes `file`.

    Raises what the gate and `opener` raise, and `ImageDamaged` if an extent is shorter than described.
    """
    text = vmdk_text.read(judge.Judge(file, file.path))
    folder = os.path.dirname(file.path) or "."
    opened: list[protocol.Source] = []
    try:
        parts = []
        for extent in text.extents:
            if extent.name is None:
                parts.append(pieces.Piece(extent.sectors * 512))
                continue
            part = opener([folder], folder, extent.name, file.path)
            opened.append(part)
            parts.append(_part(extent, part))
    except BaseException:
        for source in opened:
            source.close()
        raise
    return _Whole(parts, file)


def _part(extent: vmdk_text.Extent, file: raw.RawReader) -> pieces.Piece:
    length = extent.sectors * 512
    if extent.kind in ("FLAT", "VMFS"):
        if extent.start * 512 + length > file.size:
            reason = f"has {file.size} bytes, its descriptor says {length} from {extent.start * 512} on"
            raise errors.ImageDamaged(file.path, reason)
        return pieces.Piece(length, file, extent.start * 512)
    sparse = open_sparse(file, file.path, extent.kind)
    if sparse.size != length:
        raise errors.UnsafeImage(f"{file.path}: the disk has {sparse.size} bytes, its descriptor says {length}")
    return pieces.Piece(length, sparse)


def open_sparse(file: protocol.Source, name: str, kind: str = "SPARSE") -> SparseReader:
    """One sparse extent, or a whole monolithicSparse image. Closing it closes `file`."""
    j = judge.Judge(file, name)
    layout = vmdk.extent_layout(j, kind)
    if layout.kind == "hosted":
        vmdk.check_tables(j, layout)
    return SparseReader(file, name, layout)


class _Whole(pieces.PiecesReader):
    """The pieces, and the descriptor that has to stay what it was."""

    def __init__(self, parts: Sequence[pieces.Piece], text: protocol.Source) -> None:
        super().__init__(parts)
        self._text = text

    def check_unchanged(self) -> None:
        self._text.check_unchanged()
        super().check_unchanged()

    def close(self) -> None:
        self._text.close()
        super().close()


class SparseReader(table_reader.TableReader):
    """A sparse extent as a Source."""

    def __init__(self, file: protocol.Source, name: str, layout: vmdk.Layout) -> None:
        super().__init__(file, name, layout.size, layout.grain, layout.table)
        self._layout = layout

    def load(self, number: int) -> np.ndarray | int:
        import numpy as np

        layout = self._layout
        data = bytearray(layout.entry)
        self.file.pread_into(layout.directory_at + number * layout.entry, memoryview(data))
        at = self._table_at(number, int.from_bytes(data, "little"))
        if not at:
            return table_reader.HOLE
        if at + layout.table * layout.entry > self.file.size:
            raise self.damaged(number * layout.table * layout.grain, "its table lies behind the end of the file")
        entries = np.empty(layout.table, f"<u{layout.entry}")
        self.file.pread_into(at, entries.view(np.uint8).data)
        return _grains_8(entries, layout) if layout.entry == 8 else _grains_4(entries, zeroed=layout.zeroed)

    def _table_at(self, number: int, entry: int) -> int:
        """Offset of a table from its entry in the directory; 0 if there is none."""
        layout = self._layout
        if layout.entry == 4 or not entry:
            return entry * 512
        if entry >> 32 != 0x10000000:
            raise self.damaged(
                number * layout.table * layout.grain, f"the entry {entry:#x} of its table makes no sense"
            )
        return layout.tables_at + (entry & 0xFFFFFFFF) * layout.table * 8


def _grains_4(entries: np.ndarray, *, zeroed: bool) -> np.ndarray:
    import numpy as np

    places = entries.astype(np.int64) * 512
    places[entries == 0] = table_reader.HOLE
    if zeroed:
        places[entries == 1] = table_reader.ZERO
    return places


def _grains_8(entries: np.ndarray, layout: vmdk.Layout) -> np.ndarray:
    """seSparse: the upper four bits say what a grain is; its number lies in two parts."""
    import numpy as np

    kind = entries >> np.uint64(60)
    number = ((entries >> np.uint64(48)) & np.uint64(0xFFF)) | (
        (entries & np.uint64(0xFFFF_FFFF_FFFF)) << np.uint64(12)
    )
    # Beyond 2^50 grains there is no file; larger numbers would overflow.
    places = np.minimum(number, np.uint64(1 << 50)).astype(np.int64) * layout.grain + layout.grains_at
    places[entries == 0] = table_reader.HOLE
    places[(kind == 1) | (kind == 2)] = table_reader.ZERO
    places[(kind > 3) | ((kind == 0) & (entries != 0))] = table_reader.BAD
    return places
