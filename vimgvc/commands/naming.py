"""What `vimgvc branch` and `vimgvc tag` have in common: names are listed, made, moved, renamed and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import access
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.repo import names, repository

BRANCH, TAG = reflog.BRANCH, reflog.TAG
Name = names.Name
Change = names.Change


@dataclass(frozen=True, slots=True)
class Place:
    """The names of `kind` in a repository; `host` is where changes are made, `environment` whose user makes them."""

    repo: repository.Repository
    kind: str
    host: str
    environment: Mapping[str, str]
    monitor: Monitor

    def listing(self) -> list[Name]:
        """Those that are there, by name; also broken ones."""
        return names.living(self.repo, self.kind)

    def create(self, name: str, revision: str | None, *, force: bool) -> list[Change]:
        """`revision` None: where the only branch is. Raises `UsageError`, `NotFound`, `RefMoved`."""
        reflog.check_name(name, self.kind)
        commit = self.repo.resolve(self._only_branch(name) if revision is None else revision)
        return self._noted([names.create(self.repo, self.kind, name, commit.id, force=force, host=self.host)])

    def rename(self, old: str, new: str, *, force: bool) -> list[Change]:
        """Raises as `create`."""
        return self._noted(names.rename(self.repo, self.kind, old, new, force=force, host=self.host))

    def delete(self, wanted: Sequence[str]) -> list[Change]:
        """All of them, or none when one is not there. Raises `NotFound`, `RefMoved`."""
        wanted = list(dict.fromkeys(wanted))
        for name in wanted:
            names.taken(self.repo, self.kind, name)
        return self._noted([names.delete(self.repo, self.kind, name, host=self.host) for name in wanted])

    def _noted(self, changes: list[Change]) -> list[Change]:
        access.note_history(self.repo, self.environment, self.monitor)
        return changes

    def _only_branch(self, name: str) -> str:
        branches = list(self.repo.branches())
        if len(branches) != 1:
            raise errors.UsageError(
                f"which commit is {self.kind} '{name}' to name?", hint=f"say it: vimgvc {self.kind} {name} REV"
            )
        return branches[0]
