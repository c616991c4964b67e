"""Whole transfers at a position of an open file: everything asked for, or a typed error.

Nothing here moves or uses the file's own position, except `lseek`, which returns what it found: so
one descriptor serves all threads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import libc

#: Zeros to write where nothing better is possible.
_ZEROS = memoryview(bytes(1 << 20))

# How much one call may zero: a device that writes the zeros itself must answer before the kernel's
# timeout for a request (30 s). The value that oVirt uses for the same reason.
_ZERO_AT_ONCE = 128 << 20

#: What a sync says when data that was written before is lost.
LOST_WRITE = {errno.EIO, errno.ENOSPC, errno.EDQUOT}

_NO_HOLES = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ESPIPE}


def read_into(fd: int, where: str, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` from `offset` of `fd`, which messages call `where`.

    A read error is tried once more, because some are gone the next time; then it is an error that
    names the bytes from the first unreadable one on. The end of the file inside the range means that
    it became shorter.
    """
    done, again = 0, True
    while done < buffer.nbytes:
        try:
            got = os.preadv(fd, [buffer[done:]], offset + done)
        except OSError as error:
            if error.errno == errno.EIO and again:
                again = False
                continue
            raise _range_error(error, where, offset + done, offset + buffer.nbytes) from error
        if not got:
            raise changed(where, f"it ends at byte {offset + done}")
        done += got


def write_all(fd: int, where: str, offset: int, data: memoryview) -> None:
    """Write all of `data` at `offset`. A write error is final: what the range holds then is unknown."""
    done = 0
    while done < data.nbytes:
        try:
            done += os.pwrite(fd, data[done:], offset + done)
        except OSError as error:
            raise write_error(error, where, f"bytes {offset + done} to {offset + data.nbytes - 1}") from error


def write_zeros(fd: int, where: str, offset: int, length: int) -> None:
    """Write plain zeros."""
    end = offset + length
    while offset < end:
        step = min(end - offset, _ZEROS.nbytes)
        write_all(fd, where, offset, _ZEROS[:step])
        offset += step


def zero_out(fd: int, where: str, offset: int, length: int, grid: int = 1) -> None:
    """Make a range read as zeros: freed where the place can do that, else written.

    `grid`: the place frees whole blocks of this size only, as devices do; ragged ends are written.
    """
    end = offset + length
    first, last = -(-offset // grid) * grid, end // grid * grid
    if first >= last:
        write_zeros(fd, where, offset, length)
        return
    write_zeros(fd, where, offset, first - offset)
    write_zeros(fd, where, last, end - last)
    for start in range(first, last, _ZERO_AT_ONCE):
        step = min(last - start, _ZERO_AT_ONCE)
        try:
            freed = libc.punch_hole(fd, start, step)
        except OSError as error:
            raise write_error(error, where, f"bytes {start} to {start + step - 1}") from error
        if not freed:
            write_zeros(fd, where, start, last - start)
            return


def sparse_extents(fd: int, where: str, offset: int, length: int) -> Iterator[extents.Extent]:
    """What the file system says of a range: DATA and HOLE, merged. Costs two calls per data extent.

    True only for what is on the disk: see to it that the file was synced (lseek(2) allows a file
    system to tell holes where data is not yet placed).
    """
    position, end = offset, offset + length
    while position < end:
        start = min(_seek(fd, where, position, end, os.SEEK_DATA), end)
        if position < start:
            yield extents.Extent(position, start - position, extents.Kind.HOLE)
        if start == end:
            return
        stop = min(_seek(fd, where, start, end, os.SEEK_HOLE), end)
        if stop <= start:  # data of no length is a lie; what else it says is not worth asking
            stop = end
        yield extents.Extent(start, stop - start, extents.Kind.DATA)
        position = stop


def _seek(fd: int, where: str, position: int, end: int, whence: int) -> int:
    """Where the next data or hole is; a file system that tells no holes has data all the way to `end`."""
    try:
        return os.lseek(fd, position, whence)
    except OSError as error:
        if error.errno in _NO_HOLES:
            return position if whence == os.SEEK_DATA else end
        if error.errno != errno.ENXIO:
            raise _range_error(error, where, position, end) from error
    # ENXIO: `position` is at or behind the end of the file, or only holes follow.
    size = os.fstat(fd).st_size
    if size < end:
        raise changed(where, f"it ends at byte {size}")
    return end


def kind_name(mode: int) -> str:
    """What a file with this mode is, with its article."""
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFREG: "a regular file",
    }
    return names.get(stat.S_IFMT(mode), "a special file")


def changed(where: str, how: str) -> errors.VimgvcError:
    return errors.VimgvcError(
        f"{where}: the source changed while it was read: {how}",
        hint="shut the machine down, or read from a snapshot of the disk; then run the same command again",
    )


def write_error(error: OSError, where: str, what: str) -> errors.VimgvcError:
    """The typed error for a failed write, sync or publication of the target `where`."""
    if error.errno == errno.EIO:
        return errors.IntegrityError(
            where, f"{what}: {error.strerror}", hint="the target's disk reports an error; see the kernel log"
        )
    if error.errno == errno.EFBIG:
        return errors.VimgvcError(
            f"{where}: {what}: {error.strerror}",
            hint="this file system, or 'ulimit -f', does not allow a file this large",
        )
    return errors.from_os_error(error, where)


def _range_error(error: OSError, where: str, start: int, end: int) -> errors.VimgvcError:
    return errors.from_os_error(error, f"{where}, bytes {start} to {end - 1}")
