"""`vimgvc admit`: what holders of write keys have delivered becomes commits."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc.commands import connect
from vimgvc.remote import admission

Outcome = admission.Outcome
ADMITTED, REFUSED, UNFINISHED = admission.ADMITTED, admission.REFUSED, admission.UNFINISHED


@dataclass(frozen=True, slots=True)
class Discarded:
    id: str
    size: int


def run(here: connect.Here, *, dry_run: bool) -> list[Outcome]:
    """What became of each delivery that waits. Raises what reading and recording raises, but not for a bad delivery."""
    done = admission.admit(here.repo, host=here.host, dry_run=dry_run, monitor=here.monitor)
    if any(item.state == ADMITTED for item in done):
        connect.note_here(here)
    return done


def discard(here: connect.Here, prefix: str) -> Discarded:
    """Raises `NotFound`, `UsageError`."""
    gone = admission.discard(here.repo, prefix, host=here.host)
    return Discarded(gone.id, gone.size)
