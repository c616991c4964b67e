"""Deliveries: what holders of write keys have added and nobody has admitted yet (specs/repository.md §13)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, deliveries, sealing, slots
from vimgvc.model import admitted
from vimgvc.model import commit as commits
from vimgvc.repo import config, delivery, keyring, names, recording, repository

if TYPE_CHECKING:
    from vimgvc.monitor import Monitor
    from vimgvc.pipeline import ingest

AREA = delivery.AREA
KEY, DONE = "key", "done"
#: Of the disks that holders of write keys deliver.
_AVERAGE = 65536
Record = admitted.Admitted


@dataclass(frozen=True, slots=True)
class Delivery:
    """What lies below `inbox/<id>/`: sizes by the last part of the name."""

    id: str
    blobs: dict[str, int]

    @property
    def is_complete(self) -> bool:
        return KEY in self.blobs

    @property
    def is_done(self) -> bool:
        """Somebody says so: the record has to be read to know it."""
        return DONE in self.blobs

    @property
    def size(self) -> int:
        return sum(size for name, size in self.blobs.items() if name != DONE)

    def names(self) -> list[str]:
        """Of all blobs but the record."""
        return [place(self.id, name) for name in sorted(self.blobs) if name != DONE]


def place(delivery_id: str, name: str) -> str:
    return f"{AREA}/{delivery_id}/{name}"


def listed(backend: protocol.Backend) -> list[Delivery]:
    """Everything in the inbox, by identifier."""
    found: dict[str, dict[str, int]] = {}
    for item in backend.list(AREA):
        _, delivery_id, name = item.name.split("/")
        found.setdefault(delivery_id, {})[name] = item.size
    return [Delivery(delivery_id, blobs) for delivery_id, blobs in sorted(found.items())]


def waiting(backend: protocol.Backend) -> list[Delivery]:
    """Those that are complete, and of which nobody says that they are done."""
    return [item for item in listed(backend) if item.is_complete and not item.is_done]


def opened(
    backend: protocol.Backend, delivery_id: str, root: bytes, clock: repository.Clock, rng: aead.Rng
) -> repository.Repository:
    """A delivery as a repository of its own: its root key and identifier, packs, index and one commit."""
    facts = config.Config(delivery_id, _AVERAGE)
    unlocked = keyring.Unlocked(root, facts.encode())
    return repository.Repository(
        delivery.DeliveryBackend(backend, delivery_id), facts, unlocked, None, clock=clock, rng=rng
    )


def add_key(repo: repository.Repository, branch: str, label: str) -> deliveries.WriteKey:
    """A new write key for `branch` (with `/` at its end: all below it); its slot is durable on return."""
    root = repo.unlocked.root
    blob = slots.make_write_slot(root, branch, label=label, created=repository.timestamp(repo.clock), rng=repo.rng)
    made = slots.open_write_slot(blob, root)
    repo.keyring.put_new(blob, lambda there: slots.open_write_slot(there, root) == made)
    return deliveries.write_key(repo.id, made)


# -- who adds ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivered:
    """`commit` is named by the delivery's own keys: it gets its identifier when it is admitted."""

    id: str
    result: repository.CommitResult
    there: repository.Repository = field(repr=False)

    @property
    def commit(self) -> commits.Commit:
        return self.result.commit


@dataclass(slots=True)
class Outbox:
    """What a write key opens: a place to add to."""

    backend: protocol.Backend
    key: deliveries.WriteKey
    clock: repository.Clock
    rng: aead.Rng = field(repr=False)
    _last: int = 0

    def deliver(
        self,
        sources: tuple[Sequence[ingest.Source], Sequence[ingest.Source]],
        request: repository.CommitRequest,
        effort: repository.Effort,
        monitor: Monitor,
    ) -> Delivered:
        """Disks and attachments as one delivery; durable on return. Raises what `Repository.commit` raises."""
        # Deliveries are admitted in the order of their moments.
        self._last = max(int(self.clock() * 1e9), self._last + 1)
        moment = f"{time.time_ns()} {time.monotonic_ns()} {request.host}".encode()
        fresh = deliveries.draw(self.key, moment, self.rng)
        there = opened(self.backend, fresh.id.hex(), fresh.root, self.clock, self.rng)
        said = replace(request, time=names.stamp(self._last / 1e9))
        try:
            result = recording.record_alone(there, sources, said, effort, monitor)
            blob = deliveries.seal(self.key, fresh, (result.commit.id, self._last), self.rng)
            self.backend.sync()
        except BaseException:
            self._drop(fresh.id.hex())
            raise
        if not self.backend.put(place(fresh.id.hex(), KEY), [blob]):
            raise errors.Busy("somebody else makes a delivery of this name", hint="run the same command again")
        self.backend.sync()
        self._check_kept(fresh.id.hex())
        return Delivered(fresh.id.hex(), result, there)

    def _drop(self, delivery_id: str) -> None:
        """What nobody can open any more, where it may be removed; else `admit` tells of it."""
        if self.backend.capabilities.removes:
            with contextlib.suppress(errors.VimgvcError):
                self.backend.delete_all([item.name for item in self.backend.list(f"{AREA}/{delivery_id}")])

    def _check_kept(self, delivery_id: str) -> None:
        with contextlib.suppress(errors.NotFound):
            self.backend.size(place(delivery_id, DONE))
            raise errors.Busy("the delivery was discarded while it was made", hint="run the same command again")


# -- who admits --------------------------------------------------------------------------------------


class Planted(errors.IntegrityError):
    """Where the record of a delivery belongs there is something else, which may not be removed."""

    def __init__(self, delivery_id: str) -> None:
        where = f"record of delivery {delivery_id[:8]}"
        super().__init__(where, "is none, and may not be removed", hint="remove it with other credentials")


@dataclass(frozen=True, slots=True)
class Records:
    """What is known of deliveries that were admitted or discarded."""

    backend: protocol.Backend
    seals: sealing.Sealing

    def read(self, delivery_id: str) -> Record:
        """Raises `NotFound`, `IntegrityError`, `Unsupported`."""
        where = f"record of delivery {delivery_id[:8]}"
        blob = self.backend.get(place(delivery_id, DONE))
        body = self.seals.open(aead.ADMITTED, blob, where, bytes.fromhex(delivery_id))
        return admitted.decode(body, where)

    def find(self, delivery_id: str) -> Record | None:
        """None where there is none, or one that no holder of the root key wrote."""
        try:
            return self.read(delivery_id)
        except (errors.NotFound, errors.IntegrityError, errors.Unsupported):
            return None

    def put(self, delivery_id: str, record: Record) -> None:
        """Durable on return; in the place of what no holder of the root key put there. Raises `Planted`."""
        name = place(delivery_id, DONE)
        blob = self.seals.seal(aead.ADMITTED, record.encode(), bytes.fromhex(delivery_id))
        if not self.backend.put(name, [blob]) and self.find(delivery_id) is None:
            try:
                self.backend.delete(name)
            except errors.RemoteError as error:
                raise Planted(delivery_id) from error
            self.backend.put(name, [blob])
        self.backend.sync()
