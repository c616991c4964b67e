"""A Backend in memory: the fake that passes the same conformance suite as the real ones.

It records its calls, so that promises about cost can be tests: "this reads no pack".
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from vimgvc.backends import protocol


class MemoryBackend:
    """Blobs in a dict. `calls` is the list of (operation, name) so far; clear it as you like."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._blobs: dict[str, bytes] = {}
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return "memory:"

    @property
    def capabilities(self) -> protocol.Capabilities:
        return protocol.Capabilities(durable=False, exclusive_create=True)

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

    def _record(self, operation: str, name: str) -> None:
        self.calls.append((operation, name))

    def _find(self, name: str) -> bytes:
        with self._guard:
            blob = self._blobs.get(name)
        if blob is None:
            raise protocol.missing(name)
        return blob
