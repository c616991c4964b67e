"""Reading a disk of which only metadata is here: what is missing comes from a remote (specs/remote.md §8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from vimgvc import errors
from vimgvc.backends import joined
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.pipeline import materialize, tree
from vimgvc.repo import promises
from vimgvc.store import catalog, objects

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

_UNREADABLE = (errors.BackendError, errors.IntegrityError, errors.NotFound, errors.Rollback, errors.Unsupported)


class Elsewhere(Protocol):
    """The other places that a user has of a repository."""

    def names(self, promised: Sequence[str]) -> list[str]:
        """The remotes to try, in order; those that data is `promised` in come first."""

    def open(self, name: str) -> Repository:
        """A remote of `names`; raises `RemoteError`, `Rollback`."""


def store(repo: Repository, facts: commits.Stored, monitor: Monitor, *, survive: bool) -> objects.Objects:
    """What a disk or attachment can be read from: this place, or it and a remote together.

    Raises `RemoteError`, `IntegrityError` when parts of it are in neither, `NotFound` when the remote is not known;
    with `survive` that is told, and what there is has to do.
    """
    here = repo.objects(monitor)
    found = promises.Promises(repo.backend, repo.seals)
    if repo.elsewhere is None or not found.ids() or not _missing(here, facts, at_once=True):
        return here
    promised = found.remotes()
    failures: list[errors.VimgvcError] = []
    best = here
    for name in repo.elsewhere.names(promised):
        try:
            both = _both(repo, name, monitor)
            missing = _missing(both, facts)
        except _UNREADABLE as error:
            failures.append(error)
            continue
        if not missing:
            return both
        best = both
        failures.append(
            errors.IntegrityError(
                facts.name,
                f"{missing:,} bytes of it are neither here nor in remote '{name}'",
                hint=f"'vimgvc verify --remote {name}' tells what is damaged there",
            )
        )
    failure = failures[0] if failures else _unknown(promised)
    if not survive:
        raise failure
    monitor.problem(failure.message)
    return best


def _both(repo: Repository, name: str, monitor: Monitor) -> objects.Objects:
    assert repo.elsewhere is not None
    far = repo.elsewhere.open(name)
    backend = joined.Joined(repo.backend, far.backend, name)
    cache = far.cache / "joined" if far.cache else None
    index = catalog.open_catalog(backend, repo.seals, cache, monitor).index
    return objects.Objects(backend, repo.seals, index)


def _missing(found: objects.Objects, facts: commits.Stored, *, at_once: bool = False) -> int:
    """How many bytes of a disk the index does not know; `at_once`: only whether there are any.

    Where the tree cannot be read everything counts.
    """
    missing = 0
    try:
        source = tree.Tree(found, bytes.fromhex(facts.manifest))
        for span in materialize.references(source, 1 if at_once else materialize.SPAN_CHUNKS):
            missing += int(span.lengths[~found.index.contains(span.ids)].sum())
            if missing and at_once:
                break
    except (errors.IntegrityError, errors.NotFound):
        return max(facts.size, 1)
    return missing


def _unknown(promised: Sequence[str]) -> errors.NotFound:
    name = promised[0] if promised else "origin"
    return errors.NotFound(
        "remote", name, hint=f"data that is not here is read from there: vimgvc remote add {name} URL"
    )
