"""What S3 says in XML, read strictly: a page that is not the answer to the question is never taken for one.

A login page, half a document, or one about another bucket raises `Strange`; a listing that could not be
read must not look like an empty one (N6, N7).
"""

from __future__ import annotations

import calendar
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from xml.parsers import expat

#: A page of 1000 names takes a tenth of it.
MAX_DOCUMENT = 8 << 20

_MAX_DEPTH = 8
_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
_SIZE = re.compile(r"[0-9]{1,18}")


class Strange(Exception):
    """The document is not what was asked for; the message says in what."""


@dataclass(slots=True)
class _Element:
    tag: str
    text: str = ""
    below: list[_Element] = field(default_factory=list)

    def all(self, tag: str) -> list[_Element]:
        return [one for one in self.below if one.tag == tag]

    def words(self, tag: str) -> str | None:
        """The text of the one element of that name; None when there is none."""
        found = self.all(tag)
        if len(found) > 1:
            raise Strange(f"it has {tag} twice")
        return found[0].text if found else None


@dataclass(frozen=True, slots=True)
class Entry:
    """`written`: seconds since 1970, 0 where it is not said."""

    key: str
    size: int
    written: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing, and what the next one is asked with."""

    entries: list[Entry]
    following: str | None


def page(document: bytes, prefix: str) -> Page:
    """A page of the listing of `prefix`. Raises `Strange`."""
    root = _parse(document, "ListBucketResult")
    decode = urllib.parse.unquote_plus if root.words("EncodingType") == "url" else str
    if decode(root.words("Prefix") or "") != prefix:
        raise Strange("it is about another prefix")
    truncated, following = root.words("IsTruncated"), root.words("NextContinuationToken")
    contents = root.all("Contents")
    count = root.words("KeyCount")
    if truncated not in ("true", "false") or (truncated == "true" and not following):
        raise Strange("it does not say whether there is more")
    if count is not None and count != str(len(contents) + len(root.all("CommonPrefixes"))):
        raise Strange("it has not as many names as it says")
    entries = []
    for entry in contents:
        key, size = entry.words("Key"), entry.words("Size")
        if key is None or size is None or not _SIZE.fullmatch(size):
            raise Strange("it has an entry without a name or a size")
        entries.append(Entry(decode(key), int(size), _seconds(entry.words("LastModified") or "")))
    return Page(entries, following if truncated == "true" else None)


def refused_deletes(document: bytes) -> list[tuple[str, str]]:
    """Key and code of what could not be deleted. Raises `Strange`."""
    root = _parse(document, "DeleteResult")
    return [(error.words("Key") or "", _clean(error.words("Code"))) for error in root.all("Error")]


def check_copied(document: bytes) -> None:
    """Raises `Strange` unless something was copied: an error may come with status 200."""
    _parse(document, "CopyObjectResult")


def error(document: bytes) -> tuple[str, str]:
    """Code and region (which may be empty) of an error. Raises `Strange` where it is none."""
    root = _parse(document, "Error")
    code, region = _clean(root.words("Code")), root.words("Region") or ""
    if not code:
        raise Strange("it has no code")
    return code, region if _REGION.fullmatch(region) else ""


def _seconds(stamp: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0.0


def _clean(code: str | None) -> str:
    return code if code is not None and _CODE.fullmatch(code) else ""


def _parse(document: bytes, expected: str) -> _Element:
    """The root element, which is `expected`, with names bare of their name space."""
    root = _Element("")
    path = [root]

    def start(tag: str, _attributes: dict[str, str]) -> None:
        if len(path) > _MAX_DEPTH:
            raise Strange("it is nested too deeply")
        element = _Element(tag.rpartition(" ")[2])
        path[-1].below.append(element)
        path.append(element)

    def end(_tag: str) -> None:
        path.pop()

    def text(data: str) -> None:
        path[-1].text += data

    def refuse(*_: object) -> None:
        raise Strange("it has a type declaration")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, refuse
    try:
        parser.Parse(document, True)  # noqa: FBT003 - expat's parameters have no names
    except (expat.ExpatError, LookupError, ValueError):  # the latter two: an encoding that Python does not know
        raise Strange("it is no XML") from None
    if root.below[0].tag != expected:
        raise Strange(f"it is no {expected}")
    return root.below[0]
