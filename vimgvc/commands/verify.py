"""`vimgvc verify`: whether everything that was committed can be restored."""

from __future__ import annotations

from vimgvc.monitor import Monitor
from vimgvc.repo import check, repository

Result = check.VerifyResult


def run(repo: repository.Repository, level: str, subset: tuple[int, int] | None, monitor: Monitor) -> Result:
    """`level` is `quick`, `default` or `data`; `subset` (n, t) takes the n-th of t parts of the packs."""
    return repo.verify(level, subset, monitor)
