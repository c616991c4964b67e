"""How much of a long sweep a run does: a sample that its seed chooses, or everything with `tools/test --all`.

    for position in depth.some(range(len(blob)), 40, seed):
    @pytest.mark.parametrize("size", depth.of_run(SIZES, 10))

Both are the same test. What a sample would say nothing about is marked as deep: it runs with `--all` only.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

T = TypeVar("T")

#: Read before a test's own environment is made.
ALL = os.environ.get("VIMGVC_TESTS") == "all"
#: The seed of the run.
SEED = int(os.environ.get("VIMGVC_TEST_SEED") or secrets.randbits(32))


def some(items: Iterable[T], count: int, seed: int, *, everything: bool = ALL) -> list[T]:
    """All of the items, or `count` of them (3 at least) in order: the first, the last, and one of each part between."""
    found = list(items)
    if everything or len(found) <= count:
        return found
    inner = found[1:-1]
    parts = [len(inner) * part // (count - 2) for part in range(count - 1)]
    rng = np.random.default_rng(seed)
    chosen = [inner[int(rng.integers(start, end))] for start, end in itertools.pairwise(parts)]
    return [found[0], *chosen, found[-1]]


def of_run(items: Iterable[T], count: int) -> list[T]:
    """The sample for what is chosen before a test has a seed: parameters, and what tests of a module share."""
    return some(items, count, SEED)
