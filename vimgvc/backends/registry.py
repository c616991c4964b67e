"""From what the user names a repository by to its Backend; implementations are imported when chosen."""

from __future__ import annotations

import pathlib
import re

from vimgvc import errors
from vimgvc.backends import protocol

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://.*", re.DOTALL)


def open_backend(location: str, *, create: bool = False, durable: bool = True) -> protocol.Backend:
    """The backend at a path or `file://` URL, which must hold a repository or, with `create`, must not.

    Raises `NoRepository` respectively `UsageError`. A new one is a repository when `config` is put.
    `durable=False` is for measuring what durability costs.
    """
    match = _SCHEME.fullmatch(location)
    if match is None:
        return _local(location, create=create, durable=durable)
    if match[1] == "file":
        return _local(_path_of(location), create=create, durable=durable)
    raise errors.UsageError(f"no such kind of repository: {match[1]}://", hint="give the path of a directory")


def _local(path: str, *, create: bool, durable: bool) -> protocol.Backend:
    from vimgvc.backends import local

    if not path or "\0" in path:
        raise errors.UsageError(f"not the path of a repository: {path!r}", hint="give the path of a directory")
    root = pathlib.Path(path)
    make = local.LocalBackend.create if create else local.LocalBackend.open
    return make(root, durable=durable)


def _path_of(url: str) -> str:
    import urllib.parse  # slow to import, and rarely needed

    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise errors.UsageError(f"a file:// URL names a directory of this machine: {url}", hint="write file:///path")
    return urllib.parse.unquote(parts.path)
