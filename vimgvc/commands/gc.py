"""`vimgvc gc`: removing what no commit needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.monitor import Monitor
from vimgvc.repo import collect, repository

Result = collect.Collected
_PIN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Expire:
    """Pins to remove first: these, and with `old` all that are older than a day."""

    pins: tuple[str, ...] = ()
    old: bool = False


def run(
    repo: repository.Repository,
    *,
    max_unused: float,
    dry_run: bool,
    force: bool,
    threads: int | None,
    host: str,
    monitor: Monitor,
    take_over: bool = False,
    close: Sequence[int] = (),
    expire: Expire = Expire(),
) -> Result:
    """`max_unused` in percent. Raises `UsageError`, and what `Repository.collect` raises."""
    if not 0 <= max_unused <= 100:
        raise errors.UsageError(f"not a share: {max_unused:g} %", hint="give --max-unused from 0 to 100")
    for pin in expire.pins:
        if not _PIN.fullmatch(pin):
            raise errors.UsageError(f"not a pin: {pin}", hint="'vimgvc gc --dry-run --json' lists pins")
    if dry_run and (expire.pins or expire.old or take_over or close):
        raise errors.UsageError("a dry run removes no pin and takes nothing over", hint="leave out one of them")
    options = collect.Options(
        max_unused=max_unused / 100,
        dry_run=dry_run,
        force=force,
        host=host,
        threads=threads,
        take_over=take_over,
        close=frozenset(close),
        expire=frozenset(expire.pins),
        expire_old=expire.old,
    )
    return repo.collect(options, monitor)
