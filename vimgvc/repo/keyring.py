"""The key slots of a repository: two copies of each, written before anything old is removed.

Order of every change: put both copies, sync, open the new slot from the place itself, and only then
delete the old one. So at every moment the old or the new secret opens. What is damaged is reported
and passed over as long as something healthy opens.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, keys
from vimgvc.codec import slots as slot_codec
from vimgvc.model import encoding
from vimgvc.monitor import Monitor, NullMonitor

MAX_SLOTS = 64
KIT = "recovery kit"
_AREA = "keys"
_NAME = re.compile(r"keys/[0-9a-f]{32}-[01]")
_SILENT = NullMonitor()
_IMPORT = "restore them with 'vimgvc key import FILE' from what 'vimgvc key export' wrote"


@dataclass(frozen=True, slots=True, eq=False)
class Unlocked:
    """An opened root key, the configuration bytes that came with it, and the slot that gave it.

    `slot_id` is None when no slot was asked; `cached` tells a slot that only the cache still has; `slot` is its blob.
    """

    root: bytes = field(repr=False)
    config: bytes
    slot_id: str | None = None
    cached: bool = False
    slot: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the place holds: the distinct healthy copies by slot, slots with a copy that is not, and why not."""

    healthy: dict[str, list[bytes]]
    unusable: set[str]
    failures: list[errors.VimgvcError]

    @property
    def empty(self) -> bool:
        return not self.healthy and not self.unusable

    def infos(self) -> dict[str, slot_codec.SlotInfo]:
        return {slot_id: slot_codec.describe_slot(blobs[0]) for slot_id, blobs in self.healthy.items()}

    def openers(self) -> set[str]:
        """Slots that something opens: all but those of write keys."""
        return {slot_id for slot_id, info in self.infos().items() if info.type in keys.KINDS}


