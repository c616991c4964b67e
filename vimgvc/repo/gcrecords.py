"""What collections say before, while and after they remove something (specs/formats.md §13).

What they mean is in specs/repository.md §9. An epoch is unfinished until its `done`: until then any of what its
`sweep` names, and its `spared` does not, may be gone or go at any moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.model import commit as commits
from vimgvc.model import encoding, reflog
from vimgvc.monitor import Monitor
from vimgvc.repo import promises

BEGIN, CONDEMN, SWEEP, SPARED, TAKEN, DONE = PHASES = ("begin", "condemn", "sweep", "spared", "taken", "done")
_NAME = re.compile(rf"gc/([0-9a-f]{{16}})-({'|'.join(PHASES)})")
#: No phase of an epoch: it says nothing, wherever it is found, and only takes room.
_RESERVE = "reserve"
_RESERVED = re.compile(rf"gc/([0-9a-f]{{16}})-{_RESERVE}")
_UNREADABLE = (errors.IntegrityError, errors.Unsupported, errors.NotFound)
#: The phases of each epoch that has records.
Epochs = dict[int, set[str]]


@dataclass(frozen=True, slots=True)
class Record:
    """Names in hexadecimal, ascending; `refs`: where each ref log ended when it was read, by blind.

    `locked`: whoever wrote it held the lock of the place exclusively.
    """

    epoch: int
    phase: str
    time: str
    host: str
    packs: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    refs: dict[str, list[int | str]] = field(default_factory=dict)
    locked: bool = False

    def encode(self) -> bytes:
        return encoding.dumps_canonical({**asdict(self), "v": 1})


def decode(body: bytes, where: str) -> Record:
    """Raises `FormatError`, `Unsupported`."""
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    members.version("collection record")
    record = Record(
        epoch=members.number("epoch"),
        phase=members.text("phase"),
        time=members.text("time"),
        host=members.text("host"),
        packs=_names(members, "packs"),
        index=_names(members, "index"),
        commits=_names(members, "commits"),
        refs=reflog.decode_ends(members, "refs"),
        locked=members.get("locked", bool),
    )
    members.end()
    commits.check_time(record.time, where)
    if record.phase not in PHASES or not record.epoch:
        raise errors.FormatError(where, "is of an unknown phase or epoch")
    return record


def _names(members: encoding.Members, name: str) -> tuple[str, ...]:
    names = tuple(encoding.check_hex(item, 32, members.where) for item in members.get(name, list))
    if list(names) != sorted(set(names)):
        raise errors.FormatError(members.where, f"has '{name}' out of order")
    return names


@dataclass(frozen=True, slots=True)
class Condemned:
    """What collections that did not finish were about to remove, or what may be gone because of some."""

    packs: frozenset[str] = frozenset()
    commits: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.packs or self.commits)

    def __or__(self, other: Condemned) -> Condemned:
        return Condemned(self.packs | other.packs, self.commits | other.commits)


class Records:
    """The records of one repository."""

    def __init__(self, backend: protocol.Backend, seals: sealing.Sealing) -> None:
        self._backend, self._seals = backend, seals

    def epochs(self) -> Epochs:
        """Epoch → the phases that have a record."""
        return self.listing()[0]

    def listing(self) -> tuple[Epochs, frozenset[str]]:
        """The same, and the commits that have a promise (`repo.promises`)."""
        items = list(self._backend.list("gc"))
        return _epochs(items), promises.among(items)

    def unfinished(self) -> list[int]:
        return sorted(epoch for epoch, phases in self.epochs().items() if DONE not in phases)

    def condemned(self, monitor: Monitor, epochs: Epochs | None = None) -> Condemned:
        """What unfinished collections named. A record that cannot be read is reported: the next one reads none."""
        found = Condemned()
        for epoch, phases in sorted((self.epochs() if epochs is None else epochs).items()):
            if DONE in phases or CONDEMN not in phases:
                continue
            try:
                found |= self._named(epoch, phases, (CONDEMN,))
            except _UNREADABLE as error:
                monitor.problem(str(error))
        return found

    def swept(self, epoch: int, phases: set[str]) -> Condemned:
        """What may be gone, or go, because of a collection whose `phases` were listed.

        Raises `NotFound` when the records have been removed since, `IntegrityError` when nobody can know.
        """
        if DONE in phases:
            return self._named(epoch, phases, (DONE,))
        if SWEEP in phases:
            # Both name the same; either may be damaged.
            return self._named(epoch, phases, (SWEEP, CONDEMN))
        # That it is not listed proves nothing when the records were being removed: this one goes first.
        self._backend.size(name(epoch, BEGIN if BEGIN in phases else CONDEMN))
        return Condemned()

    def _named(self, epoch: int, phases: set[str], choice: tuple[str, ...]) -> Condemned:
        """What the first readable record of `choice` names, without what was spared."""
        *rest, last = choice
        for phase in rest:
            try:
                record = self.read(epoch, phase)
                break
            except (errors.IntegrityError, errors.Unsupported):
                continue
        else:
            record = self.read(epoch, last)
        spared = Condemned()
        if SPARED in phases and DONE not in phases:
            found = self.read(epoch, SPARED)
            spared = Condemned(frozenset(found.packs), frozenset(found.commits))
        return Condemned(frozenset(record.packs) - spared.packs, frozenset(record.commits) - spared.commits)

    def is_locked(self, epoch: int, phases: set[str]) -> bool:
        """Whether who began it held the lock: no more than its first readable record is asked."""
        for phase in (BEGIN, CONDEMN):
            if phase in phases:
                try:
                    return self.read(epoch, phase).locked
                except _UNREADABLE:
                    continue
        return False

    def read(self, epoch: int, phase: str) -> Record:
        """Raises `NotFound`, `IntegrityError`, `Unsupported`."""
        where = f"collection {epoch} {phase}"
        blob = self._backend.get(name(epoch, phase))
        record = decode(self._seals.open(aead.COLLECTION, blob, where, context(epoch, phase)), where)
        if (record.epoch, record.phase) != (epoch, phase):
            raise errors.FormatError(where, "belongs to another place")
        return record

    def put(self, record: Record) -> None:
        """Store a record, durable on return; raises `Busy` when somebody else has stored it."""
        blob = self._seals.seal(aead.COLLECTION, record.encode(), context(record.epoch, record.phase))
        if not self._backend.put(name(record.epoch, record.phase), [blob]):
            raise errors.Busy(
                f"{self._backend.url} is being collected by another process",
                hint="run the command again when that one has finished",
            )
        self._backend.sync()

    def reserve(self, record: Record) -> None:
        """Take the room that another record of what this one names will need, until `free`."""
        blob = self._seals.seal(aead.COLLECTION, record.encode(), context(record.epoch, _RESERVE))
        if not self._backend.put(name(record.epoch, _RESERVE), [blob]):
            # What a crash left: the epoch is this collector's alone.
            self.free(record.epoch)
            self._backend.put(name(record.epoch, _RESERVE), [blob])

    def free(self, epoch: int) -> None:
        """Give it back."""
        self._delete([name(epoch, _RESERVE)])

    def remove_finished(self, *, before: int) -> None:
        """Of epochs below `before` that are done nothing is needed any more.

        `-begin` goes first: whoever lists the others without it sees that some may be missing. `-done` goes last:
        without it an epoch counts as unfinished. Room that a crash left reserved is freed.
        """
        items = list(self._backend.list("gc"))
        old = {epoch: phases for epoch, phases in _epochs(items).items() if epoch < before and DONE in phases}
        self._delete(sorted(item.name for item in items if _is_reserve(item.name, before)))
        self._delete([name(epoch, BEGIN) for epoch in old])
        self._delete([name(epoch, phase) for epoch in old for phase in sorted(old[epoch] - {BEGIN, DONE})])
        self._delete([name(epoch, DONE) for epoch in old])

    def _delete(self, names: list[str]) -> None:
        if names:
            self._backend.delete_all(names)


def _epochs(items: Iterable[protocol.Item]) -> Epochs:
    found: Epochs = {}
    for item in items:
        match = _NAME.fullmatch(item.name)
        if match:
            found.setdefault(int(match[1], 16), set()).add(match[2])
    return found


def _is_reserve(blob: str, before: int) -> bool:
    match = _RESERVED.fullmatch(blob)
    return match is not None and int(match[1], 16) < before


def name(epoch: int, phase: str) -> str:
    """Of the blob of a record."""
    return f"gc/{epoch:016x}-{phase}"


def context(epoch: int, phase: str) -> bytes:
    """What the sealed record is bound to besides the repository."""
    return epoch.to_bytes(8, "little") + phase.encode()
