"""Containers of pieces and tables as targets: written in any order by many threads (specs/foreign-formats.md §5).

What is written must have been planned: the plan is made from the disk's extents. Names appear only
when the image is complete: the rules of `raw_target` hold. The tables are written last, and are judged
as those of any image before anybody else sees them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import foreign_options, gates, makers, raw, target_rules, written


def is_made(fmt: str, options: Mapping[str, str], size: int) -> bool:
    """Whether such containers are written here; what disks of 0 bytes look like in each format only QEMU knows."""
    return size > 0 and makers.find(fmt, options) is not None


def build(
    path: raw.Path,
    size: int,
    fmt: str,
    options: Mapping[str, str],
    data: Iterable[extents.Extent],
    *,
    tag: str,
    force: bool = False,
    forbidden: Sequence[raw.Path] = (),
) -> MadeTarget:
    """The target for a disk of `size` bytes with `data` (as of `makers.Plan`); options as of `foreign_options`.

    `tag`, `force`, `forbidden` and what is raised: as of `raw.RawWriter`, and `UsageError` for options, or a
    disk, that the format does not have. A partial file is only taken up by the same plan.
    """
    chosen = foreign_options.parse_options(fmt, options)
    make = makers.find(fmt, chosen)
    assert make is not None
    present = target_rules.look(os.fspath(path))
    if present is not None and stat.S_ISBLK(present.st_mode):
        raise target_rules.no_device(os.fspath(path))
    plan = makers.Plan(size, make(-(-size // makers.SECTOR) * makers.SECTOR, chosen), data)
    mark = f"{tag}.{plan.fingerprint()}"
    file = raw.RawWriter(path, plan.file_size, tag=mark, force=force, forbidden=forbidden, data_bytes=plan.data_bytes)
    return MadeTarget(file, plan)


class MadeTarget:
    """A container as a Target. Use `build`. Ranges that were not planned read as zeros and cannot be written."""

    def __init__(self, file: raw.RawWriter, plan: makers.Plan) -> None:
        self.plan = plan
        self._file = file
        self._complete = False

    @property
    def size(self) -> int:
        return self.plan.size

    @property
    def resumed(self) -> bool:
        return self._file.resumed

    def pwrite(self, offset: int, data: memoryview) -> None:
        extents.check_range(self.size, offset, data.nbytes)
        runs = list(self.plan.runs(offset, data.nbytes))
        if any(place < 0 for _, _, place in runs):
            msg = f"{data.nbytes} bytes at {offset} are not among the data that was planned"
            raise ValueError(msg)
        self._file.pwrite(0, data[:0])  # raises when finished
        for start, length, place in runs:
            self._file.pwrite(place, data[start - offset : start - offset + length])

    def zero(self, offset: int, length: int) -> None:
        extents.check_range(self.size, offset, length)
        self._file.zero(0, 0)  # raises when finished
        for _, count, place in self.plan.runs(offset, length):
            if place >= 0:
                self._file.zero(place, count)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        for start, length, place in self.plan.runs(offset, buffer.nbytes):
            piece = buffer[start - offset : start - offset + length]
            if place < 0:
                piece[:] = bytes(length)
            else:
                self._file.pread_into(place, piece)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        extents.check_range(self.size, offset, length)
        kinds = (extents.Kind.DATA, extents.Kind.HOLE)
        return extents.merge(
            extents.Extent(start, count, kinds[place < 0]) for start, count, place in self.plan.runs(offset, length)
        )

    def reader(self) -> protocol.Source:
        """The disk as it is now, found by the tables in the file; closing it leaves the target as it is."""
        self._write_tables()
        return self.plan.maker.opened(written.Written(self._file), self._file.path, self.plan)

    def finish(self) -> None:
        self._write_tables()
        self._file.finish()

    def abort(self, *, keep: bool = True) -> None:
        """As `raw.RawWriter.abort`."""
        self._file.abort(keep=keep)

    def _write_tables(self) -> None:
        self._file.zero(0, 0)  # raises when finished
        if self._complete:
            return
        path = self._file.path
        for at, piece in self.plan.maker.around(self.plan, foreign_options.inner_name(os.path.basename(path))):
            if piece != bytes(len(piece)):  # the rest is a hole already
                self._file.pwrite(at, memoryview(piece))
        self._file.settle()
        try:
            facts = gates.check(self.plan.maker.fmt, written.Written(self._file), path)
        except (errors.UnsafeImage, errors.IntegrityError, errors.Unsupported) as error:
            raise errors.IntegrityError(path, f"what was written is not right: {error.message}") from error
        if facts.size != self.plan.maker.size:
            raise errors.IntegrityError(path, f"was written as a disk of {facts.size} bytes")
        self._complete = True
