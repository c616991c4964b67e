"""What every gate shares: reading a file's fields within bounds, and how a refusal is worded.

A gate reads from one open file. Whatever it reads lies inside the file and has a bounded length; a
field is believed only after its limits were checked. Spec: specs/foreign-formats.md, "Gates".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vimgvc import errors
from vimgvc.disk import extents, protocol

if TYPE_CHECKING:
    import numpy as np

#: The largest disk that a gate lets pass; callers have a limit of their own.
MAX_SIZE = 1 << 60

#: One read of a table.
PIECE = 1 << 20

#: Tables may take this much more than the space that the file has: file systems compress them.
_TABLE_SLACK = 64 << 20

#: What it counts to find that a table lies in a hole.
_LOOK = 4096


@dataclass(frozen=True, slots=True)
class Facts:
    """What a header says of its container.

    `size`: the guest disk's bytes; None if the header does not tell. `container`: what a commit
    records. `options`: what a driver must be told so that it takes the same decisions. `unit`: bytes
    that the container allocates at once. `data_bytes`: what its tables say that it holds of the guest,
    in whole units; both None if it does not tell. `files`: names of others that hold the data.
    """

    format: str
    size: int | None
    container: dict[str, Any]
    notes: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    unit: int | None = None
    data_bytes: int | None = None
    files: tuple[bytes, ...] = ()


class TooMuch(Exception):
    """More would have to be read than was allowed."""


class Judge:
    """Reads up to `most` bytes of `file`, which messages call `name`, and words refusals.

    `data_bytes`: what was counted so far; None if nothing was to be counted.
    """

    def __init__(self, file: protocol.Source, name: str, *, most: int = 1 << 62) -> None:
        self.file = file
        self.name = name
        self.size = file.size
        self.data_bytes: int | None = None
        self._left = most
        self._spent = 0

    def count(self, length: int) -> None:
        """So many bytes of the guest were found to be in the file."""
        self.data_bytes = (self.data_bytes or 0) + length

    def refuse(self, what: str, value: object, limit: str, *, hint: str = "") -> errors.UnsafeImage:
        """The refusal of field `what` with `value`; `limit` is what would be allowed."""
        return errors.UnsafeImage(f"{self.name}: {what} is {_shown(value)}, allowed is {limit}", hint=hint)

    def refers(self, what: str) -> errors.UnsafeImage:
        """The refusal of an image that needs another one, which is never looked for."""
        return errors.UnsafeImage(
            f"{self.name}: {what}, and other files are never opened because an image names them",
            hint="merge the chain into one image with the tool that made it",
        )

    def part(self) -> errors.UnsafeImage:
        """The refusal of a file that holds a part of a disk, and does not say of which."""
        return errors.UnsafeImage(
            f"{self.name}: is one part of a disk in several files",
            hint="name the file that describes the whole disk; it is text, and lies beside this one",
        )

    def unsupported(self, feature: str, *, hint: str = "") -> errors.Unsupported:
        return errors.Unsupported(
            f"{feature} ({self.name})", hint=hint or "convert the image with the tool that made it"
        )

    def damaged(self, reason: str) -> errors.ImageDamaged:
        return errors.ImageDamaged(self.name, reason)

    def read(self, offset: int, length: int, what: str) -> bytes:
        """`length` bytes (≤ 16 MiB) at `offset`, which is refused unless it lies inside the file."""
        assert length <= 16 << 20
        self.inside(what, offset, length)
        data = bytearray(length)
        self._fetch(offset, memoryview(data))
        return bytes(data)

    def inside(self, what: str, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.refuse(what, f"{length} bytes at {offset}", f"what lies inside the file's {self.size} bytes")

    def between(self, what: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            raise self.refuse(what, value, f"{low} to {high}")
        return value

    def multiple(self, what: str, value: int, of: int) -> int:
        if value % of:
            raise self.refuse(what, value, f"a multiple of {of}")
        return value

    def power(self, what: str, value: int, low: int, high: int) -> int:
        """A power of two from `low` to `high`."""
        if not low <= value <= high or value & (value - 1):
            raise self.refuse(what, value, f"a power of two from {low} to {high}")
        return value

    def among(self, what: str, value: object, allowed: Sequence[object]) -> None:
        if value not in allowed:
            raise self.refuse(what, value, " or ".join(_shown(item) for item in allowed))

    def zeros(self, what: str, value: bytes | int) -> None:
        if any(value) if isinstance(value, bytes) else value:
            raise self.refuse(what, value, "0")

    def table(self, offset: int, length: int, what: str) -> Iterator[np.ndarray]:
        """The bytes of a table inside the file, in order, in pieces of up to 1 MiB (uint8); holes are not read."""
        import numpy as np

        self.inside(what, offset, length)
        for start in range(offset, offset + length, PIECE):
            size = min(PIECE, offset + length - start)
            piece = np.zeros(size, np.uint8)
            if self._has_data(start, size):
                self._fetch(start, piece.data)
            yield piece

    def tables(self, offsets: np.ndarray, length: int, what: str) -> Iterator[np.ndarray]:
        """The bytes of those tables of `length` bytes at `offsets` (any order) that are not in holes, each once.

        Several tables at once, or, of those above 1 MiB, one in several pieces.
        """
        import numpy as np

        offsets = np.unique(offsets)
        if not offsets.size:
            return
        self.inside(what, int(offsets[-1]), length)
        breaks = np.flatnonzero(np.diff(offsets) != length) + 1
        for run in _short(np.split(offsets, breaks), max(1, PIECE // length)):
            end = int(run[0]) + int(run.size) * length
            for start in range(int(run[0]), end, PIECE):
                size = min(PIECE, end - start)
                data = self._has_data(start, size)
                self._spend(size if data else _LOOK)
                if data:
                    piece = np.empty(size, np.uint8)
                    self._fetch(start, piece.data)
                    yield piece

    def _fetch(self, offset: int, buffer: memoryview) -> None:
        self._left -= buffer.nbytes
        if self._left < 0:
            raise TooMuch
        self.file.pread_into(offset, buffer)

    def _has_data(self, offset: int, length: int) -> bool:
        return any(item.kind is extents.Kind.DATA for item in self.file.extents(offset, length))

    def _spend(self, length: int) -> None:
        """Tables that overlap, or lie scattered in holes, cost more time than the file has space."""
        self._spent += length
        limit = self.file.allocated_bytes + _TABLE_SLACK
        if self._spent > limit:
            raise self.refuse("the size of its tables", self._spent, f"what the file has space for ({limit} bytes)")


def _short(runs: Iterable[np.ndarray], most: int) -> Iterator[np.ndarray]:
    for run in runs:
        for start in range(0, run.size, most):
            yield run[start : start + most]


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, bytes | str) and not _plain(value) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value.isascii()
