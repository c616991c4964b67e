"""The history graph: known pictures, and pictures of random histories read back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimgvc.cli import graph

History = Sequence[tuple[str, Sequence[str]]]

_PICTURES: dict[str, tuple[History, str]] = {
    "one line": (
        [("c", ["b"]), ("b", ["a"]), ("a", [])],
        """
        * c
        * b
        * a
        """,
    ),
    "branch and merge": (
        [("m", ["a", "b"]), ("b", ["base"]), ("a", ["base"]), ("base", [])],
        r"""
        * m
        |\
        | * b
        * | a
        |/
        * base
        """,
    ),
    "three tips on one base": (
        [("x", ["r"]), ("y", ["r"]), ("z", ["r"]), ("r", [])],
        """
        * x
        | * y
        |/
        | * z
        |/
        * r
        """,
    ),
    "a far join passes over a lane": (
        [("x", ["r"]), ("w", ["q"]), ("z", ["r"]), ("q", ["r"]), ("r", [])],
        """
        * x
        | * w
        | | * z
        | |/
        |/|
        | * q
        |/
        * r
        """,
    ),
    "a very far join takes two rows": (
        [("a", ["r"]), ("b", ["s"]), ("c", ["t"]), ("d", ["u"]), ("e", ["r"])],
        """
        * a
        | * b
        | | * c
        | | | * d
        | | | | * e
        | |_|_|/
        |/| | |
        """,
    ),
    "a merge into a lane on the right": (
        [("x", ["p"]), ("y", ["q"]), ("z", ["s"]), ("p", ["o", "s"])],
        r"""
        * x
        | * y
        | | * z
        * | | p
        |\| |
        | |\|
        """,
    ),
    "three parents": (
        [("m", ["a", "b", "c"]), ("c", ["z"]), ("b", ["z"]), ("a", ["z"]), ("z", [])],
        r"""
        * m
        |\
        |\ \
        | * | c
        | | * b
        | |/
        * | a
        |/
        * z
        """,
    ),
    "histories that never meet": (
        [("b2", ["b1"]), ("a2", ["a1"]), ("b1", []), ("a1", [])],
        """
        * b2
        | * a2
        * | b1
         /
        * a1
        """,
    ),
    "a root is not taken for a child of the next tip": (
        [("b", []), ("a2", ["a1"]), ("a1", [])],
        """
        * b

        * a2
        * a1
        """,
    ),
    "both parents are the same": (
        [("m", ["a", "a"]), ("a", [])],
        """
        * m
        * a
        """,
    ),
}


def _draw(history: History) -> list[str]:
    lanes = graph.Graph()
    return [row for commit, parents in history for row in lanes.add(commit, parents).beside([commit])]


@pytest.mark.parametrize(("history", "picture"), _PICTURES.values(), ids=_PICTURES)
def test_pictures(history: History, picture: str) -> None:
    """A history looks as it is drawn here."""
    assert _draw(history) == inspect.cleandoc(picture).splitlines()


def test_text_beside_is_aligned_and_lanes_go_on_below() -> None:
    """The lines of a commit start in one column; when they outnumber the rows, the lanes are continued."""
    lanes = graph.Graph()
    rows = lanes.add("m", ["a", "b"]).beside(["one", "two", "three"])
    assert rows == ["*   one", r"|\  two", "| | three"]
    assert lanes.add("b", ["a"]).beside(["x"], paint=lambda row: f"<{row}>") == ["<| *> x", "<|/>"]


_CELLS = {"\\": 1, "/": -1}


def _reach(rows: Sequence[str], row: int, column: int) -> Iterator[tuple[int, int]]:
    """Where the lines that leave the commit at (row, column) downwards end, read from the picture alone."""

    def cell(at: int, position: int) -> str:
        return rows[at][position : position + 1] if at < len(rows) and position >= 0 else ""

    todo, seen = [(row, column, 0)], set()
    while todo:
        at, position, lean = todo.pop()
        if (at, position, lean) in seen:
            continue
        seen.add((at, position, lean))
        if lean:
            if cell(at, position + 2 * lean) == "_":
                todo.append((at, position + 2 * lean, lean))
            if cell(at + 1, position + 2 * lean) == "\\/"[lean < 0]:
                todo.append((at + 1, position + 2 * lean, lean))
            if cell(at, position) == "_":
                continue
            landing = position + lean
        else:
            todo += [
                (at + 1, position + way, way) for sign, way in _CELLS.items() if cell(at + 1, position + way) == sign
            ]
            landing = position
        if cell(at + 1, landing) == "*":
            yield at + 1, landing
        elif cell(at + 1, landing) == "|":
            todo.append((at + 1, landing, 0))


@st.composite
def _histories(draw: st.DrawFn) -> dict[str, list[str]]:
    """Up to 14 commits, children first, each with up to three later ones as parents."""
    count = draw(st.integers(1, 14))
    names = [f"c{number}" for number in range(count)]
    return {
        name: draw(st.lists(st.sampled_from(names[at + 1 :]), unique=True, max_size=3)) if at + 1 < count else []
        for at, name in enumerate(names)
    }


@given(_histories())
def test_every_parent_is_reached(history: Mapping[str, Sequence[str]]) -> None:
    """Following the lines down from a commit leads to each of its parents, in any history."""
    lanes = graph.Graph()
    rows: list[str] = []
    stars: dict[str, tuple[int, int]] = {}
    for commit, parents in history.items():
        block = lanes.add(commit, parents)
        rows += block.above
        stars[commit] = (len(rows), block.commit.index("*"))
        rows += [block.commit, *block.below]
        assert block.commit.count("*") == 1
        assert len(block.above) + len(block.below) <= 2 * len(parents) + 2
    for commit, parents in history.items():
        assert {stars[parent] for parent in parents} <= set(_reach(rows, *stars[commit])), "\n".join(rows)


@given(_histories())
def test_lanes_end_with_the_history(history: Mapping[str, Sequence[str]]) -> None:
    """When everything was drawn, nothing waits; at no time are there more lanes than commits to come."""
    lanes = graph.Graph()
    waiting = []
    for at, (commit, parents) in enumerate(history.items()):
        waiting.append(lanes.add(commit, parents).rest)
        assert waiting[-1].count("|") <= len(history) - at - 1
    assert waiting[-1] == ""


def test_long_histories_cost_the_same_for_each_commit() -> None:
    """Ten thousand commits with merges: never more lanes than branches, a bounded number of rows each."""
    lanes = graph.Graph()
    rows = 0
    for number in range(10_000):
        parents = [f"c{number + 1}", f"c{number + 7}"] if number % 5 == 0 else [f"c{number + 1}"]
        block = lanes.add(f"c{number}", parents)
        rows += 1 + len(block.above) + len(block.below)
        assert len(block.commit) < 16
    assert rows < 30_000
