"""Packs and their tables: formats.md §8."""

from __future__ import annotations

import itertools
import os
import struct

import hypothesis
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import strategies as st

from tests import mutate, repos
from vimgvc import errors
from vimgvc.codec import aead, keys, sealing, segment
from vimgvc.store import pack

_SEALS = sealing.Sealing(keys.PurposeKeys(bytes(range(32))), bytes(range(16)), os.urandom)
_Segments = list[list[bytes]]


def _build(kind: int, segments: _Segments) -> tuple[pack.Finished, bytes]:
    """The pack of these slots, segment by segment."""
    builder = pack.Builder(kind, _SEALS.repo, bytearray(1 << 20))
    sealer = _SEALS.sealer(level=1, verify=True, capacity=1 << 20)
    for slots in segments:
        plain = bytearray(b"".join(slots))
        ids = b"".join(_SEALS.slot_id(kind, slot) for slot in slots)
        shape, stored = sealer.seal(kind, plain, len(plain), ids)
        builder.add(shape, stored, ids, [len(slot) for slot in slots])
    assert len(builder) == len(segments)
    finished = builder.finish(lambda body: _SEALS.seal(aead.TABLE, body))
    return finished, b"".join(bytes(part) for part in finished.parts)


def _table(blob: bytes, length: int | None = None) -> tuple[pack.Table, int]:
    return pack.read_table(
        "ab" * 32,
        len(blob),
        lambda offset, size: blob[offset : offset + size],
        lambda data, where: _SEALS.open(aead.TABLE, data, where),
        table_length=length,
    )


def _read(blob: bytes) -> _Segments:
    """All slots, every check done."""
    table, _ = _table(blob)
    found = []
    for number in range(len(table.segments)):
        offset, shape = table.shape(number)
        ids, starts, lengths = table.slots(number)
        plain = _SEALS.opener().open(shape, blob[offset : offset + shape.stored_length], ids, "segment")
        slots = [plain[at : at + size] for at, size in zip(starts.tolist(), lengths.tolist(), strict=True)]
        for at, slot in enumerate(slots):
            _SEALS.check_slot(table.kind, slot, ids[32 * at : 32 * at + 32], "slot")
        found.append(slots)
    return found


_CHUNKS = st.builds(lambda seed, blocks: repos.noise(seed, 4096 * blocks), st.integers(0, 9), st.integers(1, 3))
_NODES = st.binary(min_size=1, max_size=300)


@hypothesis.given(
    st.tuples(st.just(segment.DATA), st.lists(st.lists(_CHUNKS, min_size=1, max_size=3), min_size=1, max_size=4))
    | st.tuples(st.just(segment.TREE), st.lists(st.lists(_NODES, min_size=1, max_size=5), min_size=1, max_size=4))
)
def test_packs_come_back(made: tuple[int, _Segments]) -> None:
    """Every slot comes back from its place, the name is the hash of the bytes, and both tables are the same."""
    kind, segments = made
    finished, blob = _build(kind, segments)
    assert _read(blob) == segments
    assert finished.name == blake3(blob).hexdigest()
    assert finished.size == len(blob)
    table, length = _table(blob)
    assert length == finished.table_length
    assert blob[-16 - 2 * length : -16 - length] == blob[-16 - length : -16]
    numbers, slots = table.places()
    assert list(zip(numbers.tolist(), slots.tolist(), strict=True)) == [
        (number, slot) for number, held in enumerate(segments) for slot in range(len(held))
    ]
    flat = list(itertools.chain.from_iterable(segments))
    assert table.ids.tobytes() == b"".join(_SEALS.slot_id(kind, slot) for slot in flat)


def test_any_byte(seed: int) -> None:
    """A pack with any byte changed gives the same slots or is refused; its name tells that it changed."""
    segments = [[b"U" * 4096], [b"V" * 4096, b"W" * 8192]]
    finished, blob = _build(segment.DATA, segments)
    harmless = 0
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 1 << (at + seed) % 8
        assert blake3(bytes(changed)).hexdigest() != finished.name
        try:
            assert _read(bytes(changed)) == segments
            harmless += 1
        except errors.IntegrityError:
            continue
    assert harmless == pack.HEADER_SIZE + 2 * finished.table_length, "the head, and one copy of the table at a time"


def test_any_truncation() -> None:
    """A pack that lost its end is refused, wherever it ends; with the length from the index as well."""
    finished, blob = _build(segment.DATA, [[b"U" * 4096]])
    for length in range(len(blob)):
        for known in (None, finished.table_length):
            with pytest.raises(errors.IntegrityError):
                _table(blob[:length], known)


def test_end_that_is_lost(seed: int) -> None:
    """What the index knows of a table's length stands in for an end that is damaged."""
    finished, blob = _build(segment.DATA, [[b"U" * 4096]])
    damaged = blob[:-16] + repos.noise(seed, 16)
    with pytest.raises(errors.FormatError, match="lost its tail"):
        _table(damaged)
    assert _table(damaged, finished.table_length)[0].ids.tobytes() == finished.table.ids.tobytes()


def test_tables_of_another_repository() -> None:
    """A pack of another repository with the same key is refused."""
    _, blob = _build(segment.DATA, [[b"U" * 4096]])
    other = sealing.Sealing(_SEALS.keys, bytes(16), os.urandom)
    with pytest.raises(errors.IntegrityError, match="authentication"):
        pack.read_table(
            "ab" * 32,
            len(blob),
            lambda offset, size: blob[offset : offset + size],
            lambda data, where: other.open(aead.TABLE, data, where),
        )


