"""The writer of packs at its limits: interruptions, failures, very many slots."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory, protocol
from vimgvc.codec import segment
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import crew, ingest
from vimgvc.repo import repository
from vimgvc.store import catalog, pack, writer

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    # What a shell starts in the background ignores SIGINT, and so do its children.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert left == []


def _writer(repo: repository.Repository) -> writer.Writer:
    found = catalog.open_catalog(repo.backend, repo.seals, None, repos.Collector())
    return writer.Writer(repo.backend, repo.seals, found.index)


def _add(repo: repository.Repository, out: writer.Writer, kind: int, datas: Sequence[bytes]) -> None:
    """Claim, seal and hand over one segment."""
    ids = [repo.seals.slot_id(kind, data) for data in datas]
    assert out.claim(ids) == list(range(len(ids)))
    plain = bytearray(b"".join(datas))
    sealer = repo.seals.sealer(level=3, verify=True, capacity=len(plain))
    shape, stored = sealer.seal(kind, plain, len(plain), b"".join(ids))
    out.add(shape, stored, b"".join(ids), [len(data) for data in datas])


class _Interrupting(memory.MemoryBackend):
    """Sends this process a SIGINT while the first pack is put, and goes on when the main thread has it."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self._received = threading.Event()
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        if not self._received.is_set():
            self._received.set()
            raise KeyboardInterrupt

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        if self.armed and name.startswith("packs"):
            self.armed = False
            # A kernel may give this thread what is meant for the process, and the main thread sleeps on, as it
            # does when the signal comes in the moment before it begins to wait: so it is sent until it was seen.
            while not self._received.wait(0.05):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return super().put(name, parts)


def test_d14_interrupted_while_finishing() -> None:
    """Ctrl-C while the last packs are stored ends the writer; what was stored is indexed, nothing twice."""
    place = _Interrupting()
    repo = repos.create(place)
    out = _writer(repo)
    chunk, node = repos.noise(1, 8192), b"a node"
    _add(repo, out, segment.DATA, [chunk])
    _add(repo, out, segment.TREE, [node])
    place.armed = True
    with pytest.raises(KeyboardInterrupt):
        out.finish()
    out.abort(keep=True)
    assert sum(name.startswith("index") for name in place._blobs) == 1
    found = catalog.open_catalog(place, repo.seals, None, repos.Collector())
    assert found.adopted == 0
    assert len(found.index.lookup_all(repo.seals.chunk_id(chunk))) == 1
    assert len(found.index.lookup_all(repo.seals.node_id(node))) <= 1


class _Full(memory.MemoryBackend):
    """Has no space for packs."""

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        if name.startswith("packs"):
            raise errors.NoSpace("no space")
        return super().put(name, parts)


@pytest.mark.parametrize("keep", [True, False])
def test_d14_interrupted_after_a_failure(keep: bool) -> None:
    """When storing fails and then Ctrl-C comes, the writer's thread ends all the same."""
    repo = repos.create(_Full())
    out = _writer(repo)
    for number in range(34):
        _add(repo, out, segment.DATA, [repos.noise(100 * number + part, 256 * KIB) for part in range(4)])
    _add(repo, out, segment.TREE, [b"a node"])
    with pytest.raises(errors.NoSpace):
        out.finish()
    out.abort(keep=keep)


class _Source(disk_memory.MemoryDisk):
    """Sends a SIGINT when its end is read."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) == self.size:
            os.kill(os.getpid(), signal.SIGINT)
        super().pread_into(offset, buffer)


def test_d14_interrupted_commit_is_continued(seed: int) -> None:
    """After Ctrl-C in the middle of a commit, what was sealed is found again and the next commit works."""
    data = repos.noise(seed, 24 * MIB)
    repo = repos.create()
    with pytest.raises(KeyboardInterrupt):
        repo.commit(
            [ingest.Source("vm", _Source.of(data), {})],
            repository.CommitRequest("vm", "", "", ""),
            repository.Effort(threads=2),
        )
    assert repo.branches() == {}
    again = repos.commit(repos.reopen(repo), ("vm", data))
    assert again.commit.disk().new_bytes < 12 * MIB
    assert repos.restore(repo, "vm") == data
    assert repo.verify("data").problems == []


class _Counting:
    def __init__(self) -> None:
        self.done = threading.Event()

    def work(self, item: int) -> None:
        self.done.set()

    def close(self) -> None:
        pass


def test_threads_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system refuses the second thread, the first one stops and is joined before the error is raised."""
    honest = threading.Thread.start
    worker = _Counting()

    def start(thread: threading.Thread) -> None:
        if thread.name == "vimgvc-1":
            worker.done.wait()
            raise RuntimeError("can't start new thread")
        honest(thread)

    def endless() -> Iterator[int]:
        while True:
            yield 1

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        crew.run(endless(), lambda: worker, 2)


class _Closing:
    def __init__(self) -> None:
        self.closed = 0

    def work(self, item: int) -> None:
        if item == 3:
            raise ValueError(item)

    def close(self) -> None:
        self.closed += 1


def test_d14_interrupted_while_the_writer_starts() -> None:
    """Ctrl-C at the moment the thread of packs begins leaves no thread that the program would wait for."""
    repo = repos.create(memory.MemoryBackend())
    struck = []

    def strike(frame: types.FrameType, event: str, _argument: object) -> None:
        caller = frame.f_back
        if event == "call" and frame.f_code.co_name == "wait" and caller and caller.f_code.co_name == "start":
            frame.f_locals["self"].wait()  # until it runs, so that it can be joined below
            struck.append(caller)
            raise KeyboardInterrupt

    found = catalog.open_catalog(repo.backend, repo.seals, None, repos.Collector())
    tracing = sys.gettrace()
    sys.settrace(strike)
    try:
        with pytest.raises(KeyboardInterrupt):
            writer.Writer(repo.backend, repo.seals, found.index)
    finally:
        sys.settrace(tracing)
    assert len(struck) == 1
    for thread in threading.enumerate():
        if thread.name == "vimgvc-packs":
            thread.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_workers_close_only_after_success(threads: int) -> None:
    """Every worker is closed once when all went well; whoever fails is not, and its error is raised."""
    worker = _Closing()
    crew.run(iter([1, 2]), lambda: worker, threads)
    assert worker.closed == threads
    worker = _Closing()
    with pytest.raises(ValueError, match="3"):
        crew.run(itertools.repeat(3), lambda: worker, threads)
    assert worker.closed == 0


def test_pack_of_very_many_slots_is_closed() -> None:
    """However well its chunks compress, a pack's table stays a small part of what a reader accepts."""
    builder = pack.Builder(segment.DATA, bytes(16), bytearray())
    shape = segment.Shape(segment.DATA, 1, 256 * 4096, 100)
    segments = 0
    while not builder.is_full:
        builder.add(shape, memoryview(bytes(100)), np.arange(256 * 4).astype(">u8").tobytes(), [4096] * 256)
        segments += 1
    done = builder.finish(lambda body: body)
    assert segments > 100
    assert 2 * done.table_length < 32 * MIB
    assert done.size < pack.MAX_SIZE
