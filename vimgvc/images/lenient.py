"""Reading on where a source fails, when the user asked for that; what was given up is told and recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from vimgvc import errors
from vimgvc.disk import extents, protocol

#: What is given up at once; disks have sectors of 512 or 4096 bytes.
GRID = 4096
_MOST_RANGES = 1000


class LenientSource:
    """A Source over `inner` that records in `facts` what it could not do as the contract says.

    `skip_bad`: a range with a read error (EIO) reads as zeros, in pieces of `GRID` bytes, and is listed as
    `unreadable` ([offset, length] pairs, the first 1,000, ascending). `allow_changing`: a source that
    changed while it was read is accepted, with `changed_while_read` true.
    """

    def __init__(
        self, inner: protocol.Source, facts: dict[str, Any], *, skip_bad: bool = False, allow_changing: bool = False
    ) -> None:
        self._inner, self._facts = inner, facts
        self._skip_bad, self._allow_changing = skip_bad, allow_changing
        self._bad: set[int] = set()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def allocated_bytes(self) -> int:
        return self._inner.allocated_bytes

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        try:
            self._inner.pread_into(offset, buffer)
        except errors.BackendError as error:
            if not self._may_skip(error):
                raise
            self._pread_pieces(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._inner.extents(offset, length)

    def check_unchanged(self) -> None:
        """As the contract says; asked last, so this is where the facts are told."""
        self._tell_unreadable()
        try:
            self._inner.check_unchanged()
        except errors.VimgvcError:
            if not self._allow_changing:
                raise
            self._facts["changed_while_read"] = True

    def close(self) -> None:
        self._inner.close()

    def _may_skip(self, error: errors.BackendError) -> bool:
        return self._skip_bad and error.kind == "EIO"

    def _pread_pieces(self, offset: int, buffer: memoryview) -> None:
        end, position = offset + buffer.nbytes, offset
        while position < end:
            stop = min(position - position % GRID + GRID, end)
            piece = buffer[position - offset : stop - offset]
            try:
                self._inner.pread_into(position, piece)
            except errors.BackendError as error:
                if not self._may_skip(error):
                    raise
                piece[:] = bytes(piece.nbytes)
                self._give_up(position - position % GRID)
            position = stop

    def _give_up(self, start: int) -> None:
        with self._lock:
            self._bad.add(start)

    def _tell_unreadable(self) -> None:
        pieces = [extents.Extent(at, min(GRID, self.size - at), extents.Kind.DATA) for at in sorted(self._bad)]
        if pieces:
            ranges = [[item.start, item.length] for item in extents.merge(pieces)]
            self._facts["unreadable"] = ranges[:_MOST_RANGES]
            self._facts["unreadable_bytes"] = sum(item.length for item in pieces)


class AllData:
    """A Reader that tells no holes, so that everything is read."""

    def __init__(self, inner: protocol.Reader) -> None:
        self._inner = inner

    @property
    def size(self) -> int:
        return self._inner.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._inner.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        if length:
            yield extents.Extent(offset, length, extents.Kind.DATA)

    def close(self) -> None:
        self._inner.close()
