"""Writing a disk into a file in any container: by ourselves, or through qemu.

However it is made, a file has its final name only when it is complete, durable and, unless that was
not wanted, equal to what it was made from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import contents, kinds, machines, places
from vimgvc.disk import extents, protocol, resized
from vimgvc.images import foreign_options, foreign_target, made_target, qcow2_plan, qcow2_target, raw
from vimgvc.model import geometry
from vimgvc.monitor import Monitor

Place = places.Place


@dataclass(frozen=True, slots=True)
class Effort:
    """How: whether the result is compared before it gets its name; the file with its passphrase, for luks."""

    compare: bool = True
    secret_file: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """`resumed` says that an interrupted run was continued."""

    bytes_written: int
    resumed: bool = False


def write(content: contents.Content, kind: kinds.Kind, place: Place, effort: Effort, monitor: Monitor) -> Written:
    """Make the container; durable on return.

    Raises `UsageError` for options that make no sense, `UnsafeImage`, `NoSpace`, `IntegrityError`.
    """
    if kind.format == "raw":
        return _write_raw(content, kind, place, effort)
    if kind.format == "qcow2":
        return _write_qcow2(content, kind, place, effort)
    if kind.format == "ova":
        return write_machine([content], kind, place, effort, monitor)
    if made_target.is_made(kind.format, kind.options, content.size):
        return _write_made(content, kind, place, effort, monitor)
    return _write_foreign(content, kind, place, effort, monitor)


def write_machine(
    disks: Sequence[contents.Content],
    kind: kinds.Kind,
    place: Place,
    effort: Effort,
    monitor: Monitor,
    *,
    described: machines.Described | None = None,
    others: Sequence[tuple[str, protocol.Source]] = (),
) -> Written:
    """An archive of a machine that is called like its file; `others` are files beside its disks."""
    for name in kind.options:
        raise errors.UsageError(f"ova has no option {name!r}", hint="leave it away")
    size = machines.write_machine(disks, place, monitor, compare=effort.compare, described=described, others=others)
    return Written(size)


def _write_raw(content: contents.Content, kind: kinds.Kind, place: Place, effort: Effort) -> Written:
    for name in set(kind.options) - {"preallocation"}:
        raise errors.UsageError(f"raw has no option {name!r}", hint="known is preallocation")
    target = raw.RawWriter(
        place.path,
        content.size,
        tag=place.tag,
        force=place.force,
        forbidden=place.forbidden,
        data_bytes=_data_bytes(content),
        preallocation=kind.options.get("preallocation", "off"),
    )
    resumed, reader = target.resumed, content.reader()
    back = resized.Back(target, reader.extents)

    def check() -> None:
        target.settle()
        content.compare(back)

    try:
        return Written(content.fill(target, check if effort.compare else None), resumed)
    finally:
        reader.close()


def _data_bytes(content: contents.Content) -> int:
    """What a sparse file of the disk takes at most."""
    return sum(one.length for one in content.parts() if one.kind is extents.Kind.DATA)


def _write_qcow2(content: contents.Content, kind: kinds.Kind, place: Place, effort: Effort) -> Written:
    options = qcow2_plan.parse_options(kind.options, compressed=kind.compressed)
    target = qcow2_target.build(
        place.path,
        content.size,
        options,
        content.parts(),
        tag=place.tag,
        force=place.force,
        forbidden=place.forbidden,
    )
    resumed, below = target.resumed, content.below()
    pieces = None if below is None else _own(target.plan.kinds(0, content.size))
    # compressing whole clusters is fastest, and then in the order of the disk
    grid = max(geometry.BLOCK, options.cluster_size) if options.compressed else None

    def check() -> None:
        content.compare(target.reader(below))

    try:
        return Written(content.fill(target, check if effort.compare else None, pieces=pieces, grid=grid), resumed)
    finally:
        if below is not None:
            below.close()


def _own(kinds_of: Iterator[extents.Extent]) -> Iterator[extents.Extent]:
    """What a thin image has of its own."""
    return (one for one in kinds_of if one.kind is not extents.Kind.HOLE)


def _write_made(content: contents.Content, kind: kinds.Kind, place: Place, effort: Effort, monitor: Monitor) -> Written:
    target = made_target.build(
        place.path,
        content.size,
        kind.format,
        kind.options,
        content.parts(),
        tag=place.tag,
        force=place.force,
        forbidden=place.forbidden,
    )
    resumed = target.resumed

    def check() -> None:
        content.compare(target.reader())

    done = Written(content.fill(target, check if effort.compare else None), resumed)
    size = target.plan.maker.size
    if size != content.size:
        monitor.note(f"{place.path}: {foreign_options.rounded(kind.format, content.size, size)}")
    return done


def _write_foreign(
    content: contents.Content, kind: kinds.Kind, place: Place, effort: Effort, monitor: Monitor
) -> Written:
    if kind.format == "luks" and effort.secret_file is None:
        raise errors.UsageError("luks needs a passphrase", hint="give it with --new-secret-file FILE")
    reader = _Told(content.reader(), monitor)
    total = _data_bytes(content)
    compressed = kind.options.get("subformat") == "streamOptimized"
    monitor.start("exporting", total)
    try:
        notes = foreign_target.convert_into(
            reader,
            place.path,
            kind.format,
            kind.options,
            tag=place.tag,
            force=place.force,
            forbidden=place.forbidden,
            data_bytes=None if compressed else total,  # how small it becomes shows when it is written
            secret_file=effort.secret_file,
            check=content.compare if effort.compare else None,
        )
    finally:
        reader.close()
    for note in notes:
        monitor.note(f"{place.path}: {note}")
    return Written(reader.done)


class _Told:
    """A Reader that tells how much of it was read."""

    def __init__(self, inner: protocol.Reader, monitor: Monitor) -> None:
        self._inner, self._monitor = inner, monitor
        self._lock = threading.Lock()
        self.done = 0

    @property
    def size(self) -> int:
        return self._inner.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._inner.pread_into(offset, buffer)
        self._monitor.advance(buffer.nbytes)
        with self._lock:
            self.done += buffer.nbytes

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._inner.extents(offset, length)

    def close(self) -> None:
        self._inner.close()
