"""What ref entries tell of other logs, and whether it is still so (specs/repository.md §11).

Every entry says where its writer saw the other logs end. So a log that was cut, or of which two writers were shown
two, is given away by any later entry of any other log.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.repo import refs

#: By log: ranges (above, up to) of entries that the user said may be missing or be others.
Accepted = Mapping[str, Sequence[tuple[int, int]]]
#: By log and sequence: the hash of the entry there.
Facts = dict[tuple[str, int], str]
NOTHING: Accepted = types.MappingProxyType({})
_DAMAGED = (errors.IntegrityError, errors.Unsupported)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """A log once had entry `seq` with `hash`; now it ends with entry `found` (0: it is gone), or has another one there.

    `told_by` says whose word that is, empty where this user saw it; `copy` another place that has it.
    """

    blind: str
    seq: int
    hash: str
    found: int
    told_by: str = ""
    copy: str = ""

    @property
    def span(self) -> tuple[int, int]:
        """What is missing, or is another: above, up to."""
        return min(self.found, self.seq - 1), self.seq


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong, and by log the entry of which all that it tells was compared."""

    differences: list[Difference]
    done: dict[str, int]


def check(
    logs: refs.Refs,
    known: Mapping[str, refs.Ref],
    facts: Facts,
    done: Mapping[str, int],
    *,
    accepted: Accepted,
    budget: int,
) -> Checked:
    """Compare what the last entries (`known`) tell with the logs.

    `facts` is what is known of entries without reading them. At most `budget` entries are read for what goes further
    back than that, and none for logs whose last entry is `done`; what was left is for the next time.
    """
    facts = {**facts, **_facts(known)}
    # Not where listings end: anybody can put a name with a high number there.
    ends = {blind: ref.entry.seq for blind, ref in known.items()}
    found = []
    finished = {}
    for blind, ref in sorted(known.items()):
        left = False
        for claim in _claims(ref, accepted):
            key = claim.blind, claim.seq
            if key not in facts and claim.seq <= ends.get(claim.blind, 0):
                if done.get(blind) == ref.entry.seq:
                    continue
                if budget <= 0:
                    left = True
                    continue
                budget -= 1
            difference = _compare(logs, claim, ends.get(claim.blind, 0), facts)
            found += [difference] if difference else []
        if not left:
            finished[blind] = ref.entry.seq
    return Checked(found, finished)


def _claims(ref: refs.Ref, accepted: Accepted) -> list[Difference]:
    """What an entry tells of other logs, as what would be wrong if they had nothing."""
    by = f"entry {ref.entry.seq} of {ref.entry.kind} '{ref.entry.name}'"
    claims = [Difference(other, int(seq), str(seen), 0, by) for other, (seq, seen) in sorted(ref.entry.seen.items())]
    return [claim for claim in claims if not is_accepted(accepted, claim)]


def is_accepted(accepted: Accepted, difference: Difference) -> bool:
    return any(above < difference.seq <= up_to for above, up_to in accepted.get(difference.blind, ()))


def _facts(known: Mapping[str, refs.Ref]) -> Facts:
    """The last entries, and those before them, whose hashes they hold."""
    facts: Facts = {}
    for blind, ref in known.items():
        if ref.head[1] is not None:
            facts[blind, ref.seq] = ref.hash
            if ref.entry.prev is not None:
                facts[blind, ref.seq - 1] = ref.entry.prev
    return facts


def _compare(logs: refs.Refs, claim: Difference, end: int, facts: Facts) -> Difference | None:
    if facts.get((claim.blind, claim.seq)) == claim.hash:
        return None
    # Also where the listing ended earlier: somebody may have added it since. And where the next entry says otherwise:
    # whoever wrote it may have followed a damaged one.
    try:
        found = facts[claim.blind, claim.seq] = logs.read(claim.blind, claim.seq).hash
    except errors.NotFound:
        # One that is missing below others is a gap, which `verify` reports.
        return None if claim.seq <= end else _with(claim, end)
    except _DAMAGED:
        return None
    return None if found == claim.hash else _with(claim, max(end, claim.seq))


def _with(claim: Difference, found: int) -> Difference:
    return Difference(claim.blind, claim.seq, claim.hash, found, claim.told_by)


@dataclass(slots=True)
class Whole:
    """The same for all entries of all logs, which are added one by one."""

    _facts: Facts = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=dict)
    _claims: dict[tuple[str, int, str], Difference] = field(default_factory=dict)

    def add(self, ref: refs.Ref) -> None:
        self._facts[ref.blind, ref.seq] = ref.hash
        self._ends[ref.blind] = max(ref.seq, self._ends.get(ref.blind, 0))
        for claim in _claims(ref, NOTHING):
            self._claims.setdefault((claim.blind, claim.seq, claim.hash), claim)

    def differences(self, logs: refs.Refs, accepted: Accepted) -> list[Difference]:
        """What is wrong, by log and sequence."""
        found = []
        for _, claim in sorted(self._claims.items()):
            if not is_accepted(accepted, claim):
                difference = _compare(logs, claim, self._ends.get(claim.blind, 0), self._facts)
                found += [difference] if difference else []
        return found


def worst(differences: Iterable[Difference]) -> list[Difference]:
    """Of each log the one that says most."""
    by_log = {one.blind: one for one in sorted(differences, key=lambda one: (one.seq, not one.told_by))}
    return [by_log[blind] for blind in sorted(by_log)]


def spans(differences: Iterable[Difference]) -> dict[str, tuple[int, int]]:
    """By log: all that is missing, or is another."""
    found: dict[str, tuple[int, int]] = {}
    for one in differences:
        above, up_to = one.span
        before = found.get(one.blind, one.span)
        found[one.blind] = min(above, before[0]), max(up_to, before[1])
    return found


def describe(differences: Sequence[Difference], names: Mapping[str, tuple[str, str]]) -> str:
    """In words; `names` are kind and name of logs, as far as known."""
    parts = [_describe(one, names.get(one.blind)) for one in worst(differences)]
    more = len(parts) - _SHOWN
    return "; ".join([*parts[:_SHOWN], f"and {more} more"] if more > 0 else parts)


def _describe(one: Difference, name: tuple[str, str] | None) -> str:
    log = f"{name[0]} '{name[1]}'" if name else f"ref log {one.blind[:12]}"
    if one.copy:
        return f"{log} has another entry {one.seq} in {one.copy}"
    if one.found >= one.seq:
        return f"{log} has another entry {one.seq} than {one.told_by + ' tells' if one.told_by else 'before'}"
    had = f"{one.seq} {'entry' if one.seq == 1 else 'entries'}"
    told = f"{one.told_by} tells of {had}" if one.told_by else f"it had {had}"
    return f"{log} is gone, {told}" if one.found == 0 else f"{log} ends with entry {one.found}, {told}"