class Keyring:
    """The slots at `backend`.

    `memory_limit` (bytes) bounds what opening a slot may take. `cached` are slots of this repository
    that were seen before, by identifier; they are tried last.
    """

    def __init__(
        self,
        backend: protocol.Backend,
        *,
        memory_limit: int | None = None,
        cached: Mapping[str, bytes] | None = None,
    ) -> None:
        self._backend = backend
        self._memory_limit = memory_limit or machine_limit()
        self._cached = {slot_id: blob for slot_id, blob in (cached or {}).items() if _is_slot(slot_id, blob)}

    def create(
        self,
        root: bytes,
        config: bytes,
        secret: keys.Secret,
        *,
        label: str,
        created: str,
        rng: aead.Rng,
        profile: keys.KdfProfile = keys.DEFAULT,
    ) -> Unlocked:
        """The first slot of a new repository."""
        unlocked = Unlocked(root, config)
        info = self.add(unlocked, secret, label=label, created=created, rng=rng, profile=profile)
        return Unlocked(root, config, info.id)

    def unlock(self, secret: keys.Secret, monitor: Monitor = _SILENT) -> Unlocked:
        """Try `secret` on every slot and copy.

        Raises `NoKey` when none opens, or `SlotDamaged`, `FormatError`, `BackendError` when none
        could be tried.
        """
        return self.unlock_any([secret], monitor)

    def unlock_any(self, secrets: Iterable[keys.Secret], monitor: Monitor = _SILENT) -> Unlocked:
        """`unlock` with each of `secrets`, which may ask for the next one as it is iterated."""
        found = self._find(monitor)
        if found.empty and not self._cached:
            raise _no_slots()
        kinds, rejected = [], False
        for secret in secrets:
            kinds.append(secret.kind)
            for slot_id, blob, cached in self._candidates(found, secret.kind):
                try:
                    root, config = slot_codec.open_slot(blob, secret, memory_limit=self._memory_limit)
                except errors.NoKey:
                    rejected = True
                except errors.VimgvcError as error:
                    monitor.problem(f"key slot {slot_id[:8]}: {error.message}")
                    found.failures.append(error)
                else:
                    if cached:
                        monitor.problem(f"key slot {slot_id[:8]} is gone from the repository; {_IMPORT}")
                    return Unlocked(root, config, slot_id, cached, blob)
        raise self._why_not(found, kinds, rejected=rejected)

    def slots(self, monitor: Monitor = _SILENT) -> list[slot_codec.SlotInfo]:
        """The healthy slots, oldest first; the others are reported."""
        return sorted(self._find(monitor).infos().values(), key=lambda info: (info.created, info.id))

    def blobs(self, monitor: Monitor = _SILENT) -> dict[str, bytes]:
        """The healthy slots as they are stored, by identifier: what a cache or a recovery kit keeps."""
        return {slot_id: blobs[0] for slot_id, blobs in sorted(self._find(monitor).healthy.items())}

    def add(
        self,
        unlocked: Unlocked,
        secret: keys.Secret,
        *,
        label: str,
        created: str,
        rng: aead.Rng,
        profile: keys.KdfProfile = keys.DEFAULT,
    ) -> slot_codec.SlotInfo:
        """A new slot in which `secret` opens what is unlocked; durable and opened again on return."""
        blob = slot_codec.make_slot(
            secret,
            unlocked.root,
            unlocked.config,
            label=label,
            created=created,
            rng=rng,
            profile=profile,
            memory_limit=self._memory_limit,
        )
        return self.put_new(blob, lambda there: self._opens(there, secret, unlocked))

    def put_new(self, blob: bytes, is_right: Callable[[bytes], bool]) -> slot_codec.SlotInfo:
        """Store a new slot, and ask `is_right` of what is there afterwards; durable on return."""
        if len(_ids(self._sizes())) >= MAX_SLOTS:
            raise errors.UsageError(f"there are {MAX_SLOTS} key slots already", hint="remove one: vimgvc key remove ID")
        info = slot_codec.describe_slot(blob)
        with contextlib.ExitStack() as undo:
            for name in _names(info.id):
                if not self._backend.put(name, [blob]):
                    raise errors.VimgvcError(
                        "a key slot with this identifier exists", hint="run the same command again"
                    )
                undo.callback(self._discard, name)
            self._backend.sync()
            first, second = (self._backend.get(name) for name in _names(info.id))
            if first != second or not is_right(first):
                raise errors.IntegrityError(slot_codec.WHERE, "does not hold what was put into it")
            undo.pop_all()
        return info

    def find(self, prefix: str, monitor: Monitor = _SILENT) -> str:
        """The identifier of the one slot, healthy or not, that begins with `prefix`."""
        return _pick(self._find(monitor), prefix)

    def remove(self, slot_id: str, monitor: Monitor = _SILENT) -> str:
        """Remove a slot, healthy or not, given by a unique prefix; never the last one that is healthy.

        Returns its identifier.
        """
        found = self._find(monitor)
        slot_id = _pick(found, slot_id)
        others = found.openers() - {slot_id}
        opens = slot_id not in found.healthy or slot_id in found.openers()
        if opens and not others:
            raise errors.UsageError(
                "this is the last key slot: without it nobody could open the repository",
                hint="add another one first: vimgvc key add",
            )
        self._delete(slot_id)
        self._backend.sync()
        # Two that each remove another slot at the same moment both see one left, and none would be.
        if opens and not self._find(_SILENT).openers():
            for blob in found.healthy.get(slot_id, [])[:1]:
                self._put_copies(slot_id, blob)
            raise errors.Busy("somebody else removed the other key slots at the same moment; this one was put back")
        return slot_id

    def change(
        self,
        unlocked: Unlocked,
        slot_id: str,
        secret: keys.Secret,
        *,
        created: str,
        rng: aead.Rng,
        label: str | None = None,
        profile: keys.KdfProfile = keys.DEFAULT,
        monitor: Monitor = _SILENT,
    ) -> slot_codec.SlotInfo:
        """Replace a slot (given by a unique prefix) by one for `secret`, under the same label if None is given."""
        found = self._find(monitor)
        slot_id = _pick(found, slot_id)
        if slot_id in found.healthy and slot_id not in found.openers():
            raise errors.UsageError(
                "this key only adds: nothing takes its place", hint="remove it, and add another: vimgvc key remove"
            )
        if label is None:
            label = slot_codec.describe_slot(found.healthy[slot_id][0]).label if slot_id in found.healthy else ""
        info = self.add(unlocked, secret, label=label, created=created, rng=rng, profile=profile)
        self.remove(slot_id, monitor)
        return info

    def export_kit(self, repo_id: str, monitor: Monitor = _SILENT) -> bytes:
        """All healthy slots as one JSON document; it opens nothing without a passphrase, key file or code."""
        blobs = self.blobs(monitor).values()
        if not blobs:
            raise _no_slots()
        kept = [encoding.loads_canonical(blob, slot_codec.WHERE) for blob in blobs]
        return encoding.dumps_canonical({"repository": repo_id, "slots": kept, "v": 1}) + b"\n"

    def import_kit(self, kit: bytes, repo_id: str | None, monitor: Monitor = _SILENT) -> list[slot_codec.SlotInfo]:
        """Put back the slots of a kit that are missing or damaged; returns those that were.

        `repo_id` is that of the repository, None when its configuration is lost.
        Raises `UsageError` for a kit of another repository, `FormatError`, `SlotDamaged` for no kit.
        """
        kit_repo, blobs = parse_kit(kit)
        if repo_id is not None and kit_repo != repo_id:
            raise errors.UsageError(
                f"the recovery kit belongs to another repository ({kit_repo})", hint=f"this one is {repo_id}"
            )
        found = self._find(monitor)
        restored = []
        for slot_id, blob in blobs.items():
            if found.healthy.get(slot_id) == [blob] and slot_id not in found.unusable:
                continue
            if found.healthy.get(slot_id, [blob]) != [blob]:
                raise errors.IntegrityError(f"key slot {slot_id[:8]}", "differs from the one in the recovery kit")
            self._put_copies(slot_id, blob)
            restored.append(slot_codec.describe_slot(blob))
        return restored

    def _find(self, monitor: Monitor) -> _Found:
        """Read every copy of every slot; what is wrong goes to `monitor`."""
        sizes = self._sizes()
        found = _Found({}, set(), [])
        ids = _ids(sizes)
        if len(ids) > MAX_SLOTS:
            monitor.problem(f"there are {len(ids)} key slots; only the first {MAX_SLOTS} are looked at")
        for slot_id in ids[:MAX_SLOTS]:
            for copy, name in enumerate(_names(slot_id), 1):
                try:
                    blob = self._read(name, sizes.get(name))
                except errors.VimgvcError as error:
                    monitor.problem(f"key slot {slot_id[:8]}, copy {copy} of 2: {error.message}")
                    found.unusable.add(slot_id)
                    found.failures.append(error)
                else:
                    known = found.healthy.setdefault(slot_id, [])
                    known.extend([blob] if blob not in known else [])
            if len(found.healthy.get(slot_id, [])) > 1:
                monitor.problem(f"key slot {slot_id[:8]}: its two copies differ")
        return found

    def _sizes(self) -> dict[str, int]:
        """Of every copy, by name."""
        return {item.name: item.size for item in self._backend.list(_AREA) if _NAME.fullmatch(item.name)}

    def _read(self, name: str, size: int | None) -> bytes:
        """A healthy copy."""
        if size is None:
            raise errors.SlotDamaged(slot_codec.WHERE, "is missing", hint=_IMPORT)
        if size > slot_codec.MAX_SLOT:
            raise errors.SlotDamaged(slot_codec.WHERE, f"is larger than {slot_codec.MAX_SLOT} bytes")
        blob = self._backend.get(name)
        if slot_codec.describe_slot(blob).id != name[len(_AREA) + 1 : -2]:
            raise errors.FormatError(slot_codec.WHERE, "is stored under the name of another slot")
        return blob

    def _candidates(self, found: _Found, kind: str) -> Iterator[tuple[str, bytes, bool]]:
        """Identifier, blob, and whether only the cache has it, of what may open with a secret of this kind."""
        if kind not in keys.KINDS:
            return
        for slot_id, blobs in found.healthy.items():
            for blob in blobs:
                if slot_codec.describe_slot(blob).type == kind:
                    yield slot_id, blob, False
        for slot_id, blob in self._cached.items():
            if blob not in found.healthy.get(slot_id, []) and slot_codec.describe_slot(blob).type == kind:
                yield slot_id, blob, True

    def _why_not(self, found: _Found, kinds: list[str], *, rejected: bool) -> errors.VimgvcError:
        broken = f"{len(found.failures)} copies of key slots cannot be used; {_IMPORT}" if found.failures else ""
        if rejected:
            what = " or ".join(sorted({_IN_WORDS[kind] for kind in kinds}))
            return errors.NoKey(f"no key slot opens with this {what}", hint=broken)
        if found.failures:
            return found.failures[0]
        types = sorted({info.type for info in found.infos().values()} & _IN_WORDS.keys())
        return errors.NoKey(
            "no key slot takes what was given" if kinds else "nothing was given to open a key slot with",
            hint=f"this repository opens with a {', '.join(_IN_WORDS[kind] for kind in types)}",
        )

    def _opens(self, blob: bytes, secret: keys.Secret, unlocked: Unlocked) -> bool:
        root, config = slot_codec.open_slot(blob, secret, memory_limit=self._memory_limit)
        return config == unlocked.config and hmac.compare_digest(root, unlocked.root)

    def _discard(self, name: str) -> None:
        """Remove what did not become a slot, while the error that says why is on its way."""
        with contextlib.suppress(errors.VimgvcError):
            self._backend.delete(name)

    def _put_copies(self, slot_id: str, blob: bytes) -> None:
        for name in _names(slot_id):
            if not self._backend.put(name, [blob]) and self._backend.get(name) != blob:
                self._backend.delete(name)
                self._backend.put(name, [blob])
        self._backend.sync()

    def _delete(self, slot_id: str) -> None:
        for name in _names(slot_id):
            self._backend.delete(name)


