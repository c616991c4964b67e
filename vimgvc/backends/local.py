"""A directory of the machine as a Backend.

`_store` is the only function that makes a file of a repository, and `sync` the only one that makes
names durable; specs/repository.md explains the sequence, specs/decisions/ why names are given by `link`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

from vimgvc import errors
from vimgvc.backends import files as files_module
from vimgvc.backends import protocol, skeleton
from vimgvc.backends.files import again

#: What `link` says on file systems without hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

#: What taking a lock says on file systems without locks, and where the file for it cannot be made:
#: a read-only mount of a copy that has none.
_LOCKLESS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOENT)


class LocalBackend:
    """The repository in the directory `root`, which must exist (`create` makes it).

    `durable=False` leaves out every fsync. It exists to measure what durability costs; what is
    put with it may be lost, and nothing but a benchmark may ask for it.
    """

    def __init__(
        self,
        root: pathlib.Path,
        files: files_module.Files | None = None,
        *,
        durable: bool = True,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._root = str(root.absolute())
        self._files: files_module.Files = files_module.RealFiles() if files is None else files
        self._durable = durable
        self._rng = rng
        self._has_links = True
        self._failure: errors.VimgvcError | None = None
        self._end_init: Callable[[], object] | None = None
        # Directories with names that may not be durable yet, and those whose own name surely is.
        self._unsynced: set[str] = set()
        self._anchored: set[str] = set()
        self._unsynced_guard = threading.Lock()
        self._sync_guard = threading.Lock()

    @classmethod
    def create(
        cls,
        root: pathlib.Path,
        files: files_module.Files | None = None,
        *,
        durable: bool = True,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> LocalBackend:
        """A backend in a new repository directory with its areas, durable, but without `config` yet.

        `root` may be absent, empty, or what an interrupted `create` left. It becomes a repository
        when `config` is put, which must therefore come last; until then this object holds the lock,
        so that of two that create at once the second is told `Busy`.
        Raises `UsageError` when a repository, or anything else, is there already.
        """
        backend = cls(root, files, durable=durable, rng=rng)
        skeleton.make_root(backend._files, backend.url)
        with files_module.door(backend._path(skeleton.LOCK)):
            lock = backend._take_lock(exclusive=True)
        # Also when this object is dropped before there is a `config`.
        backend._end_init = weakref.finalize(backend, backend._files.close, lock)
        try:
            skeleton.make_areas(backend._files, backend.url)
            skeleton.remove_unfinished(backend)
        except BaseException:
            backend._end_init()
            raise
        return backend

    @classmethod
    def open(cls, root: pathlib.Path, files: files_module.Files | None = None, *, durable: bool = True) -> LocalBackend:
        """The backend in an existing repository directory; raises `NoRepository`."""
        backend = cls(root, files, durable=durable)
        skeleton.require(backend)
        return backend

    @property
    def url(self) -> str:
        return self._root

    @property
    def capabilities(self) -> protocol.Capabilities:
        writable = self._files.writable(self._root)
        return protocol.Capabilities(durable=self._durable, exclusive_create=True, read_only=not writable)

    # --- blobs -----------------------------------------------------------------------------------

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        path = self._path(protocol.validate_name(name))
        with files_module.door(path):
            stored = not self._is_taken(path) and self._store(path, parts)
        self._rely_on(path)
        if name == protocol.CONFIG and self._end_init is not None:
            self._end_init()
        return stored

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(protocol.validate_name(name))
        protocol.validate_range(offset, length)
        with files_module.door(path):
            try:
                handle, size = again(self._files.open, path)
            except FileNotFoundError:
                raise protocol.missing(name) from None
            try:
                # Against the size first: a wrong length from a damaged object must not be allocated.
                end = max(size, offset) if length is None else offset + length
                if length is None and end - offset > protocol.most(name):
                    raise protocol.too_large(name, size)
                if end > size:
                    raise protocol.too_short(name, size, end)
                data = files_module.read_exactly(self._files, handle, end - offset, offset)
            finally:
                # What has been read has been read.
                with contextlib.suppress(OSError):
                    self._files.close(handle)
        if len(data) != end - offset:
            raise protocol.too_short(name, offset + len(data), end)
        self._rely_on(path)
        return data

    def size(self, name: str) -> int:
        path = self._path(protocol.validate_name(name))
        with files_module.door(path):
            try:
                status = again(self._files.status, path)
            except FileNotFoundError:
                raise protocol.missing(name) from None
        if not status.is_regular:
            raise _not_a_file(path)
        self._rely_on(path)
        return status.size

    def list(self, area: str) -> Iterator[protocol.Item]:
        top, *parts = protocol.validate_area(area).split("/")
        yield from self._walk(area, protocol.AREAS[top][len(parts) :], must_exist=not parts)

    def _walk(self, area: str, patterns: Sequence[re.Pattern[str]], *, must_exist: bool) -> Iterator[protocol.Item]:
        path, pattern, *deeper = self._path(area), *patterns
        with files_module.door(path):
            try:
                entries = again(self._files.scan, path, lambda name: pattern.fullmatch(name) is not None)
            except FileNotFoundError:
                # A shard or a ref log comes with its first blob; an area is always there, and one
                # that is missing must not be taken for one that is empty.
                if must_exist and area not in protocol.LATER:
                    raise
                return
        for entry in entries:
            name = f"{area}/{entry.name}"
            if deeper and entry.is_directory:
                yield from self._walk(name, deeper, must_exist=False)
            # Each part is as it must be; a pack must also be in the shard of its name.
            elif not deeper and not entry.is_directory and (not area.startswith("packs/") or protocol.is_name(name)):
                yield protocol.Item(name, entry.size)

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> None:
        directories = set()
        for name in names:
            path = self._path(protocol.validate_name(name))
            with files_module.door(path), contextlib.suppress(FileNotFoundError):
                again(self._files.unlink, path)
                directories.add(_directory(path))
        for directory in sorted(directories):
            with files_module.door(directory):
                self._sync_directory(directory)

    def set_aside(self, name: str) -> None:
        source = self._path(protocol.validate_name(name))
        with files_module.door(source):
            if not self._is_taken(source):
                # Perhaps because of one that was killed before it had made that durable.
                with contextlib.suppress(FileNotFoundError):
                    self._sync_directory(_directory(source))
                return
            folder = self._make_aside(_directory(name))
            targets = (f"{folder}/{free.rpartition('/')[2]}" for free in protocol.aside_names(name))
            next(target for target in targets if self._claim(source, target))
            # The new name first: a power cut may leave both, never neither.
            self._sync_directory(folder)
            with contextlib.suppress(FileNotFoundError):  # renamed, where there are no links
                again(self._files.unlink, source)
            self._sync_directory(_directory(source))

    def remove_stale(self, now: float) -> int:
        return skeleton.remove_stale(self._files, self._root, now=now)

    def close(self) -> None:
        if self._end_init is not None:
            self._end_init()

    def _make_aside(self, area: str) -> str:
        """The directory below `quarantine` for blobs of an area, durable."""
        path = self._root
        for part in ("quarantine", *area.split("/")):
            above, path = path, f"{path}/{part}"
            with contextlib.suppress(FileExistsError):
                again(self._files.mkdir, path)
            self._sync_directory(above)
        return path

    # --- durability ------------------------------------------------------------------------------

    def sync(self) -> None:
        # Held throughout: whoever comes second may have put what the first is about to make durable.
        with self._sync_guard:
            if self._failure is not None:
                raise self._failure
            with self._unsynced_guard:
                directories, self._unsynced = self._unsynced, set()
            for directory in sorted(directories):
                try:
                    with files_module.door(directory):
                        self._sync_directory(directory)
                except errors.VimgvcError as error:
                    # The kernel tells of a failed write once; the next fsync would succeed without
                    # the names being there. So this object never again says that it is durable.
                    self._failure = error
                    raise
            with self._unsynced_guard:
                self._anchored |= directories

    def _store(self, target: str, parts: Sequence[protocol.Buffer]) -> bool:
        """Write a new file; False when somebody else took its name meanwhile."""
        # 1 A temporary file in the directory of the target: the same file system, and the same
        #   directory to sync. Created exclusively: nothing that is there is ever written to.
        temporary, handle = self._create_beside(target)
        try:
            try:
                # 2 All the bytes, however many calls it takes.
                files_module.write_all(self._files, handle, parts)
                # 3 Durable before they have a name. An error is final: the kernel may have dropped
                #   the pages, and would report success the second time.
                if self._durable:
                    again(self._files.fsync, handle)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._files.close(handle)
                raise
            # 4 Network file systems and quotas may report a failed write only here.
            self._files.close(handle)
            # 5 The name, if it is still free; `sync` makes it durable.
            return self._claim(temporary, target)
        finally:
            # 6 Whatever happened, only the final name stays. When this fails, everybody ignores the
            #   file and `remove_stale` removes it; the outcome of the above stands.
            with contextlib.suppress(OSError):
                again(self._files.unlink, temporary)

    def _create_beside(self, target: str) -> tuple[str, int]:
        """The path and handle of a new temporary file in the directory of `target`."""
        directory = _directory(target)
        temporary = f"{directory}/{skeleton.TEMPORARY}{self._rng(8).hex()}"
        try:
            return temporary, again(self._files.create, temporary)
        except FileNotFoundError:
            # Only below an area, or one that came later. A root or area that is missing belongs to a
            # disk that is not mounted; what is written there disappears under the next mount.
            made = [path for path in (_directory(directory), directory) if self._may_make(path)]
            if directory not in made:
                raise
        for path in made:
            with contextlib.suppress(FileExistsError):
                again(self._files.mkdir, path)
        with self._unsynced_guard:
            self._anchored.discard(directory)
            self._unsynced.update(self._root for path in made if _directory(path) == self._root)
        return temporary, again(self._files.create, temporary)

    def _may_make(self, directory: str) -> bool:
        below = directory[len(self._root) + 1 :]
        return below.count("/") == 1 or below in protocol.LATER

    def _claim(self, temporary: str, target: str) -> bool:
        """Give a finished file its final name, or say that the name is taken."""
        try:
            if self._has_links:
                try:
                    again(self._files.link, temporary, target)
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    self._has_links = False
                else:
                    return True
            again(self._files.rename_new, temporary, target)
        except FileExistsError:
            # The reply to a link over NFS can get lost; asked again, the server says that the name
            # exists. It is ours when it is the same file.
            return self._is_taken(target) and self._is_same(temporary, target)
        return True

    def _is_taken(self, path: str) -> bool:
        """Whether a blob is there; raises when something else is."""
        try:
            status = again(self._files.status, path)
        except FileNotFoundError:
            return False
        if not status.is_regular:
            raise _not_a_file(path)
        return True

    def _is_same(self, one: str, other: str) -> bool:
        return again(self._files.status, one).identity == again(self._files.status, other).identity

    def _rely_on(self, path: str) -> None:
        """Have the next `sync` make a name durable, whoever made it."""
        directory = _directory(path)
        with self._unsynced_guard:
            self._unsynced.add(directory)
            # The name of a shard or ref log, too, may be younger than the last sync of its area.
            if directory not in self._anchored and _directory(_directory(directory)) == self._root:
                self._unsynced.add(_directory(directory))

    def _sync_directory(self, path: str) -> None:
        if self._durable:
            files_module.sync_directory(self._files, path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    # --- locks -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock_shared(self) -> Iterator[None]:
        """Held by whoever reads or adds: keeps `lock_exclusive` out, and nobody else. Raises `Busy`.

        On a file system without locks, or without a place for the lock, nothing is held: there
        `lock_exclusive` cannot be had either, so nothing will be removed.
        """
        with files_module.door(self._path(skeleton.LOCK)):
            try:
                handle = self._take_lock(exclusive=False)
            except OSError as error:
                if error.errno not in _LOCKLESS:
                    raise
                handle = None
        try:
            yield
        finally:
            if handle is not None:
                self._release(handle)

    @contextlib.contextmanager
    def lock_exclusive(self) -> Iterator[None]:
        """Held by whoever removes: no other process holds either lock. Raises `Busy`."""
        with files_module.door(self._path(skeleton.LOCK)):
            handle = self._take_lock(exclusive=True)
        try:
            yield
        finally:
            self._release(handle)

    def _release(self, handle: int) -> None:
        # The descriptor is closed, and the lock gone with it, whatever is reported.
        with contextlib.suppress(OSError):
            self._files.close(handle)

    def _take_lock(self, *, exclusive: bool) -> int:
        try:
            return again(self._files.lock, self._path(skeleton.LOCK), exclusive=exclusive)
        except BlockingIOError:
            raise errors.Busy(
                f"{self._root} is in use by another process", hint="run the command again when that one has finished"
            ) from None


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _not_a_file(path: str) -> errors.BackendError:
    return errors.BackendError(
        path, "not a file", "there is something in the place of a blob that is not a regular file", hint="move it away"
    )
