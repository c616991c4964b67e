"""Entries of the log behind a branch or tag, and the names that are allowed (specs/formats.md §11)."""

from __future__ import annotations

import re
import unicodedata
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
    members.version("ref entry")
    entry = Entry(
        kind=members.text("kind"),
        name=members.text("name"),
        seq=members.number("seq"),
        commit=members.hex_or_none("commit", 32),
        prev=members.hex_or_none("prev", 32),
        time=members.text("time"),
        host=members.text("host"),
        seen=decode_ends(members, "seen"),
    )
    members.end()
    commit.check_time(entry.time, where)
    if entry.kind not in (BRANCH, TAG):
        raise errors.FormatError(where, "is of an unknown kind")
    return entry


def decode_ends(members: encoding.Members, name: str) -> dict[str, list[int | str]]:
    """The member `name`: where ref logs ended, as blind → [sequence, hash of the entry]."""
    ends: dict[str, list[int | str]] = {}
    for blind, item in members.get(name, dict).items():
        encoding.check_hex(blind, 16, members.where)
        if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not int or item[0] < 1:
            raise errors.FormatError(members.where, f"has a malformed '{name}'")
        ends[blind] = [item[0], encoding.check_hex(item[1], 32, members.where)]
    return ends


def check_name(name: str, kind: str = BRANCH) -> str:
    """`name` when it may be a branch or tag (the rules of git's ref names, and no `@{}`); else `UsageError`."""
    if len(name) > _LONGEST:
        raise errors.UsageError(
            f"not a valid {kind} name: {name[:20]!r}... has {len(name)} characters",
            hint=f"use at most {_LONGEST}",
        )
    if not name or _FORBIDDEN.search(name):
        raise errors.UsageError(
            f"not a valid {kind} name: {name!r}",
            hint="use letters, digits and - _ . / without spaces, '..', '~', '^' or ':'",
        )
    return name


def name_from_stem(stem: str) -> str:
    """A valid branch name made from a file's stem, whatever it is; letters of all languages stay."""
    name = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", stem))
    # In bytes: files are named after it again.
    name = re.sub(r"\.\.+", ".", name).encode()[:_LONGEST].decode(errors="ignore")
    while name != (shorter := name.strip("-.").removesuffix(".lock")):
        name = shorter
    return check_name(name or "disk")
