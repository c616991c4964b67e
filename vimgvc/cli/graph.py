r"""History as lanes of characters, the way git draws it.

    *    a merge: the second parent gets a lane of its own
    |\
    | *  side
    * |  main
    |/   both lanes wait for the same parent: they join
    *    base

A lane is a column waiting for one commit. Lane k is drawn in character 2k; edges use the odd
characters between, so an edge that crosses a lane never hides it. However far an edge goes it
takes at most two rows, so the work is linear in commits times lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Block:
    """What to print for one commit: rows above it, its own row, rows below it, and the row for further lines."""

    above: list[str]
    commit: str
    below: list[str]
    rest: str

    def beside(self, text: Sequence[str], paint: Callable[[str], str] = str) -> list[str]:
        """The rows, coloured by `paint`, with the lines of `text` next to them, the first beside the commit."""
        rows = [self.commit, *self.below]
        beside, more = rows[: len(text)], text[len(rows) :]
        width = max(map(len, [*beside, self.rest] if more else beside), default=0)
        rest, gap = paint(self.rest), " " * (width + 1 - len(self.rest))
        return [
            *map(paint, self.above),
            *[
                f"{paint(row)}{' ' * (width - len(row))} {line}" if line else paint(row)
                for row, line in zip(beside, text, strict=False)
            ],
            *[f"{rest}{gap}{line}" if line else rest for line in more],
            *map(paint, rows[len(text) :]),
        ]


@dataclass(slots=True)
class Graph:
    """Feed it commits, children before parents."""

    _lanes: list[str] = field(default_factory=list)
    _ended: int | None = None

    def add(self, commit: str, parents: Sequence[str]) -> Block:
        above: list[str] = []
        if commit in self._lanes:
            at = self._lanes.index(commit)
        else:
            at = len(self._lanes)
            if at == self._ended:  # directly below a root: without a gap it would look like its parent
                above = [self._row({})]
            self._lanes.append(commit)
        self._ended = None
        row = self._row({2 * at: "*"})
        below = self._descend(at, list(dict.fromkeys(parents)))
        return Block(above, row, below, self._row({}))

    def _descend(self, at: int, parents: list[str]) -> list[str]:
        """Replace the commit in lane `at` by its parents; the rows that show how."""
        if not parents:
            return self._end(at)
        self._lanes[at] = ""
        known = [parent for parent in parents if parent in self._lanes]
        new = [parent for parent in parents if parent not in known]
        rows: list[str] = []
        # What moves right must not turn back in the next row: joins from the right come before edges to
        # the right, and those before new lanes.
        if not new and (right := max(map(self._lanes.index, known))) > at:
            known.remove(self._lanes[right])
            self._lanes[at] = self._lanes[right]
            rows += self._join(right, at)
        elif not new:
            return [*self._edges(at, known[1:]), *self._join(at, self._lanes.index(known[0]))]
        rows += self._edges(at, known)
        if new:
            self._lanes[at] = new[0]
            rows += [self._open(at, parent) for parent in new[1:]]
        return rows

    def _edges(self, at: int, parents: list[str]) -> list[str]:
        return [row for parent in parents for row in self._cross(at, self._lanes.index(parent))]

    def _open(self, at: int, parent: str) -> str:
        """A new lane right of `at`; the lanes beyond make room."""
        marks = {2 * lane + 1: "\\" for lane in range(at, len(self._lanes))}
        row = self._row(marks, until=at + 1)
        self._lanes.insert(at + 1, parent)
        return row

    def _cross(self, at: int, to: int) -> list[str]:
        """An edge from the commit's lane into another; both lanes go on."""
        sign, slash = (1, "\\") if to > at else (-1, "/")
        first, last = 2 * at + sign, 2 * to - sign
        if first == last:
            return [self._row({first: slash})]
        between = range(first + 2 * sign, last, 2 * sign)
        return [self._row({first: slash, **dict.fromkeys(between, "_")}), self._row({last: slash})]

    def _join(self, lane: int, into: int) -> list[str]:
        """Lane `lane` ends in the lane `into` on its left; the lanes beyond move up."""
        marks = {2 * right - 1: "/" for right in range(lane, len(self._lanes))}
        marks |= dict.fromkeys(range(2 * into + 3, 2 * lane - 1, 2), "_")
        rows = [self._row(marks, until=lane)]
        del self._lanes[lane]
        return rows if lane == into + 1 else [*rows, self._row({2 * into + 1: "/"})]

    def _end(self, at: int) -> list[str]:
        """The lane of a root ends; the lanes beyond move up."""
        marks = {2 * right - 1: "/" for right in range(at + 1, len(self._lanes))}
        row = self._row(marks, until=at)
        del self._lanes[at]
        if marks:
            return [row]
        self._ended = at
        return []

    def _row(self, marks: dict[int, str], until: int | None = None) -> str:
        """One row: a bar for each of the lanes (before lane `until`), and `marks` over it."""
        lanes = len(self._lanes) if until is None else until
        bars = "| " * lanes
        if not marks:
            return bars.rstrip()
        chars = list(bars.ljust(max(marks) + 1))
        for position, mark in marks.items():
            chars[position] = mark
        return "".join(chars).rstrip()
