"""The extent algebra against a model that writes down the kind of every byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimgvc.disk import extents

_RANK = [None, extents.Kind.HOLE, extents.Kind.ZERO, extents.Kind.DATA]

#: (gap before, length, kind) of each extent: ascending and without overlap by construction.
_Steps = list[tuple[int, int, extents.Kind]]
_STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9), st.sampled_from(extents.Kind)), max_size=12)


def _build(steps: _Steps) -> list[extents.Extent]:
    items, position = [], 0
    for gap, length, kind in steps:
        items.append(extents.Extent(position + gap, length, kind))
        position += gap + length
    return items


def _kinds(items: list[extents.Extent], size: int) -> list[extents.Kind | None]:
    """The kind of every byte; None in gaps. Fails on overlap or disorder."""
    kinds: list[extents.Kind | None] = [None] * size
    position = 0
    for item in items:
        assert item.length > 0
        assert item.start >= position
        kinds[item.start : item.end] = [item.kind] * item.length
        position = item.end
    assert len(kinds) == size
    return kinds


def _is_merged(items: list[extents.Extent]) -> bool:
    return all(a.end < b.start or a.kind is not b.kind for a, b in itertools.pairwise(items))


@given(_STEPS)
def test_merge_keeps_every_byte_and_joins_all_it_can(steps: _Steps) -> None:
    """After merge every byte has the kind it had, and no two neighbours could be joined."""
    items = _build(steps)
    size = items[-1].end if items else 0
    merged = list(extents.merge(items))
    assert _kinds(merged, size) == _kinds(items, size)
    assert _is_merged(merged)


@given(_STEPS, st.integers(0, 150), st.integers(0, 150))
def test_clip_is_the_slice(steps: _Steps, offset: int, length: int) -> None:
    """Inside the range every byte keeps its kind; outside nothing is left."""
    items = _build(steps)
    expected = [
        kind if offset <= position < offset + length else None for position, kind in enumerate(_kinds(items, 320))
    ]
    assert _kinds(list(extents.clip(items, offset, length)), 320) == expected


@given(_STEPS, st.integers(0, 150), st.integers(0, 150), st.sampled_from(extents.Kind))
def test_cover_fills_gaps_and_nothing_else(steps: _Steps, offset: int, length: int, kind: extents.Kind) -> None:
    """The result covers exactly the range, merged; what was a gap has the given kind."""
    items = _build(steps)
    covered = list(extents.cover(items, offset, length, kind))
    expected = [was or kind for was in _kinds(items, 320)[offset : offset + length]]
    assert _kinds(covered, 320)[offset : offset + length] == expected
    assert sum(item.length for item in covered) == length
    assert _is_merged(covered)


@given(_STEPS, st.integers(1, 16), st.integers(0, 20))
def test_align_gives_each_cell_its_highest_kind(steps: _Steps, grid: int, spare: int) -> None:
    """Each cell of the grid is DATA if any byte of it is, else ZERO if any is; untouched cells stay gaps."""
    items = _build(steps)
    size = (items[-1].end if items else 0) + spare
    aligned = list(extents.align(items, grid, size))
    expected: list[extents.Kind | None] = []
    kinds = _kinds(items, size)
    for start in range(0, size, grid):
        cell = kinds[start : start + grid]
        expected += [max(cell, key=_RANK.index)] * len(cell)
    assert _kinds(aligned, size) == expected
    assert _is_merged(aligned)


def test_all_functions_are_lazy() -> None:
    """An endless disk can be looked at: no function collects its input."""
    endless = (extents.Extent(n * 8, 4, extents.Kind.DATA if n % 2 else extents.Kind.ZERO) for n in itertools.count())
    aligned = extents.align(extents.merge(endless), 4, 1 << 60)
    first = list(itertools.islice(aligned, 2))
    assert first == [extents.Extent(0, 4, extents.Kind.ZERO), extents.Extent(8, 4, extents.Kind.DATA)]
    assert list(extents.cover(aligned, 24, 8, extents.Kind.HOLE)) == [
        extents.Extent(24, 4, extents.Kind.DATA),
        extents.Extent(28, 4, extents.Kind.HOLE),
    ]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, 11), (10, 1), (11, 0), (1 << 64, 1)])
def test_check_range_refuses_what_lies_outside(offset: int, length: int) -> None:
    """Any byte outside the disk, and any negative number, is a ValueError."""
    with pytest.raises(ValueError, match="outside a disk of 10 bytes"):
        extents.check_range(10, offset, length)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (10, 0), (0, 10), (9, 1)])
def test_check_range_accepts_the_edges(offset: int, length: int) -> None:
    """The whole disk, its last byte, and nothing at its end are inside."""
    extents.check_range(10, offset, length)
