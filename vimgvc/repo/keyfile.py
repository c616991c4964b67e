"""Key files: 32 to 1024 bytes that nobody but their owner may read."""

from __future__ import annotations

import pathlib
import shlex

from vimgvc import errors
from vimgvc.codec import aead, keys
from vimgvc.repo import userfiles

NEW_SIZE = 64
_LIMIT = 1024


def load(path: pathlib.Path, *, insecure_perms: bool = False) -> keys.Secret:
    """The secret in a key file.

    Raises `UsageError` when there is none, when its size cannot be right, and, unless
    `insecure_perms`, when its group or others may read or write it.
    """
    hint = f"chmod 600 {shlex.quote(str(path))}, or --insecure-perms"
    try:
        content = userfiles.read(path, forbidden=0 if insecure_perms else userfiles.READABLE, limit=_LIMIT)
    except errors.BackendError:
        raise
    except errors.VimgvcError as error:
        raise errors.UsageError(f"key file {error.message}", hint=error.hint) from None
    if content is None:
        raise errors.NotFound("key file", str(path), hint="check the path; a new one is made with 'vimgvc key add'")
    return keys.Secret(keys.KEYFILE, content)


def make(path: pathlib.Path, rng: aead.Rng) -> keys.Secret:
    """A new random key file with mode 0600; never replaces a file."""
    content = aead.random_bytes(rng, NEW_SIZE)
    userfiles.create(path, content)
    return keys.Secret(keys.KEYFILE, content)
