"""Machines in OVA archives: their disks opened where they lie, and new archives of disks."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimgvc import errors
from vimgvc.commands import contents, file_names, images, places
from vimgvc.disk import protocol, resized, room
from vimgvc.images import descriptor as descriptors
from vimgvc.images import detect, foreign_target, ova, ova_disks, ovf, raw, side_folder
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

_FORMAT = "ova"
_STEP = 1 << 20
_INNER = "machine"
_WRITTEN = "streamOptimized"


@dataclass(frozen=True, slots=True)
class Described:
    """A machine's own `descriptor`, called `stem`.ovf, and its names for the files of its disks.

    A disk without a file is empty: "".
    """

    stem: str
    descriptor: bytes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """What is committed of one: its disks, and the files beside them, its descriptor first."""

    disks: tuple[ingest.Source, ...]
    files: tuple[ingest.Source, ...]


def is_machine(path: str, access: images.Access) -> bool:
    """Whether an image is an archive with a whole machine. Raises what detecting raises."""
    if access.declared is not None:
        return detect.canonical(access.declared) == _FORMAT
    file = raw.RawReader(path)
    try:
        return detect.check_declared_reader(file, path, None) == _FORMAT
    finally:
        file.close()


@contextlib.contextmanager
def open_machine(path: str, access: images.Access, monitor: Monitor) -> Iterator[Machine]:
    """The machine in an archive; every digest of its manifest is checked first.

    Raises as `ova.parse_ova` and as opening each disk by itself.
    """
    _check_access(path, access)
    with contextlib.ExitStack() as stack:
        file = raw.RawReader(path)
        stack.callback(file.close)
        detect.check_declared_reader(file, path, access.declared)
        found = ova.parse_ova(file, path)
        monitor.start("checking digests", len(found.members), "files")
        for member in found.members:
            ova.check_digest(file, found, member, path)
            monitor.advance(1)
        disks: list[ingest.Source] = []
        for disk in found.disks:
            opened = ova_disks.open_disk(file, disk)
            stack.callback(opened.reader.close)
            for note in opened.notes:
                monitor.note(images.about(path, note))
            disks.append(
                ingest.Source(_unique(disk.name, disks), opened.reader, {**opened.container, "archive": _FORMAT})
            )
        own = {disk.member for disk in found.disks}
        stem = found.members[0].name[:-4]
        signed = {f"{stem}.mf".lower(), f"{stem}.cert".lower()}  # what they say holds for this very archive only
        files = [
            ingest.Source(member.name, ova.slice_of(file, member), {})
            for member in found.members
            if member not in own and member.name.lower() not in signed
        ]
        yield Machine(tuple(disks), tuple(files))


def _check_access(path: str, access: images.Access) -> None:
    asked = {
        "--snapshot": access.snapshot,
        "--allow-chain": access.chain_roots is not None,
        "--data-file": access.data_file,
        "--image-secret-file": access.secret_file,
        "--force-read": access.force_read,
        "--skip-bad-sectors": access.skip_bad,
        "--allow-changing": access.allow_changing,
    }
    for option in (name for name, given in asked.items() if given):
        raise errors.UsageError(f"{path}: {option} means nothing for a whole machine", hint="leave it away")


def _unique(name: str, before: Sequence[ingest.Source]) -> str:
    """A name for a disk that none of the others has."""
    wanted = reflog.name_from_stem(name)
    taken = {source.name for source in before}
    return next(one for one in (wanted, *(f"{wanted}-{n}" for n in range(2, len(taken) + 3))) if one not in taken)


def write_machine(
    disks: Sequence[contents.Content],
    place: places.Place,
    monitor: Monitor,
    *,
    compare: bool,
    described: Described | None,
    others: Sequence[tuple[str, protocol.Source]],
) -> int:
    """Make an archive of a machine with these disks; durable on return. Returns its size.

    Called like its file, and described as it was, else as one that is nothing but its disks; `others` are put in
    as well. Every disk is written as a streamOptimized vmdk beside the target first, so twice the space is needed.
    Raises as `foreign_target.convert_into`, and `IntegrityError` where the archive is not what was put in.
    """
    target, name = place.path, Path(place.path).stem
    folder = side_folder.SideFolder(
        target, tag=place.tag, force=place.force, forbidden=place.forbidden, data_bytes=None
    )
    try:
        folder.prepare(_INNER, [])
        parts = {
            number: _part(folder, number, content, compare=compare, monitor=monitor)
            for number, content in enumerate(disks)
            if described is None or described.names[number]
        }
        if described is None:
            archive = ova.build(name, list(parts.values()), _named(ova.own_names(name, len(parts)), others))
        else:
            files = [(described.names[number], part.image) for number, part in parts.items()]
            taken = [f"{described.stem}.ovf", f"{described.stem}.mf", *(file for file, _ in files)]
            archive = ova.rebuild(described.stem, described.descriptor, [*files, *_named(taken, others)])
        try:
            size = archive.size
            _copy(archive, Path(folder.path, _INNER), target, monitor)
        finally:
            archive.close()
        for number in parts:
            os.unlink(f"disk{number}", dir_fd=folder.fd)
        if compare:
            _check_archive(Path(folder.path, _INNER), target)
        folder.publish(_INNER, [])
    finally:
        folder.release()
    return size


def _named(taken: Sequence[str], others: Sequence[tuple[str, protocol.Source]]) -> list[tuple[str, protocol.Source]]:
    """`others` by file names that are none of `taken`; most keep theirs."""
    chosen = file_names.unique([(name, "") for name in (*taken, *(name for name, _ in others))])
    return [(file, source) for file, (_, source) in zip(chosen[len(taken) :], others, strict=True)]


def attachments(
    found: commits.Commit, own: Described | None, repo: repository.Repository, monitor: Monitor
) -> list[tuple[str, protocol.Source]]:
    """The files beside the disks of a commit, but for its `own` description."""
    return [
        (item.name, resized.Unchanging(repo.open_disk(item, monitor).reader(1)))
        for item in found.attachments
        if own is None or item.name.lower() != f"{own.stem}.ovf".lower()
    ]


def described(found: commits.Commit, repo: repository.Repository, monitor: Monitor) -> Described | None:
    """How a recorded machine described itself; None if it did not, or if its disks were other files than we write."""
    texts = [item for item in found.attachments if item.name.lower().endswith(".ovf")]
    if len(texts) != 1 or texts[0].size > ovf.MAX_LENGTH:
        return None
    descriptor = _content(repo.open_disk(texts[0], monitor).reader(1))
    try:
        envelope = ovf.parse(descriptor, texts[0].name)
    except errors.UnsafeImage:
        return None
    hrefs = {file.id: urllib.parse.unquote(file.href).removeprefix("./") for file in envelope.files}
    names = tuple(hrefs.get(disk.file, "") for disk in envelope.disks)
    if len(names) != len(found.disks):
        return None
    for disk, name in zip(found.disks, names, strict=True):
        if name and (disk.container.get("archive"), disk.container.get("subformat")) != (_FORMAT, _WRITTEN):
            monitor.note(f"{texts[0].name} tells of other images than {_WRITTEN} vmdk; a plain description is written")
            return None
    return Described(texts[0].name[:-4], descriptor, names)


def _content(reader: protocol.Reader) -> bytes:
    content = bytearray(reader.size)
    try:
        reader.pread_into(0, memoryview(content))
    finally:
        reader.close()
    return bytes(content)


def _part(
    folder: side_folder.SideFolder, number: int, content: contents.Content, *, compare: bool, monitor: Monitor
) -> ova.Part:
    path = Path(folder.path, f"disk{number}")
    reader = content.reader()
    monitor.start(f"exporting {content.name}", 0)
    try:
        foreign_target.convert_into(
            reader,
            path,
            "vmdk",
            {"subformat": _WRITTEN},
            tag=f"disk{number}",
            check=content.compare if compare else None,
        )
    finally:
        reader.close()
    return ova.Part(raw.RawReader(path), -(-content.size // 512) * 512)


def _copy(archive: protocol.Source, path: Path, target: str, monitor: Monitor) -> None:
    monitor.start("packing", archive.size)
    view = room.pages(_STEP)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise descriptors.write_error(error, target, "writing the archive") from error
    try:
        for start in range(0, archive.size, _STEP):
            piece = view[: min(_STEP, archive.size - start)]
            archive.pread_into(start, piece)
            descriptors.write_all(fd, target, start, piece)
            monitor.advance(piece.nbytes)
    finally:
        os.close(fd)


def _check_archive(path: Path, target: str) -> None:
    """The disks were compared before they were packed; the digests say that they arrived."""
    file = raw.RawReader(path)
    try:
        found = ova.parse_ova(file, target)
        for member in found.members:
            ova.check_digest(file, found, member, target)
    finally:
        file.close()
