"""Commits by identifier, from the near side where it has them; many at once where they come from far away."""

from __future__ import annotations

import threading
from concurrent import futures

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.remote import graph
from vimgvc.repo import repository

#: So many are read one after the other before all that is missing is read at once.
_PATIENCE = 3
_UNREADABLE = (errors.NotFound, errors.IntegrityError, errors.Unsupported)


class Loader:
    """Not thread-safe."""

    def __init__(self, near: repository.Repository, far: repository.Repository) -> None:
        self._near, self._far = near, far
        self._misses = 0
        self._ahead: dict[str, commits.Commit] = {}

    def load(self, commit_id: str) -> commits.Commit:
        """Raises `IntegrityError`; `graph.Missing` for one that is on neither side."""
        try:
            return self._near.graph.load(commit_id)
        except (errors.NotFound, errors.IntegrityError):
            pass
        self._misses += 1
        if self._misses == _PATIENCE:
            self._read_ahead()
        try:
            return self._ahead.get(commit_id) or self._far.graph.load(commit_id)
        except errors.NotFound as error:
            raise graph.Missing(commit_id) from error

    def _read_ahead(self) -> None:
        parallel = self._far.backend.capabilities.parallel
        if parallel == 1:
            return
        missing = sorted(set(self._far.graph.ids()) - set(self._near.graph.ids()))
        lock = threading.Lock()

        def read(commit_id: str) -> None:
            try:
                found = commits.decode(commit_id, self._far.graph.body(commit_id))
            except _UNREADABLE:
                return  # whoever needs it will be told
            with lock:
                self._ahead[commit_id] = found

        with futures.ThreadPoolExecutor(parallel, "vimgvc-commits") as pool:
            for done in [pool.submit(read, commit_id) for commit_id in missing]:
                done.result()
