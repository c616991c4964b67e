"""Raw images: a file or block device whose bytes are the disk's bytes.

Reading follows symbolic links, writing does not. A source is opened once and judged by its
descriptor, so that nothing can be swapped in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import descriptor, device, libc, raw_space, raw_target

Path = str | os.PathLike[str]

# Regular files on these answer reads with what the kernel makes up then; their size says nothing.
_MADE_UP = ("/proc", "/sys")

#: Bytes after which the kernel is asked to begin writing, so that the disk works while we decompress.
_WRITEBACK = 64 << 20

_ORDINARY = "name an ordinary file or a block device"


class RawReader:
    """A raw image as a Source.

    `path` is what messages call it. Holes are those that the file system tells of a file that was
    synced when it was opened; block devices have none. Raises `NotFound`, `UnsafeImage` (neither file
    nor block device) or `BackendError` (unreadable).

    `fd`: the file is open already; it is closed with the reader, or when it is refused.
    """

    def __init__(self, path: Path, *, fd: int | None = None) -> None:
        self.path = os.fspath(path)
        self._fd = _open(self.path) if fd is None else fd
        try:
            status = os.fstat(self._fd)
            self._is_file = stat.S_ISREG(status.st_mode)
            _check_ordinary(self._fd, status, self.path)
            # Before the state is taken: a sync can move the time stamps.
            self._tells_holes = self._is_file and _synced(self._fd, self.path)
            self._state = self._look()
            self._size = self._state[0]
            blocks = os.fstat(self._fd).st_blocks * 512 if self._is_file else self._size
            self._allocated = min(blocks, self._size)
        except OSError as error:
            os.close(self._fd)
            raise errors.from_os_error(error, self.path) from error
        except errors.VimgvcError:
            os.close(self._fd)
            raise

    @property
    def size(self) -> int:
        return self._size

    @property
    def allocated_bytes(self) -> int:
        return self._allocated

    def fileno(self) -> int:
        """The descriptor, for children that are to read the very file that was judged."""
        return self._fd

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self._size, offset, buffer.nbytes)
        descriptor.read_into(self._fd, self.path, offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self._size, offset, length)
        if self._tells_holes:
            return extents.merge(descriptor.sparse_extents(self._fd, self.path, offset, length))
        whole = [extents.Extent(offset, length, extents.Kind.DATA)]
        return iter(whole if length else [])

    def check_unchanged(self) -> None:
        """Raise if size, modification time or change time differ from when it was opened.

        Of a block device only the size can be compared.
        """
        try:
            now = self._look()
        except OSError as error:
            raise errors.from_os_error(error, self.path) from error
        for what, was, then in zip(("size", "modification time", "change time"), self._state, now, strict=True):
            if was != then:
                raise descriptor.changed(self.path, f"its {what} differs from when it was opened")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> tuple[int, int, int]:
        if not self._is_file:
            return device.size(self._fd), 0, 0
        status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class RawWriter:
    """A raw image as a Target: a new sparse file, or a block device. The rules: `raw_target`.

    Arguments as of `raw_target.open_place`, which raises what this raises.
    """

    def __init__(
        self,
        target: Path,
        size: int,
        *,
        tag: str,
        force: bool = False,
        forbidden: Sequence[Path] = (),
        data_bytes: int | None = None,
        preallocation: str = "off",
    ) -> None:
        raw_space.check(preallocation)
        self.path = os.fspath(target)
        self._size = size
        self._place = raw_target.open_place(
            target,
            size,
            tag=tag,
            force=force,
            forbidden=forbidden,
            data_bytes=data_bytes,
            preallocation=preallocation,
        )
        self._open = True
        self._unwritten = 0

    @property
    def size(self) -> int:
        return self._size

    @property
    def resumed(self) -> bool:
        return self._place.resumed

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._check(offset, data.nbytes)
        if data.nbytes:
            self._place.about_to_write(offset, data.nbytes)
            descriptor.write_all(self._place.fd, self.path, offset, data)
            # A race between threads only changes when the disk is put to work.
            self._unwritten += data.nbytes
            if self._unwritten >= _WRITEBACK:
                self._unwritten = 0
                libc.start_writeback(self._place.fd)

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        if length:
            self._place.clear(offset, length)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._check(offset, buffer.nbytes)
        descriptor.read_into(self._place.fd, self.path, offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        self._check(offset, length)
        return extents.merge(descriptor.sparse_extents(self._place.fd, self.path, offset, length))

    def reserve(self, offset: int, length: int) -> None:
        """Take the space of a range (> 0 bytes) now where that is possible; raises `NoSpace`."""
        self._check(offset, length)
        self._place.reserve(offset, length)

    def resize(self, size: int) -> None:
        """Change the size. One thread at a time; what is cut off nobody may write to."""
        self._check(0, 0)
        self._place.resize(size)
        self._size = size

    def settle(self) -> None:
        """Make what was not written read as zeros, as it will after `finish`; to be called before reading back."""
        self._check(0, 0)
        self._place.settle()

    def finish(self) -> None:
        self._check(0, 0)
        self._open = False
        self._place.publish()

    def abort(self, *, keep: bool = True) -> None:
        """As the contract says; `keep=False` removes the partial file also if it was written to."""
        self._open = False
        self._place.release(keep=keep)

    def _check(self, offset: int, length: int) -> None:
        if not self._open:
            raise errors.VimgvcError(f"{self.path}: is no longer open for writing")
        extents.check_range(self._size, offset, length)


def _open(path: str) -> int:
    # The first look spares a tape or terminal the side effects of being opened; the second one, at
    # the descriptor, decides. O_NONBLOCK: a FIFO that was swapped in between cannot hang us.
    try:
        _check_kind(os.stat(path).st_mode, path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.NotFound("image", path) from error
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    return fd


def _check_kind(mode: int, path: str) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise errors.UnsafeImage(f"{path}: is {descriptor.kind_name(mode)}, not a disk image", hint=_ORDINARY)


def _check_ordinary(fd: int, status: os.stat_result, path: str) -> None:
    """Refuse what is no file on a disk: special files, and files that give more than their size."""
    _check_kind(status.st_mode, path)
    if not stat.S_ISREG(status.st_mode):
        return
    made_up = any(status.st_dev == os.stat(folder).st_dev for folder in _MADE_UP if os.path.ismount(folder))
    try:
        made_up = made_up or (not status.st_size and os.pread(fd, 1, 0) != b"")
    except BlockingIOError:
        made_up = True
    if made_up:
        raise errors.UnsafeImage(f"{path}: is made up by the kernel, not a disk image", hint=_ORDINARY)


def _synced(fd: int, path: str) -> bool:
    """Whether what the file system says of holes is about what is on the disk."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno in descriptor.LOST_WRITE:
            raise errors.from_os_error(error, path) from error
        return False  # a read-only or odd file system cannot sync; then everything is read
    return True
