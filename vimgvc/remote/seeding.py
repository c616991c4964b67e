"""An empty place becomes another place of a repository: the same key slots, the same configuration."""

from __future__ import annotations

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.repo import config, repository


def seed(source: repository.Repository, backend: protocol.Backend) -> None:
    """Key slots first, `config` last: it makes it a repository. Durable on return. Raises `UsageError`.

    What an interrupted one left is gone on with.
    """
    slots = source.keyring.blobs()
    for slot_id, blob in slots.items():
        for copy in "01":
            backend.put(f"keys/{slot_id}-{copy}", [blob])
    backend.sync()
    if not backend.put(config.NAME, [source.unlocked.config]) and backend.get(config.NAME) != source.unlocked.config:
        raise errors.UsageError(
            f"somebody else made a repository in {backend.url} meanwhile", hint="choose another place"
        )
    backend.sync()
