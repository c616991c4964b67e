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
    """The last entry of one log; `hash` is that of its stored bytes, hexadecimal."""

    blind: str
    hash: str
    entry: reflog.Entry


class Refs:
    """The logs of one repository, as they are at the moment of each call."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals

    def last(self, monitor: Monitor) -> dict[str, Ref]:
        """Blind → last entry of every log; a log that cannot be read is reported and left out."""
        newest: dict[str, int] = {}
        for blind, seq in self._places():
            newest[blind] = max(seq, newest.get(blind, 0))
        refs = {}
        for blind, seq in sorted(newest.items()):
            try:
                refs[blind] = self.read(blind, seq)
            except errors.IntegrityError as error:
                monitor.problem(str(error))
        return refs

    def read(self, blind: str, seq: int) -> Ref:
        """Entry `seq` of a log; raises `IntegrityError`, `NotFound`."""
        where = f"ref log {blind[:12]} entry {seq}"
        blob = self._backend.get(_name(blind, seq))
        body = self._seals.open(aead.REF, blob, where, context=bytes.fromhex(blind) + seq.to_bytes(8, "little"))
        entry = reflog.decode(body, where)
        if entry.seq != seq or self._seals.blind(entry.kind, entry.name) != blind:
            raise errors.FormatError(where, "belongs to another place")
        return Ref(blind, sealing.blob_hash(blob), entry)

    def walk(self, blind: str) -> Iterator[Ref]:
        """All entries of a log from the first; raises `IntegrityError` where the chain is broken."""
        seqs = sorted(seq for found, seq in self._places() if found == blind)
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
            seq=previous.entry.seq + 1 if previous else 1,
            commit=commit,
            prev=previous.hash if previous else None,
            time=time,
            host=host,
            seen={other: [ref.entry.seq, ref.hash] for other, ref in before.items() if other != blind},
        )
        context = bytes.fromhex(blind) + entry.seq.to_bytes(8, "little")
        blob = self._seals.seal(aead.REF, entry.encode(), context)
        if not self._backend.put(_name(blind, entry.seq), [blob]):
            raise errors.RefMoved(name, commit or "")
        self._backend.sync()
        return Ref(blind, sealing.blob_hash(blob), entry)

    def _places(self) -> Iterator[tuple[str, int]]:
        for item in self._backend.list("refs"):
            match = _PLACE.fullmatch(item.name)
            if match:
                yield match[1], int(match[2], 16)


def _name(blind: str, seq: int) -> str:
    return f"refs/{blind}/{seq:016x}"
