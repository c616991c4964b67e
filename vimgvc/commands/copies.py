"""The words of push, fetch and pull that the command line shows."""

from __future__ import annotations

from vimgvc.remote import copying, refs
from vimgvc.repo import remotes

Result = copying.Result
Change = refs.Change
State = refs.State
Remote = remotes.Remote
