"""A commit: disks at one moment, and what came before (specs/formats.md §10)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from vimgvc import errors
from vimgvc.model import encoding

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_COUNTERS = ("allocated_bytes", "read_bytes", "changed_bytes", "new_bytes", "stored_bytes")


@dataclass(frozen=True, slots=True)
class Disk:
    """`manifest` is the hexadecimal identifier of the root node; the counters tell what the commit did, in bytes."""

    name: str
    size: int
    manifest: str
    container: dict[str, Any]
    allocated_bytes: int
    read_bytes: int
    changed_bytes: int
    new_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file beside the disks, such as the description of a machine; stored as a disk is."""

    name: str
    size: int
    manifest: str
    read_bytes: int
    new_bytes: int
    stored_bytes: int


#: What is stored with a manifest of its own.
Stored = Disk | Attachment


@dataclass(frozen=True, slots=True)
class Commit:
    """`id` is the hexadecimal identifier of the encoded rest; no name of disks and attachments is there twice."""

    id: str
    parents: tuple[str, ...]
    branch: str
    message: str
    author: str
    host: str
    time: str
    disks: tuple[Disk, ...]
    attachments: tuple[Attachment, ...] = ()

    def encode(self) -> bytes:
        """The canonical bytes that the identifier is made from."""
        return encoding.dumps_canonical(
            {
                "attachments": [asdict(item) for item in self.attachments],
                "author": self.author,
                "branch": self.branch,
                "disks": [asdict(disk) for disk in self.disks],
                "host": self.host,
                "message": self.message,
                "parents": list(self.parents),
                "time": self.time,
                "v": 1,
            }
        )

    def disk(self, name: str | None = None) -> Disk:
        """The disk called `name`, or the only one; raises `NotFound`, `UsageError`."""
        if name is None:
            if len(self.disks) != 1:
                names = ", ".join(disk.name for disk in self.disks)
                raise errors.UsageError(
                    f"commit {self.id[:12]} has {len(self.disks)} disks", hint=f"name one as REV:DISK ({names})"
                )
            return self.disks[0]
        if any(item.name == name for item in self.attachments):
            raise errors.NotFound("disk", name, hint="an attachment is called that; 'vimgvc restore' brings it back")
        return _named("disk", name, self.disks, self.id)

    def attachment(self, name: str) -> Attachment:
        """Raises `NotFound`."""
        return _named("attachment", name, self.attachments, self.id)

    def stored(self) -> tuple[Stored, ...]:
        """All disks and attachments."""
        return (*self.disks, *self.attachments)


_Named = TypeVar("_Named", Disk, Attachment)


def _named(what: str, name: str, items: Sequence[_Named], commit_id: str) -> _Named:
    for item in items:
        if item.name == name:
            return item
    names = ", ".join([item.name for item in items]) or "none"
    raise errors.NotFound(what, name, hint=f"commit {commit_id[:12]} has: {names}")


def decode(commit_id: str, body: bytes) -> Commit:
    """Parse `body`; that its hash is `commit_id` is the caller's to check. Raises `FormatError`."""
    where = f"commit {commit_id[:12]}"
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    members.version("commit")
    attachments = tuple(_decode_attachment(item, where) for item in members.get("attachments", list))
    disks = tuple(_decode_disk(item, where) for item in members.get("disks", list))
    names = [disk.name for disk in disks] + [item.name for item in attachments]
    if len(set(names)) != len(names):
        raise errors.FormatError(where, "names a disk or attachment twice")
    parents = tuple(encoding.check_hex(item, 32, where) for item in members.get("parents", list))
    time = members.text("time")
    check_time(time, where)
    commit = Commit(
        id=commit_id,
        parents=parents,
        branch=members.text("branch"),
        message=members.text("message"),
        author=members.text("author"),
        host=members.text("host"),
        time=time,
        disks=disks,
        attachments=attachments,
    )
    members.end()
    return commit


def recall(commit_id: str, body: bytes) -> Commit:
    """What `decode` returned for the same arguments, without checking them again."""
    members = json.loads(body.decode())
    del members["v"]
    members["parents"] = tuple(members["parents"])
    members["disks"] = tuple([Disk(**item) for item in members["disks"]])
    members["attachments"] = tuple([Attachment(**item) for item in members["attachments"]])
    return Commit(id=commit_id, **members)


def check_time(text: str, where: str) -> None:
    if not _TIME.fullmatch(text):
        raise errors.FormatError(where, "has a time that is not YYYY-MM-DDTHH:MM:SSZ")


def _decode_attachment(value: object, where: str) -> Attachment:
    members = encoding.Members(value, where)
    name, size, manifest = members.text("name"), members.number("size"), members.hex("manifest", 32)
    counters = {counter: members.number(counter) for counter in ("read_bytes", "new_bytes", "stored_bytes")}
    members.end()
    return Attachment(name, size, manifest, **counters)


def _decode_disk(value: object, where: str) -> Disk:
    members = encoding.Members(value, where)
    name, size = members.text("name"), members.number("size")
    manifest, container = members.hex("manifest", 32), members.get("container", dict)
    counters = {name: members.number(name) for name in _COUNTERS}
    members.end()
    return Disk(name=name, size=size, manifest=manifest, container=container, **counters)
