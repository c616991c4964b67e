"""A private folder with one Unix socket, where a child and we meet."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile

from vimgvc import errors
from vimgvc.images import sandbox

_SOCKET = "s"

# Below are the standard streams and what a launcher puts at fixed numbers.
_LOWEST = 10


def duplicate(fd: int) -> int:
    """A copy of `fd` for a child, with a number that the launcher leaves alone. The caller closes it."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)


class Meeting:
    """A folder that only this user can enter, and its socket; both go away with `close`.

    Raises `BackendError` or `NoSpace` where no temporary folder can be made.
    """

    def __init__(self) -> None:
        try:
            self._path = tempfile.mkdtemp(prefix="vimgvc-")
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self.fd = duplicate(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise errors.from_os_error(error, tempfile.gettempdir()) from error

    @property
    def address(self) -> str:
        """The socket's path; short, as sockets need it, and the same for a child that inherits `fd`."""
        return f"/proc/self/fd/{self.fd}/{_SOCKET}"

    @property
    def scratch(self) -> sandbox.Scratch:
        return sandbox.Scratch(self._path, self.fd)

    def listen(self) -> socket.socket:
        """A listening socket, for a child. Who connects waits until the child answers, or is told that it ended."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self.address)
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise errors.from_os_error(error, self._path) from error
        return listener

    def connect(self) -> socket.socket:
        """A new connection. `OSError` when nobody listens any more."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.address)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):  # the guard of the child may have been faster
            os.unlink(_SOCKET, dir_fd=self.fd)
        with contextlib.suppress(OSError):
            os.rmdir(self._path)
        os.close(self.fd)
        self.fd = -1
