"""From what the user names a repository by to its Backend; implementations are imported when chosen."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping

from vimgvc import errors
from vimgvc.backends import probe, protocol, skeleton

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://.*", re.DOTALL | re.IGNORECASE)
_HINT = "give the path of a directory, s3://BUCKET/PREFIX, or sftp://USER@HOST/PATH"


def open_backend(
    location: str,
    *,
    create: bool = False,
    look: bool = True,
    durable: bool = True,
    environ: Mapping[str, str] = os.environ,
    memory: probe.Memory | None = None,
) -> protocol.Backend:
    """The backend at a path or URL, which must hold a repository or, with `create`, must not.

    Raises `NoRepository` respectively `UsageError`. A new one is a repository when `config` is put. Without `look` a
    place over the network is not asked: whoever reads from it finds out, or asks `check`.
    `durable=False` is for measuring what durability costs, in directories. `environ` has what the
    user's environment says about credentials, certificates and endpoints; `memory` has what was found
    of places over the network before.
    """
    scheme = scheme_of(location)
    if not scheme:
        return _local(location, create=create, durable=durable)
    if scheme == "file":
        return _local(_path_of(location), create=create, durable=durable)
    if scheme == "s3":
        from vimgvc.backends import s3

        return s3.open_backend(location, create=create, look=look, environ=environ, memory=memory)
    if scheme == "sftp":
        return _sftp(location, create=create, look=look, environ=environ, memory=memory)
    raise errors.UsageError(f"no such kind of repository: {scheme}://", hint=_HINT)


def check(backend: protocol.Backend) -> None:
    """Raises `NoRepository` where there is none (any more)."""
    skeleton.require(backend)


def scheme_of(location: str) -> str:
    """The scheme of a URL, in lower case, empty for a path."""
    match = _SCHEME.fullmatch(location)
    return match[1].lower() if match else ""


def _local(path: str, *, create: bool, durable: bool) -> protocol.Backend:
    from vimgvc.backends import bundle, local

    if not path or "\0" in path:
        raise errors.UsageError(f"not the path of a repository: {path!r}", hint="give the path of a directory")
    root = pathlib.Path(path)
    if bundle.is_bundle(root) and not create:
        return bundle.BundleBackend.open(root)
    make = local.LocalBackend.create if create else local.LocalBackend.open
    return make(root, durable=durable)


def _sftp(
    url: str, *, create: bool, look: bool, environ: Mapping[str, str], memory: probe.Memory | None
) -> protocol.Backend:
    from vimgvc.backends import sftp_url

    sftp_url.parse(url)  # what is wrong with the URL is told before what is missing here
    try:
        from vimgvc.backends import sftp
    except ModuleNotFoundError as error:
        if error.name != "asyncssh":
            raise
        raise errors.Unsupported("sftp:// without the library asyncssh", hint="pip install 'vimgvc[sftp]'") from None
    return sftp.open_backend(url, create=create, look=look, environ=environ, memory=memory)


def _path_of(url: str) -> str:
    import urllib.parse  # slow to import, and rarely needed

    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise errors.UsageError(f"a file:// URL names a directory of this machine: {url}", hint="write file:///path")
    return urllib.parse.unquote(parts.path)
