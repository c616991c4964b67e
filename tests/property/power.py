"""Files whose power is cut, and files that are damaged: what the machine does to a repository from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from tests.crash import model, states
from vimgvc.backends import files

P = ParamSpec("P")
T = TypeVar("T")

#: What a power cut may leave: "killed" is the end of the process only, "drawn" goes by a seed.
KINDS = ("killed", *states.CERTAIN, "drawn")


class PowerCut(BaseException):
    """From here on this process does not run."""


class Fuse:
    """A `files.Files` around the model: `burn(n)` lets n more operations that change something happen, then none."""

    def __init__(self, inner: model.ModelFiles) -> None:
        self.inner = inner
        self.blown = False
        self._left: int | None = None
        self._guard = threading.Lock()

    def burn(self, operations: int | None) -> None:
        self._left = operations

    def create(self, path: str) -> int:
        return self._change(self.inner.create, path)

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        return self._change(self.inner.write, handle, parts)

    def fsync(self, handle: int) -> None:
        self._change(self.inner.fsync, handle)

    def close(self, handle: int) -> None:
        self._look(self.inner.close, handle)

    def link(self, source: str, target: str) -> None:
        self._change(self.inner.link, source, target)

    def rename_new(self, source: str, target: str) -> None:
        self._change(self.inner.rename_new, source, target)

    def unlink(self, path: str) -> None:
        self._change(self.inner.unlink, path)

    def mkdir(self, path: str) -> None:
        self._change(self.inner.mkdir, path)

    def fsync_dir(self, path: str) -> None:
        self._change(self.inner.fsync_dir, path)

    def sync_all(self) -> None:
        self._change(self.inner.sync_all)

    def scan(self, path: str, keep: Callable[[str], bool]) -> list[files.Entry]:
        return self._look(self.inner.scan, path, keep)

    def status(self, path: str) -> files.Status:
        return self._look(self.inner.status, path)

    def writable(self, path: str) -> bool:
        return self.inner.writable(path)

    def open(self, path: str) -> tuple[int, int]:
        return self._look(self.inner.open, path)

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        return self._look(self.inner.pread, handle, length, offset)

    def lock(self, path: str, *, exclusive: bool) -> int:
        self._alive()
        return self.inner.lock(path, exclusive=exclusive)

    def _alive(self) -> None:
        if self.blown:
            raise PowerCut

    def _look(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._alive()
        return do(*args, **kwargs)

    def _change(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._guard:
            self._alive()
            if self._left is not None:
                self.blown = self._left == 0
                self._alive()
                self._left -= 1
            return do(*args, **kwargs)


def after(disk: model.ModelFiles, kind: str, seed: int) -> model.ModelFiles:
    """The files when the machine, or only the process, is started again."""
    if kind == "killed":
        return disk.copy()
    return disk.crash(states.Drawn(seed) if kind == "drawn" else states.Certain(kind))


def age(disk: model.ModelFiles, path: str) -> int:
    """Orders files by when they were made, whatever they are called."""
    return disk.status(path).identity[1]


def content(disk: model.ModelFiles, path: str) -> bytes | None:
    try:
        handle, size = disk.open(path)
    except FileNotFoundError:
        return None
    found = disk.pread(handle, size, 0)
    disk.close(handle)
    return found


def replace(disk: model.ModelFiles, path: str, blob: bytes | None) -> None:
    """What is at rest changes without anybody having written it; None: is not there any more."""
    if blob is None:
        disk.unlink(path)
    elif content(disk, path) is None:
        handle = disk.create(path)
        disk.write(handle, [memoryview(blob)])
        disk.fsync(handle)
        disk.close(handle)
    else:
        node = disk._nodes[disk._find(path)]
        assert isinstance(node, model.File)
        node.chunks = [model.Chunk(blob, model.Fate.CLEAN)]
    disk.fsync_dir(path.rpartition("/")[0])
