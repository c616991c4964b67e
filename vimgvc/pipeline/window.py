"""One window at a time: what of it is unchanged, where it is cut, which chunks it has.

The inner loop of a commit. It sees bytes only through numpy and the hash; Python counts runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vimgvc.chunking import cut
from vimgvc.codec import sealing
from vimgvc.disk import room
from vimgvc.model import geometry, manifest


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the window: offset and length in bytes inside the window's buffer."""

    offset: int
    length: int
    id: bytes


@dataclass(slots=True)
class Scan:
    """What a window holds. `leaf` is None when all zeros; `same` when it equals the base's leaf."""

    leaf: manifest.Leaf | None
    chunks: list[Chunk] = field(default_factory=list)
    same: bool = False


class Scanner:
    """Scans windows for one thread; `view` is the window's buffer, to be filled before `scan`."""

    def __init__(self, seals: sealing.Sealing, cutter: cut.Cutter) -> None:
        self._chunk_id = seals.chunk_id
        self._cutter = cutter
        self.view = room.pages(geometry.WINDOW)
        self._words = np.frombuffer(self.view, np.uint64).reshape(-1, geometry.BLOCK // 8)

    def scan(self, blocks: int, base: manifest.Leaf | None) -> Scan:
        """Scan the first `blocks` blocks of `view`; `base` is the leaf that was there before."""
        words = self._words[:blocks]
        known: dict[tuple[int, int], bytes] = {}
        if base is not None and self._equals(words, base, known):
            return Scan(base, same=True)
        runs = self._cutter.runs(words)
        chunks = []
        offset = 0
        for length_blocks, zero in runs:
            length = length_blocks * geometry.BLOCK
            if not zero:
                chunk_id = known.get((offset, length)) or self._chunk_id(self.view[offset : offset + length])
                chunks.append(Chunk(offset, length, chunk_id))
            offset += length
        if not chunks:
            return Scan(None)
        return Scan(manifest.Leaf(tuple(runs), b"".join([chunk.id for chunk in chunks])), chunks)

    def _equals(self, words: npt.NDArray[np.uint64], base: manifest.Leaf, known: dict[tuple[int, int], bytes]) -> bool:
        """Whether the window is what `base` says; what was hashed on the way goes into `known`."""
        at, first = 0, 0
        for blocks, zero in base.runs:
            if zero:
                if words[first : first + blocks].any():
                    return False
            else:
                offset, length = first * geometry.BLOCK, blocks * geometry.BLOCK
                found = self._chunk_id(self.view[offset : offset + length])
                known[offset, length] = found
                if found != base.ids[at : at + geometry.ID_SIZE]:
                    return False
                at += geometry.ID_SIZE
            first += blocks
        return first == len(words)


def changed_bytes(scan: Scan, base: manifest.Leaf | None, blocks: int) -> int:
    """Bytes of the window that are not what `base` has in the same place, by whole chunks and zero runs."""
    if scan.same:
        return 0
    before = {(offset, length): item for offset, length, item in chunks(base)}
    changed = 0
    covered = np.zeros(blocks, bool)
    for chunk in scan.chunks:
        covered[chunk.offset // geometry.BLOCK : (chunk.offset + chunk.length) // geometry.BLOCK] = True
        if before.get((chunk.offset, chunk.length)) != chunk.id:
            changed += chunk.length
    for offset, length in before:
        part = covered[offset // geometry.BLOCK : (offset + length) // geometry.BLOCK]
        changed += int((~part).sum()) * geometry.BLOCK
    return changed


def chunks(leaf: manifest.Leaf | None) -> list[tuple[int, int, bytes]]:
    """(offset in the window, length, identifier) of a leaf's chunks, in order."""
    if leaf is None:
        return []
    result, offset, at = [], 0, 0
    for blocks, zero in leaf.runs:
        length = blocks * geometry.BLOCK
        if not zero:
            result.append((offset, length, leaf.ids[at : at + geometry.ID_SIZE]))
            at += geometry.ID_SIZE
        offset += length
    return result
