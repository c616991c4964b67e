"""Which commits one side has and the other lacks, read as far as it takes to know that."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.model import commit as commits

Load = Callable[[str], commits.Commit]

_WANTED, _THERE = 1, 2
# Turns the order of times round, which differ in nothing but digits.
_REVERSED = str.maketrans("0123456789", "9876543210")


class Missing(errors.IntegrityError):
    """`commit` is not there, so what builds on it cannot be copied whole."""

    def __init__(self, commit: str) -> None:
        super().__init__(f"commit {commit[:12]}", "is missing, so what builds on it cannot be copied whole")
        self.commit = commit


@dataclass(slots=True)
class Painting:
    """What was reached from where; of what both reach no more is read than has to be."""

    load: Load
    colours: dict[str, int] = field(default_factory=dict)
    read: dict[str, commits.Commit] = field(default_factory=dict)

    def is_there(self, commit_id: str) -> bool:
        """Whether the other side is known to reach it. False of what was not read for this."""
        return bool(self.colours.get(commit_id, 0) & _THERE)

    def is_wanted(self, commit_id: str) -> bool:
        """Whether a wanted commit leads to it, or is it."""
        return bool(self.colours.get(commit_id, 0) & _WANTED)

    def missing(self) -> list[commits.Commit]:
        """The wanted ones that the other side does not reach, parents before children."""
        chosen = {item for item, colour in self.colours.items() if colour == _WANTED}
        return [self.read[item] for item in _parents_first(sorted(chosen), self.read) if item in chosen]


def only(wanted: Sequence[commits.Commit]) -> Painting:
    """Just these, none of which is there, whatever they build on."""
    read = {item.id: item for item in wanted}
    return Painting(read.__getitem__, dict.fromkeys(read, _WANTED), read)


def paint(load: Load, wanted: Iterable[str], there: Iterable[str]) -> Painting:
    """Follow parents from both sides, the newest first, until everything wanted is known to be there or not.

    `there` commits that cannot be read count as leading nowhere: then more counts as missing than is. Wrong clocks do
    the same. Raises `NotFound` for a wanted commit that is not there, `IntegrityError` for a damaged or lost one
    behind it.
    """
    done = Painting(load)
    heap: list[tuple[str, str]] = []
    open_: set[str] = set()  # wanted ones in the heap that are not known to be there

    def add(commit_id: str, colour: int) -> None:
        before = done.colours.get(commit_id, 0)
        if before | colour == before:
            return
        if commit_id not in done.read:
            done.read[commit_id] = load(commit_id)
        done.colours[commit_id] = before | colour
        heapq.heappush(heap, (done.read[commit_id].time.translate(_REVERSED), commit_id))
        if done.colours[commit_id] == _WANTED:
            open_.add(commit_id)
        else:
            open_.discard(commit_id)

    for tip in dict.fromkeys(wanted):
        add(tip, _WANTED)
    for tip in dict.fromkeys(there):
        _try(add, tip, _THERE)
    while open_:
        _, commit_id = heapq.heappop(heap)
        open_.discard(commit_id)
        colour = done.colours[commit_id]
        for parent in done.read[commit_id].parents:
            if colour == _THERE:
                _try(add, parent, colour)
            else:
                _must(add, parent, colour)
    return done


def is_ancestor(load: Load, old: str, new: str) -> bool:
    """Whether `new` builds on `old`, or is it; False when `old` cannot be read here."""
    return old == new or paint(load, [new], [old]).is_wanted(old)


def _try(add: Callable[[str, int], None], commit_id: str, colour: int) -> None:
    try:
        add(commit_id, colour)
    except (errors.NotFound, errors.IntegrityError, errors.Unsupported):
        return  # a gap, or another's work that this side has not fetched


def _must(add: Callable[[str, int], None], commit_id: str, colour: int) -> None:
    try:
        add(commit_id, colour)
    except errors.NotFound as error:
        raise Missing(commit_id) from error


def _parents_first(ids: Sequence[str], read: dict[str, commits.Commit]) -> list[str]:
    ordered: list[str] = []
    seen: set[str] = set()
    for start in ids:
        todo = [(start, False)]
        while todo:
            commit_id, expanded = todo.pop()
            if expanded:
                ordered.append(commit_id)
            elif commit_id not in seen and commit_id in read:
                seen.add(commit_id)
                todo.append((commit_id, True))
                todo += [(parent, False) for parent in reversed(read[commit_id].parents)]
    return ordered
