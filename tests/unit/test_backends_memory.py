"""The fake backend passes the suite of the real ones, and records what it is asked."""

from __future__ import annotations

import pathlib

from tests.suites import backend
from vimgvc.backends import memory, protocol


class TestMemoryBackend(backend.BackendSuite):
    def create(self, folder: pathlib.Path) -> memory.MemoryBackend:
        return memory.MemoryBackend()

    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        assert isinstance(backend, memory.MemoryBackend)
        return backend.aside


def test_records_calls() -> None:
    """Every call is recorded in order, with the name or area it is about."""
    place = memory.MemoryBackend()
    name = backend.pack(1)
    place.put(name, [b"x"])
    place.sync()
    place.get(name)
    place.size(name)
    list(place.list("packs"))
    place.delete(name)
    expected = [("put", name), ("sync", ""), ("get", name), ("size", name), ("list", "packs"), ("delete", name)]
    assert place.calls == expected
