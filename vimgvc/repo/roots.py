"""What has to be kept: read without leniency, because what is not seen here is removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.pipeline import ordered
from vimgvc.repo import forgetting, history, pins, refs, views

if TYPE_CHECKING:
    from vimgvc.backends import protocol
    from vimgvc.codec import sealing

#: The end of each ref log, by blind, as sequence and hash.
Heads = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Roots:
    """Of `live` commits the data is kept; `reachable` ones (identifiers) stay in the history.

    `held` commits are kept as far as they are there: those that pins lead to, and names that were made and went
    while a collection was at work. `stored` commits are there, `recorded` ones have a record that they were
    forgotten. `named`: what branches and tags alone lead to.
    """

    live: tuple[commits.Commit, ...]
    held: tuple[commits.Commit, ...]
    reachable: frozenset[str]
    named: frozenset[str]
    stored: frozenset[str]
    recorded: frozenset[str]
    heads: Heads
    pins: dict[str, pins.Pin]

    @property
    def unreachable(self) -> list[str]:
        return sorted(self.stored - self.reachable)

    @property
    def done_pins(self) -> list[str]:
        """Pins of what a name leads to: they have done their work."""
        return sorted(pin_id for pin_id, pin in self.pins.items() if pin.commit in self.named)


def read(
    backend: protocol.Backend,
    seals: sealing.Sealing,
    forgotten: Collection[str] = (),
    *,
    accepted: views.Accepted = views.NOTHING,
    trusting: bool = False,
) -> Roots:
    """`Reader.read`, once."""
    return Reader(backend, seals, accepted=accepted, trusting=trusting).read(forgotten)


class Reader:
    """Reads the roots several times; what never changes is read once."""

    def __init__(
        self,
        backend: protocol.Backend,
        seals: sealing.Sealing,
        *,
        accepted: views.Accepted = views.NOTHING,
        trusting: bool = False,
    ) -> None:
        self._backend, self._accepted, self._trusting = backend, accepted, trusting
        self._logs, self._graph = refs.Refs(backend, seals), history.History(backend, seals)
        self._records, self._pins = forgetting.Records(backend, seals), pins.Pins(backend, seals)
        self._entries: dict[tuple[str, int], refs.Ref] = {}

    def read(self, forgotten: Collection[str] = (), *, since: Heads | None = None) -> Roots:
        """The roots as they are now; commits of `forgotten` count as forgotten, too.

        With `since`, ends of logs, whatever was named after them is held, also when it is not any more: somebody may
        have relied on that meanwhile. Raises `IntegrityError`, `BackendError`, or `NotFound` for anything that cannot
        be read, and, unless `trusting`, `Rollback` when some log is not what an entry of another one tells of it, but
        for what is `accepted`.
        """
        # In this order: a commit comes before its pin, a pin goes after there is a name.
        stored = frozenset(self._graph.ids())
        pinned = self._read_pins()
        logs = self._read_logs()
        heads = {blind: (log[-1].seq, log[-1].hash) for blind, log in logs.items()}
        self._check(logs)
        self._graph.read_ahead(stored)
        tips = {log[-1].entry.commit for log in logs.values()}
        recorded = frozenset(self._records.all())
        gone = recorded | frozenset(forgotten)
        named = self._reach([tip for tip in tips if tip], must_exist=True)
        claims = {pin.commit for pin in pinned.values()} | _named_since(logs, since)
        more = self._reach(claims - named.keys(), must_exist=False)
        live = tuple([item for item in named.values() if item.id not in gone or item.id in tips])
        alive = {item.id for item in live}
        held = [item for item in {**named, **more}.values() if item.id not in alive]
        return Roots(
            live,
            tuple([item for item in held if item.id in claims or item.id not in gone]),
            frozenset(named.keys() | more.keys()),
            frozenset(named),
            stored,
            recorded,
            heads,
            pinned,
        )

    def _check(self, logs: dict[str, list[refs.Ref]]) -> None:
        whole = views.Whole()
        for log in logs.values():
            for ref in log:
                whole.add(ref)
        if not self._trusting and (differences := whole.differences(self._logs, self._accepted)):
            names = {blind: (log[-1].entry.kind, log[-1].entry.name) for blind, log in logs.items()}
            raise errors.Rollback(
                f"ref logs are not what they were: {views.describe(differences, names)}",
                hint="what they led to would be removed: find out where it went ('vimgvc verify'), or give --force",
            )

    def _read_pins(self) -> dict[str, pins.Pin]:

        def attempt(pin_id: str) -> pins.Pin | None:
            try:
                return self._pins.read(pin_id)
            except errors.NotFound:  # removed meanwhile: there is a name, which is read after this
                return None
            except (errors.IntegrityError, errors.Unsupported) as error:
                raise errors.IntegrityError(
                    f"pin {pin_id}",
                    f"{error.message}; what it holds is not known",
                    hint=f"'vimgvc gc --expire-pin {pin_id}' removes it, when whoever put it is not at work any more",
                ) from error

        ids = self._pins.ids()
        found = zip(ids, ordered.each(ids, attempt, self._backend.capabilities.parallel), strict=True)
        return {pin_id: pin for pin_id, pin in found if pin}

    def _read_logs(self) -> dict[str, list[refs.Ref]]:
        """Blind → all entries that are stored. A gap decides nothing; `verify` reports it."""
        parts = sorted(item.name.split("/") for item in self._backend.list("refs"))
        places = [(blind, int(number, 16)) for _, blind, number in parts]
        for ref in self._logs.read_all([place for place in places if place not in self._entries]):
            self._entries[ref.blind, ref.seq] = ref
        found: dict[str, list[refs.Ref]] = {}
        for place in places:
            found.setdefault(place[0], []).append(self._entries[place])
        return found

    def _reach(self, tips: Iterable[str], *, must_exist: bool) -> dict[str, commits.Commit]:
        found: dict[str, commits.Commit] = {}
        todo = sorted(tips)
        while todo:
            commit_id = todo.pop()
            if commit_id in found:
                continue
            try:
                found[commit_id] = self._graph.load(commit_id)
            except errors.NotFound as error:
                if must_exist:
                    raise errors.IntegrityError(f"commit {commit_id[:12]}", "is missing") from error
                continue
            todo += found[commit_id].parents
        return found


def _named_since(logs: dict[str, list[refs.Ref]], since: Heads | None) -> set[str]:
    if since is None:
        return set()
    later = [ref for blind, log in logs.items() for ref in log if ref.seq > since.get(blind, (0, ""))[0]]
    return {ref.entry.commit for ref in later if ref.entry.commit}
