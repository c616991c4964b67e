"""Samples of long sweeps."""

from __future__ import annotations

import itertools

import pytest

from tests import depth


@pytest.mark.parametrize("length", [0, 1, 2, 3, 9, 10, 11, 57, 1000])
@pytest.mark.parametrize("count", [3, 4, 10])
def test_a_sample_is_spread(length: int, count: int, seed: int) -> None:
    """A sample has both ends and one of each part between them, in order, none twice; few items are all taken."""
    items = list(range(length))
    found = depth.some(items, count, seed, everything=False)
    assert len(found) == min(length, count)
    assert found == sorted(set(found))
    assert found[:1] + found[-1:] == items[:1] + items[-1:]
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert max(steps, default=0) <= 2 * (length // (count - 2) + 1)
    assert depth.some(items, count, seed, everything=True) == items


def test_another_seed_is_another_sample() -> None:
    """Over many runs every item has its turn."""
    seen = {item for seed in range(200) for item in depth.some(range(40), 8, seed, everything=False)}
    assert seen == set(range(40))
