"""Pins: commits that are kept because somebody is about to name them (specs/repository.md §9)."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import pin as model

AREA = "pins"
Pin = model.Pin


@dataclass(frozen=True, slots=True)
class Pins:
    """The pins of one repository, as they are at the moment of each call."""

    backend: protocol.Backend
    seals: sealing.Sealing

    def ids(self) -> list[str]:
        return sorted(item.name.partition("/")[2] for item in self.backend.list(AREA))

    def put(self, pin: Pin) -> str:
        """Store a pin under a name of its own, which is returned. It is seen at once, and durable after `sync`."""
        while True:
            pin_id = aead.random_bytes(self.seals.rng, 16).hex()
            blob = self.seals.seal(aead.PIN, pin.encode(), bytes.fromhex(pin_id))
            if self.backend.put(name(pin_id), [blob]):
                return pin_id

    def read(self, pin_id: str) -> Pin:
        """Raises `NotFound`, `IntegrityError`, `Unsupported`."""
        where = f"pin {pin_id[:12]}"
        blob = self.backend.get(name(pin_id))
        return model.decode(self.seals.open(aead.PIN, blob, where, bytes.fromhex(pin_id)), where)

    def all(self) -> dict[str, Pin]:
        """By identifier; one that was removed meanwhile is left out. Raises as `read`."""
        found = {}
        for pin_id in self.ids():
            try:
                found[pin_id] = self.read(pin_id)
            except errors.NotFound:
                continue
        return found

    def is_there(self, pin_id: str) -> bool:
        try:
            self.backend.size(name(pin_id))
        except errors.NotFound:
            return False
        return True


def name(pin_id: str) -> str:
    """Of the blob of a pin."""
    return f"{AREA}/{pin_id}"
