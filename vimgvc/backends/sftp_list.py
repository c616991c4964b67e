"""Listing a directory tree of an SFTP server, which may say anything (N6, N13, N14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import protocol, skeleton
from vimgvc.backends.sftp_blob import all_of, shown
from vimgvc.backends.sftp_errors import Refused, Why

if TYPE_CHECKING:
    from vimgvc.backends.sftp_session import Session, Status

#: More names than this in one directory no repository has, but a server that never ends may send.
MAX_NAMES = 10_000_000
#: Directories that are read at once, each two round trips; servers have handles for a few hundred (OpenSSH: 1019).
_AT_ONCE = 128
#: A directory that changes while it is read may name something twice, but not this often.
_MAX_REPEATED = 1000


class Listing:
    """Every blob below `area`. `run` may be repeated."""

    def __init__(self, root: bytes, area: str, max_names: int = MAX_NAMES) -> None:
        self._root, self._area, self._max_names = root, area, max_names
        self._items: list[protocol.Item] = []

    async def run(self, session: Session) -> list[protocol.Item]:
        self._items = []
        top, *parts = self._area.split("/")
        await self._walk(session, self._area, protocol.AREAS[top][len(parts) :], must_exist=not parts)
        return self._items

    async def _walk(
        self, session: Session, area: str, patterns: Sequence[re.Pattern[str]], *, must_exist: bool
    ) -> None:
        pattern, *deeper = patterns
        try:
            found = await scan(session, self._path(area), pattern, self._max_names)
        except Refused as refused:
            # A shard or a ref log comes with its first blob; an area that is missing must not be
            # taken for one that is empty.
            if refused.why is not Why.MISSING or (must_exist and area not in protocol.LATER):
                raise
            return
        if deeper:
            folders = [f"{area}/{name}" for name, status in found.items() if status.is_directory]
            await all_of((self._walk(session, folder, deeper, must_exist=False) for folder in folders), _AT_ONCE)
            return
        names = ((f"{area}/{name}", status) for name, status in found.items() if status.is_regular)
        self._items.extend(protocol.Item(name, status.size) for name, status in names if protocol.is_name(name))

    def _path(self, area: str) -> bytes:
        return b"%s/%s" % (self._root, area.encode())


class Stale:
    """Removes temporary files that were last written before `before` (seconds since 1970)."""

    def __init__(self, root: bytes, before: float) -> None:
        self._root, self._before = root, before

    async def run(self, session: Session) -> int:
        folders = [self._root]
        for area, patterns in protocol.AREAS.items():
            path = b"%s/%s" % (self._root, area.encode())
            folders.append(path)
            if len(patterns) > 1:
                inner = await _scan_or_none(session, path, patterns[0])
                folders.extend(
                    b"%s/%s" % (path, name.encode()) for name, status in inner.items() if status.is_directory
                )
        removed: list[bytes] = []
        await all_of(self._clean(session, folder, removed) for folder in folders)
        return len(removed)

    async def _clean(self, session: Session, folder: bytes, removed: list[bytes]) -> None:
        for name, status in (await _scan_or_none(session, folder, skeleton.TEMPORARY_NAME)).items():
            if status.is_regular and status.modified < self._before:
                path = b"%s/%s" % (folder, name.encode())
                await session.remove(path)
                removed.append(path)


async def _scan_or_none(session: Session, path: bytes, pattern: re.Pattern[str]) -> dict[str, Status]:
    try:
        return await scan(session, path, pattern, MAX_NAMES)
    except Refused as refused:
        if refused.why is Why.MISSING:
            return {}
        raise


async def scan(session: Session, path: bytes, pattern: re.Pattern[str], max_names: int) -> dict[str, Status]:
    """What is in a directory under names that fit; others are never looked at, nor joined to a path."""
    found: dict[str, Status] = {}
    unclear: list[str] = []
    count = repeated = 0
    async for raw, status in session.scan(path):
        count += 1
        name = raw.decode("ascii", "replace")
        if pattern.fullmatch(name) is None:
            pass
        elif name in found:
            repeated += 1
        elif status is None:
            unclear.append(name)
        else:
            found[name] = status
        if count > max_names or repeated > _MAX_REPEATED:
            raise errors.RemoteError(
                shown(path), "listing", "the server's listing does not end", hint="do not trust this server"
            )

    async def look(name: str) -> None:
        found[name] = await session.status(b"%s/%s" % (path, name.encode()))

    await all_of(look(name) for name in unclear)
    return found
