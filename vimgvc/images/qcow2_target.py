"""qcow2 images as targets: written in any order by many threads (specs/qcow2.md §§4-6).

What is written must have been planned: the plan is made from the disk's extents. Names appear only
when the image is complete: the rules of `raw_target` hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2, qcow2_compressed, qcow2_plan, raw, written

#: File systems allocate by this much: what is smaller needs no reservation.
_BLOCK = 4096


def build(
    path: raw.Path,
    size: int,
    options: qcow2_plan.Options,
    data: Iterable[extents.Extent],
    *,
    tag: str,
    force: bool = False,
    forbidden: Sequence[raw.Path] = (),
) -> Qcow2Target | qcow2_compressed.CompressedTarget:
    """The target for a disk of `size` bytes with `data` (as of `qcow2_plan.Plan`).

    `tag`, `force`, `forbidden` and what is raised: as of `raw.RawWriter`, and `UsageError` for options that
    do not allow such a disk. A partial file is only taken up by the same plan.
    """
    plan = qcow2_plan.Plan(size, options, data)
    mark = f"{tag}.{plan.fingerprint()}"
    if options.compressed:
        file = raw.RawWriter(path, plan.data_offset, tag=mark, force=force, forbidden=forbidden)
        return qcow2_compressed.CompressedTarget(file, plan)
    file = raw.RawWriter(
        path,
        plan.file_size,
        tag=mark,
        force=force,
        forbidden=forbidden,
        data_bytes=plan.data_offset + plan.units.total * plan.unit,
        preallocation="off" if options.preallocation == "metadata" else options.preallocation,
    )
    return Qcow2Target(file, plan)


class Qcow2Target:
    """An image whose clusters are not compressed, as a Target. Use `build`.

    Ranges that were not planned cannot be written; zeroing and reading them is possible where they
    read as zeros, not where they are the backing file's: `ValueError`.
    """

    def __init__(self, file: raw.RawWriter, plan: qcow2_plan.Plan) -> None:
        self.plan = plan
        self._file = file
        self._complete = False
        try:
            self._reserve()
        except BaseException:
            file.abort()
            raise

    def _reserve(self) -> None:
        # QEMU allocates whole units; only where it is left to the file system, what is not written is not.
        if self.plan.options.preallocation == "off" and self.plan.unit > _BLOCK:
            for offset, length in self.plan.reserved():
                self._file.reserve(offset, length)

    @property
    def size(self) -> int:
        return self.plan.size

    @property
    def resumed(self) -> bool:
        return self._file.resumed

    def pwrite(self, offset: int, data: memoryview) -> None:
        extents.check_range(self.size, offset, data.nbytes)
        self._file.pwrite(self.plan.locate(offset, data.nbytes) if data.nbytes else 0, data)

    def zero(self, offset: int, length: int) -> None:
        extents.check_range(self.size, offset, length)
        self._file.zero(0, 0)  # raises when finished
        for item in self.plan.readable(offset, length):
            if item.kind is extents.Kind.DATA:
                self._file.zero(self.plan.locate(item.start, item.length), item.length)

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        for item in self.plan.readable(offset, buffer.nbytes):
            piece = buffer[item.start - offset : item.end - offset]
            if item.kind is extents.Kind.DATA:
                self._file.pread_into(self.plan.locate(item.start, item.length), piece)
            else:
                piece[:] = bytes(piece.nbytes)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """As the contract says; HOLE where the backing file shows through, too."""
        extents.check_range(self.size, offset, length)
        return self.plan.kinds(offset, length)

    def reader(self, backing: protocol.Source | None = None) -> protocol.Source:
        """The image as it is now, as others will read it; closing it leaves the target as it is."""
        self._write_tables()
        self._file.settle()
        return qcow2.Qcow2Reader(written.Written(self._file), self._file.path, backing=backing)

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
        at = 0
        for piece in self.plan.head():
            self._file.pwrite(at, memoryview(piece))
            at += len(piece)
        if at != self.plan.data_offset:
            raise errors.VimgvcError(f"{self._file.path}: tables of {at} bytes, planned were {self.plan.data_offset}")
        self._complete = True
