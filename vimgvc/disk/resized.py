"""Disks seen with another size, from the other side, or as something that nobody changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vimgvc.disk import extents, protocol


class Grown:
    """A Reader with zeros behind its end."""

    def __init__(self, inner: protocol.Reader, size: int) -> None:
        self._inner, self._size = inner, size

    @property
    def size(self) -> int:
        return self._size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        inside = min(max(0, self._inner.size - offset), buffer.nbytes)
        if inside:
            self._inner.pread_into(offset, buffer[:inside])
        buffer[inside:] = bytes(buffer.nbytes - inside)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        inside = min(max(0, self._inner.size - offset), length)
        told = self._inner.extents(offset, inside) if inside else ()
        return extents.cover(told, offset, length, extents.Kind.HOLE)

    def close(self) -> None:
        self._inner.close()


class Front:
    """The first `size` bytes of a Reader."""

    def __init__(self, inner: protocol.Reader, size: int) -> None:
        self._inner, self._size = inner, size

    @property
    def size(self) -> int:
        return self._size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        self._inner.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        return self._inner.extents(offset, length)

    def close(self) -> None:
        self._inner.close()


class Part(Front):
    """The first bytes of a larger Target, to be filled as if that were all; the rest becomes zeros."""

    def __init__(self, target: protocol.Target, size: int) -> None:
        super().__init__(Back(target), size)
        self._target = target
        if target.resumed:
            target.zero(size, target.size - size)

    @property
    def resumed(self) -> bool:
        return self._target.resumed

    def pwrite(self, offset: int, data: memoryview) -> None:
        extents.check_range(self._size, offset, data.nbytes)
        self._target.pwrite(offset, data)

    def zero(self, offset: int, length: int) -> None:
        extents.check_range(self._size, offset, length)
        self._target.zero(offset, length)

    def finish(self) -> None:
        self._target.finish()

    def abort(self) -> None:
        self._target.abort()


class Back:
    """What was written to a Target so far, as a Reader.

    `data`, if given, tells what was meant to be written (all of the disk, ascending): that is read
    whatever the target says, because file systems tell holes truly only of what was synced.
    """

    def __init__(
        self, target: protocol.Target, data: Callable[[int, int], Iterator[extents.Extent]] | None = None
    ) -> None:
        self._target, self._data = target, data

    @property
    def size(self) -> int:
        return self._target.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._target.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        told = self._target.extents(offset, length)
        return told if self._data is None else extents.merge(_either(self._data(offset, length), told))

    def close(self) -> None:
        """The target is its owner's."""


def _either(left: Iterator[extents.Extent], right: Iterator[extents.Extent]) -> Iterator[extents.Extent]:
    """Two covers of the same range as one: DATA where one of them says so, else what the right one says."""
    one, two = next(left, None), next(right, None)
    while one is not None and two is not None:
        start, end = max(one.start, two.start), min(one.end, two.end)
        data = extents.Kind.DATA
        yield extents.Extent(start, end - start, data if data in (one.kind, two.kind) else two.kind)
        one, two = (next(left, None) if one.end == end else one), (next(right, None) if two.end == end else two)


class Unchanging:
    """A Reader as a Source: what it reads from cannot change."""

    def __init__(self, inner: protocol.Reader) -> None:
        self._inner = inner

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def allocated_bytes(self) -> int:
        return self._inner.size

    def check_unchanged(self) -> None:
        """It cannot."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._inner.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._inner.extents(offset, length)

    def close(self) -> None:
        self._inner.close()
