"""A repository, or the newer part of one, as one file (specs/bundle.md): written once from its beginning to its end.

While it is written it is a Backend that appends, in a file beside the final name; what an interrupted one left there
is scanned and gone on with. Finished it is a Backend that only reads.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence

from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.model import encoding

MAGIC, END = b"vimgvcB\x01", b"vimgvcb\x01"
_HEADER = struct.Struct("<8s16s")
_RECORD = struct.Struct("<4sHHQ")
_ENTRY = struct.Struct("<QQH")
_TAIL = struct.Struct("<Q8s")
_BLOB, _TABLE = b"blob", b"tabl"
_HASH = 32
_PIECE = 4 << 20
_MOST_NAMES = 64 << 20
#: Of no use to whoever reads a bundle; kept in memory while it is written.
_PASSING = ("pins", "gc")

_Places = dict[str, tuple[int, int]]


def is_bundle(path: pathlib.Path) -> bool:
    """Whether this is a regular file that begins as a bundle does."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class _Blobs:
    """What both have in common: blobs at places of one file, and some in memory."""

    def __init__(
        self, path: pathlib.Path, descriptor: int, places: _Places, capabilities: protocol.Capabilities
    ) -> None:
        self._path, self._descriptor, self._places, self._capabilities = path, descriptor, places, capabilities
        self._passing: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return str(self._path)

    @property
    def capabilities(self) -> protocol.Capabilities:
        return self._capabilities

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        protocol.validate_name(name)
        protocol.validate_range(offset, length)
        if name in self._passing:
            blob = self._passing[name]
            return blob[offset : None if length is None else offset + length]
        start, size = self._find(name)
        end = max(size, offset) if length is None else offset + length
        if end > size:
            raise protocol.too_short(name, size, end)
        if length is None and size > protocol.most(name):
            raise protocol.too_large(name, size)
        return _read(self._descriptor, start + offset, end - offset, name)

    def size(self, name: str) -> int:
        protocol.validate_name(name)
        return len(self._passing[name]) if name in self._passing else self._find(name)[1]

    def list(self, area: str) -> Iterator[protocol.Item]:
        protocol.validate_area(area)
        with self._lock:
            found = {name: size for name, (_, size) in self._places.items()}
            found |= {name: len(blob) for name, blob in self._passing.items()}
        return iter([protocol.Item(name, size) for name, size in found.items() if name.startswith(f"{area}/")])

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        raise self._refused()

    def set_aside(self, name: str) -> None:
        raise self._refused()

    def remove_stale(self, now: float) -> int:
        return 0

    def close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _find(self, name: str) -> tuple[int, int]:
        with self._lock:
            place = self._places.get(name)
        if place is None:
            raise protocol.missing(name)
        return place

    def _refused(self) -> errors.VimgvcError:
        return errors.UsageError(
            f"{self._path} is a bundle: it is only read", hint="clone it, or pull it into a repository"
        )


