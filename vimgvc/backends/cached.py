"""A Backend whose small blobs are kept on this machine: what never changes is not fetched twice.

Kept are commits, ref entries, records of forgotten commits, and index objects and packs of at most `SMALL` bytes, each
whole, below a directory that belongs to this user and this place. What is kept is believed only if its own hash is
right; what is damaged is dropped and read again. Whether a blob exists, and how large it is, is always asked from the
place itself.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from blake3 import blake3

from vimgvc.backends import protocol

#: Packs up to this size are read whole when a part is wanted.
SMALL = 4 << 20
#: The oldest are removed when all together take more, in bytes.
MOST = 1 << 30
_KEPT = ("commits", "index", "refs", "forgotten")
_HASH_SIZE = 32


class Cached:
    """`inner`, with copies in `directory`, where any failure only costs time."""

    def __init__(self, inner: protocol.Backend, directory: pathlib.Path) -> None:
        self.inner, self._directory = inner, directory
        self._small: dict[str, int] = {}

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> protocol.Capabilities:
        return self.inner.capabilities

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        stored = self.inner.put(name, parts)
        size = sum(memoryview(part).nbytes for part in parts)
        if not stored:
            self._drop(name)  # what is there is looked at there
        if stored and name.startswith("packs/") and size <= SMALL:
            self._small[name] = size
        if stored and self._is_kept(name):
            self._keep(name, b"".join(parts))
        return stored

    def sync(self) -> None:
        self.inner.sync()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if not self._is_kept(name):
            return self.inner.get(name, offset, length)
        protocol.validate_range(offset, length)
        blob = self._find(name)
        if blob is None:
            if (offset, length) == (0, self._small.get(name, -1)):
                return self.inner.get(name, offset, length)  # moves on as a whole: of no use here
            blob = self.inner.get(name)
            self._keep(name, blob)
        end = max(len(blob), offset) if length is None else offset + length
        if end > len(blob):
            raise protocol.too_short(name, len(blob), end)
        return blob if (offset, end) == (0, len(blob)) else blob[offset:end]

    def size(self, name: str) -> int:
        return self.inner.size(name)

    def list(self, area: str) -> Iterator[protocol.Item]:
        for item in self.inner.list(area):
            if area.startswith("packs") and 0 < item.size <= SMALL:
                self._small[item.name] = item.size
            yield item

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return self.inner.lock_shared()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self.inner.lock_exclusive()

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> None:
        known = list(names)
        self.inner.delete_all(known)
        for name in known:
            self._drop(name)

    def set_aside(self, name: str) -> None:
        self.inner.set_aside(name)
        self._drop(name)

    def remove_stale(self, now: float) -> int:
        return self.inner.remove_stale(now)

    def close(self) -> None:
        self.inner.close()

    # -- what is kept ----------------------------------------------------------------------------

    def _is_kept(self, name: str) -> bool:
        return name.partition("/")[0] in _KEPT or name in self._small

    def _path(self, name: str) -> pathlib.Path:
        return self._directory / protocol.validate_name(name)

    def _find(self, name: str) -> bytes | None:
        try:
            blob = self._path(name).read_bytes()
        except OSError:
            return None
        if _is_sound(name, blob):
            return blob
        self._drop(name)
        return None

    def _keep(self, name: str, blob: bytes) -> None:
        if len(blob) > SMALL or not _is_sound(name, blob):
            return
        path = self._path(name)
        temporary = path.with_name(f".tmp-{os.urandom(8).hex()}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with open(temporary, "xb", opener=_private) as stream:
                    stream.write(blob)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _drop(self, name: str) -> None:
        self._small.pop(name, None)
        with contextlib.suppress(OSError):
            self._path(name).unlink()

    def trim(self, most: int = MOST) -> None:
        """Remove what was kept first until the rest takes at most `most` bytes."""
        found = []
        for directory, _, names in os.walk(self._directory):
            for name in names:
                path = pathlib.Path(directory, name)
                with contextlib.suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= most:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_sound(name: str, blob: bytes) -> bool:
    """By the name of a pack, or the hash at the end of a sealed object."""
    if name.startswith("packs/"):
        return blake3(blob).hexdigest() == name.rpartition("/")[2]
    return len(blob) > _HASH_SIZE and blake3(blob[:-_HASH_SIZE]).digest() == blob[-_HASH_SIZE:]
