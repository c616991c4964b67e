"""The Linux calls that Python's `os` lacks. Nothing else in the package uses ctypes.

They say whether the call exists for these files: False means "not here, do without".
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

_KEEP_SIZE = 0x01  # <linux/falloc.h>
_PUNCH_HOLE = 0x02
_START_WRITING = 0x02  # SYNC_FILE_RANGE_WRITE of <linux/fs.h>
_RENAME_NOREPLACE = 0x01  # <linux/fs.h>

# EINVAL: a range that this device cannot zero by itself, or a flag that this file system lacks.
_MISSING = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV}


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int]:
    import ctypes  # 10 ms that reading never needs

    libc = ctypes.CDLL(None, use_errno=True)
    # musl has one name, with 64-bit offsets; glibc's plain one is 64 bit wide only on 64-bit machines.
    call = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return call


def _change_space(fd: int, mode: int, offset: int, length: int) -> bool:
    import ctypes

    while _fallocate()(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number in _MISSING:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Free a range (> 0 bytes) of a file or block device, so that it reads as zeros. The size stays."""
    return _change_space(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


def reserve(fd: int, offset: int, length: int) -> bool:
    """Take the space of a range (> 0 bytes) of a file; what it holds stays, holes in it still read as zeros."""
    return _change_space(fd, 0, offset, length)


def start_writeback(fd: int) -> bool:
    """Have the kernel begin to write what a file has in memory, without waiting.

    Nothing is promised by it, and no error is lost: `fsync` afterwards still tells what failed.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "sync_file_range"):
        return False
    call = libc.sync_file_range
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return bool(call(fd, 0, 0, _START_WRITING) == 0)


def rename_noreplace(folder: int, old: str, new: str) -> bool:
    """Rename inside the directory `folder`; `FileExistsError` if `new` is taken, whatever it is."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # glibc before 2.28
        return False
    if libc.renameat2(folder, os.fsencode(old), folder, os.fsencode(new), _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        if number in _MISSING:
            return False
        raise OSError(number, os.strerror(number), new)
    return True
