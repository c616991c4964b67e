"""`vimgvc diff`: what of the disks of a commit is different in another commit, or in an image."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vimgvc import errors
from vimgvc.commands import commit as recording
from vimgvc.commands import images, revisions
from vimgvc.disk import protocol
from vimgvc.images import partitions
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import ingest
from vimgvc.repo import changes, repository, spans

_LETTERS = 26


@dataclass(frozen=True, slots=True)
class Part:
    """A partition called `name` as in a guest (vda2), or a file system that fills the whole disk (vda)."""

    name: str
    start: int
    length: int
    filesystem: str | None
    label: str
    changed_bytes: int


@dataclass(frozen=True, slots=True)
class DiskDiff:
    """A disk that differs, or not; a size of None: it is not there. Beyond the end of a disk are zeros.

    `zeroed_bytes` of `changed` are zeros now. `outside_bytes` of it lie in no partition.
    """

    name: str
    size: int | None
    size_before: int | None
    changed: spans.Spans
    zeroed_bytes: int
    parts: tuple[Part, ...] = ()
    outside_bytes: int = 0

    @property
    def changed_bytes(self) -> int:
        return self.changed.total

    @property
    def differs(self) -> bool:
        return bool(len(self.changed)) or self.size != self.size_before


@dataclass(frozen=True, slots=True)
class Diff:
    """`containers` are those of the images that were read."""

    disks: tuple[DiskDiff, ...]
    attachments: tuple[changes.FileDiff, ...]
    containers: tuple[Mapping[str, Any], ...] = ()

    @property
    def differs(self) -> bool:
        return any(disk.differs for disk in self.disks) or any(one.state != "equal" for one in self.attachments)


@dataclass(frozen=True, slots=True)
class _New:
    """A disk as it is now, recorded or in an image; `number` is its place in the machine."""

    number: int
    name: str
    size: int
    stored: commits.Disk | None = None
    reader: protocol.Source | None = None


def run(
    repo: repository.Repository,
    first: str,
    second: str,
    access: images.Access,
    monitor: Monitor,
    *,
    threads: int | None = None,
) -> Diff:
    """What `second`, a revision or an image, has otherwise than the revision `first`; REV:DISK is one disk.

    A name that is both a revision and a file means the revision, unless `access` says how to open it.
    Raises `NotFound`, `UsageError`, `IntegrityError`, and what opening and reading an image raises.
    """
    commit, wanted = _find(repo, first)
    other = None if access != images.Access() else _revision(repo, second)
    if other is not None:
        one = bool(wanted or other[1])
        pairs = _pairs(_disks(commit, wanted), _recorded(*other), one=one)
        work = _Work(changes.Changes(repo, monitor), monitor, threads)
        return Diff(tuple(work.compare(*pair) for pair in pairs), () if one else changes.files(commit, other[0]))
    image = recording.Image(reflog.name_from_stem(pathlib.PurePath(second).stem), second)
    with recording.open_images([image], access, monitor) as opened:
        return with_opened(repo, (commit, wanted), opened, monitor, threads)


def with_opened(
    repo: repository.Repository,
    before: tuple[commits.Commit, str | None],
    opened: recording.Opened,
    monitor: Monitor,
    threads: int | None = None,
) -> Diff:
    """What the disks of an image have otherwise than a commit, or than one disk of it; all of it was read then.

    Raises `UsageError` where it is not clear which disk is meant, `IntegrityError`, and what reading raises.
    """
    work = _Work(changes.Changes(repo, monitor), monitor, threads)
    commit, wanted = before
    after = _in_image(commit, wanted, opened.disks)
    pairs = _pairs(_disks(commit, wanted), after, one=bool(wanted) or len(after) == 1)
    found = tuple(work.compare(*pair) for pair in pairs)
    for source in opened.disks:
        source.reader.check_unchanged()
    return Diff(found, (), tuple(source.container for source in opened.disks))


def _find(repo: repository.Repository, typed: str) -> tuple[commits.Commit, str | None]:
    name, wanted = revisions.split(typed)
    found = revisions.find_commit(repo, name)
    return found, found.disk(wanted).name if wanted else None


def _revision(repo: repository.Repository, typed: str) -> tuple[commits.Commit, str | None] | None:
    """None when it is none, but a file; raises why it is none when it is no file either."""
    try:
        return _find(repo, typed)
    except (errors.NotFound, errors.UsageError) as error:
        if os.path.lexists(typed):
            return None
        error.hint = f"{error.hint}; there is no file of that name either"
        raise


def _disks(commit: commits.Commit, wanted: str | None) -> list[commits.Disk]:
    return [disk for disk in commit.disks if wanted in (None, disk.name)]


def _recorded(commit: commits.Commit, wanted: str | None) -> list[_New]:
    everything = [_New(number, disk.name, disk.size, stored=disk) for number, disk in enumerate(commit.disks)]
    return [disk for disk in everything if wanted in (None, disk.name)]


def _in_image(commit: commits.Commit, wanted: str | None, found: Sequence[ingest.Source]) -> list[_New]:
    numbers = {disk.name: number for number, disk in enumerate(commit.disks)}
    return [
        _New(numbers.get(wanted or source.name, number), source.name, source.reader.size, reader=source.reader)
        for number, source in enumerate(found)
    ]


_Pair = tuple[commits.Disk | None, _New | None]


def _pairs(before: Sequence[commits.Disk], after: Sequence[_New], *, one: bool) -> list[_Pair]:
    """By their names; with `one` the two that are meant: those of one name, or the only ones. Raises `UsageError`."""
    common: list[_Pair] = [(old, new) for new in after for old in before if old.name == new.name]
    if one:
        found = [(before[0], after[0])] if len(before) == len(after) == 1 else common
        if len(found) != 1:
            names = ", ".join(disk.name for disk in before)
            raise errors.UsageError(
                "which disks are to be compared is not clear", hint=f"name one as REV:DISK ({names})"
            )
        return [*found]
    old = {disk.name: disk for disk in before}
    gone = [disk for disk in before if disk.name not in {new.name for new in after}]
    return [*((old.get(new.name), new) for new in after), *((disk, None) for disk in gone)]


class _Work:
    def __init__(self, found: changes.Changes, monitor: Monitor, threads: int | None) -> None:
        self._changes, self._monitor, self._threads = found, monitor, threads

    def compare(self, old: commits.Disk | None, new: _New | None) -> DiskDiff:
        if new is None:
            assert old is not None
            return DiskDiff(old.name, None, old.size, spans.EMPTY, 0)
        if new.stored is not None:
            found = self._changes.between(new.stored, old)
        else:
            assert new.reader is not None
            found = self._changes.with_image(new.reader, old, self._threads)
        size_before = old.size if old else None
        parts, outside = self._parts(new, found.changed)
        return DiskDiff(new.name, new.size, size_before, found.changed, found.zeroed_bytes, parts, outside)

    def _parts(self, new: _New, changed: spans.Spans) -> tuple[tuple[Part, ...], int]:
        """The partitions of a disk that has changed. What cannot be read is told, and there are none then."""
        if not len(changed):
            return (), 0
        try:
            with self._reader(new) as reader:
                layout = partitions.read(reader)
        except errors.VimgvcError as error:
            if new.stored is not None and self._changes.is_partial():
                self._monitor.note(f"the partitions of disk {new.name} are not shown: what tells them is in a remote")
            else:
                self._monitor.problem(f"the partitions of disk {new.name} cannot be read: {error}")
            return (), changed.total
        device = f"vd{_letters(new.number)}"
        if layout.filesystem:
            return (Part(device, 0, new.size, layout.filesystem, "", changed.total),), 0
        parts = tuple(
            Part(
                f"{device}{one.number}",
                one.start,
                one.length,
                one.filesystem,
                one.label,
                changed.within(one.start, one.start + one.length),
            )
            for one in layout.partitions
        )
        return parts, changed.total - sum(part.changed_bytes for part in parts)

    @contextlib.contextmanager
    def _reader(self, new: _New) -> Iterator[protocol.Reader]:
        if new.reader is not None:
            yield new.reader
            return
        assert new.stored is not None
        reader = self._changes.reader(new.stored)
        try:
            yield reader
        finally:
            reader.close()


def _letters(number: int) -> str:
    """As Linux counts disks: a to z, then aa."""
    number, last = divmod(number, _LETTERS)
    return (_letters(number - 1) if number else "") + chr(ord("a") + last)
