"""Files that are named inside images, opened below folders that the user allowed and nowhere else.

A name in a header is written by whoever made the image. It is a path or it is refused: no protocol is
spoken, no symbolic link followed, nothing but a regular file opened (specs/qcow2.md §3).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence

from vimgvc import errors
from vimgvc.images import descriptor, qcow2_layout, raw

#: How long a chain may be made by the user at most.
MAX_DEPTH = 64

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Chain:
    """The backing files of one image, opened one after the other; refuses loops and more than `depth` of them."""

    def __init__(self, first: raw.RawReader, roots: Sequence[str], depth: int) -> None:
        self._roots = roots
        self._depth = min(depth, MAX_DEPTH)
        self._seen = {_identity(first)}

    def open(self, owner: raw.RawReader, name: bytes) -> raw.RawReader:
        """The file that `owner` names as its backing file. Raises as `open_below`."""
        if len(self._seen) > self._depth:
            raise errors.UnsafeImage(
                f"{owner.path}: the chain of backing files is longer than the limit of {self._depth}"
            )
        found = open_below(self._roots, os.path.dirname(owner.path), name, owner.path)
        # By what the file is, not by its name: links and mounts give one file many.
        identity = _identity(found)
        if identity in self._seen:
            found.close()
            raise errors.UnsafeImage(f"{owner.path}: its backing file {shown(name)} is an image of the same chain")
        self._seen.add(identity)
        return found


def open_below(roots: Sequence[str], folder: str, name: bytes, owner: str) -> raw.RawReader:
    """The regular file that the image `owner`, which lies in `folder`, calls `name`.

    It lies below one of `roots`, by a way without symbolic links. Raises `UnsafeImage` for any other
    name, `NotFound`, or what `raw.RawReader` raises.
    """
    path = _path(name, owner)
    wanted = os.path.normpath(os.path.join(os.path.realpath(folder or os.curdir), path))
    below = _below(roots, wanted)
    if below is None:
        raise errors.UnsafeImage(
            f"{owner}: names the file {shown(name)}, which is not below a folder that is allowed",
            hint="if you trust the image, allow the folder of that file with --chain-root",
        )
    try:
        return raw.RawReader(wanted, fd=_walk(*below, owner, name))
    except FileNotFoundError as error:
        hint = f"the disk is not whole without it; put it back where {owner} says that it is"
        raise errors.NotFound(f"file that {owner} names", shown(name), hint=hint) from error
    except OSError as error:
        raise errors.from_os_error(error, wanted) from error


def shown(name: bytes) -> str:
    """A name from a header, fit for a message."""
    return ascii(name.decode("utf-8", "backslashreplace")[:200])


def _path(name: bytes, owner: str) -> str:
    """The name as a path."""
    reason = ""
    if not 1 <= len(name) <= qcow2_layout.MAX_NAME:
        reason = f"has {len(name)} bytes, allowed are 1 to {qcow2_layout.MAX_NAME}"
    try:
        path = name.decode()
    except UnicodeDecodeError:
        path, reason = "", reason or "is not UTF-8"
    if not reason and not path.isprintable():
        reason = "has a control character"
    if not reason and ":" in path.partition("/")[0]:
        reason = "names a protocol instead of a file"
    if reason:
        raise errors.UnsafeImage(f"{owner}: the name {shown(name)} of another file {reason}")
    return path


def _below(roots: Sequence[str], wanted: str) -> tuple[str, list[str]] | None:
    """The root and the components below it that lead to `wanted`."""
    for root in roots:
        for spelled in (os.path.realpath(root), os.path.abspath(root)):
            inside = wanted.removeprefix(spelled.rstrip("/") + "/")
            if inside not in {wanted, ""}:
                return root, inside.split("/")
    return None


def _walk(root: str, components: list[str], owner: str, name: bytes) -> int:
    """A descriptor of the regular file; `OSError` if there is none."""
    with contextlib.ExitStack() as stack:
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        for component in components[:-1]:
            _check_kind(folder, component, stat.S_ISDIR, owner, name)
            folder = os.open(component, _FOLDER, dir_fd=folder)
            stack.callback(os.close, folder)
        # Judged before it is opened, because opening a device has effects, and again by its descriptor.
        _check_kind(folder, components[-1], stat.S_ISREG, owner, name)
        fd = os.open(components[-1], _FILE, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise errors.UnsafeImage(f"{owner}: names the file {shown(name)}, which was swapped while it was opened")
        return fd


def _check_kind(folder: int, component: str, allowed: Callable[[int], bool], owner: str, name: bytes) -> None:
    mode = os.stat(component, dir_fd=folder, follow_symlinks=False).st_mode
    if not allowed(mode):
        raise errors.UnsafeImage(
            f"{owner}: names the file {shown(name)}, where {component!r} is {descriptor.kind_name(mode)}"
        )


def _identity(reader: raw.RawReader) -> tuple[int, int]:
    status = os.fstat(reader.fileno())
    return status.st_dev, status.st_ino
