"""What holds of every place whose bytes are charged to a rate."""

from __future__ import annotations

import contextlib
from concurrent import futures

import numpy as np

from tests.suites import backend
from vimgvc.backends import protocol, rates


def limits() -> rates.Limits:
    """A rate for each direction that a test does not wait long for."""
    return rates.Limits(rates.Limit(8 << 20), rates.Limit(8 << 20))


def check_every_byte_is_charged(place: protocol.Backend, limits: rates.Limits, seed: int) -> None:
    """Blobs that many threads put and get are what they were, and `limits`, which are those of `place`, tell of all."""
    rng = np.random.default_rng(seed)
    blobs = {backend.pack(number): rng.bytes(int(rng.integers(1, 600_000))) for number in range(8)}
    total = sum(len(blob) for blob in blobs.values())
    with contextlib.closing(place), futures.ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda name: place.put(name, [blobs[name][:5], blobs[name][5:]]), blobs))
        assert limits.up.charged == total
        before = limits.down.charged
        assert dict(zip(blobs, threads.map(place.get, blobs), strict=True)) == blobs
        assert limits.down.charged == before + total
        name, blob = next(iter(blobs.items()))
        assert place.get(name, 1, len(blob) - 1) == blob[1:]
        assert limits.down.charged == before + total + len(blob) - 1
