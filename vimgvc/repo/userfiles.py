"""Small files of the user's own, outside any repository: private, and replaced whole or not at all.

Directories are made with mode 0700 and files with 0600, below the XDG directories
(https://specifications.freedesktop.org/basedir-spec/): a relative XDG path counts as unset.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping

from vimgvc import errors

PROGRAM = "vimgvc"
MAX_SIZE = 16 << 20
#: Mode bits that a file of the user may not have: readable by others, writable by others.
READABLE, WRITABLE = 0o077, 0o022
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def config_directory(environ: Mapping[str, str]) -> pathlib.Path | None:
    """Where settings live, None for a user without a home."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def state_directory(environ: Mapping[str, str]) -> pathlib.Path | None:
    """Where what was seen lives, None for a user without a home."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state")


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> pathlib.Path | None:
    for base, below in ((environ.get(variable, ""), ""), (environ.get("HOME", ""), below_home)):
        if base.startswith("/"):
            return pathlib.Path(base, below, PROGRAM)
    return None


def read(
    path: pathlib.Path, *, forbidden: int, limit: int = MAX_SIZE, pipes: bool = False, or_else: str = ""
) -> bytes | None:
    """The content of a regular file (or, with `pipes`, of a pipe); None when there is none.

    Raises `UsageError` for a file with a mode bit of `forbidden` (`or_else` ends its hint), or of
    more than `limit` bytes, `BackendError` where the system does not let it be read.
    """
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    try:
        _check_kind(path, os.fstat(descriptor).st_mode, forbidden, pipes=pipes, or_else=or_else)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise errors.UsageError(f"{path} is larger than {limit} bytes", hint="check the path")
    return data


def _check_kind(path: pathlib.Path, mode: int, forbidden: int, *, pipes: bool, or_else: str) -> None:
    if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
        raise errors.UsageError(f"{path} is not a regular file", hint="check the path")
    if mode & forbidden:
        import shlex

        raise errors.UsageError(
            f"{path} can be read or changed by other users", hint=f"chmod 600 {shlex.quote(str(path))}{or_else}"
        )


def create(path: pathlib.Path, data: bytes) -> None:
    """A new private file, durable on return; never replaces one. Raises `UsageError` if it exists."""
    try:
        descriptor = os.open(path, _NEW_FLAGS, 0o600)
    except FileExistsError:
        raise errors.UsageError(f"{path} exists already", hint="give another name") from None
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    try:
        _fill(descriptor, data)
        _sync_directory(path.parent)
    except OSError as error:
        _remove_quietly(path)
        raise errors.from_os_error(error, str(path)) from error


def replace(path: pathlib.Path, data: bytes) -> None:
    """Write a private file in place of the one that may be there, durable on return; makes its directory."""
    temporary = path.with_name(f".tmp-{os.urandom(8).hex()}")
    try:
        _make_directory(path.parent)
        descriptor = os.open(temporary, _NEW_FLAGS, 0o600)
        try:
            _fill(descriptor, data)
            temporary.replace(path)
        except BaseException:
            _remove_quietly(temporary)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error


def remove(path: pathlib.Path) -> bool:
    """Whether there was one to remove."""
    try:
        path.unlink()
        _sync_directory(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    return True


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Held by one process at a time; where the file system has no locks, by all."""
    import fcntl

    try:
        _make_directory(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.from_os_error(error, str(directory)) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fill(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def _make_directory(directory: pathlib.Path) -> None:
    """With what is missing above it, all private (the XDG specification asks for it)."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_quietly(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
