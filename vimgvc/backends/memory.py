"""A Backend in memory: the fake that passes the same conformance suite as the real ones.

It records its calls, so that promises about cost can be tests: "this reads no pack".
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence

from vimgvc import errors
from vimgvc.backends import protocol


class MemoryBackend:
    """Blobs in a dict. `calls` is the list of (operation, name) so far; clear it as you like.

    With `locks` false it is like a store that has none. There are no real ones: it is of one program only.
    `aside`: what was set aside, by its name below `quarantine/`.
    """

    def __init__(self, *, locks: bool = True) -> None:
        self._locks = locks
        self.calls: list[tuple[str, str]] = []
        self.aside: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return "memory:"

    @property
    def capabilities(self) -> protocol.Capabilities:
        return protocol.Capabilities(durable=False, exclusive_create=True, locks=self._locks)

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        self._record("put", protocol.validate_name(name))
        blob = b"".join(parts)
        with self._guard:
            if name in self._blobs:
                return False
            self._blobs[name] = blob
            return True

    def sync(self) -> None:
        self._record("sync", "")

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        if not self._locks:
            raise errors.BackendError(self.url, "ENOLCK", "this place has no locks")
        return contextlib.nullcontext()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._record("get", protocol.validate_name(name))
        protocol.validate_range(offset, length)
        blob = self._find(name)
        end = max(len(blob), offset) if length is None else offset + length
        if end > len(blob):
            raise protocol.too_short(name, len(blob), end)
        return blob[offset:end]

    def size(self, name: str) -> int:
        self._record("size", protocol.validate_name(name))
        return len(self._find(name))

    def list(self, area: str) -> Iterator[protocol.Item]:
        self._record("list", protocol.validate_area(area))
        with self._guard:
            found = [
                protocol.Item(name, len(blob)) for name, blob in self._blobs.items() if name.startswith(area + "/")
            ]
        return iter(found)

    def delete(self, name: str) -> None:
        self._record("delete", protocol.validate_name(name))
        with self._guard:
            self._blobs.pop(name, None)

    def delete_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.delete(name)

    def set_aside(self, name: str) -> None:
        self._record("set_aside", protocol.validate_name(name))
        with self._guard:
            if name in self._blobs:
                aside = next(free for free in protocol.aside_names(name) if free not in self.aside)
                self.aside[aside] = self._blobs.pop(name)

    def remove_stale(self, now: float) -> int:
        self._record("remove_stale", "")
        return 0

    def close(self) -> None:
        self._record("close", "")

    def _record(self, operation: str, name: str) -> None:
        self.calls.append((operation, name))

    def _find(self, name: str) -> bytes:
        with self._guard:
            blob = self._blobs.get(name)
        if blob is None:
            raise protocol.missing(name)
        return blob
