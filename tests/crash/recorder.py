"""Records what a repository does to its files, with enough data to do it again elsewhere."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

from tests.crash import model
from vimgvc.backends import files


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One operation that changes files; `file` numbers the created files, `promise` is what was acknowledged."""

    kind: str
    path: str = ""
    target: str = ""
    file: int = -1
    data: bytes = b""
    promise: object = None

    def __str__(self) -> str:
        words = [self.kind, self.path, self.target, f"#{self.file}" if self.file >= 0 else ""]
        if self.kind == "write":
            words.append(f"{len(self.data)} bytes")
        return " ".join(word for word in words if word)


class RecordingFiles:
    """A `files.Files` around another: does everything there, and notes in `log` what it changed, in order."""

    def __init__(self, inner: files.Files) -> None:
        self.log: list[Operation] = []
        self._inner = inner
        self._numbers: dict[int, int] = {}
        self._created = 0
        # Held while an operation is done and noted: the log has the order in which things happened.
        self._guard = threading.Lock()

    def acknowledge(self, promise: object) -> None:
        """Note that `promise` was made to the user: from here on it must be kept."""
        with self._guard:
            self.log.append(Operation("acknowledge", promise=promise))

    def create(self, path: str) -> int:
        with self._guard:
            handle = self._inner.create(path)
            self._numbers[handle] = self._created
            self.log.append(Operation("create", path, file=self._created))
            self._created += 1
            return handle

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        with self._guard:
            written = self._inner.write(handle, parts)
            self.log.append(Operation("write", file=self._numbers[handle], data=b"".join(parts)[:written]))
            return written

    def fsync(self, handle: int) -> None:
        with self._guard:
            self._inner.fsync(handle)
            self.log.append(Operation("fsync", file=self._numbers[handle]))

    def close(self, handle: int) -> None:
        with self._guard:
            self._inner.close(handle)
            if handle in self._numbers:
                self.log.append(Operation("close", file=self._numbers.pop(handle)))

    def link(self, source: str, target: str) -> None:
        self._note(Operation("link", source, target), lambda: self._inner.link(source, target))

    def rename_new(self, source: str, target: str) -> None:
        self._note(Operation("rename_new", source, target), lambda: self._inner.rename_new(source, target))

    def unlink(self, path: str) -> None:
        self._note(Operation("unlink", path), lambda: self._inner.unlink(path))

    def mkdir(self, path: str) -> None:
        self._note(Operation("mkdir", path), lambda: self._inner.mkdir(path))

    def fsync_dir(self, path: str) -> None:
        self._note(Operation("fsync_dir", path), lambda: self._inner.fsync_dir(path))

    def sync_all(self) -> None:
        self._note(Operation("sync_all"), self._inner.sync_all)

    def lock(self, path: str, *, exclusive: bool) -> int:
        with self._guard:
            handle = self._inner.lock(path, exclusive=exclusive)
            self.log.append(Operation("lock", path))
            return handle

    def scan(self, path: str, keep: Callable[[str], bool]) -> list[files.Entry]:
        return self._inner.scan(path, keep)

    def status(self, path: str) -> files.Status:
        return self._inner.status(path)

    def writable(self, path: str) -> bool:
        return self._inner.writable(path)

    def open(self, path: str) -> tuple[int, int]:
        return self._inner.open(path)

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        return self._inner.pread(handle, length, offset)

    def _note(self, operation: Operation, do: Callable[[], None]) -> None:
        with self._guard:
            do()
            self.log.append(operation)


class Player:
    """Does the operations of a log again, on the model."""

    def __init__(self, target: model.ModelFiles) -> None:
        self.target = target
        self.promises: list[object] = []
        self._handles: dict[int, int] = {}

    def play(self, operation: Operation) -> None:
        target, path = self.target, operation.path
        match operation.kind:
            case "create":
                self._handles[operation.file] = target.create(path)
            case "write":
                target.write(self._handles[operation.file], [memoryview(operation.data)])
            case "fsync":
                target.fsync(self._handles[operation.file])
            case "close":
                target.close(self._handles.pop(operation.file))
            case "link" | "rename_new":
                getattr(target, operation.kind)(path, operation.target)
            case "unlink" | "mkdir" | "fsync_dir":
                getattr(target, operation.kind)(path)
            case "lock":
                target.close(target.lock(path, exclusive=False))
            case "sync_all":
                target.sync_all()
            case "acknowledge":
                self.promises.append(operation.promise)
            case unknown:
                raise AssertionError(unknown)
