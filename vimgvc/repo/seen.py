"""The document that holds what a user has seen of a repository (`repo.trust`, specs/repository.md §11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.codec import keys
from vimgvc.model import encoding

WHERE = "trust store"

#: Sequence number and hash (hexadecimal) of the last entry of a ref log.
Head = tuple[int, str]
#: The same; None where the entry is there but cannot be read: damage, which is no rollback.
Now = tuple[int, str | None]
#: Kind and name behind a log.
Name = tuple[str, str]

_LATER: dict[str, object] = {"checked": {}, "copies": {}, "decisions": {}, "names": {}}


@dataclass(frozen=True, slots=True)
class Decision:
    """What the user accepted at `time`: where logs had ended, and ended then.

    `spans`: by log, the entries (above, up to) that may be missing or be others from then on.
    """

    time: str
    before: dict[str, Head]
    after: dict[str, Head]
    spans: dict[str, tuple[int, int]]


@dataclass(slots=True)
class Place:
    """What was seen at one place.

    `ends`: the last entry of each log. `checked`: by log, the entry of which all that it tells of others was compared.
    `copies`: other places that held the same entries, each with the entries of it, by log, that were found here too;
    None: one that has gone another way, and that was accepted. `decisions`: the oldest first.
    """

    ends: dict[str, Head] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)
    copies: dict[str, dict[str, int] | None] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)


@dataclass(slots=True)
class Seen:
    """All of one repository: the key's fingerprint, places, key slots by identifier, names of logs."""

    fingerprint: str
    places: dict[str, Place] = field(default_factory=dict)
    slots: dict[str, object] = field(default_factory=dict)
    names: dict[str, Name] = field(default_factory=dict)

    def encode(self, repo_id: str) -> bytes:
        return encoding.dumps_canonical(
            {
                "checked": {name: place.checked for name, place in self.places.items() if place.checked},
                "copies": {name: place.copies for name, place in self.places.items() if place.copies},
                "decisions": {
                    name: [_plain(one) for one in place.decisions]
                    for name, place in self.places.items()
                    if place.decisions
                },
                "fingerprint": self.fingerprint,
                "names": {blind: list(name) for blind, name in self.names.items()},
                "places": {name: _lists(place.ends) for name, place in self.places.items()},
                "repository": repo_id,
                "slots": self.slots,
                "v": 1,
            }
        )


def parse(data: bytes, repo_id: str) -> Seen:
    """Raises `FormatError`."""
    value = encoding.loads_canonical(data, WHERE)
    members = encoding.Members({**_LATER, **value} if isinstance(value, dict) else value, WHERE)
    if members.number("v") != 1 or members.text("repository") != repo_id:
        raise errors.FormatError(WHERE, "is of another version or repository")
    fingerprint = members.text("fingerprint")
    if not keys.is_fingerprint(fingerprint):
        raise errors.FormatError(WHERE, "has a malformed fingerprint")
    places = {name: Place(_heads(ends)) for name, ends in members.get("places", dict).items()}
    for name, checked in members.get("checked", dict).items():
        places.setdefault(name, Place()).checked = _numbers(checked)
    for name, copies in members.get("copies", dict).items():
        places.setdefault(name, Place()).copies = {
            other: None if logs is None else _numbers(logs) for other, logs in _object(copies).items()
        }
    for name, decisions in members.get("decisions", dict).items():
        places.setdefault(name, Place()).decisions = [_decision(item) for item in _list(decisions)]
    slots = members.get("slots", dict)
    names = {blind: _name(item) for blind, item in members.get("names", dict).items()}
    members.end()
    return Seen(fingerprint, places, slots, names)


def _plain(decision: Decision) -> dict[str, object]:
    return {
        "after": _lists(decision.after),
        "before": _lists(decision.before),
        "spans": _lists(decision.spans),
        "time": decision.time,
    }


def _lists(items: Mapping[str, tuple[object, object]]) -> dict[str, list[object]]:
    return {name: list(pair) for name, pair in items.items()}


def _decision(value: object) -> Decision:
    members = encoding.Members(value, WHERE)
    before, after = _heads(members.get("before", dict)), _heads(members.get("after", dict))
    spans = {blind: _span(item) for blind, item in _object(members.get("spans", dict)).items()}
    time = members.text("time")
    members.end()
    return Decision(time, before, after, spans)


def _heads(value: object) -> dict[str, Head]:
    heads = {}
    for blind, item in _object(value).items():
        encoding.check_hex(blind, 16, WHERE)
        pair = _list(item)
        if len(pair) != 2 or type(pair[0]) is not int or pair[0] < 1:
            raise errors.FormatError(WHERE, "has a malformed entry")
        heads[blind] = (pair[0], encoding.check_hex(pair[1], 32, WHERE))
    return heads


def _numbers(value: object) -> dict[str, int]:
    return {name: _number(number) for name, number in _object(value).items()}


def _number(value: object) -> int:
    if type(value) is not int:
        raise errors.FormatError(WHERE, "has a malformed number")
    return value


def _span(value: object) -> tuple[int, int]:
    pair = _list(value)
    if len(pair) != 2:
        raise errors.FormatError(WHERE, "has a malformed range")
    return _number(pair[0]), _number(pair[1])


def _name(value: object) -> Name:
    pair = _list(value)
    if len(pair) != 2 or not (isinstance(pair[0], str) and isinstance(pair[1], str)):
        raise errors.FormatError(WHERE, "has a malformed name")
    return pair[0], pair[1]


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise errors.FormatError(WHERE, "has a malformed place")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise errors.FormatError(WHERE, "has a malformed list")
    return value
