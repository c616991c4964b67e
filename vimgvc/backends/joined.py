"""Two places of a repository read as one: what is here, and for the rest a remote. Nothing can be written."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from vimgvc import errors
from vimgvc.backends import protocol


class Joined:
    """What `near` has, and what `far` has besides; `name` is what messages call the far one.

    Whatever keeps `far` from being read is a `RemoteError` that names it.
    """

    def __init__(self, near: protocol.Backend, far: protocol.Backend, name: str) -> None:
        self._near, self._far, self._name = near, far, name

    @property
    def url(self) -> str:
        return self._near.url

    @property
    def capabilities(self) -> protocol.Capabilities:
        return dataclasses.replace(self._far.capabilities, read_only=True, locks=False, removes=False)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            return self._near.get(name, offset, length)
        except errors.NotFound:
            pass
        with self._naming(name):
            return self._far.get(name, offset, length)

    def size(self, name: str) -> int:
        try:
            return self._near.size(name)
        except errors.NotFound:
            pass
        with self._naming(name):
            return self._far.size(name)

    def list(self, area: str) -> Iterator[protocol.Item]:
        here = set()
        for item in self._near.list(area):
            here.add(item.name)
            yield item
        with self._naming(area):
            yield from (item for item in self._far.list(area) if item.name not in here)

    @contextlib.contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        try:
            yield
        except errors.NotFound as error:
            raise errors.RemoteError(
                f"remote '{self._name}'",
                "ENOENT",
                f"has no {what[:20]} any more",
                hint="it may just have been collected there: run the command again",
            ) from error
        except errors.BackendError as error:
            raise unreachable(self._name, error) from error

    # -- writing ---------------------------------------------------------------------------------

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        raise self._refusal()

    def sync(self) -> None:
        """Nothing was put, and what was read is relied on by nobody."""

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        raise self._refusal()

    def delete(self, name: str) -> None:
        raise self._refusal()

    def delete_all(self, names: Iterable[str]) -> None:
        raise self._refusal()

    def set_aside(self, name: str) -> None:
        raise self._refusal()

    def remove_stale(self, now: float) -> int:
        return 0

    def close(self) -> None:
        self._far.close()

    def _refusal(self) -> errors.BackendError:
        return errors.BackendError(self.url, "EROFS", "two places that are read as one cannot be written")


def unreachable(name: str, error: errors.VimgvcError) -> errors.RemoteError:
    """The remote `name` is needed and cannot be read."""
    kind = error.kind if isinstance(error, errors.BackendError) else "ENOENT"
    return errors.RemoteError(
        f"remote '{name}'",
        kind,
        error.message,
        hint=f"data that is not here is read from there; 'vimgvc fetch {name}' brings it here once that can be reached",
    )
