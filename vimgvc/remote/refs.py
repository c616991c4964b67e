"""What a copy does to branches and tags: decided before anything moves, made when everything is there."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from vimgvc.model import reflog

#: Whether the second commit builds on the first.
Builds = Callable[[str, str], bool]


class State(enum.Enum):
    """What becomes of a name. REJECTED ones stay as they are."""

    NEW = "new"
    MOVED = "moved"
    FORCED = "forced"
    DELETED = "deleted"
    SAME = "up to date"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Change:
    """`name` at the target was at `before` and shall be at `after`; None: it is not there.

    `source` is what leads to it at the other side, empty for a deletion; `reason` says why it was rejected.
    """

    kind: str
    source: str
    name: str
    before: str | None
    after: str | None
    state: State
    reason: str = ""

    @property
    def is_made(self) -> bool:
        """Whether something changes at the target."""
        return self.state not in (State.SAME, State.REJECTED)

    def rejected(self, reason: str) -> Change:
        return replace(self, state=State.REJECTED, reason=reason)


@dataclass(frozen=True, slots=True)
class Wish:
    """Let `name` be where `source` is (`after`), or with None be deleted."""

    kind: str
    source: str
    name: str
    after: str | None
    force: bool = False


#: Reasons.
NOT_THERE = "is not there"
OTHER_KIND = "there is a {} of that name"
TAG_EXISTS = "exists already, elsewhere"
UNKNOWN = "has commits that are not here"
DIVERGED = "has commits that this one lacks"


def decide(wish: Wish, before: str | None, *, other: bool, is_known: Callable[[str], bool], builds: Builds) -> Change:
    """What becomes of a wish when the name is at `before`; `other`: the other kind has a name like that."""
    plain = Change(wish.kind, wish.source, wish.name, before, wish.after, State.SAME)
    if wish.after is None:
        return replace(plain, state=State.DELETED) if before is not None else plain.rejected(NOT_THERE)
    if before == wish.after:
        return plain
    if before is None:
        taken = reflog.TAG if wish.kind == reflog.BRANCH else reflog.BRANCH
        return plain.rejected(OTHER_KIND.format(taken)) if other else replace(plain, state=State.NEW)
    if wish.kind == reflog.BRANCH and builds(before, wish.after):
        return replace(plain, state=State.MOVED)
    if wish.force:
        return replace(plain, state=State.FORCED)
    if wish.kind == reflog.TAG:
        return plain.rejected(TAG_EXISTS)
    return plain.rejected(DIVERGED if is_known(before) else UNKNOWN)


def tips(changes: Iterable[Change], *, unchanged: bool = False) -> list[str]:
    """The commits that have to be at the target before these changes are made; and those of `unchanged` names."""
    wanted = [change for change in changes if change.is_made or (unchanged and change.state is State.SAME)]
    return list(dict.fromkeys(change.after for change in wanted if change.after))
