"""Real writers and real collections on one place without locks, each stopped before any of its operations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.gc import hooked, past
from vimgvc import monitor
from vimgvc.backends import memory
from vimgvc.repo import repository
from vimgvc.store import mark

Blobs = dict[str, bytes]
#: Given the number of an operation, what it is, and the blob or area: whether to stop before it.
When = Callable[[int, str, str], bool]


class Gated(memory.MemoryBackend):
    """Blobs that others have, too; stops the thread that uses it once, when `when` says so, until `go`."""

    def __init__(self, blobs: Blobs, when: When) -> None:
        super().__init__(locks=False)
        self._blobs = blobs
        self._when: When | None = when
        self.count = 0
        self.stopped, self.go = threading.Event(), threading.Event()

    def _record(self, operation: str, name: str) -> None:
        super()._record(operation, name)
        number, self.count = self.count, self.count + 1
        if self._when is not None and self._when(number, operation, name):
            self._when = None
            go = self.go
            self.stopped.set()
            go.wait()

    def again(self, when: When) -> None:
        """Let it go until `when` says so once more."""
        go, self._when, self.go = self.go, when, threading.Event()
        self.stopped.clear()
        go.set()
        self.stopped.wait()


@dataclass
class Task:
    """Work on a repository that can be stopped and let go; nothing runs beside it meanwhile."""

    backend: Gated
    work: Callable[[], object]
    result: object = None
    error: BaseException | None = None
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.backend.stopped.wait()

    def _run(self) -> None:
        try:
            self.result = self.work()
        except Exception as error:  # noqa: BLE001 what a test looks at
            self.error = error
        finally:
            self.backend.stopped.set()

    def finish(self) -> None:
        self.backend.go.set()
        self._thread.join()


@dataclass
class World:
    """One place; `Task`s are made with `start`."""

    origin: past.Past
    blobs: Blobs = field(init=False)

    def __post_init__(self) -> None:
        self.blobs = hooked.blobs(self.origin)

    def open(self) -> repository.Repository:
        return self.origin.open(Gated(self.blobs, _never))

    def start(self, work: Callable[[repository.Repository], object], when: When | None = None) -> Task:
        backend = Gated(self.blobs, when or _never)
        return Task(backend, lambda: work(self.origin.open(backend)))

    def count(self, work: Callable[[repository.Repository], object]) -> int:
        """How many operations it takes when nothing is beside it."""
        task = World(self.origin).start(work)
        task.finish()
        if task.error:
            raise task.error
        return task.backend.count

    def check(self) -> dict[str, str]:
        """Whatever has a name is whole, and what must restore does; the branches and tags."""
        repo = self.open()
        marker = mark.Marker(repo.objects(monitor.NullMonitor()))
        for commit in repo.live():
            for item in commit.stored():
                marker.add_tree(bytes.fromhex(item.manifest))
        for commit_id, disks in self.origin.kept.items():
            assert past.read(repo, repo.graph.load(commit_id)) == disks
        return repo.branches() | repo.tags()


def _never(*_: object) -> bool:
    return False


def at(number: int) -> When:
    return lambda now, *_: now == number


def before(operation: str, area: str, skip: int = 0) -> When:
    """The operation number `skip` of its kind."""
    left = [skip]

    def when(_: int, now: str, name: str) -> bool:
        if now != operation or name.partition("/")[0] != area:
            return False
        left[0] -= 1
        return left[0] < 0

    return when


def commit_again(repo: repository.Repository) -> str:
    """A commit of what nobody needs any more, and that is stored."""
    return past.commit(repo, past.contents()["side"], "other", "again").id


def collect(repo: repository.Repository) -> object:
    return repo.collect(past.FORCE)
