"""Removing what no commit needs, in the order of specs/repository.md §9.

It may run beside any number of writers (`repo.publication`), on places with a lock and without. A collection
that was interrupted is never gone on with: the next one finds out anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.backends import ledger, protocol
from vimgvc.monitor import Monitor
from vimgvc.repo import collecting, epochs, pins

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class Options:
    """`max_unused`: the share (0 … 1) of what stays that may be unneeded, so that less has to be rewritten.

    `force`: also when most of what is stored would go. `forgotten`: for a dry run, further commits that count as
    forgotten. `take_over`: in spite of a collection that has not ended. `expire`: pins to remove first, by
    identifier; `expire_old`: all that are older than a day. `close`: numbers of collections of which nothing can be
    on its way any more.
    """

    max_unused: float = 0.05
    dry_run: bool = False
    force: bool = False
    host: str = ""
    forgotten: frozenset[str] = frozenset()
    level: int = 3
    verify: bool = True
    threads: int | None = None
    take_over: bool = False
    expire: frozenset[str] = frozenset()
    expire_old: bool = False
    close: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Collected:
    """Bytes and counts; after a dry run, what they would be.

    `freed_bytes` is how much smaller the repository is (negative when it grew), `stored_bytes` what it takes now;
    `unused_bytes` what of that is still unneeded, as far as known; `temporaries` are not counted in bytes. `spared`
    packs were to go, and were needed in the end; `unfinished` are collections of others that have not ended.
    """

    epoch: int | None
    commits_deleted: int
    packs_deleted: int
    packs_written: int
    index_deleted: int
    index_written: int
    temporaries: int
    repacked_bytes: int
    unneeded_bytes: int
    freed_bytes: int
    stored_bytes: int
    needs_force: bool
    complete: bool
    spared: int
    pins_deleted: int
    pins: tuple[collecting.Pinned, ...]
    unfinished: tuple[epochs.Unfinished, ...]
    seconds: float


def collect(repo: Repository, options: Options, monitor: Monitor) -> Collected:
    """`Repository.collect`.

    Raises `Busy`, `IntegrityError` when anything that is to stay cannot be found, `Rollback`, `NoSpace`, and
    `VimgvcError` when `force` is needed.
    """
    if options.forgotten and not options.dry_run:
        raise ValueError("only a dry run may suppose that something is forgotten")
    started = time.monotonic()
    backend = ledger.Ledger(repo.backend, rehearse=options.dry_run)
    with _alone(repo, options) as locked:
        epoch = epochs.Epochs(repo, backend, options.host, locked, options.take_over, options.close)
        temporaries = backend.remove_stale(repo.clock())
        before = sum(item.size for area in _COUNTED for item in backend.list(area))
        facts, complete = _collect(collecting.Job(repo, backend, options, monitor, epoch))
        unfinished = epoch.unfinished()
    gone, new = backend.removed.keys() - backend.written.keys(), backend.written.keys() - backend.removed.keys()
    freed = _bytes(backend.removed) - _bytes(backend.written)
    return Collected(
        epoch=facts.epoch,
        commits_deleted=facts.commits,
        packs_deleted=_count(gone, "packs"),
        packs_written=_count(new, "packs"),
        index_deleted=_count(gone, "index"),
        index_written=_count(new, "index"),
        temporaries=temporaries,
        repacked_bytes=facts.repacked,
        unneeded_bytes=facts.unneeded,
        freed_bytes=freed,
        stored_bytes=before - freed,
        needs_force=facts.needs_force,
        complete=complete,
        spared=facts.spared,
        pins_deleted=_count(gone, pins.AREA),
        pins=facts.pins,
        unfinished=unfinished,
        seconds=time.monotonic() - started,
    )


@contextlib.contextmanager
def _alone(repo: Repository, options: Options) -> Iterator[bool]:
    """Whether the place's lock is held exclusively. Where there is none, nobody is kept away, and nobody need be."""
    backend = repo.backend
    if options.dry_run:
        with backend.lock_shared():
            yield False
        return
    _check_rights(backend)
    with contextlib.ExitStack() as stack:
        # What cannot be written at all says so itself.
        locked = backend.capabilities.locks or backend.capabilities.read_only
        if locked:
            try:
                stack.enter_context(backend.lock_exclusive())
            except errors.BackendError as error:
                if error.kind not in _LOCKLESS:
                    raise
                locked = False
        yield locked


#: Of a directory on a file system without locks.
_LOCKLESS = ("ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL")


def _check_rights(backend: protocol.Backend) -> None:
    """Raises `RemoteError` where nothing may be removed, before anything is changed (N24)."""
    if backend.capabilities.read_only:
        return
    reason = "" if backend.capabilities.removes else "nothing may be deleted here"
    right = ""
    if reason or not backend.capabilities.locks:
        try:
            backend.delete(pins.name("0" * 32))
        except errors.BackendError as error:
            # Which right it is, the place knows.
            reason, right = error.message, f"{error.hint}; " if error.hint else ""
    if reason:
        raise errors.RemoteError(
            backend.url,
            "denied",
            f"gc lacks the right to delete ({reason}); nothing was changed",
            hint=f"{right}run it with credentials that may delete; commits, pushes and restores work without",
        )


#: What collections say of themselves is not counted: then one with nothing to do changes nothing.
_COUNTED = ("keys", "packs", "index", "commits", "refs", "forgotten", "pins")


def _bytes(sizes: dict[str, int]) -> int:
    return sum(size for name, size in sizes.items() if name.partition("/")[0] in _COUNTED)


def _count(names: set[str], area: str) -> int:
    return sum(name.startswith(f"{area}/") for name in names)


def _collect(job: collecting.Job) -> tuple[collecting.Facts, bool]:
    """(what was found, whether all was done): on a full disk less is done, with less room."""
    try:
        return collecting.Run(job, collecting.Mode.ALL).run(), True
    except errors.NoSpace as error:
        if job.options.dry_run:
            raise
        job.monitor.note(f"{error.message}: only packs that nobody needs are removed; run it again afterwards")
    try:
        return collecting.Run(job, collecting.Mode.DEAD).run(), False
    except errors.NoSpace:
        facts = collecting.Run(job, collecting.Mode.BARE).run()
    with contextlib.suppress(errors.NoSpace):
        facts = collecting.Run(job, collecting.Mode.DEAD).run()
    return facts, False
