"""One repository's keys put to use: identifiers, sealed objects, segments."""

from __future__ import annotations

from dataclasses import dataclass, field

from blake3 import blake3

from vimgvc import errors
from vimgvc.codec import aead, compress, keys, segment


@dataclass(frozen=True, slots=True)
class Sealing:
    """`keys` and `repo` (the repository's 16-byte identifier) bound together. Shared by all threads."""

    keys: keys.PurposeKeys = field(repr=False)
    repo: bytes
    rng: aead.Rng = field(repr=False)

    def chunk_id(self, data: bytes | memoryview) -> bytes:
        return blake3(data, key=self.keys.chunk).digest()

    def node_id(self, data: bytes) -> bytes:
        return blake3(data, key=self.keys.node).digest()

    def commit_id(self, body: bytes) -> str:
        return blake3(body, key=self.keys.commit).hexdigest()

    def blind(self, kind: str, name: str) -> str:
        """The directory name of a ref log: 32 hexadecimal digits."""
        return blake3(f"{kind}\0{name}".encode(), key=self.keys.ref).hexdigest(16)

    def seal(self, kind: bytes, body: bytes, context: bytes = b"") -> bytes:
        return aead.seal_object((self.keys.meta, self.keys.hedge), kind, self.repo + context, body, self.rng)

    def open(self, kind: bytes, blob: bytes, where: str, context: bytes = b"") -> bytes:
        return aead.open_object((self.keys.meta, self.keys.hedge), kind, self.repo + context, blob, where)

    def sealer(self, *, level: int, verify: bool, capacity: int) -> segment.Sealer:
        """For one thread, and segments of up to `capacity` bytes."""
        # Hedged: were the generator to repeat itself, another encoding of the same chunks has another nonce.
        encoder = compress.encoder(level)

        def nonce() -> bytes:
            random = aead.random_bytes(self.rng, aead.NONCE_SIZE)
            return blake3(random + encoder, key=self.keys.hedge).digest(aead.NONCE_SIZE)

        return segment.Sealer(self.keys.segment, self.repo, nonce, level=level, verify=verify, capacity=capacity)

    def opener(self) -> segment.Opener:
        """For one thread."""
        return segment.Opener(self.keys.segment, self.repo)

    def slot_id(self, kind: int, data: bytes | memoryview) -> bytes:
        """The identifier of a slot in a pack of `kind`."""
        return self.chunk_id(data) if kind == segment.DATA else self.node_id(bytes(data))

    def check_slot(self, kind: int, data: bytes | memoryview, expected: bytes, where: str) -> None:
        """Raises `IntegrityError` unless `data` is what its identifier says."""
        if self.slot_id(kind, data) != expected:
            raise errors.IntegrityError(where, "holds other bytes than its identifier says")


def blob_hash(blob: bytes) -> str:
    """The unkeyed hash that names packs and index objects, in hexadecimal."""
    return blake3(blob).hexdigest()
