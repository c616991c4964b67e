"""Key files: 32 to 1024 bytes that nobody but their owner may read. Write keys are files of a form of their own."""

from __future__ import annotations

import pathlib

from vimgvc import errors
from vimgvc.codec import aead, deliveries, keys
from vimgvc.repo import userfiles

NEW_SIZE = 64
_LIMIT = 1024


def load(path: pathlib.Path, *, insecure_perms: bool = False) -> keys.Secret:
    """The secret in a key file; its kind is `keys.WRITE` when it is a write key.

    Raises `UsageError` when there is none, when its size cannot be right, and, unless
    `insecure_perms`, when its group or others may read or write it.
    """
    forbidden = 0 if insecure_perms else userfiles.READABLE
    content = userfiles.read(path, forbidden=forbidden, limit=_LIMIT, pipes=True, or_else=", or --insecure-perms")
    if content is None:
        raise errors.UsageError(f"there is no key file {path}", hint="check the path")
    return keys.Secret(keys.WRITE if deliveries.is_write_key(content) else keys.KEYFILE, content)


def make(path: pathlib.Path, rng: aead.Rng) -> keys.Secret:
    """A new random key file with mode 0600; never replaces a file."""
    content = aead.random_bytes(rng, NEW_SIZE)
    userfiles.create(path, content)
    return keys.Secret(keys.KEYFILE, content)
