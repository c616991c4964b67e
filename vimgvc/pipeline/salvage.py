"""What is done about the parts of a disk that are lost: remembered, and filled so that it shows."""

from __future__ import annotations

import threading

from vimgvc.disk import protocol

#: Stands in every 64 bytes of what could not be restored.
PATTERN = b"vimgvc: the data that was here is damaged and was not restored.\n"
_PIECE = PATTERN * (1 << 14)


#: Ranges that are kept before neighbours are joined for the first time.
_FEW = 1024


class Lost:
    """Ranges of a disk of `size` bytes; thread-safe. Memory is in proportion to how many there are once merged."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        self._most = _FEW

    def add(self, offset: int, length: int) -> None:
        with self._lock:
            end = min(offset + length, self._size)
            self._ends[offset] = max(end, self._ends.get(offset, 0))
            if len(self._ends) > self._most:
                self._ends = {start: start + size for start, size in self._merged()}
                self._most = max(_FEW, 2 * len(self._ends))

    def ranges(self) -> list[tuple[int, int]]:
        """(offset, length), ascending and merged."""
        with self._lock:
            return self._merged()

    def _merged(self) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for offset, end in sorted(self._ends.items()):
            if merged and sum(merged[-1]) >= offset:
                merged[-1] = (merged[-1][0], max(end, sum(merged[-1])) - merged[-1][0])
            else:
                merged.append((offset, end - offset))
        return merged

    def fill(self, target: protocol.Writer) -> None:
        """Write the pattern over all of them; it lies as it would from the start of the disk."""
        for offset, length in self.ranges():
            at, end = offset, offset + length
            while at < end:
                start = at % len(PATTERN)
                piece = memoryview(_PIECE)[start : start + end - at]
                target.pwrite(at, piece)
                at += len(piece)
