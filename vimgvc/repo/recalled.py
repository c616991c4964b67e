"""A copy of the commits in the user's cache directory, so that a long history is one file to read.

A sealed object of type 'c' under the keys of the repository (specs/formats.md §12): whoever can change the
cache can neither read nor forge it. A commit is taken from it only while the repository still has one of that
name, and what is stored is read again by everything that acts on it; this is for looking. Whatever is wrong
with the copy has one answer: it is not there.
"""

from __future__ import annotations

import contextlib
import pathlib
import struct
from collections.abc import Iterable

from vimgvc import errors
from vimgvc.codec import sealing
from vimgvc.model import commit as commits
from vimgvc.repo import history, userfiles

_KIND = b"c"
_CONTEXT = b"commits 1"
_HEAD = struct.Struct("<32sI")
#: So many more that were read one by one are worth a new copy.
_WORTH = 256
_MOST = 64 << 20


class Recalled:
    """Commits of one repository from the copy in `folder`, else from the repository; `folder` None: no copy."""

    def __init__(self, graph: history.History, seals: sealing.Sealing, folder: pathlib.Path | None) -> None:
        self._graph, self._seals = graph, seals
        self._path = folder / "commits" if folder else None
        self._bodies: dict[str, bytes] = {}
        self._new = 0
        there = set(graph.ids())
        self._bodies = {name: body for name, body in self._read().items() if name in there}

    def load(self, commit_id: str) -> commits.Commit:
        """Raises `NotFound`, `IntegrityError`, `Unsupported`."""
        known = self._bodies.get(commit_id)
        if known is not None:
            return commits.recall(commit_id, known)
        body = self._graph.body(commit_id)
        commit = commits.decode(commit_id, body)
        self._bodies[commit_id] = body
        self._new += 1
        return commit

    def save(self) -> None:
        """Replace the copy, if that is worth it and possible."""
        if self._path is None or self._new < _WORTH:
            return
        self._new = 0
        body = b"".join(_pack(self._bodies.items()))
        with contextlib.suppress(errors.VimgvcError, OSError):
            userfiles.replace(self._path, self._seals.seal(_KIND, body, _CONTEXT))

    def _read(self) -> dict[str, bytes]:
        if self._path is None:
            return {}
        with contextlib.suppress(errors.VimgvcError, OSError, struct.error):
            blob = userfiles.read(self._path, forbidden=userfiles.WRITABLE, limit=_MOST * 2)
            if blob is not None:
                return _unpack(self._seals.open(_KIND, blob, "copy of the commits", _CONTEXT))
        return {}


def _pack(bodies: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    total = 0
    for name, body in bodies:
        total += _HEAD.size + len(body)
        if total > _MOST:
            return
        yield _HEAD.pack(bytes.fromhex(name), len(body))
        yield body


def _unpack(data: bytes) -> dict[str, bytes]:
    found = {}
    at = 0
    while at < len(data):
        name, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        found[name.hex()] = data[at - length : at]
    return found
