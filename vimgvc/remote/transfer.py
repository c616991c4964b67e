"""Moving what a plan names, in the order of specs/repository.md: packs, index objects, commits.

Packs that move as they are pass through memory once, with their hash checked, several at a time. What arrived is
found again by the target's listing and index, so an interrupted copy is gone on with by doing it again.
"""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import ledger, protocol
from vimgvc.codec import aead
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, ordered
from vimgvc.remote import plan as plans
from vimgvc.repo import forgetting, promises, repository
from vimgvc.store import arrived, pack, pack_table, repack, writer

#: What the packs in flight take together, in bytes.
_MEMORY = 128 << 20
#: How often a copy begins again because something vanished or was damaged meanwhile.
_ATTEMPTS = 4


class _DamagedError(Exception):
    """Packs of the source that cannot be read as they should."""

    def __init__(self, names: set[str], reason: errors.VimgvcError) -> None:
        super().__init__()
        self.names, self.reason = names, reason


def copy(
    found: plans.Commits, target: repository.Repository, avoid: frozenset[str], verb: str, monitor: Monitor
) -> plans.Plan:
    """Everything that `found` names is durable in `target` on return, but no branch or tag leads to it yet.

    `target` has a `ledger.Ledger` for its backend; when that one rehearses, only what it notes is done. Raises
    `IntegrityError` for what cannot be read at the source, and what the backends raise.
    """
    damaged: set[str] = set()
    for attempt in range(_ATTEMPTS):
        chosen = plans.make(found, avoid, damaged, monitor)
        try:
            _Copy(found.request, target, chosen, verb, monitor).run()
        except _DamagedError as error:
            damaged |= error.names
            if attempt + 1 == _ATTEMPTS:
                raise error.reason from error
            monitor.problem(f"{error.reason}; other copies are looked for")
        except arrived.Taken as error:
            if attempt + 1 == _ATTEMPTS:
                raise
            monitor.problem(f"{error.message}; what it holds goes into another one")
        else:
            return chosen
    raise AssertionError


class _Copy:
    def __init__(
        self,
        request: plans.Request,
        target: repository.Repository,
        chosen: plans.Plan,
        verb: str,
        monitor: Monitor,
    ) -> None:
        self._source, self._target, self._plan, self._monitor = request.source, target, chosen, monitor
        self._verb, self._remote = verb, request.promise
        assert isinstance(target.backend, ledger.Ledger)
        self._ledger = target.backend
        self._index = chosen.there.index
        self._store = chosen.marker.store

    def run(self) -> None:
        out = writer.Writer(self._ledger, self._target.seals, self._index)
        try:
            self._move_whole(out)
            self._move_parts(out)
            out.finish()
        except BaseException as error:
            out.abort(keep=isinstance(error, KeyboardInterrupt))
            raise
        self._move_commits()

    # -- packs -----------------------------------------------------------------------------------

    def _move_whole(self, out: writer.Writer) -> None:
        packs = self._plan.whole
        if not packs:
            return
        self._monitor.start(self._verb, sum(item.size for item in packs))
        largest = max(item.size for item in packs)
        wanted = max(self._ledger.capabilities.parallel, self._source.backend.capabilities.parallel)
        threads = max(1, min(wanted if wanted > 1 else crew.default_threads(), _MEMORY // largest))
        send = self._pretend if self._ledger.rehearse else self._send
        broken: list[tuple[str, errors.VimgvcError]] = []
        for item, table in ordered.ordered(iter(packs), lambda item: (item, _attempt(send, item)), threads):
            if isinstance(table, errors.VimgvcError):
                broken.append((item.name, table))
                continue
            out.adopt(item, table)
        if broken:
            raise _DamagedError({name for name, _ in broken}, broken[0][1])

    def _send(self, item: pack_table.Pack) -> pack.Table:
        blob = read_whole(self._source.backend, item.name, item.size)
        table, _ = pack.read_table(
            item.name,
            len(blob),
            lambda offset, length: blob[offset : offset + length],
            lambda data, where: self._source.seals.open(aead.TABLE, data, where),
            table_length=item.table_length,
        )
        try:
            arrived.put(self._ledger, item.name, [blob], len(blob))
        except errors.VimgvcError as error:
            raise _TargetError(error) from error
        self._monitor.advance(item.size)
        return table

    def _pretend(self, item: pack_table.Pack) -> pack.Table:
        table = self._store.table(item.number)
        self._ledger.pretend(pack.blob_name(item.name), item.size)
        return table

    def _move_parts(self, out: writer.Writer) -> None:
        packs = self._plan.partial
        if not packs:
            return
        threads = max(self._source.backend.capabilities.parallel, crew.default_threads())
        effort = repack.Effort(level=3, verify=True, threads=threads)
        seen: list[errors.VimgvcError] = []
        stay = repack.repack(self._plan.marker, packs, out, effort, self._monitor, unreadable=seen.append)
        if stay:
            raise _DamagedError(stay, seen[0])

    # -- commits ---------------------------------------------------------------------------------

    def _move_commits(self) -> None:
        """Records of forgotten ones and promises first, so that nobody misses data that is not meant to be there."""
        for item in self._plan.commits:
            if item.id in self._plan.dataless:
                name = forgetting.name(item.id)
                forgetting.Records(self._source.backend, self._source.seals).read(item.id)
                self._ledger.put(name, [self._source.backend.get(name)])
        self._promise()
        if self._plan.dataless or self._remote:
            self._ledger.sync()
        for item in self._plan.commits:
            self._source.graph.body(item.id)  # what it holds is checked, not what was read of it before
            name = f"commits/{item.id}"
            if not self._ledger.put(name, [self._source.backend.get(name)]):
                self._target.graph.body(item.id)  # sealed by others, so other bytes: it has to open as that commit
        self._ledger.sync()

    def _promise(self) -> None:
        if self._remote:
            found = promises.Promises(self._ledger, self._target.seals)
            now = repository.timestamp(self._target.clock)
            for item in self._plan.commits:
                if item.id not in self._plan.dataless:
                    found.put(promises.Promised(item.id, self._remote, now))


class _TargetError(Exception):
    """Something went wrong where it is written to: no other copy helps."""

    def __init__(self, reason: errors.VimgvcError) -> None:
        super().__init__()
        self.reason = reason


def _attempt(send: Callable[[pack_table.Pack], pack.Table], item: pack_table.Pack) -> pack.Table | errors.VimgvcError:
    """The table of a pack that was sent, or why it cannot be read."""
    try:
        return send(item)
    except _TargetError as error:
        raise error.reason from error
    except (errors.IntegrityError, errors.NotFound) as error:
        return error


def read_whole(backend: protocol.Backend, name: str, size: int) -> bytes:
    """A pack whose hash is its name. What was damaged on its way is right when it is read again (N4)."""
    for _ in range(2):
        blob = backend.get(pack.blob_name(name), 0, size)
        if blake3(blob).hexdigest() == name:
            return blob
    raise errors.IntegrityError(f"pack {name[:12]}", "is damaged (its hash does not fit its name)")
