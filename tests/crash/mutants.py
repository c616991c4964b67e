"""Defects of the write path, one each: a rig that does not find them proves nothing."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from vimgvc.backends import files, local, protocol


class Passing:
    """Files that do what the inner ones do."""

    def __init__(self, inner: files.Files) -> None:
        self.inner = inner
        self.create = inner.create
        self.write = inner.write
        self.close = inner.close
        self.link = inner.link
        self.rename_new = inner.rename_new
        self.unlink = inner.unlink
        self.mkdir = inner.mkdir
        self.sync_all = inner.sync_all
        self.scan = inner.scan
        self.status = inner.status
        self.writable = inner.writable
        self.open = inner.open
        self.pread = inner.pread
        self.lock = inner.lock

    def fsync(self, handle: int) -> None:
        self.inner.fsync(handle)

    def fsync_dir(self, path: str) -> None:
        self.inner.fsync_dir(path)


class NoDirectorySync(Passing):
    def fsync_dir(self, path: str) -> None:
        pass


class NoFileSync(Passing):
    def fsync(self, handle: int) -> None:
        pass


class SyncAgain(Passing):
    """Asks again when an fsync failed."""

    def fsync(self, handle: int) -> None:
        _twice(self.inner.fsync, handle)

    def fsync_dir(self, path: str) -> None:
        _twice(self.inner.fsync_dir, path)


def _twice(call: Callable[[int], None] | Callable[[str], None], what: int | str) -> None:
    try:
        call(what)  # type: ignore[arg-type]
    except OSError:
        call(what)  # type: ignore[arg-type]


class NameFirst(local.LocalBackend):
    """Gives the name before the bytes are durable."""

    def _store(self, target: str, parts: Sequence[protocol.Buffer]) -> bool:
        temporary, handle = self._create_beside(target)
        files.write_all(self._files, handle, parts)
        won = self._claim(temporary, target)
        self._files.fsync(handle)
        self._files.close(handle)
        self._files.unlink(temporary)
        return won


class InPlace(local.LocalBackend):
    """Writes under the final name from the start."""

    def _store(self, target: str, parts: Sequence[protocol.Buffer]) -> bool:
        temporary, handle = self._create_beside(target)
        self._files.close(handle)
        self._files.unlink(temporary)
        handle = self._files.create(target)
        files.write_all(self._files, handle, parts)
        self._files.fsync(handle)
        self._files.close(handle)
        return True


class BareAreas(local.LocalBackend):
    """No defect: the shards are not there, as in a copy that left out empty directories."""

    @classmethod
    def make(cls, root: pathlib.Path, target: files.Files) -> local.LocalBackend:
        for path in (root, *(root / area for area in protocol.AREAS)):
            target.mkdir(str(path))
            target.fsync_dir(str(path.parent))
        return cls(root, target)


class NoParentSync(BareAreas):
    """Syncs the directory of a blob, but not the name of that directory."""

    def _rely_on(self, path: str) -> None:
        self._unsynced.add(path.rpartition("/")[0])


class FoundIsDurable(local.LocalBackend):
    """Takes for durable what it finds."""

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        before = set(self._unsynced)
        stored = super().put(name, parts)
        if not stored:
            self._unsynced = before
        return stored


class CloseDoesNotMatter(Passing):
    """Takes no notice of a failed close."""

    def __init__(self, inner: files.Files) -> None:
        super().__init__(inner)
        self.close = self._close

    def _close(self, handle: int) -> None:
        try:
            self.inner.close(handle)
        except OSError:
            return


class ForgetsFailure(local.LocalBackend):
    """Says after a failed sync that the next one succeeded."""

    def sync(self) -> None:
        self._failure = None
        super().sync()
