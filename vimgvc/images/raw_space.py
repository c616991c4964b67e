"""Files that have all of their space from the beginning."""

from __future__ import annotations

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import coverage, descriptor, libc

#: What `qemu-img create -o preallocation=` knows for raw files.
MODES = ("off", "falloc", "full")

_BLOCK = coverage.BLOCK


def check(mode: str) -> None:
    """Raise `UsageError` for what is no mode."""
    if mode not in MODES:
        raise errors.UsageError(f"preallocation is {mode}; allowed are: {', '.join(MODES)}")


class Space:
    """The space of a file of `size` bytes, taken when this is made.

    `full`: every block is also written, so that no later write needs anything of the file system; so
    it is where the file system cannot reserve. `fresh`: the file was all hole before.
    """

    def __init__(self, fd: int, where: str, size: int, *, full: bool, fresh: bool) -> None:
        self._fd, self._where, self._size, self._fresh = fd, where, size, fresh
        try:
            reserved = not size or libc.reserve(fd, 0, size)
        except OSError as error:
            raise descriptor.write_error(error, where, f"reserving {size} bytes") from error
        self._fill = full or not reserved

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros without giving its space back."""
        for item in self._told(offset, length):
            if item.kind is extents.Kind.DATA:
                descriptor.write_zeros(self._fd, self._where, item.start, item.length)

    def complete(self, written: coverage.Coverage) -> None:
        """Write zeros to what is not yet `written`; a file that is not fresh was synced before."""
        if not self._fill:
            return
        if self._fresh:
            for first, stop in written.gaps(-(-self._size // _BLOCK)):
                self._zeros(first * _BLOCK, min(stop * _BLOCK, self._size))
            return
        for item in self._told(0, self._size):
            if item.kind is extents.Kind.HOLE:
                self._zeros(item.start, item.end)

    def _told(self, offset: int, length: int) -> list[extents.Extent]:
        # All at once: writing changes what is told of the rest.
        return list(descriptor.sparse_extents(self._fd, self._where, offset, length))

    def _zeros(self, start: int, end: int) -> None:
        descriptor.write_zeros(self._fd, self._where, start, end - start)
