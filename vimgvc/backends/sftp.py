"""A directory of an SFTP server as a Backend.

A blob is written under a temporary name beside its own, synced, and given its name by a hard link, which fails where
the name is taken; specs/places.md has the sequence, and what a server must give for it. The work is done by
coroutines on a thread of their own; any number of threads may call.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from vimgvc import errors, threads
from vimgvc.backends import loop as loops
from vimgvc.backends import probe, protocol, rates, sftp_blob, sftp_link, sftp_list, sftp_place, sftp_url, skeleton
from vimgvc.backends.sftp_errors import Refused

if TYPE_CHECKING:
    from vimgvc.backends.sftp_session import Session

T = TypeVar("T")

#: Calls at once that are worth it: more do not make anything faster, fewer leave the server waiting.
_PARALLEL = 8


def open_backend(
    url: str,
    *,
    create: bool,
    look: bool = True,
    environ: Mapping[str, str],
    memory: probe.Memory | None = None,
    patience: sftp_link.Patience | None = None,
) -> SftpBackend:
    """The backend at an `sftp://` URL. Raises `NoRepository`, with `create` `UsageError`, and `RemoteError`.

    Without `look` it may be that there is none.
    """
    backend = SftpBackend(sftp_url.parse(url), environ, memory, patience or sftp_link.Patience())
    try:
        if create or look:
            backend.begin(create=create)
    except BaseException:
        backend.close()
        raise
    return backend


class SftpBackend:
    """The repository in the directory that `address` names; nothing is connected before the first call."""

    def __init__(
        self,
        address: sftp_url.Address,
        environ: Mapping[str, str],
        memory: probe.Memory | None,
        patience: sftp_link.Patience,
        limits: rates.Limits | None = None,
    ) -> None:
        """Without `limits` those count that `environ` asks for."""
        self._address = address
        self._root = address.path
        self._link = sftp_link.Link(address, environ, patience, limits or rates.Limits.of(environ))
        self._loop = loops.Loop("vimgvc-sftp", self._link.close)
        self._place = sftp_place.Place(address.url, address.path)
        self._probing = probe.Probing(address.url, self._try_out, sftp_place.unsafe, memory)
        self._in_init = False
        self._looked: tuple[bool, bool] | None = None
        # Names that may not be durable yet, and those that surely are.
        self._unsynced: set[str] = set()
        self._durable: set[str] = set()
        self._guard = threading.Lock()
        self._sync_guard = threading.Lock()
        self._failure: errors.VimgvcError | None = None
        threads.can_wait(self)

    def begin(self, *, create: bool) -> None:
        """See that there is a repository, or with `create` make the directories of one."""
        if create:
            self._do("make directories", self._root, self._place.make_root)
            self._do("write", self._root, self._place.begin_init)
            self._in_init = True
            self._probing.settle(anew=True)
            self._do("make directories", self._root, self._place.make_areas)
            skeleton.remove_unfinished(self)
        else:
            skeleton.require(self)

    def _try_out(self) -> probe.Answer:
        return self._do("write", self._root, self._place.try_out)

    @property
    def url(self) -> str:
        return self._address.url

    @property
    def capabilities(self) -> protocol.Capabilities:
        known = self._probing.known()
        if self._looked is None:
            self._looked = self._do("look", self._root, self._place.look)
        has_fsync, read_only = self._looked
        return protocol.Capabilities(
            durable=has_fsync,
            exclusive_create=known is None or known.exclusive_create,
            read_only=read_only,
            locks=False,
            removes=self._place.removes and (known is None or known.removes),
            parallel=_PARALLEL,
            listing=len(skeleton.SHARDS),
        )

    # --- blobs -----------------------------------------------------------------------------------

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        target = self._path(protocol.validate_name(name))
        self._probing.settle()
        way = sftp_blob.Way(lambda session: self._place.begin(session, target), self._place.claim, self._link.another)
        blob = sftp_blob.Put(target, parts, way)
        stored = self._do("write", target, blob.run, size=blob.total)
        self._rely_on(name)
        if name == protocol.CONFIG:
            self._end_init()
        return stored

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(protocol.validate_name(name))
        protocol.validate_range(offset, length)
        data = self._do("read", path, sftp_blob.Get(path, name, offset, length).run_twice, size=length or 0)
        self._rely_on(name)
        return data

    def size(self, name: str) -> int:
        path = self._path(protocol.validate_name(name))

        async def look(session: Session) -> int:
            status = await sftp_blob.status_or_none(session, path)
            if status is None:
                raise protocol.missing(name)
            if not status.is_regular:
                raise sftp_blob.not_a_file(path)
            return status.size

        found = self._do("look", path, look)
        self._rely_on(name)
        return found

    def list(self, area: str) -> Iterator[protocol.Item]:
        path = self._path(protocol.validate_area(area))
        listing = sftp_list.Listing(self._root, area)
        yield from self._do("list", path, listing.run)

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> None:
        for name in (known := [protocol.validate_name(name) for name in names]):
            self._forget(name)
        paths = [self._path(name) for name in known]
        self._do("remove files", self._root, lambda session: self._place.remove(session, paths))

    def set_aside(self, name: str) -> None:
        source = self._path(protocol.validate_name(name))
        self._probing.settle()
        self._forget(name)
        self._do("move", source, lambda session: self._place.set_aside(session, name))

    def remove_stale(self, now: float) -> int:
        stale = sftp_list.Stale(self._root, now - skeleton.STALE_SECONDS)
        return self._do("remove files", self._root, stale.run)

    # --- durability ------------------------------------------------------------------------------

    def sync(self) -> None:
        """See `sftp_place.Place.settle`: a file is synced once more when it has its name."""
        # Held throughout: whoever comes second may have put what the first is about to make durable.
        with self._sync_guard:
            if self._failure is not None:
                raise self._failure
            with self._guard:
                names, self._unsynced = self._unsynced, set()
            paths = [self._path(name) for name in sorted(names)]
            try:
                if paths:
                    self._do("sync", self._root, lambda session: self._place.settle(session, paths))
            except errors.VimgvcError as error:
                # What the server could not make durable it may have dropped: another try proves nothing.
                self._failure = error
                raise
            with self._guard:
                self._durable |= names

    def _rely_on(self, name: str) -> None:
        with self._guard:
            if name not in self._durable:
                self._unsynced.add(name)

    def _forget(self, name: str) -> None:
        with self._guard:
            self._unsynced.discard(name)
            self._durable.discard(name)

    # --- locks -----------------------------------------------------------------------------------

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: SFTP has no locks. Nothing is removed here either as long as `lock_exclusive` is asked for."""
        return contextlib.nullcontext()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        raise errors.RemoteError(
            self.url, "ENOLCK", "over SFTP nobody can be kept out", hint="run this on the server, in the directory"
        )

    def close(self) -> None:
        self._end_init()
        if self._loop.is_running:
            with contextlib.suppress(errors.Interrupted):
                self._loop.run(self._link.settle())
        self._loop.close()

    def interrupt(self) -> None:
        self._loop.close()

    def _end_init(self) -> None:
        """Let others begin; what cannot be done now does not matter in a quarter of an hour."""
        if self._in_init:
            self._in_init = False
            with contextlib.suppress(errors.VimgvcError):
                self._do("remove files", self._root, self._place.end_init)

    # --- the way there ---------------------------------------------------------------------------

    def _do(self, doing: str, path: bytes, operation: Callable[[Session], Awaitable[T]], *, size: int = 0) -> T:
        """What `operation` returns, which moves `size` bytes; a refusal becomes an error that says what was done."""

        async def explained(session: Session) -> T:
            try:
                return await operation(session)
            except Refused as refused:
                raise await self._place.explain(session, doing, path, refused, size) from refused

        return self._loop.run(self._link.call(explained, size))

    def _path(self, name: str) -> bytes:
        return b"%s/%s" % (self._root, name.encode())
