"""Bytes that are nearly what a decoder expects."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from vimgvc import errors

#: What a decoder of bytes from outside may raise.
REFUSALS = (errors.IntegrityError, errors.Unsupported)
_EDGES = [0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]


def mutants(seed: int, samples: list[bytes], count: int) -> Iterator[bytes]:
    """`count` variations of `samples`: bits, bytes, fields of four bytes, cuts, repetitions, mixtures; and noise."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(samples[number % len(samples)])
        for _ in range(int(rng.integers(1, 4))):
            _change(data, rng, samples)
        yield bytes(data)


def _change(data: bytearray, rng: np.random.Generator, samples: list[bytes]) -> None:
    at, end = sorted(int(rng.integers(len(data) + 1)) for _ in range(2))
    match int(rng.integers(8)):
        case 0 if data:
            data[at % len(data)] ^= 1 << int(rng.integers(8))
        case 1 if data:
            data[at % len(data)] = _EDGES[int(rng.integers(len(_EDGES)))]
        case 2:
            data[at : at + 4] = int(rng.choice([0, 1, 2**16, 2**31, 2**32 - 1])).to_bytes(4, "little")
        case 3:
            del data[at:]
        case 4:
            del data[at:end]
        case 5:
            data[at:at] = data[at:end]
        case 6:
            other = samples[int(rng.integers(len(samples)))]
            data[at:] = other[at:]
        case _:
            data[at:end] = rng.bytes(min(end - at, 8))


def survey(decode: Callable[[bytes], bytes], inputs: Iterator[bytes]) -> tuple[int, int]:
    """How many inputs were decoded and how many refused.

    What is decoded must encode to the same bytes again, what is not must raise one of REFUSALS:
    anything else is an error of this function's caller's test.
    """
    decoded = refused = 0
    for data in inputs:
        try:
            again = decode(data)
        except REFUSALS:
            refused += 1
        else:
            assert again == data, data.hex()
            decoded += 1
    return decoded, refused


def peak(call: Callable[[], object]) -> int:
    """The most bytes that Python allocated at once during `call`, which must be refused."""
    tracemalloc.start()
    try:
        call()
    except REFUSALS:
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    raise AssertionError("this was not refused")
