"""A Backend that counts what is written and removed, and may only pretend to do it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from vimgvc import errors
from vimgvc.backends import protocol


class Ledger:
    """What `inner` is, with `written` and `removed`: the sizes of blobs by name.

    With `rehearse` nothing reaches `inner`: what is put is listed and has its size, but cannot be read.
    """

    def __init__(self, inner: protocol.Backend, *, rehearse: bool) -> None:
        self._inner, self.rehearse = inner, rehearse
        self.written: dict[str, int] = {}
        self.removed: dict[str, int] = {}
        #: What was set aside; it still takes room.
        self.aside: dict[str, int] = {}
        self._listed: dict[str, int] = {}

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def capabilities(self) -> protocol.Capabilities:
        return self._inner.capabilities

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        if self._is_there(name) if self.rehearse else not self._inner.put(name, parts):
            return False
        self.written[name] = sum(memoryview(part).nbytes for part in parts)
        return True

    def _is_there(self, name: str) -> bool:
        try:
            self.size(name)
        except errors.NotFound:
            return False
        return True

    def pretend(self, name: str, size: int) -> None:
        """As if a blob of this size were put, in a rehearsal."""
        assert self.rehearse
        self.written[name] = size

    def sync(self) -> None:
        if not self.rehearse:
            self._inner.sync()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._inner.get(name, offset, length)

    def size(self, name: str) -> int:
        if self.rehearse and name in self.written:
            return self.written[name]
        return self._inner.size(name)

    def list(self, area: str) -> Iterator[protocol.Item]:
        for item in self._inner.list(area):
            self._listed[item.name] = item.size
            yield item
        if self.rehearse:
            for name, size in self.written.items():
                if name.startswith(f"{area}/"):
                    yield protocol.Item(name, size)

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return self._inner.lock_shared()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self._inner.lock_exclusive()

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> None:
        known = list(names)
        for name in known:
            # What was listed is not asked one by one.
            size = self._listed.pop(name, None)
            with contextlib.suppress(errors.NotFound):
                if name in self.written:
                    size = self.written[name]
                self.removed[name] = self.size(name) if size is None else size
        if not self.rehearse:
            self._inner.delete_all(known)

    def set_aside(self, name: str) -> None:
        with contextlib.suppress(errors.NotFound):
            self.aside[name] = self.size(name)
        if not self.rehearse:
            self._inner.set_aside(name)

    def remove_stale(self, now: float) -> int:
        return 0 if self.rehearse else self._inner.remove_stale(now)

    def close(self) -> None:
        self._inner.close()

    @property
    def freed(self) -> int:
        """Bytes that are less than before; negative when they are more."""
        return sum(self.removed.values()) - sum(self.written.values())