@pytest.mark.parametrize("size", [0, 1, 39, pack.MAX_SIZE + 1, 2**40])
def test_sizes_are_checked_before_reading(size: int) -> None:
    """A pack of an impossible size is refused without being read."""

    def read(offset: int, length: int) -> bytes:
        raise AssertionError(f"{length} bytes were read at {offset}")

    with pytest.raises(errors.FormatError):
        pack.read_table("ab" * 32, size, read, lambda data, _: data)


def test_mutants_of_tables(seed: int) -> None:
    """Ten thousand variations of table bodies are refused, or are consistent tables."""
    samples = []
    for kind, segments in ((segment.DATA, [[b"U" * 4096] * 3, [b"V" * 8192]]), (segment.TREE, [[b"node"] * 5])):
        finished, _ = _build(kind, segments)
        samples.append(_body(finished.table))

    def decode(data: bytes) -> bytes:
        table = pack.decode_table(data, "table")
        _check(table)
        return _body(table)

    decoded, refused = mutate.survey(decode, mutate.mutants(seed, samples, 10_000))
    assert min(decoded, refused) > 100


def _body(table: pack.Table) -> bytes:
    head = struct.pack("<BBHI", table.kind, 0, len(table.segments), len(table.ids))
    return head + table.segments.tobytes() + table.ids.tobytes() + table.lengths.tobytes()


def _check(table: pack.Table) -> None:
    """The rules of the section, one by one and slowly."""
    at, first = 24, 0
    for number, row in enumerate(table.segments.tolist()):
        offset, stored, plain, slots, _, reserved = row
        lengths = table.lengths.tolist()[first : first + slots]
        assert (offset, reserved) == (at, 0)
        assert stored > segment.OVERHEAD
        assert slots == len(lengths) > 0
        assert plain == sum(lengths) <= segment.MAX_PLAIN
        assert all(0 < length <= pack.MAX_SLOT[table.kind] for length in lengths)
        assert table.kind == segment.TREE or all(length % 4096 == 0 for length in lengths)
        assert table.slots(number)[2].tolist() == lengths
        at, first = at + stored, first + slots
    assert first == len(table.ids) == len(table.lengths)


@pytest.mark.parametrize("counts", [(65535, 2**32 - 1), (1, 2**32 - 1), (1, 2**31), (65535, 1), (65535, 0)])
def test_counts_are_checked_before_use(counts: tuple[int, int]) -> None:
    """A table that claims more entries than it has bytes costs no memory."""
    body = struct.pack("<BBHI", 1, 0, *counts) + bytes(100)
    assert mutate.peak(lambda: pack.decode_table(body, "table")) < 100_000


def test_sums_do_not_wrap() -> None:
    """Lengths and offsets whose sum is right modulo 2^32 only are refused."""
    half = 2**31
    lengths = struct.pack("<3I", half, half, 4096)
    body = struct.pack("<BBHI", 1, 0, 1, 3) + struct.pack("<IIIHBB", 24, 100, 4096, 3, 0, 0) + bytes(96) + lengths
    with pytest.raises(errors.FormatError):
        pack.decode_table(body, "table")
    rows = struct.pack("<IIIHBB", 24, 2**32 - 24, 4096, 1, 0, 0) + struct.pack("<IIIHBB", 0, 100, 4096, 1, 0, 0)
    body = struct.pack("<BBHI", 1, 0, 2, 2) + rows + bytes(64) + struct.pack("<2I", 4096, 4096)
    with pytest.raises(errors.FormatError):
        pack.decode_table(body, "table")


def test_slots_of_no_segment() -> None:
    """A slot that belongs to no segment is refused, also when the lengths of all slots add up."""
    row = struct.pack("<IIIHBB", 24, 100, 8192, 1, 0, 0)
    body = struct.pack("<BBHI", 1, 0, 1, 2) + row + bytes(64) + struct.pack("<2I", 4096, 4096)
    with pytest.raises(errors.FormatError):
        pack.decode_table(body, "table")


def test_full_packs() -> None:
    """A pack is full with 32 MiB of segments, or with as many as its table can count."""
    builder = pack.Builder(segment.DATA, _SEALS.repo, bytearray(pack.TARGET_SIZE + (1 << 20)))
    large = segment.Shape(segment.DATA, 0, 1 << 20, 1 << 20)
    for _ in range(32):
        assert not builder.is_full
        builder.add(large, memoryview(bytes(1 << 20)), bytes(32), [1 << 20])
    assert builder.is_full
    many = pack.Builder(segment.DATA, _SEALS.repo, bytearray(1 << 16))
    tiny = segment.Shape(segment.DATA, 0, 4096, 1)
    for _ in range(65534):
        many.add(tiny, memoryview(b"x"), b"", [])
    assert not many.is_full
    many.add(tiny, memoryview(b"x"), b"", [])
    assert many.is_full


def test_names() -> None:
    """A pack lies in the shard of its first two digits."""
    assert pack.blob_name("ab" + "0" * 62) == "packs/ab/ab" + "0" * 62


def test_offsets_of_slots() -> None:
    """Slots follow each other inside the plain segment."""
    _, blob = _build(segment.DATA, [[b"U" * 4096, b"V" * 8192, b"W" * 4096]])
    _, starts, lengths = _table(blob)[0].slots(0)
    assert starts.tolist() == [0, 4096, 12288]
    assert lengths.tolist() == [4096, 8192, 4096]
    assert starts.dtype == np.int64
