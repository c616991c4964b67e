"""`vimgvc stats`: what a repository holds and what it saves."""

from __future__ import annotations

from vimgvc.monitor import Monitor
from vimgvc.repo import repository, statistics

Result = statistics.Statistics


def run(repo: repository.Repository, monitor: Monitor) -> Result:
    """Raises what reading raises."""
    return repo.stats(monitor)
