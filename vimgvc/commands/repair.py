"""`vimgvc repair`: mending what damage left, here or in another place, also with what another place has."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vimgvc.commands import connect
from vimgvc.monitor import NullMonitor
from vimgvc.remote import healing
from vimgvc.repo import check, repair, repository

Here = connect.Here
Repaired = repair.Repaired
Healed = healing.Healed


@dataclass(frozen=True, slots=True)
class Wish:
    """`remote`: mend that place, with what is here; `source`: mend with what that place has."""

    data: bool = False
    dry_run: bool = False
    remote: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """`healed` is None where no other place was asked."""

    repaired: Repaired
    healed: Healed | None = None


def run(here: Here, wish: Wish) -> Result:
    """Raises what `Repository.repair` and connecting raise."""
    target = here.repo if wish.remote is None else connect.connect_unkept(here, wish.remote)
    source = _source(here, wish)
    done = target.repair(repair.Options(data=wish.data, dry_run=wish.dry_run), here.monitor)
    if source is None:
        return Result(done)
    problems = (*done.remaining, *done.problems)
    healed = healing.heal(source, target, problems, here.monitor, dry_run=wish.dry_run)
    if wish.dry_run or not healed.size:
        return Result(done, healed)
    left = check.verify(target, check.QUICK, None, NullMonitor()).problems
    return Result(dataclasses.replace(done, remaining=tuple(left)), healed)


def _source(here: Here, wish: Wish) -> repository.Repository | None:
    if wish.source is not None:
        return connect.connect_unkept(here, wish.source)
    return here.repo if wish.remote is not None else None
