"""What a collection announces, and what it finds of others (specs/repository.md §9)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.repo import gcrecords, names, roots

if TYPE_CHECKING:
    from vimgvc.monitor import Monitor
    from vimgvc.repo.repository import Repository

_LAST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Going:
    """Names of what is removed, ascending; `forgotten` by the commits."""

    packs: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.packs) + len(self.index) + len(self.commits) + len(self.forgotten)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A collection that has begun and not ended; `taken`: another one has begun in spite of it."""

    epoch: int
    host: str
    time: str
    taken: bool


@dataclass(slots=True)
class Epochs:
    """The epochs of one run of `gc`, which may try several times.

    `locked`: it has the place's lock to itself. `close`: epochs whose collectors can remove nothing any more.
    """

    repo: Repository
    backend: protocol.Backend
    host: str
    locked: bool
    take_over: bool
    close: frozenset[int] = frozenset()
    number: int = 0
    _begun: set[int] = field(default_factory=set)
    _dead: list[int] = field(default_factory=list)

    @property
    def records(self) -> gcrecords.Records:
        return gcrecords.Records(self.backend, self.repo.seals)

    def look(self) -> None:
        """What there is, without beginning."""
        found = self.records.epochs()
        self.number = self._next(found)
        locks = self.backend.capabilities.locks
        self._dead = [number for number, phases in found.items() if locks and self.records.is_locked(number, phases)]

    def begin(self) -> None:
        """Before anything is read. Raises `Busy` while another collection is at it, or may be."""
        found = self.records.epochs()
        self._dead = []
        for number, phases in sorted(found.items()):
            if gcrecords.DONE in phases:
                continue
            # Whoever held the lock that is held here is dead, and so are our own tries.
            if number in self._begun | self.close or (self.locked and self.records.is_locked(number, phases)):
                self._dead.append(number)
            elif gcrecords.TAKEN not in phases:
                self._take(number, phases)
        self.number = self._next(found)
        self.say(gcrecords.BEGIN)
        self._begun.add(self.number)

    def _next(self, found: gcrecords.Epochs) -> int:
        number = max(found, default=0) + 1
        if number > _LAST:
            raise errors.IntegrityError("gc", "has a record with the highest number there can be")
        return number

    def _take(self, number: int, phases: set[str]) -> None:
        if not self.take_over:
            one = self._describe(number, phases)
            who = f" by {one.host}" if one.host else ""
            since = f" since {one.time}" if one.time else ""
            raise errors.Busy(
                f"{self.backend.url} is being collected{who}{since}",
                hint="run the command again when that one has finished; if it never will, give --take-over",
            )
        self.say(gcrecords.TAKEN, number=number)

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Of others, as far as is known."""
        found = sorted(self.records.epochs().items())
        return tuple(
            [
                self._describe(number, phases)
                for number, phases in found
                if gcrecords.DONE not in phases and number != self.number
            ]
        )

    def _describe(self, number: int, phases: set[str]) -> Unfinished:
        host = time = ""
        for phase in (gcrecords.CONDEMN, gcrecords.BEGIN):
            with contextlib.suppress(errors.IntegrityError, errors.Unsupported, errors.NotFound):
                record = self.records.read(number, phase)
                host, time = record.host, record.time
        return Unfinished(number, host, time, gcrecords.TAKEN in phases)

    def avoid(self, monitor: Monitor) -> frozenset[str]:
        """Packs that others were about to remove, or still are: a copy elsewhere is preferred."""
        return self.records.condemned(monitor).packs

    def doubt(self, monitor: Monitor) -> frozenset[str]:
        """Those of them that others may still remove: what is needed of them has to be copied."""
        found = self.records.epochs()
        others = {number: found[number] for number in found.keys() - {self.number, *self._dead}}
        return self.records.condemned(monitor, others).packs

    def say(
        self, phase: str, going: Going = Going(), heads: roots.Heads | None = None, *, number: int | None = None
    ) -> None:
        """Durable on return; raises `Busy` when somebody else has said it."""
        self.records.put(self._record(phase, going, heads, self.number if number is None else number))

    def _record(self, phase: str, going: Going, heads: roots.Heads | None, number: int) -> gcrecords.Record:
        return gcrecords.Record(
            epoch=number,
            phase=phase,
            time=names.stamp(self.repo.clock()),
            host=self.host,
            packs=going.packs,
            index=going.index,
            commits=going.commits,
            refs={blind: [seq, entry_hash] for blind, (seq, entry_hash) in (heads or {}).items()},
            locked=self.locked,
        )

    def reserve(self, going: Going, heads: roots.Heads) -> None:
        """Take the room of a record of these names, until `free`."""
        self.records.reserve(self._record(gcrecords.CONDEMN, going, heads, self.number))

    def free(self) -> None:
        self.records.free(self.number)

    def check_mine(self) -> None:
        """Raises `Busy` when another collection has taken over: it may not have seen what this one announced."""
        try:
            self.backend.size(gcrecords.name(self.number, gcrecords.TAKEN))
        except errors.NotFound:
            return
        raise TakenOver(
            f"another collection of {self.backend.url} has taken over from this one",
            hint="it does what is left to do; 'vimgvc gc --dry-run' tells what that is",
        )

    def end(self, gone: Going = Going(), heads: roots.Heads | None = None) -> None:
        """Nothing more is removed because of this epoch, nor because of those of the dead."""
        self.say(gcrecords.DONE, gone, heads)
        self._begun.discard(self.number)
        found = self.records.epochs()
        for number in self._dead:
            if gcrecords.DONE not in found.get(number, {gcrecords.DONE}):
                self._close(number, found[number])
        self.records.remove_finished(before=self.number)

    def _close(self, number: int, phases: set[str]) -> None:
        """Say of a dead collection what it may have removed."""
        try:
            swept = self.records.swept(number, phases)
        except errors.IntegrityError:
            # Nobody can know. It stays, and whoever relies on anything from before asks in vain.
            if gcrecords.TAKEN not in phases:
                self.say(gcrecords.TAKEN, number=number)
            return
        self.say(gcrecords.DONE, Going(tuple(sorted(swept.packs)), (), tuple(sorted(swept.commits))), number=number)


class TakenOver(errors.Busy):
    """Another collection goes on in place of this one."""
