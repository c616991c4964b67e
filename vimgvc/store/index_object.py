"""The body of an index object: which identifier is in which pack (specs/formats.md §9).

Sealing is somebody else's: these functions turn arrays into bytes and back, and check every rule
of the section for all entries at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.model import encoding

PACK = np.dtype([("name", "u1", (32,)), ("size", "<u8"), ("table_length", "<u4"), ("kind", "<u4")])
PLACE = np.dtype([("pack", "<u4"), ("segment", "<u2"), ("slot", "<u2")])
_COUNTS = "<II"

Rows = npt.NDArray[np.void]
Ids = npt.NDArray[np.uint8]


class Body(Protocol):
    """What is encoded: `packs` is an array of PACK, `ids` (n, 32) and ascending, `places` n of PLACE."""

    @property
    def packs(self) -> Rows: ...
    @property
    def ids(self) -> Ids: ...
    @property
    def places(self) -> Rows: ...


@dataclass(frozen=True, slots=True)
class IndexBody:
    """A `Body` in memory."""

    packs: Rows
    ids: Ids
    places: Rows


def encode(body: Body) -> bytes:
    """The bytes of `body`; an order or a pack number that a reader would refuse is an assertion."""
    packs, ids, places = body.packs, body.ids, body.places
    assert packs.dtype == PACK
    assert places.dtype == PLACE
    assert ids.shape == (len(places), 32)
    assert _ascends(ids)
    assert _numbers_fit(places, len(packs))
    return b"".join((struct.pack(_COUNTS, len(packs), len(ids)), packs.tobytes(), ids.tobytes(), places.tobytes()))


def decode(data: bytes | memoryview, where: str = "index object") -> IndexBody:
    """The arrays of a body, as read-only views of `data`. Raises `FormatError` naming `where`."""
    cursor = encoding.Cursor(data, where)
    pack_count, count = cursor.unpack(_COUNTS)
    packs = np.frombuffer(cursor.take(PACK.itemsize * pack_count), PACK)
    ids = np.frombuffer(cursor.take(32 * count), np.uint8).reshape(-1, 32)
    places = np.frombuffer(cursor.take(PLACE.itemsize * count), PLACE)
    cursor.end()
    if not _ascends(ids):
        raise errors.FormatError(where, "identifiers do not ascend (index_order)")
    if not _numbers_fit(places, len(packs)):
        raise errors.FormatError(where, "names a pack that it does not list (index_pack_number)")
    return IndexBody(packs, ids, places)


def _ascends(ids: Ids) -> bool:
    """Whether each row is greater than the one before it, as byte strings."""
    words = np.ascontiguousarray(ids).view(">u8")
    equal = np.arange(max(len(words) - 1, 0))
    for column in range(words.shape[1]):
        before, after = words[equal, column], words[equal + 1, column]
        if (after < before).any():
            return False
        equal = equal[after == before]
    return not equal.size


def _numbers_fit(places: Rows, pack_count: int) -> bool:
    return not len(places) or int(places["pack"].max()) < pack_count
