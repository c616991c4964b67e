"""The instruments of tools/bench: a comparison that cannot see a difference would vouch for anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from benchlib import results, rewind, session, sparse, timeline, tools

MIB = 1 << 20


def sparse_file(path: Path, size: int, pieces: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in pieces.items():
            os.pwrite(file.fileno(), piece, offset)
    return path


def test_same_takes_a_hole_for_zeros(tmp_path: Path) -> None:
    """Files with the same bytes are the same, whichever of them has holes."""
    left = sparse_file(tmp_path / "left", 8 * MIB, {5 * MIB: b"data" * 1024})
    right = sparse_file(tmp_path / "right", 8 * MIB, {MIB: bytes(4096), 5 * MIB: b"data" * 1024})
    assert sparse.same(left, right)
    assert sparse.same(right, left)


@pytest.mark.parametrize("offset", [0, 3 * MIB + 17, 5 * MIB, 8 * MIB - 1])
def test_same_sees_one_byte_in_either_file(tmp_path: Path, offset: int) -> None:
    """One byte that differs is seen, in data and in a hole of the other."""
    pieces = {5 * MIB: b"data" * 1024}
    left = sparse_file(tmp_path / "left", 8 * MIB, pieces)
    right = sparse_file(tmp_path / "right", 8 * MIB, pieces | {offset: b"\x01"})
    assert not sparse.same(left, right)
    assert not sparse.same(right, left)


def test_same_sees_another_size(tmp_path: Path) -> None:
    """Two files of holes differ by their size."""
    assert not sparse.same(sparse_file(tmp_path / "a", MIB, {}), sparse_file(tmp_path / "b", MIB + 1, {}))


def test_changed_bytes_counts_blocks(tmp_path: Path) -> None:
    """Two bytes in one block and one in another are two blocks of 4 KiB."""
    before = sparse_file(tmp_path / "before", 4 * MIB, {0: b"x" * 8192})
    after = sparse_file(tmp_path / "after", 4 * MIB, {0: b"x" * 8192, 1: b"y", 99: b"y", 2 * MIB + 5: b"y"})
    assert sparse.changed_bytes(before, after) == 8192


def test_no_tool_is_always_first(tmp_path: Path) -> None:
    """In as many repetitions as there are tools, and half of them backwards, the first one changes."""
    everyone = [tools.Limit(tmp_path) for _ in range(3)]
    orders = [session.in_turn(everyone, repetition) for repetition in range(6)]
    assert all(sorted(map(id, order)) == sorted(map(id, everyone)) for order in orders)
    assert {id(order[0]) for order in orders} == set(map(id, everyone))


def taken(measure: str, tool: str, *seconds: float) -> list[results.Record]:
    return [results.Record(measure, tool, at, value, 0, 7 * MIB) for at, value in enumerate(seconds)]


def test_targets_compare_medians() -> None:
    """A target takes the median of each tool, and one that was not measured has no value."""
    measured = results.Results(taken("first commit", "vimgvc", 9, 1, 2) + taken("first commit", "restic", 13, 30, 1))
    values = {target.text: target.value(measured) for target in results.TARGETS}
    assert values["first commit: faster than restic"] == 6.5
    assert values["first commit: faster than borg"] is None
    assert values["peak memory"] == 7


def test_a_target_says_whether_it_is_met() -> None:
    """At least the bound for what should be great, at most for what should be small."""
    faster, memory = results.TARGETS[0], next(target for target in results.TARGETS if target.text == "peak memory")
    assert [faster.met(value) for value in (5.99, 6.0, 6.01)] == [False, True, True]
    assert [memory.met(value) for value in (299.0, 300.0, 301.0)] == [True, True, False]


def test_targets_of_histories() -> None:
    """Going back is compared with the right run of the right tool; what was not measured has no value."""
    measured = results.Results(
        taken(rewind.FULL, "vimgvc", 30, 40, 50)
        + taken(rewind.KNOWN, "vimgvc", 2)
        + taken(rewind.COMPARE, "vimgvc", 4, 5)
        + taken(rewind.COMPARE, "restic", 90, 9, 1)
        + taken(rewind.EQUAL, "limit", 1)
    )
    measured.numbers = {"disk bytes": 9e9, "gc by fresh": 1.05}
    values = {target.text: target.value(measured) for target in timeline.TARGETS}
    assert values["in place, known base, 1 % in runs: faster than a full restore"] == 20
    assert values["in place, known base, 1 % in pages: faster than a full restore"] is None
    assert values["in place, compared"] == 2
    assert values["in place, compared: faster than restic"] == 2
    assert values["gc: stored by a fresh repository"] == 1.05
    assert values["gc: memory"] is None
