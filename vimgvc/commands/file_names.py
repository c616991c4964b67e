"""File names made of what somebody else committed: they choose neither directory nor what is written over."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence

_MAX = 255
#: Left for the digits that tell names apart.
_ROOM = 48
#: Separate directories, streams and drives somewhere, or mean something to shells.
_SPECIAL = frozenset('/\\:*?"<>|')


def unique(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """A file name for each (name, suffix), all different where case or Unicode's forms do not count, too.

    A name that is a file name stays as it is, the first of several that are alike too; the others
    have digits of a hash of the name behind them.
    """
    taken: set[str] = set()
    found = []
    for name, suffix in wanted:
        chosen = next(one for one in _candidates(name, suffix) if _alike(one) not in taken)
        taken.add(_alike(chosen))
        found.append(chosen)
    return found


def _candidates(name: str, suffix: str) -> Iterator[str]:
    full = f"{name}.{suffix}" if suffix else name
    plain = _plain(full)
    if plain == full:
        yield plain
    stem, dot, end = plain.rpartition(".")
    if not stem or len(end.encode()) > _ROOM:
        stem, dot, end = plain, "", ""
    digest = hashlib.blake2b(full.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    for mark in itertools.chain((digest[:8], digest), (f"{digest[:8]}-{number}" for number in itertools.count(2))):
        room = _MAX - len(f"~{mark}{dot}{end}".encode())
        yield stem.encode()[:room].decode(errors="ignore") + f"~{mark}{dot}{end}"


def _plain(full: str) -> str:
    text = "".join([char if char.isprintable() and char not in _SPECIAL else "_" for char in full])
    if text[:1] in (".", "-", " ", ""):
        text = "_" + text[1:]
    if text[-1] in (".", " "):
        text = text[:-1] + "_"
    if len(text.encode()) > _MAX:
        stem, dot, end = text.rpartition(".")
        text = text if len(end) > _ROOM or not dot else f"{stem.encode()[: _MAX - 60].decode(errors='ignore')}.{end}"
        text = text.encode()[:_MAX].decode(errors="ignore")
    return text


def _alike(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
