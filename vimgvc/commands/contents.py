"""What is written to a target: a disk of a commit, or of an image.

Both know their size, can be read anywhere, can fill a target, and can tell whether what somebody
else reads is the same. The first does it along its manifest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from vimgvc import errors
from vimgvc.disk import extents, protocol, resized, room
from vimgvc.model import geometry
from vimgvc.monitor import Monitor
from vimgvc.pipeline import copy, crew, ordered, windows
from vimgvc.repo import disk

Check = Callable[[], None]


class Content(Protocol):
    """A disk to write, `size` bytes long; `name` is what messages call it."""

    name: str
    size: int

    def parts(self) -> Iterator[extents.Extent]:
        """What is to be written, as `Reader.extents` of all of it; of a thin one what it has of its own."""

    def reader(self) -> protocol.Reader:
        """For reading in any order, by several threads; to be closed by the caller."""

    def below(self) -> protocol.Source | None:
        """What a thin disk lies on."""

    def fill(
        self,
        target: protocol.Target,
        check: Check | None,
        *,
        pieces: Iterable[extents.Extent] | None = None,
        grid: int | None = None,
    ) -> int:
        """Write everything, call `check`, finish the target, or abort it and raise. Returns the bytes written.

        With `pieces` or `grid`: as `copy.copy`, else in whatever order is best.
        """

    def compare(self, other: protocol.Reader) -> None:
        """Raise `IntegrityError` for the first range in which `other` differs; zeros behind our end do not."""


class Stored:
    """A disk of a commit, grown to `size` if that is larger; with `base` only what differs from that disk."""

    def __init__(
        self,
        name: str,
        stored: disk.StoredDisk,
        monitor: Monitor,
        threads: int | None,
        *,
        size: int | None = None,
        base: disk.StoredDisk | None = None,
    ) -> None:
        self.name, self.size = name, grown(name, stored.size, size)
        self._stored, self._base, self._monitor = stored, base, monitor
        self._threads = threads or crew.default_threads()

    def parts(self) -> Iterator[extents.Extent]:
        if self._base is not None:
            return self._stored.changed_since(self._base)
        return extents.cover(self._stored.extents(0, self._stored.size), 0, self.size, extents.Kind.HOLE)

    def reader(self) -> protocol.Reader:
        return resized.Grown(self._stored.reader(self._threads), self.size)

    def below(self) -> protocol.Source | None:
        return None if self._base is None else resized.Unchanging(self._base.reader(self._threads))

    def fill(
        self,
        target: protocol.Target,
        check: Check | None,
        *,
        pieces: Iterable[extents.Extent] | None = None,
        grid: int | None = None,
    ) -> int:
        if pieces is not None or grid is not None:
            return _copy(self.reader(), target, self._monitor, self._threads, check, pieces=pieces, grid=grid)
        part = resized.Part(target, self._stored.size) if self.size > self._stored.size else target
        return self._stored.restore(part, self._monitor, self._threads, check=check).bytes_written

    def compare(self, other: protocol.Reader) -> None:
        self._stored.matches(other, self._monitor, self._threads)


class Read:
    """The disk of an open image, grown to `size` if that is larger. Its owner closes it."""

    def __init__(
        self, name: str, source: protocol.Source, monitor: Monitor, threads: int | None, *, size: int | None = None
    ) -> None:
        self.name, self.size = name, grown(name, source.size, size)
        self._source, self._monitor = source, monitor
        self._threads = threads or crew.default_threads()

    def parts(self) -> Iterator[extents.Extent]:
        return self._kept().extents(0, self.size)

    def reader(self) -> protocol.Reader:
        return self._kept()

    def below(self) -> protocol.Source | None:
        return None

    def fill(
        self,
        target: protocol.Target,
        check: Check | None,
        *,
        pieces: Iterable[extents.Extent] | None = None,
        grid: int | None = None,
    ) -> int:
        def checks() -> None:
            if check is not None:
                check()
            self._source.check_unchanged()

        return _copy(self._kept(), target, self._monitor, self._threads, checks, pieces=pieces, grid=grid)

    def compare(self, other: protocol.Reader) -> None:
        same(self._kept(), other, self._monitor, self._threads)

    def _kept(self) -> protocol.Reader:
        return resized.Grown(_Borrowed(self._source), self.size)


class _Borrowed(resized.Unchanging):
    def close(self) -> None:
        """Its owner does that."""


def _copy(
    reader: protocol.Reader,
    target: protocol.Target,
    monitor: Monitor,
    threads: int,
    check: Check | None,
    *,
    pieces: Iterable[extents.Extent] | None,
    grid: int | None,
) -> int:
    try:
        if grid is None:
            written = copy.copy(reader, target, monitor, threads, pieces)
        else:
            written = copy.copy(reader, target, monitor, threads, pieces, grid=grid)
        if check is not None:
            check()
        target.finish()
    except BaseException:
        target.abort()
        raise
    finally:
        reader.close()
    return written


def grown(name: str, has: int, wanted: int | None) -> int:
    """The size that a disk of `has` bytes gets; raises `UsageError` where something would be cut off."""
    if wanted is not None and wanted < has:
        raise errors.UsageError(
            f"disk {name} has {has} bytes, which is more than {wanted}",
            hint="--size only grows; shrink its file systems and partitions inside, then commit the smaller disk",
        )
    return has if wanted is None else wanted


def same(one: protocol.Reader, other: protocol.Reader, monitor: Monitor, threads: int) -> None:
    """Raise `IntegrityError` naming the first window in which two disks differ.

    A larger `other` is zeros behind the end of `one`. What both say to be zeros is not read.
    """
    if other.size < one.size:
        raise errors.IntegrityError("the disk", f"has {other.size} bytes and not {one.size}", hint=_DIFFERS)
    work = _Comparison(resized.Grown(one, other.size), other, monitor)
    for at in ordered.ordered(work.windows(), work.differs, threads):
        if at is not None:
            raise errors.IntegrityError(f"bytes from {at} on", "are not what was read", hint=_DIFFERS)


_DIFFERS = "check the disk and the memory of this machine, then run the same command again"


class _Comparison:
    def __init__(self, one: protocol.Reader, other: protocol.Reader, monitor: Monitor) -> None:
        self._readers, self._monitor = (one, other), monitor
        self._local = threading.local()

    def windows(self) -> Iterator[int]:
        one, other = (windows.split(windows.data(reader.extents(0, reader.size))) for reader in self._readers)
        self._monitor.start("comparing", 0)
        return (number for number, _, _ in windows.pair(one, other))

    def differs(self, number: int) -> int | None:
        """The offset of a window whose bytes are not the same."""
        start = number * geometry.WINDOW
        length = min(geometry.WINDOW, self._readers[1].size - start)
        views: list[memoryview] | None = getattr(self._local, "views", None)
        if views is None:
            views = self._local.views = [room.pages(geometry.WINDOW) for _ in range(2)]
        for reader, view in zip(self._readers, views, strict=True):
            reader.pread_into(start, view[:length])
        self._monitor.advance(length)
        return None if views[0][:length] == views[1][:length] else start
