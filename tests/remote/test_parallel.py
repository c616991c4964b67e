"""Where a call costs a round trip several are under way at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests import repos
from tests.remote import places
from vimgvc.disk import memory as disk_memory
from vimgvc.monitor import NullMonitor
from vimgvc.remote import seeding
from vimgvc.repo import repository
from vimgvc.store import pack


class Meeting(places.Far):
    """The first call of a kind waits for a second one: it fails where there is only one at a time."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self._operation = operation
        self._lock = threading.Lock()
        self._came = 0
        self.met = threading.Event()
        self.open = False

    def _record(self, operation: str, name: str) -> None:
        super()._record(operation, name)
        if self.open and operation == self._operation and name.startswith("packs/"):
            with self._lock:
                self._came += 1
                if self._came == 2:
                    self.met.set()
            assert self.met.wait(60)


def _at(backend: places.Far) -> repository.Repository:
    source = repos.create()
    seeding.seed(source, backend)
    return places.far(source, backend)


def test_packs_of_a_commit_are_stored_several_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit straight to a far place has more than one pack on its way."""
    monkeypatch.setattr(pack, "TARGET_SIZE", 1 << 20)
    backend = Meeting("put")
    far = _at(backend)
    backend.open = True
    data = np.random.default_rng(seed).bytes(12 << 20)
    repos.commit(far, ("vm", data))
    assert backend.met.is_set()
    assert places.restored(far, "vm") == data
    assert far.verify("data").problems == []


def test_nodes_are_read_several_at_a_time() -> None:
    """Manifest nodes that are in several packs are read together."""
    backend = Meeting("get")
    far = _at(backend)
    for number in range(4):
        repos.commit(far, ("vm", bytes([number + 1]) * 5000))
    roots = [bytes.fromhex(item.disks[0].manifest) for item in far.history()]
    store = far.objects(NullMonitor())
    for number in [item.number for item in store.index.packs()]:
        store.table(number)  # so that reading a segment is one call
    backend.open = True
    assert len(store.nodes(roots)) == 4
    assert backend.met.is_set()


def test_segments_of_a_restore_are_read_several_at_a_time(seed: int) -> None:
    """A restore from a far place has more than one segment on its way, whatever the number of cores."""
    backend = Meeting("get")
    far = _at(backend)
    data = np.random.default_rng(seed).bytes(8 << 20)
    repos.commit(far, ("vm", data))
    _, facts = far.resolve_disk("vm")
    stored = far.open_disk(facts)
    target = disk_memory.MemoryDisk(len(data))
    stored.data_bytes()
    backend.open = True
    stored.restore(target, NullMonitor())
    assert backend.met.is_set()
    back = bytearray(len(data))
    target.pread_into(0, memoryview(back))
    assert bytes(back) == data
