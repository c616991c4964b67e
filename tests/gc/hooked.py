"""Backends that let something happen between two steps of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tests.gc import past
from vimgvc.backends import memory, protocol


class Hooked(memory.MemoryBackend):
    """Calls `hook(number, operation, name)` before each operation; not while a hook runs. Without locks."""

    def __init__(self, blobs: dict[str, bytes], hook: Callable[[int, str, str], None] | None = None) -> None:
        super().__init__(locks=False)
        self._blobs = dict(blobs)
        self._hook = hook
        self.count = 0

    def let(self, hook: Callable[[int, str, str], None] | None) -> None:
        """Begin anew with another hook."""
        self._hook, self.count = hook, 0

    def _record(self, operation: str, name: str) -> None:
        super()._record(operation, name)
        hook, self._hook = self._hook, None
        if hook is not None:
            number, self.count = self.count, self.count + 1
            try:
                hook(number, operation, name)
            finally:
                self._hook = hook


def blobs(place: past.Past) -> dict[str, bytes]:
    names = [*past.stored(place.backend), protocol.CONFIG]
    return {name: place.backend.get(name) for name in names}


class Failing(memory.MemoryBackend):
    """Raises `error` at the operations that `when(operation, name)` picks."""

    def __init__(
        self, content: dict[str, bytes], when: Callable[[str, str], bool], error: Callable[[str], Exception]
    ) -> None:
        super().__init__()
        self._blobs = dict(content)
        self._when, self._error = when, error

    def _record(self, operation: str, name: str) -> None:
        super()._record(operation, name)
        if self._when(operation, name):
            raise self._error(name)


class Room(memory.MemoryBackend):
    """A place with `free` bytes left; what is deleted makes room. Nothing of what does not fit is stored."""

    def __init__(self, content: dict[str, bytes], free: int, full: Callable[[str], Exception]) -> None:
        super().__init__()
        self._blobs = dict(content)
        self.free, self._full = free, full

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        size = sum(memoryview(part).nbytes for part in parts)
        if name not in self._blobs and size > self.free:
            raise self._full(name)
        stored = super().put(name, parts)
        self.free -= size if stored else 0
        return stored

    def delete(self, name: str) -> None:
        self.free += len(self._blobs.get(name, b""))
        super().delete(name)

    def delete_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.delete(name)


#: What a collection lists.
AREAS = ("packs", "index", "commits", "refs", "forgotten", "gc", "pins")
