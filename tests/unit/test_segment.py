"""Segments: formats.md §8."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import mutate, repos
from vimgvc import errors
from vimgvc.codec import compress, keys, sealing, segment

_SEALS = sealing.Sealing(keys.PurposeKeys(bytes(range(32))), bytes(16), os.urandom)
_CAPACITY = 1 << 17


def _sealer(*, level: int = 3, verify: bool = True) -> segment.Sealer:
    return _SEALS.sealer(level=level, verify=verify, capacity=_CAPACITY)


def _seal(plain: bytes, ids: bytes = bytes(32)) -> tuple[segment.Shape, bytes]:
    shape, stored = _sealer().seal(segment.DATA, bytearray(plain), len(plain), ids)
    return shape, bytes(stored)


def _open(shape: segment.Shape, stored: bytes, ids: bytes = bytes(32)) -> bytes:
    return _SEALS.opener().open(shape, stored, ids, "segment")


_PLAIN = st.binary(min_size=1, max_size=3000) | st.builds(
    lambda byte, times: byte * times, st.binary(min_size=1, max_size=3), st.integers(1, 40_000)
)


@hypothesis.given(_PLAIN, st.integers(1, 5), st.sampled_from([segment.DATA, segment.TREE]), st.booleans())
def test_segments_come_back(plain: bytes, slots: int, kind: int, verify: bool) -> None:
    """What is sealed comes back, is never stored larger than it is, and its shape says how it is stored."""
    ids = b"".join(bytes([slot]) * 32 for slot in range(slots))
    shape, stored = _sealer(verify=verify).seal(kind, bytearray(plain + b"more"), len(plain), ids)
    assert _SEALS.opener().open(shape, stored, ids, "segment") == plain
    assert (shape.kind, shape.plain_length, shape.stored_length) == (kind, len(plain), len(stored))
    assert len(stored) <= len(plain) + segment.OVERHEAD
    assert shape.codec == (compress.RAW if len(stored) == len(plain) + segment.OVERHEAD else compress.ZSTD)


def test_what_compresses_is_compressed() -> None:
    """Zeros are stored in a frame, noise as it is."""
    assert _seal(bytes(100_000))[0].codec == compress.ZSTD
    assert _seal(repos.noise(1, 100_000))[0].codec == compress.RAW


@pytest.mark.parametrize("plain", [b"U" * 500, repos.noise(2, 100)], ids=["zstd", "raw"])
def test_any_bit(plain: bytes) -> None:
    """A segment with any bit changed is refused, and so is every truncation of it, whatever the table says."""
    shape, stored = _seal(plain)
    for bit in range(8 * len(stored)):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.IntegrityError):
            _open(shape, bytes(changed))
    for length in range(len(stored)):
        for told in (shape, dataclasses.replace(shape, stored_length=length)):
            with pytest.raises(errors.IntegrityError):
                _open(told, stored[:length])


def test_c14_shape_is_authenticated() -> None:
    """Kind, codec, plain length, identifiers and their order, and the repository are bound to the segment."""
    ids = bytes(32) + b"\1" * 32
    shape, stored = _seal(b"U" * 8192, ids)
    assert _open(shape, stored, ids) == b"U" * 8192
    told = [
        (dataclasses.replace(shape, kind=segment.TREE), ids),
        (dataclasses.replace(shape, codec=compress.RAW), ids),
        (dataclasses.replace(shape, codec=2), ids),
        (dataclasses.replace(shape, plain_length=8191), ids),
        (shape, ids[32:] + ids[:32]),
        (shape, ids[:32]),
        (shape, ids + ids[:32]),
        (shape, b""),
    ]
    for changed, given in told:
        with pytest.raises(errors.IntegrityError, match="authentication"):
            _open(changed, stored, given)
    elsewhere = sealing.Sealing(_SEALS.keys, b"\1" * 16, os.urandom)
    with pytest.raises(errors.IntegrityError, match="authentication"):
        elsewhere.opener().open(shape, stored, ids, "segment")


@pytest.mark.parametrize("plain", [repos.text(2, 4000) * 5, repos.noise(2, 20_000)], ids=["zstd", "raw"])
def test_beginnings(plain: bytes) -> None:
    """A beginning is that of the whole, however long; what was changed anywhere, also behind it, is refused."""
    shape, stored = _seal(plain)
    opener = _SEALS.opener()
    for wanted in (1, 4095, 4096, len(plain) // 2, len(plain) - 1, len(plain)):
        assert opener.beginning(shape, stored, bytes(32), wanted, "segment") == plain[:wanted]
    changed = bytearray(stored)
    changed[-1] ^= 1
    with pytest.raises(errors.IntegrityError):
        opener.beginning(shape, bytes(changed), bytes(32), 1, "segment")


def test_mutants_of_frames_from_which_a_beginning_is_taken(seed: int) -> None:
    """Ten thousand variations of zstd frames yield exactly as many bytes as are wanted, or a FormatError."""
    decompressor = compress.Decompressor()
    yielded = refused = 0
    for data, length in _frames(seed):
        try:
            yielded += len(decompressor.beginning(compress.ZSTD, data, length, 5000, "frame")) == 5000
        except errors.FormatError:
            refused += 1
    assert yielded + refused == 10_000
    assert refused > 1000


def test_mutants(seed: int) -> None:
    """Ten thousand variations of stored segments, with a shape that fits their length, are refused unless unchanged."""
    samples = [_seal(b"U" * 5000), _seal(repos.noise(3, 300))]
    shapes = {len(stored): shape for shape, stored in samples}

    def decode(data: bytes) -> bytes:
        shape = shapes.get(len(data)) or dataclasses.replace(samples[0][0], stored_length=len(data))
        _open(shape, data)
        return data if data in [stored for _, stored in samples] else b"forged"

    decoded, refused = mutate.survey(decode, mutate.mutants(seed, [stored for _, stored in samples], 10_000))
    assert decoded + refused == 10_000
    assert refused > 9000


def _frames(seed: int) -> Iterator[tuple[bytes, int]]:
    frame = compress.Compressor(3).compress(memoryview(repos.text(1, 4096) * 2))[1]
    for data in mutate.mutants(
        seed, [bytes(frame), bytes(compress.Compressor(3).compress(memoryview(bytes(9000)))[1])], 10_000
    ):
        yield data, 8192


def test_mutants_of_frames(seed: int) -> None:
    """Ten thousand variations of zstd frames yield exactly the expected length or a FormatError."""
    decompressor = compress.Decompressor()
    yielded = refused = 0
    for data, length in _frames(seed):
        try:
            yielded += len(decompressor.decompress(compress.ZSTD, data, length, "frame")) == length
        except errors.FormatError:
            refused += 1
    assert yielded + refused == 10_000
    assert refused > 1000


@pytest.mark.parametrize("damage", ["frame", "length", "extra"])
@pytest.mark.parametrize("level", [1, 3, 19])
def test_r23_compressor_that_errs(damage: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that does not decompress to what went in is noticed before it is stored; unverified it is not."""
    real = compress.Compressor.compress

    def erring(self: compress.Compressor, data: memoryview) -> tuple[int, bytes]:
        given = bytes(data)
        changed = {"frame": given[:-1] + b"?", "length": given[:-1], "extra": given + b"?"}[damage]
        codec, frame = real(self, memoryview(changed))
        return codec, bytes(frame)

    sealers = [_sealer(level=level, verify=verify) for verify in (True, False)]
    monkeypatch.setattr(compress.Compressor, "compress", erring)
    plain = bytearray(b"U" * 10_000)
    with pytest.raises(errors.IntegrityError, match="differs from what was sealed") as caught:
        sealers[0].seal(segment.DATA, plain, len(plain), bytes(32))
    assert "faulty" in caught.value.hint
    sealers[1].seal(segment.DATA, plain, len(plain), bytes(32))


