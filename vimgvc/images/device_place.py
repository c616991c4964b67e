"""A block device as the place of a raw disk. The rules: `raw_target`."""

from __future__ import annotations

import contextlib
import os
import threading

from vimgvc import errors
from vimgvc.images import coverage, descriptor, device

_BLOCK = coverage.BLOCK
_LARGER = "name a device that is at least as large"


class DevicePlace:
    """A block device, claimed. What was on it is lost with the first write."""

    resumed = False

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._size = size
        self._written = coverage.Coverage()
        self._lock = threading.Lock()
        self.fd = device.claim(path)
        room = device.size(self.fd)
        if room < size:
            self.release(keep=True)
            raise errors.NoSpace(f"{path}: has {room} bytes, the disk {size}", hint=_LARGER)

    def about_to_write(self, offset: int, length: int) -> None:
        """Mark the blocks; one that is written in part for the first time is zeroed before."""
        end = offset + length
        first, last = offset // _BLOCK, (end - 1) // _BLOCK
        with self._lock:
            ragged = {first} if offset % _BLOCK else set()
            if end % _BLOCK and end < self._size:
                ragged.add(last)
            for block in ragged:
                if not self._written.has(block):
                    room = min(_BLOCK, self._size - block * _BLOCK)
                    descriptor.write_zeros(self.fd, self._path, block * _BLOCK, room)
            self._written.add(first, last + 1)

    def clear(self, offset: int, length: int) -> None:
        self.about_to_write(offset, length)
        descriptor.zero_out(self.fd, self._path, offset, length, _BLOCK)

    def reserve(self, offset: int, length: int) -> None:
        """A device has all its space."""

    def resize(self, size: int) -> None:
        room = device.size(self.fd)
        if room < size:
            raise errors.NoSpace(f"{self._path}: has {room} bytes, {size} are needed", hint=_LARGER)
        self._size = size

    def settle(self) -> None:
        blocks = -(-self._size // _BLOCK)
        for first, stop in self._written.gaps(blocks):
            length = min(stop * _BLOCK, self._size) - first * _BLOCK
            descriptor.zero_out(self.fd, self._path, first * _BLOCK, length, _BLOCK)
        with self._lock:
            self._written.add(0, blocks)

    def publish(self) -> None:
        try:
            self.settle()
            os.fsync(self.fd)
        except OSError as error:
            raise descriptor.write_error(error, self._path, "making the data durable") from error
        finally:
            self.release(keep=True)

    def release(self, *, keep: bool) -> None:
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # the data is synced by now, or given up
                os.close(self.fd)
            self.fd = -1
