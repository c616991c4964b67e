"""Watches the door to AES-GCM: no two different messages may be sealed under one key and nonce.

It stands in for the library's class behind `codec.aead`, does what that does, and keeps a hash of
each message (associated data included: two tags over different data give the authentication key
away). The same message again, as a generator that is stuck makes it, is no harm.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import aead as library

from vimgvc.codec import aead

#: Keys of published answers, which share nonces on purpose.
PUBLISHED = {bytes(32), bytes.fromhex("feffe9928665731c6d6a8f9467308308") * 2}
Buffer = bytes | bytearray | memoryview


class NonceReused(AssertionError):
    """Two messages under one key and nonce."""


@dataclass
class Watch:
    """What was sealed since the watch began: a hash of the message for each (key, nonce)."""

    messages: dict[bytes, bytes] = field(default_factory=dict)
    sealed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, key: bytes, nonce: bytes, data: Buffer, associated: bytes) -> None:
        if key in PUBLISHED:
            return
        place = blake3(key + nonce).digest()
        message = blake3(len(associated).to_bytes(8, "little") + associated).update(data).digest()
        with self._lock:
            self.sealed += 1
            known = self.messages.setdefault(place, message)
        if known != message:
            raise NonceReused(f"another message of {len(data)} bytes under one key and nonce")

    @property
    def repeated(self) -> int:
        """How often a message was sealed again in the very same way."""
        return self.sealed - len(self.messages)


def _watched(watch: Watch, real: type[library.AESGCM]) -> type:
    class Watched:
        def __init__(self, key: bytes) -> None:
            self._key, self._real = key, real(key)
            self.decrypt, self.decrypt_into = self._real.decrypt, self._real.decrypt_into

        def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes | None) -> bytes:
            watch.note(self._key, nonce, data, associated_data or b"")
            return self._real.encrypt(nonce, data, associated_data)

        def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes | None, buf: memoryview) -> int:
            watch.note(self._key, nonce, data, associated_data or b"")
            return self._real.encrypt_into(nonce, data, associated_data, buf)

    return Watched


@contextlib.contextmanager
def watch() -> Iterator[Watch]:
    """Everything that is sealed inside is watched; watches may be nested."""
    found = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aead, "AESGCM", _watched(found, vars(aead)["AESGCM"]))
        yield found
