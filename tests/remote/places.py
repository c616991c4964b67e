"""Two places of one repository in memory; the far one costs round trips, as far as anybody can tell."""

from __future__ import annotations

import numpy as np

from tests import repos
from vimgvc import errors
from vimgvc.backends import memory, protocol
from vimgvc.model import reflog
from vimgvc.remote import copying, push, refs, seeding
from vimgvc.repo import repository


class Far(memory.MemoryBackend):
    """A place without locks. From call `fail_at` (from 0) on every call fails; `bytes_in` counts what was put."""

    def __init__(self, content: dict[str, bytes] | None = None) -> None:
        super().__init__()
        self._blobs = dict(content or {})
        self.fail_at: int | None = None
        self.bytes_in = 0

    @property
    def capabilities(self) -> protocol.Capabilities:
        return protocol.Capabilities(durable=True, exclusive_create=True, locks=False, parallel=8)

    @property
    def content(self) -> dict[str, bytes]:
        return dict(self._blobs)

    def replace(self, name: str, blob: bytes | None) -> None:
        """What only a broken or hostile place does."""
        self._blobs.pop(name, None)
        if blob is not None:
            self._blobs[name] = blob

    def put(self, name: str, parts: object) -> bool:
        stored = super().put(name, parts)  # type: ignore[arg-type]
        if stored:
            self.bytes_in += len(self._blobs[name])
        return stored

    def _record(self, operation: str, name: str) -> None:
        if self.fail_at is not None and len(self.calls) >= self.fail_at:
            raise errors.RemoteError("far", "ECONNRESET", "connection reset")
        super()._record(operation, name)


def far(source: repository.Repository, backend: protocol.Backend | None = None) -> repository.Repository:
    """Another place of the same repository; empty and ready when no backend is given."""
    if backend is None:
        backend = Far()
        seeding.seed(source, backend)
    return repository.Repository(backend, source.config, source.unlocked, clock=source.clock)


def backend_of(repo: repository.Repository) -> Far:
    assert isinstance(repo.backend, Far)
    return repo.backend


def push_all(
    source: repository.Repository,
    target: repository.Repository,
    *,
    force: bool = False,
    dry_run: bool = False,
    everything: bool = False,
    progress: repos.Collector | None = None,
) -> copying.Result:
    wishes = [refs.Wish(reflog.BRANCH, name, name, tip, force) for name, tip in source.branches().items()]
    wishes += [refs.Wish(reflog.TAG, name, name, tip, force) for name, tip in source.tags().items()]
    options = push.Options(dry_run=dry_run, everything=everything, host="host")
    return push.push(source, target, wishes, options, progress or repos.Collector())


def disk(seed: int, size: int = 5 << 20) -> bytearray:
    """Random data with holes."""
    data = bytearray(np.random.default_rng(seed).bytes(size))
    data[size // 3 : size // 2] = bytes(size // 2 - size // 3)
    return data


def changed(data: bytearray, seed: int, count: int = 3, size: int = 20_000) -> bytearray:
    """A copy with some places rewritten."""
    rng, copy = np.random.default_rng(seed), bytearray(data)
    for at in rng.integers(0, len(data) - size, count).tolist():
        copy[at : at + size] = rng.bytes(size)
    return copy


def restored(repo: repository.Repository, revision: str) -> bytes:
    """The only disk of a commit, read through the repository as it is."""
    _, facts = repo.resolve_disk(revision)
    data = bytearray(facts.size)
    repo.open_disk(facts).reader().pread_into(0, memoryview(data))
    return bytes(data)


def far_with_history(seed: int, commits: int = 3) -> tuple[repository.Repository, list[bytes]]:
    """A far place with so many commits of `vm`, and the states of its disk."""
    first, data, states = repos.create(), disk(seed), []
    for number in range(commits):
        data = changed(data, seed + number) if number else data
        repos.commit(first, ("vm", bytes(data)))
        states.append(bytes(data))
    target = far(first)
    push_all(first, target)
    return target, states
