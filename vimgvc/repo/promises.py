"""Promises: of which commits only metadata is here, and which remote has the data (specs/repository.md §12).

A promise comes before its commit, and goes when all that the commit needs is here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import promised as model

Promised = model.Promised
#: Among the records of collections: who lists those sees these as well.
_NAME = re.compile(r"gc/([0-9a-f]{64})-promised")


@dataclass(frozen=True, slots=True)
class Promises:
    """The promises of one repository, as they are at the moment of each call."""

    backend: protocol.Backend
    seals: sealing.Sealing

    def ids(self) -> frozenset[str]:
        """The commits that have one, readable or not."""
        return among(self.backend.list("gc"))

    def put(self, promise: Promised) -> bool:
        """Whether there was none yet. Durable after the backend's `sync`."""
        blob = self.seals.seal(aead.PROMISED, promise.encode(), bytes.fromhex(promise.commit))
        return self.backend.put(name(promise.commit), [blob])

    def read(self, commit_id: str) -> Promised:
        """Raises `NotFound`, `IntegrityError`, `Unsupported`."""
        where = f"promise {commit_id[:12]}"
        blob = self.backend.get(name(commit_id))
        promise = model.decode(self.seals.open(aead.PROMISED, blob, where, bytes.fromhex(commit_id)), where)
        if promise.commit != commit_id:
            raise errors.FormatError(where, "is about another commit")
        return promise

    def remotes(self) -> list[str]:
        """The names of the remotes that have the data, as far as that can be read."""
        found: dict[str, None] = {}
        for commit_id in sorted(self.ids()):
            with contextlib.suppress(errors.NotFound, errors.IntegrityError, errors.Unsupported):
                found[self.read(commit_id).remote] = None
        return list(found)

    def remove(self, ids: Iterable[str]) -> None:
        """Of commits that are whole here, durably; where nothing may be removed they stay, and do no harm."""
        names = [name(commit_id) for commit_id in sorted(ids)]
        if names and self.backend.capabilities.removes:
            self.backend.delete_all(names)


def name(commit_id: str) -> str:
    """Of the blob of a commit's promise."""
    return f"gc/{commit_id}-promised"


def among(items: Iterable[protocol.Item]) -> frozenset[str]:
    """The commits that have a promise among the listed blobs of `gc`."""
    return frozenset([match[1] for item in items if (match := _NAME.fullmatch(item.name))])
