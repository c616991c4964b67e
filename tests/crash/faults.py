"""Files that fail: the k-th operation reports an error, once or from then on."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from tests.crash import model
from vimgvc.backends import files

P = ParamSpec("P")
T = TypeVar("T")

#: Not an errno: `write` and `pread` do half of what was asked, and say so.
SHORT = -1

_SPACE = frozenset({"create", "write", "fsync", "close", "link", "rename_new", "mkdir", "fsync_dir"})
_CHANGE = _SPACE | {"unlink"}
_OPENING = frozenset({"create", "open", "scan", "fsync_dir", "lock"})
_LOOKING = frozenset({"open", "pread", "scan", "status", "lock"})
_ALL = _CHANGE | _LOOKING | {"close_read"}

#: What each errno can be reported by. To close a descriptor needs none, and so on.
APPLIES: dict[int, frozenset[str]] = {
    errno.EIO: _ALL,
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _CHANGE - {"write", "fsync", "close"},
    errno.EMFILE: _OPENING,
    errno.ENFILE: _OPENING,
    errno.ENOMEM: _ALL - {"close", "close_read"},
    errno.EINTR: _ALL - {"close", "close_read"},
    errno.EAGAIN: frozenset({"write", "pread"}),
    SHORT: frozenset({"write", "pread"}),
}

#: An fsync that reports one of these has not tried to write.
_LOSES_NOTHING = (errno.EINTR, errno.EINVAL)


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Operation number `at` (from 0) and, if `persistent`, all later ones that can, fail with `code`."""

    at: int
    code: int
    persistent: bool = False
    #: Instead of all kinds of operation that can report it.
    only: str = ""

    def strikes(self, number: int, kind: str) -> bool:
        """Whether operation `number` fails; an operation that cannot report the error passes it on."""
        return (number >= self.at) if kind in self.kinds() else False

    def kinds(self) -> frozenset[str]:
        return frozenset({self.only}) if self.only else APPLIES[self.code]

    def __str__(self) -> str:
        name = "SHORT" if self.code == SHORT else errno.errorcode[self.code]
        return f"{name} at {self.at}{' and on' if self.persistent else ''}{' in ' + self.only if self.only else ''}"


class FaultyFiles:
    """A `files.Files` around the model. `seen` lists the kinds of all operations, `struck` of those that failed.

    `unsynced`: the directories of which syncing failed.
    """

    def __init__(self, inner: model.ModelFiles, fault: Fault | None) -> None:
        self.struck: list[str] = []
        self.unsynced: set[str] = set()
        self.seen: list[str] = []
        self.inner = inner
        self._fault = fault
        self._created: set[int] = set()
        self._guard = threading.Lock()

    def create(self, path: str) -> int:
        handle = self._try("create", self.inner.create, path)
        self._created.add(handle)
        return handle

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        if self._strikes("write"):
            self._raise("write")
            return self.inner.write(handle, [parts[0][: -(-len(parts[0]) // 2)]])
        return self.inner.write(handle, parts)

    def fsync(self, handle: int) -> None:
        if self._strikes("fsync"):
            if self._code not in _LOSES_NOTHING:
                self.inner.fail_fsync(handle)
            self._raise("fsync")
        self.inner.fsync(handle)

    def close(self, handle: int) -> None:
        # Whatever it reports, the descriptor is closed.
        self.inner.close(handle)
        kind = "close" if handle in self._created else "close_read"
        if self._strikes(kind):
            self._raise(kind)

    def link(self, source: str, target: str) -> None:
        self._try("link", self.inner.link, source, target)

    def rename_new(self, source: str, target: str) -> None:
        self._try("rename_new", self.inner.rename_new, source, target)

    def unlink(self, path: str) -> None:
        self._try("unlink", self.inner.unlink, path)

    def mkdir(self, path: str) -> None:
        self._try("mkdir", self.inner.mkdir, path)

    def fsync_dir(self, path: str) -> None:
        if self._strikes("fsync_dir"):
            self.unsynced.add(path)
            if self._code not in _LOSES_NOTHING:
                self.inner.fail_fsync_dir(path)
            self._raise("fsync_dir")
        self.inner.fsync_dir(path)

    def sync_all(self) -> None:
        self._try("sync_all", self.inner.sync_all)

    def scan(self, path: str, keep: Callable[[str], bool]) -> list[files.Entry]:
        return self._try("scan", self.inner.scan, path, keep)

    def status(self, path: str) -> files.Status:
        return self._try("status", self.inner.status, path)

    def writable(self, path: str) -> bool:
        return self.inner.writable(path)

    def open(self, path: str) -> tuple[int, int]:
        return self._try("open", self.inner.open, path)

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        if self._strikes("pread"):
            self._raise("pread")
            return self.inner.pread(handle, -(-length // 2), offset)
        return self.inner.pread(handle, length, offset)

    def lock(self, path: str, *, exclusive: bool) -> int:
        return self._try("lock", self.inner.lock, path, exclusive=exclusive)

    def _try(self, kind: str, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._strikes(kind):
            self._raise(kind)
        return do(*args, **kwargs)

    @property
    def _code(self) -> int:
        assert self._fault is not None
        return self._fault.code

    def _strikes(self, kind: str) -> bool:
        with self._guard:
            number, fault = len(self.seen), self._fault
            self.seen.append(kind)
            if fault is None or (self.struck and not fault.persistent) or not fault.strikes(number, kind):
                return False
            self.struck.append(kind)
            return True

    def _raise(self, kind: str) -> None:
        """Raise the error, unless the fault is a short count."""
        if self._code != SHORT:
            raise OSError(self._code, os.strerror(self._code), kind)
