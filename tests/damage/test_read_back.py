"""What goes wrong between a chunk's hash and its pack is noticed before anything is published."""

from __future__ import annotations

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.codec import aead, compress, segment
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

DATA = repos.text(4, 3 << 20)


def _commit(repo: repository.Repository, *, verify: bool) -> None:
    source = ingest.Source("vm", disk_memory.MemoryDisk.of(DATA), {"format": "raw"})
    request = repository.CommitRequest("vm", "", "", "")
    repo.commit([source], request, repository.Effort(verify=verify))


def _flip(data: memoryview | bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_r22_bit_flip_after_the_hash(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Plaintext that changes in memory after it was copied for compression is refused and nothing is published."""
    honest = compress.Compressor.compress

    def flipping(self: compress.Compressor, data: memoryview) -> tuple[int, bytes | memoryview]:
        return honest(self, memoryview(_flip(data, seed)))

    repo = repos.create()
    monkeypatch.setattr(compress.Compressor, "compress", flipping)
    with pytest.raises(errors.IntegrityError) as caught:
        _commit(repo, verify=True)
    assert "memory or processor" in caught.value.hint
    assert repo.branches() == {}
    assert not repo.graph.ids()
    monkeypatch.undo()
    _commit(repo, verify=True)
    assert repos.restore(repo, "vm") == DATA


def test_r22_bit_flip_after_sealing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Ciphertext that changes in memory before it is read back is refused."""
    honest = aead.seal_into

    def flipping(key: bytes, nonce: bytes, data: bytes | memoryview, associated: bytes, out: memoryview) -> None:
        honest(key, nonce, data, associated, out)
        out[:] = _flip(out, seed)

    repo = repos.create()
    monkeypatch.setattr(aead, "seal_into", flipping)
    with pytest.raises(errors.IntegrityError):
        _commit(repo, verify=True)
    assert repo.branches() == {}


@pytest.mark.parametrize("defect", ["flipped", "truncated", "other", "longer"])
def test_r23_compressor_that_lies(monkeypatch: pytest.MonkeyPatch, defect: str, seed: int) -> None:
    """A frame that does not decompress to exactly what went in is refused, whatever is wrong with it."""
    honest = compress.Compressor.compress

    def lying(self: compress.Compressor, data: memoryview) -> tuple[int, bytes | memoryview]:
        codec, frame = honest(self, data)
        if codec == compress.RAW:
            return codec, frame
        other = honest(self, memoryview(bytes(data)[::-1]))[1]
        longer = honest(self, memoryview(bytes(data) + b"x"))[1]
        return codec, {"flipped": _flip(frame, seed), "truncated": frame[:-1], "other": other, "longer": longer}[defect]

    repo = repos.create()
    monkeypatch.setattr(compress.Compressor, "compress", lying)
    with pytest.raises(errors.IntegrityError):
        _commit(repo, verify=True)
    assert repo.branches() == {}


def test_reading_back_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without read-back no segment is opened while a commit is made."""
    opened = []
    monkeypatch.setattr(aead, "unseal_into", lambda *_, **__: opened.append(1))
    repo = repos.create()
    _commit(repo, verify=False)
    assert opened == []
    assert repos.restore(repo, "vm") == DATA


def test_sealer_and_opener_agree(seed: int) -> None:
    """What is sealed opens to the same bytes, compressible or not, of any length."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    sealer = repo.seals.sealer(level=3, verify=True, capacity=1 << 20)
    for length in (1, 7, 4096, 100_001, 1 << 20):
        for content in (rng.bytes(length), bytes(length), repos.text(seed, length)):
            shape, stored = sealer.seal(segment.DATA, bytearray(content), length, bytes(32))
            assert repo.seals.opener().open(shape, bytes(stored), bytes(32), "segment") == content
