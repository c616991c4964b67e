"""Entries of the log behind a branch or tag, and the names that are allowed (specs/formats.md §11)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from vimgvc import errors
from vimgvc.model import commit, encoding

BRANCH, TAG = "branch", "tag"
_LONGEST = 200
# Also what no terminal shows as it is, and what was not text to begin with.
_UNSHOWN = r"\x00-\x20\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_FORBIDDEN = re.compile(rf"[{_UNSHOWN}~^:?*\[\\@{{}}]|\.\.|//|^[-/]|/\.|^\.|[./]$|\.lock(/|$)")


@dataclass(frozen=True, slots=True)
class Entry:
    """`commit` is hexadecimal, None where the name was deleted; `prev` the hash of the entry before, hexadecimal."""

    kind: str
    name: str
    seq: int
    commit: str | None
    prev: str | None
    time: str
    host: str
    seen: dict[str, list[int | str]]

    def encode(self) -> bytes:
        return encoding.dumps_canonical({**asdict(self), "v": 1})


def decode(body: bytes, where: str) -> Entry:
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    version = members.number("v")
    if version != 1:
        raise errors.Unsupported(f"ref entry version {version}")
    entry = Entry(
        kind=members.text("kind"),
        name=members.text("name"),
        seq=members.number("seq"),
        commit=members.hex_or_none("commit", 32),
        prev=members.hex_or_none("prev", 32),
        time=members.text("time"),
        host=members.text("host"),
        seen=_decode_seen(members.get("seen", dict), where),
    )
    members.end()
    commit.check_time(entry.time, where)
    if entry.kind not in (BRANCH, TAG):
        raise errors.FormatError(where, "is of an unknown kind")
    return entry


def _decode_seen(value: dict[str, object], where: str) -> dict[str, list[int | str]]:
    seen: dict[str, list[int | str]] = {}
    for blind, item in value.items():
        encoding.check_hex(blind, 16, where)
        if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not int or item[0] < 1:
            raise errors.FormatError(where, "has a malformed 'seen'")
        seen[blind] = [item[0], encoding.check_hex(item[1], 32, where)]
    return seen


def check_name(name: str) -> str:
    """`name` when it may be a branch or tag (the rules of git's ref names, and no `@{}`); else `UsageError`."""
    if not name or len(name) > _LONGEST or _FORBIDDEN.search(name):
        raise errors.UsageError(
            f"not a valid branch name: {name!r}",
            hint="use letters, digits and - _ . / without spaces, '..', '~', '^' or ':'",
        )
    return name


def name_from_stem(stem: str) -> str:
    """A valid branch name made from a file's stem, whatever it is."""
    name = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII)
    name = re.sub(r"\.\.+", ".", name)[:_LONGEST]
    while name != (shorter := name.strip("-.").removesuffix(".lock")):
        name = shorter
    return check_name(name or "disk")
