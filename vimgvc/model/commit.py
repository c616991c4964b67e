"""A commit: disks at one moment, and what came before (specs/formats.md §10)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

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
class Commit:
    """`id` is the hexadecimal identifier of the encoded rest."""

    id: str
    parents: tuple[str, ...]
    branch: str
    message: str
    author: str
    host: str
    time: str
    disks: tuple[Disk, ...]

    def encode(self) -> bytes:
        """The canonical bytes that the identifier is made from."""
        return encoding.dumps_canonical(
            {
                "attachments": [],
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
        for disk in self.disks:
            if disk.name == name:
                return disk
        names = ", ".join(disk.name for disk in self.disks)
        raise errors.NotFound("disk", name, hint=f"commit {self.id[:12]} has: {names}")


def decode(commit_id: str, body: bytes) -> Commit:
    """Parse `body`; that its hash is `commit_id` is the caller's to check. Raises `FormatError`."""
    where = f"commit {commit_id[:12]}"
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    version = members.number("v")
    if version != 1:
        raise errors.Unsupported(f"commit version {version}")
    if members.get("attachments", list):
        raise errors.Unsupported("attachments in a commit")
    disks = tuple(_decode_disk(item, where) for item in members.get("disks", list))
    if len({disk.name for disk in disks}) != len(disks):
        raise errors.FormatError(where, "names a disk twice")
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
    )
    members.end()
    return commit


def check_time(text: str, where: str) -> None:
    if not _TIME.fullmatch(text):
        raise errors.FormatError(where, "has a time that is not YYYY-MM-DDTHH:MM:SSZ")


def _decode_disk(value: object, where: str) -> Disk:
    members = encoding.Members(value, where)
    name, size = members.text("name"), members.number("size")
    manifest, container = members.hex("manifest", 32), members.get("container", dict)
    counters = {name: members.number(name) for name in _COUNTERS}
    members.end()
    return Disk(name=name, size=size, manifest=manifest, container=container, **counters)
