"""The remotes of a user as places to read data from that is not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.monitor import Monitor
from vimgvc.repo import remotes, repository


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """`repo.elsewhere.Elsewhere`; connects when it is asked to, and once."""

    repo: repository.Repository
    environment: Mapping[str, str]
    monitor: Monitor
    _open: dict[str, repository.Repository] = field(default_factory=dict)

    def names(self, promised: Sequence[str]) -> list[str]:
        """Any place of the repository serves: what comes from it is checked by identifiers that this user knows."""
        known = remotes.Remotes.of_user(self.environment, self.repo.id).names()
        return sorted(known, key=lambda name: (promised.index(name) if name in promised else len(promised), name))

    def open(self, name: str) -> repository.Repository:
        if name not in self._open:
            from vimgvc.backends import joined
            from vimgvc.commands import connect

            here = connect.Here(self.repo, self.environment, "", self.monitor)
            try:
                self._open[name] = connect.connect(here, name).repo
            except (errors.BackendError, errors.NoRepository) as error:
                raise joined.unreachable(name, error) from error
        return self._open[name]
