"""Branches and tags: append-only logs of sealed entries (specs/formats.md §11)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import reflog
from vimgvc.monitor import Monitor

_PLACE = re.compile(r"refs/([0-9a-f]{32})/([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a log ends.

    `seq` is that of its last stored entry and `hash` that of its stored bytes, hexadecimal; `entry`
    is the last one that can be read, which is that same one unless it is damaged.
    """

    blind: str
    seq: int
    hash: str
    entry: reflog.Entry

    @property
    def head(self) -> tuple[int, str | None]:
        """The end as a trust store compares it: no hash where the last entry is damaged."""
        return self.seq, self.hash if self.entry.seq == self.seq else None


class Refs:
    """The logs of one repository, as they are at the moment of each call."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals

    def last(self, monitor: Monitor) -> dict[str, Ref]:
        """Blind → end of every log; what cannot be read is reported, a log without a readable entry left out."""
        ends = ((blind, self._end(blind, seq, monitor)) for blind, seq in sorted(self.ends().items()))
        return {blind: end for blind, end in ends if end}

    def ends(self) -> dict[str, int]:
        """Blind → number of the last entry of every log, readable or not."""
        newest: dict[str, int] = {}
        for blind, seq in self._places():
            newest[blind] = max(seq, newest.get(blind, 0))
        return newest

    def _end(self, blind: str, last: int, monitor: Monitor) -> Ref | None:
        for seq in range(last, 0, -1):
            try:
                found = self.read(blind, seq)
            except (errors.IntegrityError, errors.NotFound) as error:
                monitor.problem(str(error))
                continue
            if seq == last:
                return found
            return Ref(blind, last, sealing.blob_hash(self._backend.get(_name(blind, last))), found.entry)
        return None

    def read(self, blind: str, seq: int) -> Ref:
        """Entry `seq` of a log; raises `IntegrityError`, `NotFound`."""
        where = f"ref log {blind[:12]} entry {seq}"
        blob = self._backend.get(_name(blind, seq))
        body = self._seals.open(aead.REF, blob, where, context=bytes.fromhex(blind) + seq.to_bytes(8, "little"))
        entry = reflog.decode(body, where)
        if entry.seq != seq or self._seals.blind(entry.kind, entry.name) != blind:
            raise errors.FormatError(where, "belongs to another place")
        return Ref(blind, seq, sealing.blob_hash(blob), entry)

    def walk(self, blind: str) -> Iterator[Ref]:
        """All entries of a log from the first; raises `IntegrityError` where the chain is broken."""
        seqs = sorted(seq for _, seq in self._places(f"refs/{blind}"))
        before: Ref | None = None
        for expected, seq in enumerate(seqs, 1):
            if seq != expected:
                raise errors.IntegrityError(f"ref log {blind[:12]}", f"lacks entry {expected}")
            ref = self.read(blind, seq)
            if ref.entry.prev != (before.hash if before else None):
                raise errors.IntegrityError(f"ref log {blind[:12]} entry {seq}", "does not follow the entry before")
            yield ref
            before = ref

    def publish(self, kind: str, name: str, commit: str | None, before: dict[str, Ref], *, time: str, host: str) -> Ref:
        """Append an entry to the log as `before` (from `last`) shows it; durable on return.

        Raises `RefMoved` when somebody else appended first.
        """
        blind = self._seals.blind(kind, name)
        previous = before.get(blind)
        entry = reflog.Entry(
            kind=kind,
            name=name,
            seq=previous.seq + 1 if previous else 1,
            commit=commit,
            prev=previous.hash if previous else None,
            time=time,
            host=host,
            seen={other: [ref.seq, ref.hash] for other, ref in before.items() if other != blind},
        )
        context = bytes.fromhex(blind) + entry.seq.to_bytes(8, "little")
        blob = self._seals.seal(aead.REF, entry.encode(), context)
        if not self._backend.put(_name(blind, entry.seq), [blob]):
            raise errors.RefMoved(name, commit or "")
        self._backend.sync()
        return Ref(blind, entry.seq, sealing.blob_hash(blob), entry)

    def _places(self, area: str = "refs") -> Iterator[tuple[str, int]]:
        for item in self._backend.list(area):
            match = _PLACE.fullmatch(item.name)
            if match:
                yield match[1], int(match[2], 16)


def _name(blind: str, seq: int) -> str:
    return f"refs/{blind}/{seq:016x}"