def test_r22_memory_that_errs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain bytes that change while they are sealed are noticed before they are stored."""
    plain = bytearray(repos.noise(4, 5000))
    real = compress.Compressor.compress

    def flipping(self: compress.Compressor, data: memoryview) -> tuple[int, bytes | memoryview]:
        result = real(self, memoryview(bytes(data)))
        plain[1234] ^= 1
        return result

    monkeypatch.setattr(compress.Compressor, "compress", flipping)
    with pytest.raises(errors.IntegrityError, match="differs from what was sealed"):
        _sealer().seal(segment.DATA, plain, len(plain), bytes(32))


def test_c12_short_randomness_seals_nothing() -> None:
    """A generator that comes up short stops the sealing of a segment."""
    short = sealing.Sealing(_SEALS.keys, bytes(16), lambda length: bytes(length - 1))
    with pytest.raises(errors.VimgvcError, match="random"):
        short.sealer(level=3, verify=True, capacity=100).seal(segment.DATA, bytearray(10), 10, bytes(32))


def test_c11_stuck_generator_and_other_encodings() -> None:
    """With a stuck generator the same chunks in another encoding have another nonce, in the same one the same bytes."""
    stuck = sealing.Sealing(_SEALS.keys, bytes(16), bytes)
    plain = bytearray(repos.text(5, 50_000))

    def sealed(level: int) -> bytes:
        shape, stored = stuck.sealer(level=level, verify=True, capacity=50_000).seal(1, plain, 50_000, bytes(32))
        assert shape.codec == compress.ZSTD
        return bytes(stored)

    assert sealed(3) == sealed(3)
    assert len({sealed(level)[:12] for level in (1, 3, 9)}) == 3
