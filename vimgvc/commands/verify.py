"""`vimgvc verify`: whether everything that was committed can be restored, here or from another place."""

from __future__ import annotations

from vimgvc.commands import connect
from vimgvc.repo import check

Here = connect.Here
Problem = check.Problem
Result = check.VerifyResult
Absent = check.Absent


def run(here: Here, remote: str | None, level: str, subset: tuple[int, int] | None) -> Result:
    """`level` is `quick`, `default` or `data`; `subset` (n, t) takes the n-th of t parts of the packs.

    `remote`: a remote, directory or URL instead of the repository at hand. Raises what connecting raises.
    """
    repo = here.repo if remote is None else connect.connect_unkept(here, remote)
    return repo.verify(level, subset, here.monitor)
