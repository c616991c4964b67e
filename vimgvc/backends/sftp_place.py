"""The directory of a repository on an SFTP server: making it, what can be promised of it, and its errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from vimgvc import errors
from vimgvc.backends import probe, protocol, skeleton
from vimgvc.backends.sftp_blob import all_of, not_a_file, shown, status_or_none
from vimgvc.backends.sftp_errors import Refused, Why

if TYPE_CHECKING:
    from vimgvc.backends.sftp_session import File, Session

#: A server that has less than this beside what was to be written is full.
_MARGIN = 64 << 10

#: Nobody takes longer between making the directories of a repository and its `config`.
_INIT_SECONDS = 900

_TEMPORARY = skeleton.TEMPORARY.encode()


def unsafe(answer: probe.Answer) -> str:
    """Why a place that answered so is not written to, or nothing."""
    if not answer.exclusive_create:
        return "the server gives one name to two files: of two that write at once, one would lose its work"
    return "" if answer.ranges else "the server cannot read a part of a file"


class Place:
    """`root` as the server gets it. `removes`: nothing has shown yet that files may not be removed."""

    def __init__(self, url: str, root: bytes) -> None:
        self._url, self._root = url, root
        self.removes = True
        self._token = os.urandom(8).hex().encode()

    # --- making ----------------------------------------------------------------------------------

    async def make_root(self, session: Session) -> None:
        """The directory and those above it. Raises `UsageError` when other things are in it."""
        missing, path = [], self._root
        while path not in (b"", b"/") and await status_or_none(session, path) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for path in reversed(missing):
            await make_directory(session, path)
        if not missing:
            await self._refuse_occupied(session)

    async def begin_init(self, session: Session) -> None:
        """Keep out others who make a repository here, until `end_init` or for a quarter of an hour. Raises `Busy`."""
        lock = b"%s/%s" % (self._root, skeleton.LOCK.encode())
        try:
            await _store(session, lock, self._token)
        except Refused as refused:
            if refused.why not in (Why.FAILURE, Why.EXISTS):
                raise
            if await self._part(session, lock, len(self._token)) == self._token:
                return  # ours: the answer got lost
            age = await self._age(session, lock)
            if age is not None and age < _INIT_SECONDS:
                raise errors.Busy(
                    f"somebody else is making a repository at {self._url}, or was a moment ago",
                    hint=f"if that was interrupted, run this again in {_INIT_SECONDS // 60} minutes",
                ) from refused

    async def end_init(self, session: Session) -> None:
        await _remove(session, b"%s/%s" % (self._root, skeleton.LOCK.encode()))

    async def _age(self, session: Session, path: bytes) -> float | None:
        """How long ago a file was written by the server's clock; None if it is gone."""
        now = self._temporary(self._root)
        await _store(session, now, b"")
        try:
            present = await session.status(now)
        finally:
            session.later(_remove(session, now))
        status = await status_or_none(session, path)
        return None if status is None else present.modified - status.modified

    async def make_areas(self, session: Session) -> None:
        """The areas, then the shards in them: servers may work on several requests at once."""
        for names in (tuple(protocol.AREAS), skeleton.SHARDS):
            paths = (b"%s/%s" % (self._root, name.encode()) for name in names)
            await all_of(make_directory(session, path) for path in paths)

    async def _refuse_occupied(self, session: Session) -> None:
        # With a dot behind it a symbolic link to a directory is the directory.
        status = await status_or_none(session, self._root + b"/.")
        if status is None or not status.is_directory:
            raise errors.UsageError(f"{self._url} is not a directory", hint="choose another place")
        names = [shown(name) async for name, _ in session.scan(self._root)]
        skeleton.refuse_occupied(self._url, [name for name in names if name not in (".", "..")])

    # --- what can be promised --------------------------------------------------------------------

    async def look(self, session: Session) -> tuple[bool, bool]:
        """Whether the server has fsync, and whether the file system is mounted read-only, as far as it says."""
        try:
            room = await session.room(self._root)
        except Refused:
            return session.has_fsync, False
        return session.has_fsync, room.read_only

    async def try_out(self, session: Session) -> probe.Answer:
        """Create one name twice and give one name twice: the second must be refused, and the first be there."""
        names = [self._temporary(self._root) for _ in range(3)]
        made: list[bytes] = []
        try:
            for name, content in zip(names, (b"first", b"second"), strict=False):
                made.append(name)
                await _store(session, name, content)
            exclusive = not await _succeeds(_store(session, names[0], b"third"))
            made.append(names[2])
            claims = [await _succeeds(self._name(session, name, names[2])) for name in names[:2]]
            part = await self._part(session, names[2], 3, at=1)
            exclusive = exclusive and claims == [True, False] and part in (b"irs", None)
        finally:
            removes = [await self._removed(session, name) for name in made]
        return probe.Answer(exclusive, ranges=part == b"irs", removes=all(removes), durable=session.has_fsync)

    async def _part(self, session: Session, path: bytes, length: int, at: int = 0) -> bytes | None:
        try:
            file = await session.open(path)
        except Refused:
            return None
        try:
            return await file.read(length, at)
        finally:
            file.close_later()

    async def _removed(self, session: Session, path: bytes) -> bool:
        try:
            await _remove(session, path)
        except Refused:
            return False
        return True

    # --- names -----------------------------------------------------------------------------------

    async def begin(self, session: Session, target: bytes) -> tuple[bytes, File]:
        """The path and handle of a new temporary file in the directory of `target`."""
        directory = target.rpartition(b"/")[0]
        temporary = self._temporary(directory)
        try:
            return temporary, await session.create(temporary)
        except Refused as refused:
            # A root or area that is missing belongs to a disk that is not mounted there.
            if refused.why is not Why.MISSING or not self._may_make(directory):
                raise
        area = directory.rpartition(b"/")[0]
        if area[len(self._root) + 1 :].decode() in protocol.LATER:
            await make_directory(session, area)
        await make_directory(session, directory)
        return temporary, await session.create(temporary)

    def _may_make(self, directory: bytes) -> bool:
        below = directory[len(self._root) + 1 :].decode()
        return "/" in below or below in protocol.LATER

    async def claim(self, session: Session, temporary: bytes, target: bytes) -> bool:
        """Give a finished file its final name, or say that the name is taken."""
        try:
            await self._name(session, temporary, target)
        except Refused as refused:
            # Version 3 of the protocol has no word for a name that is taken.
            if refused.why not in (Why.FAILURE, Why.EXISTS):
                raise
            status = await status_or_none(session, target)
            if status is None:
                raise
            if not status.is_regular:
                raise not_a_file(target) from refused
            return False
        return True

    async def _name(self, session: Session, source: bytes, target: bytes) -> None:
        """A hard link, which no server makes over a file. Renaming does not either, says the protocol; it was tried."""
        if session.has_links:
            await session.link(source, target)
        else:
            await session.rename(source, target)

    async def remove(self, session: Session, paths: Sequence[bytes]) -> None:
        """Remove files, absent or not, as durably as a server can."""
        try:
            await all_of(_remove(session, path) for path in paths)
        except Refused as refused:
            self.removes = self.removes and refused.why is not Why.DENIED
            raise
        if paths and session.has_fsync:
            await self._barrier(session)

    async def set_aside(self, session: Session, name: str) -> None:
        source = b"%s/%s" % (self._root, name.encode())
        status = await status_or_none(session, source)
        if status is None:
            return
        if not status.is_regular:
            raise not_a_file(source)
        folder = self._root
        for part in ("quarantine", *name.split("/")[:-1]):
            folder = b"%s/%s" % (folder, part.encode())
            await make_directory(session, folder)
        targets = (b"%s/quarantine/%s" % (self._root, free.encode()) for free in protocol.aside_names(name))
        target = next(targets)
        while not await self.claim(session, source, target):
            target = next(targets)
        await self.settle(session, [target])
        await _remove(session, source)
        if session.has_fsync:
            await self._barrier(session)

    # --- durability ------------------------------------------------------------------------------

    async def settle(self, session: Session, paths: Sequence[bytes]) -> None:
        """Have the server sync files that have their names by now.

        SFTP has no sync for directories. Linux' ext4, XFS and btrfs write the name of a file with the file.
        """
        if session.has_fsync:
            await all_of(_sync(session, path) for path in paths)

    async def _barrier(self, session: Session) -> None:
        """A new file, synced: what the file system's journal had before it is written as well."""
        name = self._temporary(self._root)
        try:
            file = await session.create(name)
            try:
                await file.write(b"-", 0)
                await file.fsync()
            finally:
                file.close_later()
        finally:
            session.later(_remove(session, name))

    # --- errors ----------------------------------------------------------------------------------

    async def explain(
        self, session: Session, doing: str, path: bytes, refused: Refused, need: int
    ) -> errors.VimgvcError:
        """What it means that the server did not do something; a full disk is a failure like any other (N12)."""
        where = f"{self._url}: {shown(path)}"
        if refused.why is Why.SPACE:
            return _no_space(where)
        if refused.why is Why.DENIED:
            return errors.RemoteError(
                where,
                "EACCES",
                f"the server does not let this user {doing} there",
                hint="give the user that right on the server, or use another user or directory",
            )
        if refused.why is Why.MISSING:
            return errors.RemoteError(
                where, "ENOENT", "the directory is missing", hint="if it is on a disk of the server, mount that"
            )
        if refused.why is Why.FAILURE:
            with contextlib.suppress(Refused):
                room = await session.room(self._root)
                if room.read_only:
                    return errors.RemoteError(where, "EROFS", "the server's file system is mounted read-only")
                if room.free < need + _MARGIN:
                    return _no_space(where)
        return errors.RemoteError(
            where,
            "failure",
            f"the server failed to {doing} there ({refused.detail})",
            hint="the server does not say why; it may be a quota, or its disk",
        )

    def _temporary(self, directory: bytes) -> bytes:
        return b"%s/%s%s" % (directory, _TEMPORARY, os.urandom(8).hex().encode())


async def make_directory(session: Session, path: bytes) -> None:
    """A directory, unless there is one."""
    try:
        await session.make_directory(path)
    except Refused as refused:
        if refused.why not in (Why.FAILURE, Why.EXISTS):
            raise
        status = await status_or_none(session, path)
        if status is None or not status.is_directory:
            raise


async def _remove(session: Session, path: bytes) -> None:
    try:
        await session.remove(path)
    except Refused as refused:
        if refused.why is not Why.MISSING:
            raise


async def _sync(session: Session, path: bytes) -> None:
    try:
        file = await session.open(path)
    except Refused as refused:
        # Removed since: whoever did that knew that it is not needed.
        if refused.why is Why.MISSING:
            return
        raise
    try:
        await file.fsync()
    finally:
        file.close_later()


async def _store(session: Session, path: bytes, content: bytes) -> None:
    file = await session.create(path)
    await file.write(content, 0)
    await file.close()


async def _succeeds(work: Coroutine[Any, Any, object]) -> bool:
    try:
        await work
    except Refused:
        return False
    return True


def _no_space(where: str) -> errors.NoSpace:
    return errors.NoSpace(f"{where}: no space left on the server", hint="free some space there and run this again")