_IN_WORDS = {keys.PASSPHRASE: "passphrase", keys.KEYFILE: "key file", keys.RECOVERY: "recovery code"}


def parse_kit(kit: bytes) -> tuple[str, dict[str, bytes]]:
    """The repository's identifier and the slots of a recovery kit, each checked as far as no secret is needed."""
    members = encoding.Members(encoding.loads_canonical(kit.removesuffix(b"\n"), KIT), KIT)
    if members.number("v") != 1:
        raise errors.Unsupported("this version of recovery kit")
    repo_id = members.hex("repository", 16)
    blobs = [encoding.dumps_canonical(value) for value in members.get("slots", list)]
    members.end()
    found = {slot_codec.describe_slot(blob).id: blob for blob in blobs}
    if not 1 <= len(blobs) <= MAX_SLOTS or list(found) != sorted(found) or len(found) != len(blobs):
        raise errors.FormatError(KIT, "does not hold 1 to 64 slots in order")
    return repo_id, found


def machine_limit(memory: int | None = None) -> int:
    """The memory that opening a slot may take on a machine with `memory` (None: this one), in bytes."""
    if memory is None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(max(memory // 4, keys.MEMORY_ALWAYS), keys.MEMORY_KIB[-1] << 10)


def _pick(found: _Found, prefix: str) -> str:
    """The one slot whose identifier begins with `prefix`."""
    known = found.healthy.keys() | found.unusable
    matches = [slot_id for slot_id in known if slot_id.startswith(prefix.lower())]
    if not prefix or not matches:
        raise errors.NotFound("key slot", prefix, hint="see 'vimgvc key list'")
    if len(matches) > 1:
        raise errors.UsageError(f"several key slots begin with '{prefix}'", hint="give more digits: vimgvc key list")
    return matches[0]


def _ids(copies: Iterable[str]) -> list[str]:
    """The slots that copies with these names belong to, in order."""
    return sorted({name[len(_AREA) + 1 : -2] for name in copies})


def _names(slot_id: str) -> tuple[str, str]:
    """Of the two copies."""
    return f"{_AREA}/{slot_id}-0", f"{_AREA}/{slot_id}-1"


def _is_slot(slot_id: str, blob: bytes) -> bool:
    try:
        return slot_codec.describe_slot(blob).id == slot_id
    except errors.VimgvcError:
        return False


def _no_slots() -> errors.NoKey:
    return errors.NoKey("the repository has no key slots", hint=_IMPORT)
