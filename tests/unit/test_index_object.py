"""Bodies of index objects: formats.md §9."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests import index_model
from vimgvc import errors
from vimgvc.store import index_object


def _body(count: int = 5) -> index_object.IndexBody:
    packs = [index_model.pack_name(1), index_model.pack_name(2)]
    ids = index_model.random_ids(count, 3)
    return index_model.body_of([(item.tobytes(), (packs[at % 2], at, at + 7)) for at, item in enumerate(ids)], packs)


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_round_trip(count: int) -> None:
    """What is decoded is what was encoded, and encodes to the same bytes."""
    body = _body(count)
    data = index_object.encode(body)
    again = index_object.decode(data)
    assert (again.packs == body.packs).all()
    assert (again.ids == body.ids).all()
    assert (again.places == body.places).all()
    assert index_object.encode(again) == data


def test_bytes_are_those_of_the_specification() -> None:
    """Counts, packs, identifiers and places stand where formats.md §9 says, little-endian."""
    name, item = bytes(range(32)), bytes(range(100, 132))
    packs = np.array([(np.frombuffer(name, np.uint8), 0x0102030405, 0x0A0B, 2)], index_object.PACK)
    places = np.array([(0, 0x1122, 0x3344)], index_object.PLACE)
    data = index_object.encode(index_object.IndexBody(packs, index_model.as_array([item]), places))
    assert data == b"".join(
        (
            bytes.fromhex("01000000 01000000"),
            name,
            bytes.fromhex("0504030201000000 0b0a0000 02000000"),
            item,
            bytes.fromhex("00000000 2211 4433"),
        )
    )


@pytest.mark.parametrize("column", [0, 7, 8, 15, 16, 24, 31])
@pytest.mark.parametrize("change", [-1, 0])
def test_index_order(column: int, change: int) -> None:
    """Identifiers that descend or repeat are refused, whichever byte decides."""
    first, second = bytearray(b"\x80" * 32), bytearray(b"\x80" * 32)
    second[column] += change
    with pytest.raises(errors.FormatError, match="index_order"):
        index_object.decode(_encode_unchecked([bytes(first), bytes(second)], [0, 0], 1))


def test_index_order_ascends_by_unsigned_bytes() -> None:
    """0x7f… before 0x80…, and a later byte decides only among equals."""
    ids = [b"\x7f" + b"\xff" * 31, b"\x80" + b"\x00" * 31, b"\x80" + b"\x00" * 30 + b"\x01"]
    assert index_object.decode(_encode_unchecked(ids, [0, 0, 0], 1)).ids.tobytes() == b"".join(ids)


@pytest.mark.parametrize(("number", "packs"), [(1, 1), (0xFFFFFFFF, 1), (0, 0)])
def test_index_pack_number(number: int, packs: int) -> None:
    """A place in a pack that the object does not list is refused."""
    with pytest.raises(errors.FormatError, match="index_pack_number"):
        index_object.decode(_encode_unchecked([b"\1" * 32], [number], packs))


def test_every_other_length_is_refused() -> None:
    """A body that is cut anywhere or has a byte more is refused."""
    data = index_object.encode(_body())
    for length in range(len(data)):
        with pytest.raises(errors.FormatError):
            index_object.decode(data[:length])
    with pytest.raises(errors.FormatError):
        index_object.decode(data + b"\0")


@pytest.mark.parametrize("counts", [(0xFFFFFFFF, 0), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_counts_are_checked_before_anything_is_allocated(counts: tuple[int, int]) -> None:
    """Counts of 200 GB are refused with the bytes at hand."""
    with pytest.raises(errors.FormatError):
        index_object.decode(struct.pack("<II", *counts) + bytes(1000))


def _encode_unchecked(ids: list[bytes], numbers: list[int], packs: int) -> bytes:
    places = b"".join(struct.pack("<IHH", number, 0, 0) for number in numbers)
    return struct.pack("<II", packs, len(ids)) + bytes(48 * packs) + b"".join(ids) + places
