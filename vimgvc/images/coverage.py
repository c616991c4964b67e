"""Which blocks of a disk have been written: what a target must zero at the end, and what it need not."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 4096
_GROUP = 1024
_FULL = (1 << _GROUP) - 1


class Coverage:
    """A set of blocks; not locked, the owner does that.

    Groups of 4 MiB are bit masks, and all full ones are the same object: 1 TiB that was written
    everywhere needs 25 MB, one that was written nowhere nothing.
    """

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def has(self, block: int) -> bool:
        return bool(self._masks.get(block // _GROUP, 0) >> block % _GROUP & 1)

    def add(self, first: int, end: int) -> None:
        """Blocks `first` up to, not including, `end`."""
        while first < end:
            group, low = divmod(first, _GROUP)
            high = min(end - group * _GROUP, _GROUP)
            mask = self._masks.get(group, 0) | (1 << high) - (1 << low)
            self._masks[group] = _FULL if mask == _FULL else mask
            first = group * _GROUP + high

    def runs(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs (first, end) of blocks that are there, clipped to the range, in order; not joined."""
        for group in range(first // _GROUP, -(-end // _GROUP)):
            mask, base = self._masks.get(group, 0), group * _GROUP
            while mask:
                low = (mask & -mask).bit_length() - 1
                high = low + (~(mask >> low) & (mask >> low) + 1).bit_length() - 1
                mask = mask >> high << high
                start, stop = max(base + low, first), min(base + high, end)
                if start < stop:
                    yield start, stop

    def gaps(self, end: int) -> Iterator[tuple[int, int]]:
        """The runs (first, end) of blocks below `end` that are missing, in order; joined."""
        start = 0
        for first, stop in self.runs(0, end):
            if start < first:
                yield start, first
            start = stop
        if start < end:
            yield start, end
