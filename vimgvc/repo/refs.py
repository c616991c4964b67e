"""Branches and tags: append-only logs of sealed entries (specs/formats.md §11)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import ordered

_PLACE = re.compile(r"refs/([0-9a-f]{32})/([0-9a-f]{16})")


class Broken(errors.IntegrityError):
    """Entries of a log that do not follow each other: one is missing, or was put in the place of another."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a log ends.

    `seq` is that of its last stored entry and `hash` that of its stored bytes, hexadecimal; `entry`
    is the last one that can be read, which is that same one unless it is damaged. `torn`: the one right after
    `entry` is there and cannot be read, so what the name is now is not known.
    """

    blind: str
    seq: int
    hash: str
    entry: reflog.Entry
    torn: bool = False

    @property
    def head(self) -> tuple[int, str | None]:
        """The end as a trust store compares it: no hash where the last entry is damaged."""
        return self.seq, self.hash if self.entry.seq == self.seq else None


class Refs:
    """The logs of one repository, as they are at the moment of each call."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals
        #: What `last` gave before, and what was published since.
        self._before: dict[str, Ref] = {}

    def last(self, monitor: Monitor, listed: dict[str, int] | None = None) -> dict[str, Ref]:
        """Blind → end of every log; what cannot be read is reported, a log without a readable entry left out.

        `listed` is what `ends()` returned just now. Raises `Rollback` when a log ends earlier or otherwise than in the
        call before: nothing in it ever changes.
        """
        numbers = self.ends() if listed is None else listed
        parallel = self._backend.capabilities.parallel
        ends = ordered.each(sorted(numbers.items()), lambda one: self._end(*one, monitor), parallel)
        found = {end.blind: end for end in ends if end}
        for blind, before in self._before.items():
            now = found.get(blind)
            if numbers.get(blind, 0) < before.seq or (now and _is_other(before, now)):
                raise errors.Rollback(
                    f"the log of {before.entry.kind} '{before.entry.name}' is another one than a moment ago",
                    hint="nothing was written after that; do not trust what stores this repository",
                )
        self._before = found
        return dict(found)

    def lately(self, monitor: Monitor) -> dict[str, Ref]:
        """What `last` gave before, for looking only: another may have been published since."""
        return dict(self._before) or self.last(monitor)

    def ends(self) -> dict[str, int]:
        """Blind → number of the last entry of every log, readable or not."""
        newest: dict[str, int] = {}
        for blind, seq in self._places():
            newest[blind] = max(seq, newest.get(blind, 0))
        return newest

    def _end(self, blind: str, last: int, monitor: Monitor) -> Ref | None:
        try:
            return self.read(blind, last)
        except (errors.IntegrityError, errors.NotFound) as error:
            monitor.problem(str(error))
        # Not by counting down: whoever can make a file can call it entry 2^63.
        stored = {seq for _, seq in self._places(f"refs/{blind}")}
        for seq in sorted((seq for seq in stored if seq < last), reverse=True):
            try:
                found = self.read(blind, seq)
            except (errors.IntegrityError, errors.NotFound) as error:
                monitor.problem(str(error))
                continue
            return Ref(blind, last, self._hash(blind, last), found.entry, torn=seq + 1 in stored)
        return None

    def _hash(self, blind: str, seq: int) -> str:
        """Of what is stored there, whatever it is: so that a next entry can follow it."""
        try:
            return sealing.blob_hash(self._backend.get(_name(blind, seq)))
        except errors.IntegrityError:
            return sealing.blob_hash(b"")  # too large to be one

    def read(self, blind: str, seq: int) -> Ref:
        """Entry `seq` of a log; raises `IntegrityError`, `NotFound`."""
        where = f"ref log {blind[:12]} entry {seq}"
        blob = self._backend.get(_name(blind, seq))
        body = self._seals.open(aead.REF, blob, where, context=bytes.fromhex(blind) + seq.to_bytes(8, "little"))
        entry = reflog.decode(body, where)
        if entry.seq != seq or self._seals.blind(entry.kind, entry.name) != blind:
            raise errors.FormatError(where, "belongs to another place")
        return Ref(blind, seq, sealing.blob_hash(blob), entry)

    def is_there(self, ref: Ref) -> bool:
        """Whether the last entry of a log is stored, as far as its size tells."""
        try:
            return self._backend.size(_name(ref.blind, ref.seq)) > 0
        except errors.NotFound:
            return False

    def walk(self, blind: str, parallel: int = 1) -> Iterator[Ref]:
        """All entries of a log from the first; raises `IntegrityError` where the chain is broken."""
        seqs = sorted(seq for _, seq in self._places(f"refs/{blind}"))
        before: Ref | None = None
        whole = [seq for expected, seq in enumerate(seqs, 1) if seq == expected]
        for seq, ref in enumerate(ordered.each(whole, lambda seq: self.read(blind, seq), parallel), 1):
            if ref.entry.prev != (before.hash if before else None):
                raise errors.IntegrityError(f"ref log {blind[:12]} entry {seq}", "does not follow the entry before")
            yield ref
            before = ref
        if len(whole) < len(seqs):
            raise errors.IntegrityError(f"ref log {blind[:12]}", f"lacks entry {len(whole) + 1}")

    def back(self, blind: str) -> Iterator[Ref]:
        """The same from the last to the first; raises `Broken` where the chain is broken. Reads what is asked for."""
        after: Ref | None = None
        for seq in range(self.ends().get(blind, 0), 0, -1):
            try:
                ref = self.read(blind, seq)
            except errors.NotFound as error:
                raise Broken(f"ref log {blind[:12]}", f"lacks entry {seq}") from error
            if after and after.entry.prev != ref.hash:
                raise Broken(f"ref log {blind[:12]} entry {seq + 1}", "does not follow the entry before")
            yield ref
            after = ref
        if after and after.entry.prev is not None:
            raise Broken(f"ref log {blind[:12]} entry 1", "does not follow the entry before")

    def readable(self, blind: str) -> list[Ref]:
        """What is left of a log, whatever is lost, from the first to the last."""

        def attempt(seq: int) -> Ref | None:
            with contextlib.suppress(errors.IntegrityError, errors.NotFound, errors.Unsupported):
                try:
                    return self.read(blind, seq)
                except errors.BackendError as error:
                    if error.kind != "EIO":  # the way to it fails, not the medium
                        raise
            return None

        seqs = sorted(seq for _, seq in self._places(f"refs/{blind}"))
        return [ref for ref in ordered.each(seqs, attempt, self._backend.capabilities.parallel) if ref]

    def read_all(self, places: Iterable[tuple[str, int]]) -> Iterator[Ref]:
        """These entries in their order, several at once where that is worth it; raises as `read`."""
        return ordered.each(places, lambda place: self.read(*place), self._backend.capabilities.parallel)

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
            # Of what cannot be read nothing is told: what is stored there may be damage, or not for long.
            seen={
                other: [ref.seq, ref.hash]
                for other, ref in before.items()
                if other != blind and ref.head[1] is not None
            },
        )
        context = bytes.fromhex(blind) + entry.seq.to_bytes(8, "little")
        blob = self._seals.seal(aead.REF, entry.encode(), context)
        if not self._backend.put(_name(blind, entry.seq), [blob]):
            raise errors.RefMoved(name, commit or "")
        self._backend.sync()
        made = self._before[blind] = Ref(blind, entry.seq, sealing.blob_hash(blob), entry)
        return made

    def _places(self, area: str = "refs") -> Iterator[tuple[str, int]]:
        for item in self._backend.list(area):
            match = _PLACE.fullmatch(item.name)
            if match:
                yield match[1], int(match[2], 16)


def _is_other(before: Ref, now: Ref) -> bool:
    """Whether one log cannot have ended first like this and then like that, as far as the two show it."""
    if before.head[1] is None or now.head[1] is None:
        return False
    if now.seq == before.seq:
        return now.hash != before.hash
    return now.seq == before.seq + 1 and now.entry.prev != before.hash


def _name(blind: str, seq: int) -> str:
    return f"refs/{blind}/{seq:016x}"
