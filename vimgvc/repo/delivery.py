"""One delivery as a place of its own: what is below `inbox/<delivery>/` under the names that a repository has.

Only packs, index objects and commits are there; everything else is empty.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from vimgvc.backends import protocol

AREA = "inbox"
_AREAS = ("packs", "index", "commits")


class DeliveryBackend:
    """The blobs of one delivery in `inner`; its directories are flat there."""

    def __init__(self, inner: protocol.Backend, delivery: str) -> None:
        self._inner, self._prefix = inner, f"{AREA}/{delivery}"

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def capabilities(self) -> protocol.Capabilities:
        return replace(self._inner.capabilities, locks=False)

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        return self._inner.put(self._inside(name), parts)

    def sync(self) -> None:
        self._inner.sync()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._inner.get(self._inside(name), offset, length)

    def size(self, name: str) -> int:
        return self._inner.size(self._inside(name))

    def list(self, area: str) -> Iterator[protocol.Item]:
        top = protocol.validate_area(area).partition("/")[0]
        if top not in _AREAS:
            return
        start = f"{self._prefix}/{top}-"
        for item in self._inner.list(self._prefix):
            if item.name.startswith(start):
                name = _outside(top, item.name[len(start) :])
                if name.startswith(f"{area}/"):
                    yield protocol.Item(name, item.size)

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def delete(self, name: str) -> None:
        self._inner.delete(self._inside(name))

    def delete_all(self, names: Iterable[str]) -> None:
        self._inner.delete_all([self._inside(name) for name in names])

    def set_aside(self, name: str) -> None:
        self._inner.set_aside(self._inside(name))

    def remove_stale(self, now: float) -> int:
        return 0

    def close(self) -> None:
        """Whoever opened the place closes it."""

    def _inside(self, name: str) -> str:
        top, _, rest = protocol.validate_name(name).partition("/")
        if top not in _AREAS:
            raise protocol.missing(name)
        return f"{self._prefix}/{top}-{rest.rpartition('/')[2]}"


def _outside(area: str, digits: str) -> str:
    return f"{area}/{digits[:2]}/{digits}" if area == "packs" else f"{area}/{digits}"
