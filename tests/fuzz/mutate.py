"""Inputs made from others by chance: what the replay tries where no fuzzer is at hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

#: Values that break sums, products and signs.
_ODD = [0, 1, 7, 0x7F, 0x80, 0xFF, 511, 513, 0x7FFF, 0xFFFF, 1 << 31, (1 << 31) - 1, (1 << 32) - 1]
_WIDE = [*_ODD, 1 << 40, 1 << 56, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 512, (1 << 64) - 1]
_FORMS = [
    (">B", 0xFF),
    (">H", 0xFFFF),
    (">I", (1 << 32) - 1),
    ("<I", (1 << 32) - 1),
    (">Q", _WIDE[-1]),
    ("<Q", _WIDE[-1]),
]


def mutants(seeds: Sequence[bytes], count: int, rng: np.random.Generator, *, patches: bool) -> Iterator[bytes]:
    """`count` inputs; with `patches` in the form of `inputs.patched`, else changed bytes."""
    for _ in range(count):
        seed = seeds[int(rng.integers(len(seeds)))]
        if patches:
            yield seed[:1] + b"".join(_patch(rng) for _ in range(int(rng.integers(1, 5))))
        else:
            yield _changed(bytearray(seed), rng)


def _number(rng: np.random.Generator) -> bytes:
    form, mask = _FORMS[int(rng.integers(len(_FORMS)))]
    return struct.pack(form, _WIDE[int(rng.integers(len(_WIDE)))] & mask)


def _patch(rng: np.random.Generator) -> bytes:
    # Most fields of formats lie in the first sectors, on a grid of two bytes, or at the end.
    reach = int(rng.choice([128, 1024, 8192, 1 << 20, 1 << 22]))
    place = int(rng.integers(reach)) & ~1 | (int(rng.random() < 0.1) << 31)
    part = rng.bytes(int(rng.integers(1, 9))) if rng.random() < 0.3 else _number(rng)
    return struct.pack("<IB", place, len(part)) + part


def _changed(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data) + 1))
        match int(rng.integers(5)):
            case 0:
                data[at : at + 1] = rng.bytes(1)
            case 1:
                number = _number(rng)
                data[at : at + len(number)] = number
            case 2:
                del data[at : at + int(rng.integers(1, 64))]
            case 3:
                data[at:at] = data[: int(rng.integers(1, 200))]
            case _:
                del data[at:]
    return bytes(data)
