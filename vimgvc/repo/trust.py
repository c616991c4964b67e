"""What this user has seen of a repository, so that an older or another one in its place is noticed.

Kept in the user's state directory:

- `<repository id>.json`: `repo.seen`;
- `places/<hash of a place>`: which repositories are expected there, one identifier a line.

A place is a Backend's url: copies of one repository in two places may rightly be of different age.
What is lost, damaged or cannot be written is noted, and the repository believed as at first use: it
must never lock anyone out.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from vimgvc import errors
from vimgvc.model import encoding
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import seen as document
from vimgvc.repo import userfiles, views

_SILENT = NullMonitor()
_ACCEPT = "run it once more with --accept-rollback"
#: Of so many decisions at one place the last ones are kept.
_DECISIONS = 16
#: As many key slots are kept.
_SLOTS = 64

Head = document.Head
Now = document.Now
#: Gives the hash of an entry of a log, or raises `NotFound`, or `IntegrityError` for a damaged one.
HashAt = Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class Details:
    """More of what was seen.

    `names` of logs; `checked`: by log the last entry of which all that it tells was compared; `opened`: the key slot
    that did, by identifier.
    """

    names: Mapping[str, document.Name] = field(default_factory=dict)
    checked: Mapping[str, int] = field(default_factory=dict)
    opened: Mapping[str, bytes] = field(default_factory=dict)


class TrustStore:
    """What is known of repository `repo_id` at `place`; `directory` None: nothing, ever."""

    def __init__(self, directory: pathlib.Path | None, repo_id: str, place: str, monitor: Monitor = _SILENT) -> None:
        encoding.check_hex(repo_id, 16, "repository identifier")
        self._directory = directory
        self._repo_id = repo_id
        # A path need not be text; what is kept of it is.
        self._place = place.encode("utf-8", "backslashreplace").decode()
        self._monitor = monitor
        self._noted: set[str] = set()
        self._held: tuple[document.Seen | None] | None = None
        #: By other place and log: what was compared with it by `check`.
        self._compared: dict[str, dict[str, int]] = {}

    @classmethod
    def of_user(cls, environ: Mapping[str, str], repo_id: str, place: str, monitor: Monitor = _SILENT) -> TrustStore:
        return cls(userfiles.state_directory(environ), repo_id, place, monitor)

    @property
    def remembers(self) -> bool:
        """Whether there is anywhere to remember anything."""
        return self._directory is not None

    def check(
        self,
        fingerprint: str,
        refs: Mapping[str, Now],
        hash_at: HashAt | None = None,
        names: Mapping[str, document.Name] | None = None,
    ) -> None:
        """Compare what the repository shows now with what was seen: raises `Rollback`.

        `refs` are the last entries by blind. `hash_at` is asked once for each log that has grown. `names` as far as
        the logs that are there tell them.
        """
        self.check_identity(fingerprint)
        differences = self.compare(refs, hash_at)
        if differences:
            raise self.refusal(differences, names or {})

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Inside nothing newer is known: what is looked at there is not compared with what others saw later."""
        self._held = (self._load(),)
        try:
            yield
        finally:
            self._held = None

    def check_identity(self, fingerprint: str) -> None:
        """Raises `Rollback` when another repository is expected here, or this one with another key."""
        if problem := self.stranger():
            raise problem
        seen = self._load()
        if seen is not None:
            self._check_fingerprint(seen, fingerprint)

    @property
    def is_expected(self) -> bool:
        """Whether this repository was seen at its place before."""
        return self._repo_id in self._expected()

    def stranger(self) -> errors.Rollback | None:
        """What there is to say when other repositories than this one are expected here, and not this one."""
        expected = self._expected()
        if not expected or self._repo_id in expected:
            return None
        return errors.Rollback(
            f"{self._place} holds another repository than before ({self._repo_id[:12]}, was {expected[0][:12]})",
            hint=f"if you put it there, {_ACCEPT}: then either is expected",
        )

    def compare(self, refs: Mapping[str, Now], hash_at: HashAt | None = None) -> list[views.Difference]:
        """What was seen here and is not there any more; else what copies at other places have otherwise."""
        seen = self._load()
        if seen is None:
            if not self._noted and self._repo_id in self._expected():
                self._note("what was seen of this repository is lost; it is believed as at first use")
            return []
        place = seen.places.get(self._place, document.Place())
        found = [_compare(blind, head, refs.get(blind), hash_at) for blind, head in sorted(place.ends.items())]
        return [one for one in found if one] or self._compare_copies(seen, place, refs, hash_at)

    def _compare_copies(
        self, seen: document.Seen, place: document.Place, refs: Mapping[str, Now], hash_at: HashAt | None
    ) -> list[views.Difference]:
        found = []
        for other, known in sorted(place.copies.items()):
            if known is None or other not in seen.places:
                continue
            done = self._compared[other] = dict(known)
            for blind, head in sorted(seen.places[other].ends.items()):
                now = refs.get(blind)
                if now is None or now[0] < head[0] or known.get(blind) == head[0]:
                    continue  # an older copy, or compared before
                difference = _compare(blind, head, now, hash_at, copy=other)
                found += [difference] if difference else []
                done[blind] = head[0]
        return found

    def refusal(self, differences: Sequence[views.Difference], names: Mapping[str, document.Name]) -> errors.Rollback:
        """The error that says what differs."""
        seen = self._load()
        what = views.describe(differences, {**(seen.names if seen else {}), **names})
        if any(one.copy for one in differences):
            return errors.Rollback(
                f"two copies of this repository went different ways: in {self._place} {what}",
                hint=f"use one of them, and get what the other has from there; to go on with both, {_ACCEPT}",
            )
        return errors.Rollback(
            f"{self._place} is not what it was: {what}",
            hint=f"if that is meant, as after an older copy was put back, {_ACCEPT}; else look for another copy",
        )

    def accept_identity(self, fingerprint: str) -> None:
        """Let this repository be expected here, with this key. What was seen of it with another one is forgotten."""
        if self._directory is None:
            return
        with self._noting(), userfiles.locked(self._base):
            expected = self._expected()
            if expected and self._repo_id not in expected:
                userfiles.replace(self._pin, "".join(f"{one}\n" for one in [*expected, self._repo_id]).encode())
            seen = self._load()
            if seen is not None and seen.fingerprint != fingerprint:
                userfiles.replace(self._path, document.Seen(fingerprint).encode(self._repo_id))

    def accept(
        self,
        fingerprint: str,
        refs: Mapping[str, Now],
        differences: Sequence[views.Difference],
        *,
        time: str,
        settle: Callable[[], None] | None = None,
    ) -> None:
        """Let the repository be as it shows itself now, whatever was seen before, and keep that this was decided."""
        if self._directory is None:
            return
        with self._noting(), userfiles.locked(self._base):
            seen = self._load() or document.Seen(fingerprint)
            place = seen.places.setdefault(self._place, document.Place())
            for other in {one.copy for one in differences if one.copy}:
                place.copies[other] = None
                seen.places[other].copies[self._place] = None
            own = [one for one in differences if not one.copy]
            after = {blind: (seq, text) for blind, (seq, text) in refs.items() if text}
            if own:
                spans = views.spans(own)
                before, now = ({blind: ends[blind] for blind in spans if blind in ends} for ends in (place.ends, after))
                decision = document.Decision(time, before, now, spans)
                place.decisions = [*place.decisions, decision][-_DECISIONS:]
                place.ends, place.checked = after, {}
            if settle is not None:
                settle()
            userfiles.replace(self._path, seen.encode(self._repo_id))

    def accepted(self) -> views.Accepted:
        """What may be missing here, or be another, because the user said so."""
        seen = self._load()
        found: dict[str, list[tuple[int, int]]] = {}
        for decision in seen.places.get(self._place, document.Place()).decisions if seen else ():
            for blind, span in decision.spans.items():
                found.setdefault(blind, []).append(span)
        return found

    def checked(self) -> dict[str, int]:
        """By log the entry of which all that it tells of other logs was compared."""
        seen = self._load()
        return seen.places.get(self._place, document.Place()).checked if seen else {}

    def facts(self, refs: Mapping[str, Now]) -> views.Facts:
        """What was seen here of logs that are still there, after `compare` found nothing wrong with them."""
        seen = self._load()
        ends = seen.places.get(self._place, document.Place()).ends if seen else {}
        return {(blind, seq): text for blind, (seq, text) in ends.items() if blind in refs}

    def update(
        self,
        fingerprint: str,
        refs: Mapping[str, Now],
        slots: Mapping[str, bytes] | None = None,
        *,
        details: Details | None = None,
        only_these_slots: bool = False,
        new: bool = False,
        settle: Callable[[], None] | None = None,
    ) -> None:
        """Remember what was seen. Nothing that was seen before is forgotten for something older.

        `only_these_slots` drops the cached slots that are not given; `new` makes this the only
        repository expected at its place. Writes nothing when there is nothing new. `settle` is called
        before anything new is written: it makes durable what was seen, which a killed writer may have
        left without its barrier; a power cut would otherwise look like a rollback.
        """
        if self._directory is None:
            return
        with self._noting(), userfiles.locked(self._base):
            self._pin_place(replace=new)
            before = self._load()
            seen = before or document.Seen(fingerprint)
            self._check_fingerprint(seen, fingerprint)
            details = details or Details()
            old = seen.encode(self._repo_id) if before else b""
            self._merge(seen, refs, details)
            given = _values(slots or {})
            seen.slots = given if only_these_slots else _merged(seen.slots, _values(details.opened), given)
            if (data := seen.encode(self._repo_id)) != old:
                if settle is not None:
                    settle()
                userfiles.replace(self._path, data)

    def _merge(self, seen: document.Seen, refs: Mapping[str, Now], details: Details) -> None:
        place = seen.places.setdefault(self._place, document.Place())
        for blind, (seq, entry_hash) in refs.items():
            if entry_hash is not None and (blind not in place.ends or place.ends[blind][0] < seq):
                place.ends[blind] = (seq, entry_hash)
        place.checked.update({blind: seq for blind, seq in details.checked.items() if blind in place.ends})
        seen.names.update(details.names)
        for other, done in self._compared.items():
            if place.copies.get(other) is not None:
                place.copies[other] = done
        for other, there in seen.places.items():
            if other != self._place and other not in place.copies and place.ends.items() & there.ends.items():
                place.copies[other] = {}
                there.copies.setdefault(self._place, {})

    def cached_slots(self) -> dict[str, bytes]:
        """Key slots seen before, by identifier, for `keyring.Keyring`."""
        seen = self._load()
        return {} if seen is None else {slot_id: encoding.dumps_canonical(slot) for slot_id, slot in seen.slots.items()}

    def drop_slots(self, slot_ids: Iterable[str]) -> None:
        """Forget slots that the user removed."""
        seen = self._load()
        if seen is None:
            return
        gone = set(slot_ids)
        kept = {slot_id: slot for slot_id, slot in seen.slots.items() if slot_id not in gone}
        blobs = {slot_id: encoding.dumps_canonical(slot) for slot_id, slot in kept.items()}
        self.update(seen.fingerprint, {}, blobs, only_these_slots=True)

    @property
    def _path(self) -> pathlib.Path:
        return self._base / f"{self._repo_id}.json"

    @property
    def _pin(self) -> pathlib.Path:
        return self._base / "places" / blake3(self._place.encode()).hexdigest(16)

    @property
    def _base(self) -> pathlib.Path:
        return self._directory or pathlib.Path()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """That the store cannot be changed is a note."""
        try:
            yield
        except (errors.BackendError, errors.NoSpace) as error:
            self._note(f"what was seen of this repository cannot be remembered: {error.message}")

    def _check_fingerprint(self, seen: document.Seen, fingerprint: str) -> None:
        if seen.fingerprint != fingerprint:
            raise errors.Rollback(
                f"the key of {self._place} is another one than before ({fingerprint}, was {seen.fingerprint})",
                hint=f"do not use it unless you know why; to trust it, {_ACCEPT}",
            )

    def _expected(self) -> list[str]:
        """The repositories known at the place."""
        data = self._read(self._pin) or b""
        return [line for line in data.decode(errors="replace").split() if _is_id(line)]

    def _pin_place(self, *, replace: bool) -> None:
        expected = self._expected()
        if not expected or (replace and expected != [self._repo_id]):
            userfiles.replace(self._pin, f"{self._repo_id}\n".encode())

    def _load(self) -> document.Seen | None:
        if self._held is not None:
            return self._held[0]
        data = self._read(self._path)
        if data is None:
            return None
        try:
            return document.parse(data, self._repo_id)
        except errors.FormatError as error:
            self._note(f"what was seen of this repository is lost ({self._path} {error.reason})")
            return None

    def _note(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._monitor.note(message)

    def _read(self, path: pathlib.Path) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return userfiles.read(path, forbidden=userfiles.WRITABLE)
        except errors.VimgvcError as error:
            self._note(f"what was seen of this repository is not used: {error.message}")
            return None


def _compare(
    blind: str, seen: Head, now: Now | None, hash_at: HashAt | None, *, copy: str = ""
) -> views.Difference | None:
    """What is wrong with a log that showed `seen`."""
    seq, seen_hash = seen
    if now is None or now[0] < seq:
        return views.Difference(blind, seq, seen_hash, now[0] if now else 0, copy=copy)
    try:
        now_hash = now[1] if now[0] == seq else hash_at(blind, seq) if hash_at else seen_hash
    except errors.NotFound:
        if now[1] is None:  # anybody can put a name with a high number there
            return views.Difference(blind, seq, seen_hash, seq - 1, copy=copy)
        now_hash = None  # a gap below an authentic later entry; `verify` reports it
    except errors.IntegrityError:
        now_hash = None  # damage
    return None if now_hash in (seen_hash, None) else views.Difference(blind, seq, seen_hash, now[0], copy=copy)


def _values(slots: Mapping[str, bytes]) -> dict[str, object]:
    return {slot_id: encoding.loads_canonical(blob, document.WHERE) for slot_id, blob in slots.items()}


def _merged(
    known: Mapping[str, object], opened: Mapping[str, object], given: Mapping[str, object]
) -> dict[str, object]:
    """What was known and what opened, and of the rest as many as are ever looked at.

    A slot is never changed, so one that was known stays as it was: whoever owns the place could put another one there,
    and any number of them.
    """
    found = {**known, **opened}
    new = [slot_id for slot_id in given if slot_id not in found][: max(0, _SLOTS - len(found))]
    return found | {slot_id: given[slot_id] for slot_id in new}


def _is_id(text: str) -> bool:
    try:
        encoding.check_hex(text, 16, document.WHERE)
    except errors.FormatError:
        return False
    return True
