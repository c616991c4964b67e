"""A place that is against its users: it keeps what it is given, and answers as its owner likes (T12, A2).

Without an attack it is an honest Backend and passes the suite of all of them. Attacks change what is answered, never
what is kept, so that `honest` shows that nobody was harmed by more than the answer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vimgvc import errors
from vimgvc.backends import memory, protocol

#: What is answered instead of a blob: its bytes, or None for nothing.
Answer = bytes | None


class Bomb:
    """A blob that says it is `size` bytes of zeros, and was never stored anywhere."""

    def __init__(self, size: int) -> None:
        self.size = size


class Malicious:
    """`answers`: what is shown by name instead of what is kept. `sizes`: what listings and `size` say, whatever is got.

    `hooks` are called with each name that is read or area that is listed, before it is answered. `largest`: the most
    that was asked for at once.
    """

    def __init__(self, good: memory.MemoryBackend | None = None, url: str = "memory:") -> None:
        self.good = good or memory.MemoryBackend()
        self.answers: dict[str, Answer | Bomb] = {}
        self.sizes: dict[str, int] = {}
        self.planted: list[protocol.Item] = []
        self.hooks: list[Callable[[str], None]] = []
        self.drops_puts = False
        self.fails: errors.VimgvcError | None = None
        self.largest = 0
        self._url = url
        self._guard = threading.Lock()

    # -- what its owner does -------------------------------------------------------------------

    def honest(self) -> None:
        """End every attack."""
        self.answers.clear()
        self.sizes.clear()
        self.planted.clear()
        self.hooks.clear()
        self.drops_puts = False
        self.fails = None

    def snapshot(self) -> dict[str, bytes]:
        """All that is kept."""
        areas = [item.name for area in protocol.AREAS for item in self.good.list(area)]
        return {name: self.good.get(name) for name in [*areas, protocol.CONFIG] if self._is_kept(name)}

    def show(self, state: Mapping[str, bytes]) -> None:
        """Show exactly `state`: an earlier one (rollback), that of a fork, or another repository's."""
        for name in [*self.snapshot(), *state]:
            self.answers[name] = state.get(name)

    def withhold(self, *names: str) -> None:
        """Show these as absent."""
        self.answers.update(dict.fromkeys(names))

    def newest(self, area: str, before: Mapping[str, bytes]) -> list[str]:
        """The names in an area that came after `before`."""
        return sorted(item.name for item in self.good.list(area) if item.name not in before)

    def swap(self, one: str, other: str) -> None:
        """Show each under the name of the other."""
        self.answers[one], self.answers[other] = self.good.get(other), self.good.get(one)

    def flip(self, name: str, at: int) -> None:
        """Show one bit of a blob otherwise."""
        blob = bytearray(self.good.get(name))
        blob[at % len(blob)] ^= 1
        self.answers[name] = bytes(blob)

    def fork(self) -> Malicious:
        """Another view of the same place, for another client: what is put into either does not show in the other."""
        copy = memory.MemoryBackend()
        for name, blob in self.snapshot().items():
            copy.put(name, [blob])
        return Malicious(copy, self._url)

    def plant(self, name: str, blob: bytes = b"planted") -> None:
        """A name in every listing that no writer gave; as any Backend does, only those of blobs get through."""
        self.planted.append(protocol.Item(name, len(blob)))
        if protocol.is_name(name):
            self.answers[name] = blob

    # -- what its users see ----------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> protocol.Capabilities:
        return self.good.capabilities

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        self._maybe_fail()
        protocol.validate_name(name)
        if self.drops_puts:
            return True
        if name not in self.answers:
            return self.good.put(name, parts)
        with self._guard:
            if self.answers[name] is not None:
                return False
            self.answers[name] = b"".join(parts)  # what is kept is what was there before
            return True

    def sync(self) -> None:
        self.good.sync()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        protocol.validate_name(name)
        protocol.validate_range(offset, length)
        self._maybe_fail()
        for hook in self.hooks:
            hook(name)
        blob = self._answer(name)
        size = blob.size if isinstance(blob, Bomb) else len(blob)
        if length is None and size - offset > protocol.most(name):
            raise protocol.too_large(name, size)
        end = max(size, offset) if length is None else offset + length
        if end > size:
            raise protocol.too_short(name, size, end)
        with self._guard:
            self.largest = max(self.largest, end - offset)
        return bytes(end - offset) if isinstance(blob, Bomb) else blob[offset:end]

    def size(self, name: str) -> int:
        protocol.validate_name(name)
        self._maybe_fail()
        blob = self._answer(name)
        return self.sizes.get(name, blob.size if isinstance(blob, Bomb) else len(blob))

    def list(self, area: str) -> Iterator[protocol.Item]:
        self._maybe_fail()
        for hook in self.hooks:
            hook(area)
        found = {item.name: item.size for item in self.good.list(area)}
        for name, answer in self.answers.items():
            if name.startswith(area + "/"):
                found.pop(name, None)
                if answer is not None:
                    found[name] = answer.size if isinstance(answer, Bomb) else len(answer)
        found.update({item.name: item.size for item in self.planted if protocol.is_name(item.name)})
        items = [(name, size) for name, size in found.items() if name.startswith(area + "/")]
        return iter([protocol.Item(name, self.sizes.get(name, size)) for name, size in items])

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return self.good.lock_shared()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self.good.lock_exclusive()

    def delete(self, name: str) -> None:
        self.answers.pop(name, None)
        self.good.delete(name)

    def delete_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.delete(name)

    def set_aside(self, name: str) -> None:
        self.good.set_aside(name)

    def remove_stale(self, now: float) -> int:
        return self.good.remove_stale(now)

    def close(self) -> None:
        self.good.close()

    def _answer(self, name: str) -> bytes | Bomb:
        if name in self.answers:
            answer = self.answers[name]
            if answer is None:
                raise protocol.missing(name)
            return answer
        return self.good.get(name)

    def _is_kept(self, name: str) -> bool:
        try:
            self.good.size(name)
        except errors.NotFound:
            return False
        return True

    def _maybe_fail(self) -> None:
        if self.fails is not None:
            raise self.fails
