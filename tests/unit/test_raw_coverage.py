"""Which blocks were written, against a plain set of numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vimgvc.images import coverage

_Adds = list[tuple[int, int]]
_ADDS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2500)), max_size=10)


def _filled(adds: _Adds) -> tuple[coverage.Coverage, set[int]]:
    blocks, model = coverage.Coverage(), set[int]()
    for first, count in adds:
        blocks.add(first, first + count)
        model.update(range(first, first + count))
    return blocks, model


@given(_ADDS, st.integers(0, 6000))
def test_gaps_are_what_was_not_added(adds: _Adds, end: int) -> None:
    """Gaps list exactly the missing blocks below the end, in order and joined."""
    blocks, model = _filled(adds)
    gaps = list(blocks.gaps(end))
    assert [block for first, stop in gaps for block in range(first, stop)] == sorted(set(range(end)) - model)
    assert all(first < stop for first, stop in gaps)
    assert all(stop < first for (_, stop), (first, _) in itertools.pairwise(gaps))


@given(_ADDS, st.integers(0, 6000), st.integers(0, 3000))
def test_runs_are_what_was_added(adds: _Adds, first: int, count: int) -> None:
    """Runs list exactly the added blocks inside the range, in order; `has` says the same of each."""
    blocks, model = _filled(adds)
    wanted = range(first, first + count)
    found = [block for start, stop in blocks.runs(first, first + count) for block in range(start, stop)]
    assert found == [block for block in wanted if block in model]
    assert found == [block for block in wanted if blocks.has(block)]


def test_full_groups_share_one_mask() -> None:
    """A disk that was written everywhere needs one mask object, not one per group."""
    blocks = coverage.Coverage()
    for start in range(0, 1 << 20, 1 << 9):
        blocks.add(start, start + (1 << 9))
    assert len({id(mask) for mask in blocks._masks.values()}) == 1
