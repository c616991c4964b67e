"""Samples of long sweeps."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys

import pytest

from tests import depth

ROOT = pathlib.Path(__file__).parents[2]


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


def test_a_run_has_one_sample() -> None:
    """Every process of a run chooses the same parameters, and another run others."""
    again = [sys.executable, "-c", "from tests import depth; print(depth.of_run(range(1000), 10))"]
    found: dict[str, set[str]] = {}
    for run in ("1", "1", "2"):
        environ = {**os.environ, "VIMGVC_TEST_SEED": run}
        found.setdefault(run, set()).add(subprocess.check_output(again, cwd=ROOT, env=environ, text=True))
    assert {run: len(samples) for run, samples in found.items()} == {"1": 1, "2": 1}
    assert found["1"] != found["2"]