class BundleBackend(_Blobs):
    """A finished bundle."""

    @classmethod
    def open(cls, path: pathlib.Path) -> BundleBackend:
        """Raises `NoRepository` for what is none, `IntegrityError` for one that is cut short or damaged."""
        descriptor = _open(path, os.O_RDONLY)
        try:
            places = _read_table(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        can = protocol.Capabilities(durable=True, exclusive_create=True, read_only=True, locks=False, removes=False)
        return cls(path, descriptor, places, can)

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        raise self._refused()

    def sync(self) -> None:
        """Nothing was written."""

    def delete(self, name: str) -> None:
        raise self._refused()

    def delete_all(self, names: Iterable[str]) -> None:
        raise self._refused()


class BundleWriter(_Blobs):
    """A bundle that is being written to `partial` and becomes `path` with `finish`."""

    def __init__(self, path: pathlib.Path, partial: pathlib.Path, descriptor: int, places: _Places, end: int) -> None:
        super().__init__(
            path, descriptor, places, protocol.Capabilities(durable=True, exclusive_create=True, locks=False)
        )
        self._partial, self._end = partial, end

    @classmethod
    def begin(cls, path: pathlib.Path, repo: bytes, tag: str) -> BundleWriter:
        """Go on with what an interrupted run of the same `tag` left, or begin. Raises `UsageError`, `NoSpace`."""
        if path.exists():
            raise errors.UsageError(f"{path} exists already", hint="give another name")
        partial = path.with_name(f".{path.name}.{tag}.partial")
        descriptor = _open(partial, os.O_RDWR | os.O_CREAT)
        try:
            places, end = _scan(descriptor, repo)
            with _door(partial):
                os.ftruncate(descriptor, end)
                if not end:
                    end = os.pwrite(descriptor, _HEADER.pack(MAGIC, repo), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, partial, descriptor, places, end)

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        protocol.validate_name(name)
        with self._lock:
            if name in self._places or name in self._passing:
                return False
            if name.partition("/")[0] in _PASSING:
                self._passing[name] = b"".join(parts)
                return True
            start = self._append(_BLOB, name.encode(), parts)
            self._places[name] = (start, sum(memoryview(part).nbytes for part in parts))
            return True

    def sync(self) -> None:
        with _door(self._partial):
            os.fsync(self._descriptor)

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> None:
        for name in names:
            if self._passing.pop(name, None) is None and name in self._places:
                raise self._refused()

    def finish(self) -> int:
        """Write the table and give the file its name, durable on return; its size."""
        entries = [_ENTRY.pack(*place, len(name)) + name.encode() for name, place in sorted(self._places.items())]
        with self._lock:
            at = self._end
            self._append(_TABLE, b"", [struct.pack("<I", len(entries)), *entries])
            with _door(self._partial):
                self._end += os.pwrite(self._descriptor, _TAIL.pack(at, END), self._end)
        self.sync()
        with _door(self._path):
            os.link(self._partial, self._path)  # unlike a rename it never replaces anything
            self._partial.unlink()
            _sync_directory(self._path.parent)
        return self._end

    def _append(self, kind: bytes, name: bytes, parts: Sequence[protocol.Buffer]) -> int:
        """One record; returns where its bytes begin."""
        head = _RECORD.pack(kind, len(name), 0, sum(memoryview(part).nbytes for part in parts)) + name
        hasher = blake3(head)
        for part in parts:
            hasher.update(part)
        at = self._end
        with _door(self._partial):
            for part in (head, *parts, hasher.digest()):
                at += _write(self._descriptor, part, at)
        start, self._end = self._end + len(head), at
        return start


def _read_table(path: pathlib.Path, descriptor: int) -> _Places:
    where = str(path)
    total = os.fstat(descriptor).st_size
    if total < _HEADER.size + _TAIL.size or _read(descriptor, 0, len(MAGIC), where) != MAGIC:
        raise errors.NoRepository(f"{path}: neither a repository nor a bundle", hint="check the path")
    at, end = _TAIL.unpack(_read(descriptor, total - _TAIL.size, _TAIL.size, where))
    if end != END or not _HEADER.size <= at <= total - _TAIL.size - _RECORD.size - _HASH:
        raise errors.IntegrityError(where, "is not a whole bundle", hint="copy or make it again")
    head = _read(descriptor, at, _RECORD.size, where)
    kind, name_length, reserved, length = _RECORD.unpack(head)
    if (kind, name_length, reserved) != (_TABLE, 0, 0) or at + _RECORD.size + length + _HASH + _TAIL.size != total:
        raise errors.FormatError(where, "has no table where its end says")
    if length > _MOST_NAMES:
        raise errors.FormatError(where, "has an impossible table")
    body = _read(descriptor, at + _RECORD.size, length, where)
    if blake3(head + body).digest() != _read(descriptor, at + _RECORD.size + length, _HASH, where):
        raise errors.IntegrityError(where, "has a damaged table", hint="copy or make it again")
    return _decode_table(body, at, where)


def _decode_table(body: bytes, limit: int, where: str) -> _Places:
    cursor = encoding.Cursor(body, where)
    (count,) = cursor.unpack("<I")
    places: _Places = {}
    before = ""
    for _ in range(count):
        start, size, name_length = cursor.unpack("<QQH")
        name = bytes(cursor.take(name_length)).decode("ascii", "replace")
        if name <= before or not protocol.is_name(name) or start < _HEADER.size or start + size > limit:
            cursor.fail("has a malformed table")
        before, places[name] = name, (start, size)
    cursor.end()
    return places


def _scan(descriptor: int, repo: bytes) -> tuple[_Places, int]:
    """The whole records of an unfinished bundle, and where they end; of one of another repository none."""
    places: _Places = {}
    total = os.fstat(descriptor).st_size
    at = _HEADER.size
    if total < at or _read(descriptor, 0, at, "bundle") != _HEADER.pack(MAGIC, repo):
        return {}, 0
    while at + _RECORD.size <= total:
        head = _read(descriptor, at, _RECORD.size, "bundle")
        kind, name_length, _, length = _RECORD.unpack(head)
        start = at + _RECORD.size + name_length
        if kind != _BLOB or start + length + _HASH > total:
            break
        head += _read(descriptor, at + _RECORD.size, name_length, "bundle")
        name = head[_RECORD.size :].decode("ascii", "replace")
        hasher = blake3(head)
        for piece in range(start, start + length, _PIECE):
            hasher.update(_read(descriptor, piece, min(_PIECE, start + length - piece), "bundle"))
        if not protocol.is_name(name) or hasher.digest() != _read(descriptor, start + length, _HASH, "bundle"):
            break
        places[name] = (start, length)
        at = start + length + _HASH
    return places, at


def _open(path: pathlib.Path, flags: int) -> int:
    with _door(path):
        return os.open(path, flags | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _door(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise errors.UsageError(f"{path} exists already", hint="give another name") from None
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error


def _read(descriptor: int, offset: int, length: int, where: str) -> bytes:
    data = bytearray(length)
    view, done = memoryview(data), 0
    try:
        while done < length and (count := os.preadv(descriptor, [view[done:]], offset + done)):
            done += count
    except OSError as error:
        raise errors.from_os_error(error, where) from error
    if done < length:
        raise errors.IntegrityError(where, "is cut short", hint="copy or make it again")
    return bytes(data)


def _write(descriptor: int, data: protocol.Buffer, offset: int) -> int:
    view, done = memoryview(data).cast("B"), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done


def _sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
