"""The local cache of an index: a folder of runs and one table of contents (specs/index-cache.md).

Everything in it can be made again from the repository, so whatever is wrong with it has one answer:
it is not there. Runs never change; the table of contents is replaced in one step; who cannot get the lock
does without. Nothing is synced: a torn file fails its checksum.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from vimgvc import errors
from vimgvc.model import encoding
from vimgvc.store import index_object, run_file, runs

_MAGIC = b"vimgvcX\x01"
_COUNTS = "<IIII"
_RUN = np.dtype([("name", "u1", (32,)), ("count", "<u8")])
_CONTENTS = "contents"
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by vimgvc; may be deleted at any time.\n"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cache holds: the index objects it covers, the packs they name and their entries in runs."""

    objects: frozenset[str]
    packs: index_object.Rows
    runs: tuple[runs.Run, ...]


EMPTY = Snapshot(frozenset(), np.empty(0, index_object.PACK), ())


class Cache:
    """The cache in `folder`, which need not exist and need not be writable."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def read(self) -> Snapshot:
        """What is there; EMPTY when there is nothing or anything is wrong with it."""
        for _ in range(2):
            try:
                return self._read()
            except FileNotFoundError:
                # Another process replaced the runs after this one read which they are; now it can read which are new.
                continue
            except (OSError, errors.IntegrityError):
                break
        return EMPTY

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / _CONTENTS).unlink()

    @contextlib.contextmanager
    def update(self) -> Iterator[Update | None]:
        """The right to change the cache, or None: it cannot be written, or another process is at it."""
        try:
            self._prepare()
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield None
            return
        try:
            yield Update(self._folder) if _lock(lock) else None
        finally:
            os.close(lock)

    def temporary(self) -> run_file.Descriptor:
        """An empty file without a name. Raises `OSError`."""
        self._prepare()
        return anonymous_file(self._folder)

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_owner()
        tag = self._folder / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_bytes(_TAG)

    def _check_owner(self) -> None:
        """Whoever can write the cache can make data vanish: claim that it is stored when it is not."""
        status = self._folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "others can write it", str(self._folder))

    def _read(self) -> Snapshot:
        self._check_owner()
        data = (self._folder / _CONTENTS).read_bytes()
        objects, packs, table = _decode(data)
        found = []
        for row in table:
            name, count = row["name"].tobytes(), int(row["count"])
            descriptor = os.open(self._folder / f"run-{name.hex()}", os.O_RDONLY | os.O_CLOEXEC)
            found.append(runs.Run(run_file.FileSource(run_file.Descriptor(descriptor), count, name)))
        return Snapshot(frozenset(item.tobytes().hex() for item in objects), packs, tuple(found))


class Update:
    """Changes a cache whose lock is held."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def merge(self, parts: Sequence[runs.Run]) -> runs.Run:
        """`parts` as one run in the cache; it stays unknown until `publish`. Raises `OSError`."""
        import tempfile

        descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self._folder)
        try:
            merged = runs.merge(parts, run_file.FileSink(run_file.Descriptor(descriptor)))
            pathlib.Path(temporary).replace(self._folder / _file_name(merged))
        except BaseException:
            with contextlib.suppress(OSError):
                pathlib.Path(temporary).unlink()
            raise
        return merged

    def publish(self, content: Snapshot) -> None:
        """Replace what the cache holds; all of `content.runs` are from `read` or `merge`. Raises `OSError`."""
        temporary = self._folder / ".tmp-contents"
        temporary.write_bytes(_encode(content))
        temporary.replace(self._folder / _CONTENTS)
        wanted = {_file_name(run) for run in content.runs}
        for path in self._folder.iterdir():
            if path.name.startswith((".tmp-", "run-")) and path.name not in wanted:
                path.unlink()


def anonymous_file(folder: pathlib.Path | None = None) -> run_file.Descriptor:
    """An empty file that vanishes with the process, in `folder` or where temporary files go. Raises `OSError`."""
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        return run_file.Descriptor(os.dup(file.fileno()))


def _file_name(run: runs.Run) -> str:
    assert isinstance(run.source, run_file.FileSource)
    return f"run-{run.source.name.hex()}"


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _encode(content: Snapshot) -> bytes:
    objects = b"".join(bytes.fromhex(name) for name in sorted(content.objects))
    table = np.zeros(len(content.runs), _RUN)
    for row, run in zip(table, content.runs, strict=True):
        assert isinstance(run.source, run_file.FileSource)
        row["name"] = np.frombuffer(run.source.name, np.uint8)
        row["count"] = run.count
    counts = struct.pack(_COUNTS, len(content.objects), len(content.packs), len(table), 0)
    body = b"".join((_MAGIC, counts, objects, content.packs.tobytes(), table.tobytes()))
    return body + blake3(body).digest()


def _decode(data: bytes) -> tuple[index_object.Ids, index_object.Rows, index_object.Rows]:
    if blake3(data[:-32]).digest() != data[-32:] or not data.startswith(_MAGIC):
        raise errors.IntegrityError("index cache", "has a damaged table of contents")
    cursor = encoding.Cursor(data[len(_MAGIC) : -32], "index cache")
    object_count, pack_count, run_count, _ = cursor.unpack(_COUNTS)
    objects = np.frombuffer(cursor.take(32 * object_count), np.uint8).reshape(-1, 32)
    packs = np.frombuffer(cursor.take(index_object.PACK.itemsize * pack_count), index_object.PACK)
    table = np.frombuffer(cursor.take(_RUN.itemsize * run_count), _RUN)
    cursor.end()
    return objects, packs, table
