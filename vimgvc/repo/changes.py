"""What commits changed: between two disks, in a range, and which commit wrote what.

All of it is told by manifests alone, and of those only what differs is read. Changes are whole
chunks, and blocks that became zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.model import geometry
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, imagediff, random_access, tree, treediff
from vimgvc.repo import promises, spans

if TYPE_CHECKING:
    from vimgvc.disk import protocol
    from vimgvc.repo.repository import Repository

#: Beyond every disk.
_END = 1 << 63


@dataclass(frozen=True, slots=True)
class Difference:
    """What one disk has otherwise than another: `zeroed_bytes` of `changed` are zeros now."""

    changed: spans.Spans
    zeroed_bytes: int


@dataclass(frozen=True, slots=True)
class DiskStat:
    """What a commit changed of one disk, in so many places; a size of None: there was no such disk."""

    name: str
    size: int
    size_before: int | None
    changed_bytes: int
    places: int


@dataclass(frozen=True, slots=True)
class FileDiff:
    """A file beside the disks: `state` is added, removed, changed or equal."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Blamed:
    """`commit` last wrote these bytes; None: nobody did, they are zeros."""

    start: int
    length: int
    commit: commits.Commit | None


class Changes:
    """Differences between disks of one repository. Raises `IntegrityError` for a manifest that is damaged."""

    def __init__(self, repo: Repository, monitor: Monitor) -> None:
        self._repo, self._monitor = repo, monitor
        self._store = repo.objects(monitor)

    def between(
        self, disk: commits.Stored, base: commits.Stored | None, start: int = 0, end: int | None = None
    ) -> Difference:
        """What `disk` has otherwise than `base`, which reads as zeros beyond its end; in `[start, end)`."""
        if base is not None and base.manifest == disk.manifest:
            return Difference(spans.EMPTY, 0)
        return Difference(*spans.collect(self._ranges(disk, base, start, end)))

    def _ranges(
        self, disk: commits.Stored, base: commits.Stored | None, start: int, end: int | None
    ) -> Iterator[treediff.Ranges]:
        """Of all windows that `[start, end)` touches."""
        last = None if end is None else geometry.windows(end)
        before = self._tree(base) if base else None
        return treediff.changed_ranges(self._tree(disk), before, start // geometry.WINDOW, last)

    def with_image(
        self, reader: protocol.Reader, base: commits.Stored | None, threads: int | None = None
    ) -> Difference:
        """What `reader` has otherwise than `base`; also raises what `reader` raises."""
        found = imagediff.changed_ranges(
            reader,
            self._tree(base) if base else None,
            self._repo.seals,
            self._monitor,
            threads or crew.default_threads(),
        )
        return Difference(*spans.collect(found))

    def reader(self, disk: commits.Stored) -> protocol.Reader:
        """The disk for reading a little of it, as far as that is here."""
        return random_access.StoredReader(self._store, self._tree(disk), 1)

    def is_partial(self) -> bool:
        """Whether some data is promised to be in another place."""
        return bool(promises.Promises(self._repo.backend, self._repo.seals).ids())

    def stat(self, commit: commits.Commit, base: commits.Commit | None) -> list[DiskStat]:
        """What a commit changed of its disks since `base`, the commit before it."""
        found = []
        for disk in commit.disks:
            before = _find(base, disk.name) if base else None
            changed = self.between(disk, before).changed
            found.append(DiskStat(disk.name, disk.size, before.size if before else None, changed.total, len(changed)))
        return found

    def touched(
        self, commit: commits.Commit, bases: Sequence[commits.Commit], name: str, start: int, end: int | None
    ) -> bool:
        """Whether a commit differs from each of `bases`, those before it, in `[start, end)` of a disk.

        A disk that ends there, is new or vanished, differs where it is or was.
        """
        disk, last = _find(commit, name), _END if end is None else end
        before = [_find(base, name) for base in bases] or [None]
        return all(self._differs(disk, base, start, last) for base in before)

    def _differs(self, disk: commits.Disk | None, base: commits.Disk | None, start: int, end: int) -> bool:
        if disk is None or base is None:
            there = disk or base
            return there is not None and start < there.size
        if start < max(disk.size, base.size) and min(disk.size, end) != min(base.size, end):
            return True
        if base.manifest == disk.manifest:
            return False
        return any(
            bool(((group.starts < end) & (group.starts + group.lengths > start)).any())
            for group in self._ranges(disk, base, start, min(end, disk.size))
        )

    def blame(self, chain: Iterable[commits.Commit], name: str, start: int = 0, end: int | None = None) -> list[Blamed]:
        """Who last wrote each part of `[start, end)` of a disk; ascending, complete.

        `chain` is the commit with the disk, the one before it, and so on.
        """
        line = iter(chain)
        commit: commits.Commit | None = next(line)
        assert commit is not None
        disk: commits.Disk | None = commit.disk(name)
        assert disk is not None
        end = disk.size if end is None else min(end, disk.size)
        left = spans.whole(start, end)
        found: list[Blamed] = []
        self._monitor.start("looking through commits", 0, "commits")
        while commit is not None and disk is not None and len(left):
            before = next(line, None)
            base = _find(before, name) if before else None
            if base is None or base.manifest != disk.manifest:
                first, last = int(left.starts[0]), int(left.ends[-1])
                mine = self.between(disk, base, first, min(last, disk.size)).changed.intersect(left)
                found += [Blamed(at, length, commit) for at, length in mine.pairs()]
                left = left.subtract(mine)
            if base is not None:  # beyond its end nothing was kept: what older commits had there does not count
                found += [Blamed(at, length, None) for at, length in left.cut(base.size, end).pairs()]
                left = left.cut(start, base.size)
            self._monitor.advance(1)
            commit, disk = before, base
        found += [Blamed(at, length, None) for at, length in left.pairs()]
        return sorted(found, key=lambda item: item.start)

    def _tree(self, disk: commits.Stored) -> tree.Tree:
        found = tree.Tree(self._store, bytes.fromhex(disk.manifest))
        if found.size != disk.size:
            raise errors.IntegrityError(disk.name, "has another size than its manifest")
        return found


def _find(commit: commits.Commit, name: str) -> commits.Disk | None:
    return next((disk for disk in commit.disks if disk.name == name), None)


def files(old: commits.Commit | None, new: commits.Commit) -> tuple[FileDiff, ...]:
    """What became of the attachments."""
    before = {one.name: (one.size, one.manifest) for one in (old.attachments if old else ())}
    after = {one.name: (one.size, one.manifest) for one in new.attachments}
    return tuple(FileDiff(name, _state(before.get(name), after.get(name))) for name in {**after, **before})


def _state(before: object, after: object) -> str:
    if before == after:
        return "equal"
    return "added" if before is None else "removed" if after is None else "changed"
