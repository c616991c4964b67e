"""A file system in memory that knows what a power cut leaves.

It promises no more than POSIX: what was written survives for certain only after `fsync` of the
file, a name only after `fsync_dir` of the directory that holds it. Until then each change may have
reached the disk or not, on its own and in any order. A rename is one change; to sync a file says
nothing about its name, to sync a name nothing about the content.

An `fsync` that fails (`fail_fsync`, `fail_fsync_dir`) does what Linux does: the unwritten data can
still be read, the next fsync succeeds, and the data is not on the disk.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import blake3

from vimgvc.backends import files


class Fate(enum.Enum):
    DIRTY = "not synced"
    CLEAN = "on the disk"
    LOST = "readable until the power is cut"


@dataclasses.dataclass(slots=True)
class Chunk:
    """The bytes of one write."""

    data: bytes
    fate: Fate = Fate.DIRTY


@dataclasses.dataclass(slots=True)
class File:
    chunks: list[Chunk] = dataclasses.field(default_factory=list)

    def content(self) -> bytes:
        """What reading returns."""
        if len(self.chunks) == 1:
            return self.chunks[0].data
        return b"".join(chunk.data for chunk in self.chunks)


@dataclasses.dataclass(slots=True)
class Change:
    """Names that appear (a node) or disappear (None) together."""

    names: dict[str, int | None]
    fate: Fate = Fate.DIRTY


@dataclasses.dataclass(slots=True)
class Directory:
    """`durable` are the names on the disk, `changes` what came since; dicts are replaced, never changed."""

    durable: dict[str, int] = dataclasses.field(default_factory=dict)
    changes: list[Change] = dataclasses.field(default_factory=list)
    names: dict[str, int] = dataclasses.field(default_factory=dict)

    def change(self, names: dict[str, int | None]) -> None:
        self.changes.append(Change(names))
        self.names = apply(self.names, [self.changes[-1]])


def apply(names: dict[str, int], changes: Iterable[Change]) -> dict[str, int]:
    result = dict(names)
    for change in changes:
        for name, node in change.names.items():
            if node is None:
                result.pop(name, None)
            else:
                result[name] = node
    return result


class Survival(Protocol):
    """Decides what of the unsynced changes a power cut leaves."""

    def changes(self, changes: Sequence[Change]) -> Sequence[Change]: ...

    def content(self, durable: bytes, written: bytes) -> bytes:
        """What is left of a file of which `durable` was synced and `written` has been written."""


class ModelFiles:
    """Implements `files.Files`. `now` is the time of the next write, in seconds since 1970."""

    def __init__(self, directories: Iterable[str] = ()) -> None:
        self.now = 0.0
        self._nodes: dict[int, File | Directory] = {0: Directory()}
        self._modified: dict[int, float] = {}
        self._next_node = 1
        self._open: dict[int, int] = {}
        self._next_handle = 1000
        self._locks: dict[int, tuple[int, bool]] = {}
        self._guard = threading.RLock()
        # Of paths that were looked up; forgotten whenever a name comes or goes.
        self._found: dict[str, int] = {}
        for path in directories:
            self._make_durable(path)

    # --- what only the rig calls -------------------------------------------------------------------

    def crash(self, survival: Survival) -> ModelFiles:
        """The file system after a power cut and a reboot."""
        with self._guard:
            after = ModelFiles()
            after._next_node, after.now, after._modified = self._next_node, self.now, dict(self._modified)
            for number, node in self._nodes.items():
                if isinstance(node, File):
                    after._nodes[number] = File([Chunk(_surviving(node, survival), Fate.CLEAN)])
                else:
                    names = node.durable
                    kept = [change for change in node.changes if change.fate is Fate.DIRTY]
                    if kept:
                        names = apply(names, survival.changes(kept))
                    after._nodes[number] = Directory(durable=names, names=names)
            return after

    def pending(self) -> bool:
        """Whether a power cut could leave anything but what is seen."""
        with self._guard:
            return any(
                node.changes if isinstance(node, Directory) else any(c.fate is not Fate.CLEAN for c in node.chunks)
                for node in self._nodes.values()
            )

    def tree(self, root: str) -> dict[str, bytes | None]:
        """Every path below `root` with its content (None: a directory)."""
        with self._guard:
            found: dict[str, bytes | None] = {}
            self._collect(root, self._find(root), found)
            return found

    def fingerprint(self) -> frozenset[tuple[str, int, bytes]]:
        """Equal for files that nothing tells apart but what of them is synced."""
        with self._guard:
            return frozenset(
                (path, self._find(path), b"" if content is None else blake3.blake3(content).digest())
                for path, content in self.tree("/").items()
            )

    def copy(self) -> ModelFiles:
        """The same files in the same state; nothing is open."""
        with self._guard:
            after = ModelFiles()
            after._next_node, after.now, after._modified = self._next_node, self.now, dict(self._modified)
            for number, node in self._nodes.items():
                if isinstance(node, File):
                    after._nodes[number] = File([Chunk(chunk.data, chunk.fate) for chunk in node.chunks])
                else:
                    changes = [Change(change.names, change.fate) for change in node.changes]
                    after._nodes[number] = Directory(node.durable, changes, node.names)
            return after

    def add_files(self, directory: str, names: Iterable[str]) -> None:
        """Many durable empty files at once."""
        with self._guard:
            place = self._directory(directory)
            number = self._add(f"{directory}/.template", File())
            self._found.clear()
            place.durable = place.names = {**place.names, **dict.fromkeys(names, number)}
            place.changes.clear()
            self.unlink(f"{directory}/.template")

    def drop_empty(self, directory: str, keep: Callable[[str], bool]) -> None:
        """Directories without names in `directory` are not there, but for those to keep."""
        with self._guard:
            place = self._directory(directory)
            assert not place.changes
            for name, number in list(place.names.items()):
                if self._nodes[number] == Directory() and not keep(name):
                    del self._nodes[number]
                    place.names = {other: node for other, node in place.names.items() if other != name}
            place.durable = place.names
            self._found.clear()

    def fail_fsync(self, handle: int) -> None:
        with self._guard:
            for chunk in self._file(handle).chunks:
                if chunk.fate is Fate.DIRTY:
                    chunk.fate = Fate.LOST

    def fail_fsync_dir(self, path: str) -> None:
        with self._guard:
            for change in self._directory(path).changes:
                change.fate = Fate.LOST

    # --- Files ---------------------------------------------------------------------------------------

    def create(self, path: str) -> int:
        with self._guard:
            return self._open_node(self._add(path, File()))

    def write(self, handle: int, parts: Sequence[memoryview]) -> int:
        with self._guard:
            data = b"".join(parts)
            self._file(handle).chunks.append(Chunk(data))
            self._modified[self._open[handle]] = self.now
            return len(data)

    def fsync(self, handle: int) -> None:
        with self._guard:
            for chunk in self._file(handle).chunks:
                if chunk.fate is Fate.DIRTY:
                    chunk.fate = Fate.CLEAN

    def close(self, handle: int) -> None:
        with self._guard:
            if handle not in self._open:
                raise _error(errno.EBADF, str(handle))
            del self._open[handle]
            self._locks.pop(handle, None)

    def link(self, source: str, target: str) -> None:
        with self._guard:
            directory, name = self._place(target)
            number = self._find(source)
            if name in directory.names:
                raise _error(errno.EEXIST, target)
            self._change(directory, {name: number})

    def rename_new(self, source: str, target: str) -> None:
        with self._guard:
            directory, name = self._place(target)
            old, old_name = self._place(source)
            assert old is directory, "a rename between directories is no part of the model"
            number = self._find(source)
            if name in directory.names:
                raise _error(errno.EEXIST, target)
            self._change(directory, {old_name: None, name: number})

    def unlink(self, path: str) -> None:
        with self._guard:
            directory, name = self._place(path)
            if isinstance(self._nodes[self._find(path)], Directory):
                raise _error(errno.EISDIR, path)
            self._change(directory, {name: None})

    def mkdir(self, path: str) -> None:
        with self._guard:
            self._add(path, Directory())

    def fsync_dir(self, path: str) -> None:
        with self._guard:
            directory = self._directory(path)
            lost = [change for change in directory.changes if change.fate is Fate.LOST]
            directory.durable = apply(directory.durable, [c for c in directory.changes if c.fate is not Fate.LOST])
            directory.changes = lost

    def sync_all(self) -> None:
        with self._guard:
            for node in self._nodes.values():
                for item in node.chunks if isinstance(node, File) else ():
                    item.fate = Fate.CLEAN if item.fate is Fate.DIRTY else item.fate
            for path, content in self.tree("/").items():
                if content is None:
                    self.fsync_dir(path)

    def scan(self, path: str, keep: Callable[[str], bool]) -> list[files.Entry]:
        with self._guard:
            entries = []
            for name, number in self._directory(path).names.items():
                if keep(name):
                    node = self._nodes[number]
                    if isinstance(node, Directory):
                        entries.append(files.Entry(name, is_directory=True, size=0, modified=0))
                    else:
                        modified = self._modified.get(number, 0.0)
                        size = len(node.content())
                        entries.append(files.Entry(name, is_directory=False, size=size, modified=modified))
            return entries

    def status(self, path: str) -> files.Status:
        with self._guard:
            number = self._find(path)
            node = self._nodes[number]
            is_file = isinstance(node, File)
            size = len(node.content()) if isinstance(node, File) else 0
            return files.Status(is_regular=is_file, is_directory=not is_file, size=size, identity=(0, number))

    def writable(self, path: str) -> bool:
        return True

    def open(self, path: str) -> tuple[int, int]:
        with self._guard:
            number = self._find(path)
            node = self._nodes[number]
            if isinstance(node, Directory):
                raise _error(errno.EINVAL, path)
            return self._open_node(number), len(node.content())

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        with self._guard:
            return self._file(handle).content()[offset : offset + length]

    def lock(self, path: str, *, exclusive: bool) -> int:
        with self._guard:
            try:
                number = self._find(path)
            except FileNotFoundError:
                number = self._add(path, File())
            for held, is_exclusive in self._locks.values():
                if held == number and (exclusive or is_exclusive):
                    raise _error(errno.EAGAIN, path)
            handle = self._open_node(number)
            self._locks[handle] = (number, exclusive)
            return handle

    # --- nodes ---------------------------------------------------------------------------------------

    def _find(self, path: str) -> int:
        number = self._found.get(path)
        if number is None:
            number = self._found[path] = self._walk(path)
        return number

    def _walk(self, path: str) -> int:
        number = 0
        for name in path.strip("/").split("/") if path != "/" else ():
            node = self._nodes[number]
            if isinstance(node, File):
                raise _error(errno.ENOTDIR, path)
            if name not in node.names:
                raise _error(errno.ENOENT, path)
            number = node.names[name]
        return number

    def _change(self, directory: Directory, names: dict[str, int | None]) -> None:
        self._found.clear()
        directory.change(names)

    def _directory(self, path: str) -> Directory:
        node = self._nodes[self._find(path)]
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, path)
        return node

    def _place(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self._directory(parent or "/"), name

    def _add(self, path: str, node: File | Directory) -> int:
        directory, name = self._place(path)
        if name in directory.names:
            raise _error(errno.EEXIST, path)
        number = self._next_node
        self._next_node += 1
        self._nodes[number] = node
        self._modified[number] = self.now
        self._change(directory, {name: number})
        return number

    def _open_node(self, number: int) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._open[handle] = number
        return handle

    def _file(self, handle: int) -> File:
        if handle not in self._open:
            raise _error(errno.EBADF, str(handle))
        node = self._nodes[self._open[handle]]
        assert isinstance(node, File)
        return node

    def _make_durable(self, path: str) -> None:
        directory = ""
        for name in path.strip("/").split("/"):
            if name not in self._directory(directory or "/").names:
                self._add(f"{directory}/{name}", Directory())
                self.fsync_dir(directory or "/")
            directory = f"{directory}/{name}"

    def _collect(self, path: str, number: int, found: dict[str, bytes | None]) -> None:
        node = self._nodes[number]
        found[path] = node.content() if isinstance(node, File) else None
        if isinstance(node, Directory):
            for name, child in node.names.items():
                self._collect(f"{path.rstrip('/')}/{name}", child, found)


def _surviving(file: File, survival: Survival) -> bytes:
    if all(chunk.fate is Fate.CLEAN for chunk in file.chunks):
        return file.content()
    # Where a lost page was, the disk has what was there before: nothing.
    pages = [bytes(len(chunk.data)) if chunk.fate is Fate.LOST else chunk.data for chunk in file.chunks]
    last = max((at for at, chunk in enumerate(file.chunks) if chunk.fate is Fate.CLEAN), default=-1)
    durable = b"".join(
        page if chunk.fate is not Fate.DIRTY else bytes(len(page))
        for page, chunk in zip(pages[: last + 1], file.chunks, strict=False)
    )
    return survival.content(durable, b"".join(pages))


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
