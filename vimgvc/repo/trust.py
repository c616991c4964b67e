"""What this user has seen of a repository, so that an older or another one in its place is noticed.

Kept in the user's state directory:

- `<repository id>.json`: the fingerprint of the key, for every place the last entry seen of each ref
  log, and copies of the key slots;
- `places/<hash of a place>`: which repositories are expected there, one identifier a line.

A place is a Backend's url: copies of one repository in two places may rightly be of different age.
What is lost, damaged or cannot be written is noted, and the repository believed as at first use: it
must never lock anyone out.
"""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from vimgvc import errors
from vimgvc.codec import keys
from vimgvc.model import encoding
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import userfiles

_WHERE = "trust store"
_SILENT = NullMonitor()

#: Sequence number and hash (hexadecimal) of the last entry of a ref log.
Head = tuple[int, str]
#: The same; None where the entry is there but cannot be read: damage, which is no rollback.
Now = tuple[int, str | None]


@dataclass(slots=True)
class _Seen:
    fingerprint: str
    places: dict[str, dict[str, Head]] = field(default_factory=dict)
    slots: dict[str, object] = field(default_factory=dict)

    def encode(self, repo_id: str) -> bytes:
        places = {place: {blind: list(head) for blind, head in logs.items()} for place, logs in self.places.items()}
        return encoding.dumps_canonical(
            {"fingerprint": self.fingerprint, "places": places, "repository": repo_id, "slots": self.slots, "v": 1}
        )


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

    @classmethod
    def of_user(cls, environ: Mapping[str, str], repo_id: str, place: str, monitor: Monitor = _SILENT) -> TrustStore:
        return cls(userfiles.state_directory(environ), repo_id, place, monitor)

    def check(
        self, fingerprint: str, refs: Mapping[str, Now], hash_at: Callable[[str, int], str] | None = None
    ) -> None:
        """Compare what the repository shows now with what was seen: raises `Rollback`.

        `refs` are the last entries by blind. `hash_at` gives the hash of an earlier entry of a log
        (or raises `NotFound`, `IntegrityError` for a damaged one) and is asked once for each log that
        has grown.
        """
        self._check_place()
        seen = self._load()
        if seen is None:
            return
        self._check_fingerprint(seen, fingerprint)
        for blind, head in sorted(seen.places.get(self._place, {}).items()):
            reason = _compare(blind, head, refs.get(blind), hash_at)
            if reason:
                raise errors.Rollback(
                    f"{self._place} is not what it was: ref log {blind[:12]} {reason}",
                    hint=f"if an older copy was put back there on purpose: rm {shlex.quote(str(self._path))}",
                )

    def update(
        self,
        fingerprint: str,
        refs: Mapping[str, Now],
        slots: Mapping[str, bytes] | None = None,
        *,
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
        try:
            with userfiles.locked(self._directory):
                self._pin_place(replace=new)
                before = self._load()
                seen = before or _Seen(fingerprint)
                self._check_fingerprint(seen, fingerprint)
                old = seen.encode(self._repo_id) if before else b""
                _merge(seen.places.setdefault(self._place, {}), refs)
                given = {slot_id: encoding.loads_canonical(blob, _WHERE) for slot_id, blob in (slots or {}).items()}
                seen.slots = given if only_these_slots else {**seen.slots, **given}
                if (data := seen.encode(self._repo_id)) != old:
                    if settle is not None:
                        settle()
                    userfiles.replace(self._path, data)
        except (errors.BackendError, errors.NoSpace) as error:
            self._note(f"what was seen of this repository cannot be remembered: {error.message}")

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

    def _check_fingerprint(self, seen: _Seen, fingerprint: str) -> None:
        if seen.fingerprint != fingerprint:
            raise errors.Rollback(
                f"the key of {self._place} is another one than before ({fingerprint}, was {seen.fingerprint})",
                hint=f"do not use it unless you know why; to trust it: rm {shlex.quote(str(self._path))}",
            )

    def _check_place(self) -> None:
        expected = self._expected()
        if expected and self._repo_id not in expected:
            raise errors.Rollback(
                f"{self._place} holds another repository than before ({self._repo_id[:12]}, was {expected[0][:12]})",
                hint=f"if you put it there: echo {self._repo_id} >> {shlex.quote(str(self._pin))}",
            )

    def _expected(self) -> list[str]:
        """The repositories known at the place."""
        data = self._read(self._pin) or b""
        return [line for line in data.decode(errors="replace").split() if _is_id(line)]

    def _pin_place(self, *, replace: bool) -> None:
        expected = self._expected()
        if not expected or (replace and expected != [self._repo_id]):
            userfiles.replace(self._pin, f"{self._repo_id}\n".encode())

    def _load(self) -> _Seen | None:
        data = self._read(self._path)
        if data is None:
            return None
        try:
            return _parse(data, self._repo_id)
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


def _compare(blind: str, seen: Head, now: Now | None, hash_at: Callable[[str, int], str] | None) -> str:
    """What is wrong with a log that showed `seen`; empty when nothing is."""
    seq, seen_hash = seen
    if now is None:
        return f"is gone, it had {seq} entries"
    if now[0] < seq:
        return f"ends with entry {now[0]}, it had {seq} entries"
    try:
        now_hash = now[1] if now[0] == seq else hash_at(blind, seq) if hash_at else seen_hash
    except (errors.NotFound, errors.IntegrityError):
        now_hash = None  # damage below an authentic later entry; `verify` reports it
    return "" if now_hash in (seen_hash, None) else f"has another entry {seq} than before"


def _merge(known: dict[str, Head], refs: Mapping[str, Now]) -> None:
    for blind, (seq, entry_hash) in refs.items():
        if entry_hash is not None and (blind not in known or known[blind][0] < seq):
            known[blind] = (seq, entry_hash)


def _parse(data: bytes, repo_id: str) -> _Seen:
    members = encoding.Members(encoding.loads_canonical(data, _WHERE), _WHERE)
    if members.number("v") != 1 or members.text("repository") != repo_id:
        raise errors.FormatError(_WHERE, "is of another version or repository")
    fingerprint = members.text("fingerprint")
    if not keys.is_fingerprint(fingerprint):
        raise errors.FormatError(_WHERE, "has a malformed fingerprint")
    places = {place: _parse_logs(logs) for place, logs in members.get("places", dict).items()}
    slots = members.get("slots", dict)
    members.end()
    return _Seen(fingerprint, places, slots)


def _parse_logs(value: object) -> dict[str, Head]:
    if not isinstance(value, dict):
        raise errors.FormatError(_WHERE, "has a malformed place")
    logs = {}
    for blind, item in value.items():
        encoding.check_hex(blind, 16, _WHERE)
        if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not int or item[0] < 1:
            raise errors.FormatError(_WHERE, "has a malformed entry")
        logs[blind] = (item[0], encoding.check_hex(item[1], 32, _WHERE))
    return logs


def _is_id(text: str) -> bool:
    try:
        encoding.check_hex(text, 16, _WHERE)
    except errors.FormatError:
        return False
    return True
