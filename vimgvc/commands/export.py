"""`vimgvc export`: disks of commits become images in any format."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimgvc import errors
from vimgvc.commands import contents, kinds, machines, revisions, streams, targets
from vimgvc.images import detect
from vimgvc.model import commit as commits
from vimgvc.monitor import Monitor
from vimgvc.repo import disk as disks
from vimgvc.repo import repository

Put = streams.Put


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said: `format` and options as `kinds.choose` takes them, `size` in bytes to grow to."""

    format: str | None = None
    options: Sequence[str] = ()
    compressed: bool | None = None
    size: int | None = None
    force: bool = False
    compare: bool = True
    threads: int | None = None
    secret_file: str | None = None

    @property
    def effort(self) -> targets.Effort:
        return targets.Effort(self.compare, self.secret_file)


@dataclass(frozen=True, slots=True)
class Exported:
    """`size` is that of the disk in the new image; `compared` that it was read again and is equal."""

    commit: commits.Commit
    disks: tuple[str, ...]
    kind: kinds.Kind
    size: int
    target: str
    compared: bool
    resumed: bool
    bytes_written: int
    seconds: float


def run(
    repo: repository.Repository,
    revision: str,
    target: str | None,
    wanted: Wanted,
    monitor: Monitor,
    *,
    put: Put | None = None,
) -> Exported:
    """Write the disk that `revision` (REV or REV:DISK) names to `target`, by default a file named like the disk.

    A target of `-` is `put`. Raises `NotFound`, `UsageError`, `UnsafeImage`, `NoSpace`, `IntegrityError`,
    `Unsupported`.
    """
    started = time.monotonic()
    if _is_machine(repo, revision, wanted):
        return _machine(repo, revision, target, wanted, monitor)
    found, disk = revisions.find_disk(repo, revision)
    kind = kinds.choose(target or "", disk.container, wanted.format, wanted.options, compressed=wanted.compressed)
    for warning in filter(None, [kinds.opens(disk.container, kind)]):
        monitor.problem(warning)
    if found.attachments and revisions.split(revision)[1] is None:
        left = ", ".join(item.name for item in found.attachments)
        monitor.note(f"only the disk is exported; beside it the commit has {left}: 'vimgvc restore REV DIR/'")
    kind, base = _base(repo, kind, monitor)
    stored = repo.open_disk(disk, monitor)
    content = contents.Stored(disk.name, stored, monitor, wanted.threads, size=wanted.size, base=base)
    path = target or revisions.file_name(disk.name, kinds.suffix(kind.format))
    if path == kinds.STDOUT and put is not None:
        written = targets.Written(streams.write(content, kind, put, wanted.threads, monitor))
        compared = False
    else:
        place = targets.Place(path, tag(disk.manifest, kind, content.size), wanted.force, (repo.backend.url,))
        written, compared = targets.write(content, kind, place, wanted.effort, monitor), wanted.compare
    return Exported(
        found,
        (disk.name,),
        kind,
        content.size,
        path,
        compared,
        written.resumed,
        written.bytes_written,
        time.monotonic() - started,
    )


def _is_machine(repo: repository.Repository, revision: str, wanted: Wanted) -> bool:
    """Whether all disks of the commit are to become an archive: that was said, or it was one."""
    name, disk_name = revisions.split(revision)
    if disk_name is not None:
        return False
    if wanted.format is not None:
        return kinds.writable(wanted.format) == "ova"
    return all(disk.container.get("archive") == "ova" for disk in repo.resolve(name).disks)


def _machine(
    repo: repository.Repository, revision: str, target: str | None, wanted: Wanted, monitor: Monitor
) -> Exported:
    started = time.monotonic()
    found = repo.resolve(revision)
    kind = kinds.choose(target or "", {"format": "ova"}, wanted.format, wanted.options, compressed=wanted.compressed)
    if wanted.size is not None:
        raise errors.UsageError("--size is about one disk, an OVA is a machine", hint="export the disk on its own")
    disks_found = [
        contents.Stored(disk.name, repo.open_disk(disk, monitor), monitor, wanted.threads) for disk in found.disks
    ]
    path = target or revisions.file_name(found.branch.replace("/", "-"), "ova")
    size = sum(content.size for content in disks_found)
    place = targets.Place(path, tag(found.id, kind, size), wanted.force, (repo.backend.url,))
    described = machines.described(found, repo, monitor)
    others = machines.attachments(found, described, repo, monitor)
    written = targets.write_machine(
        disks_found, kind, place, wanted.effort, monitor, described=described, others=others
    )
    names = tuple(disk.name for disk in found.disks)
    spent = time.monotonic() - started
    return Exported(found, names, kind, size, path, wanted.compare, False, written.bytes_written, spent)  # noqa: FBT003


def chain(
    repo: repository.Repository, revisions_typed: str, folder: str, wanted: Wanted, monitor: Monitor
) -> list[Exported]:
    """Write the commits from A to B of `A..B[:DISK]` to `folder`, each as a qcow2 on top of the one before.

    Raises what `run` raises, before anything is written where a file is in the way.
    """
    if wanted.format not in (None, "qcow2") or wanted.size is not None:
        raise errors.UsageError(
            "a chain has format qcow2 and the sizes of its disks", hint="leave --size and other formats away"
        )
    typed, disk_name = revisions.split(revisions_typed)
    found = [(commit, commit.disk(disk_name)) for commit in revisions.find_range(repo, typed)]
    names = [
        revisions.file_name(f"{disk.name}-{number:0{len(str(len(found)))}}-{commit.id[:12]}", "qcow2")
        for number, (commit, disk) in enumerate(found, 1)
    ]
    place = _folder(folder, [] if wanted.force else names)
    done: list[Exported] = []
    for (commit, disk), name in zip(found, names, strict=True):
        given = [*wanted.options]
        if done:
            base = f"{done[-1].commit.id}:{done[-1].disks[0]}"
            given.append(f"backing={base},backing_file={names[len(done) - 1].replace(',', ',,')}")
        wish = dataclasses.replace(wanted, format="qcow2", options=given)
        done.append(run(repo, f"{commit.id}:{disk.name}", str(place / name), wish, monitor))
    return done


def _folder(folder: str, names: Sequence[str]) -> Path:
    place = Path(folder)
    try:
        place.mkdir(exist_ok=True)
    except FileExistsError:
        raise errors.UsageError(f"{folder}: is not a directory", hint="name the directory for the chain") from None
    except FileNotFoundError as error:
        raise errors.NotFound("directory", str(place.parent), hint="create it first") from error
    except OSError as error:
        raise errors.from_os_error(error, folder) from error
    for name in names:
        if (place / name).exists():
            raise errors.VimgvcError(
                f"{place / name}: exists already", hint="name another directory, or replace it with --force"
            )
    return place


def _base(
    repo: repository.Repository, kind: kinds.Kind, monitor: Monitor
) -> tuple[kinds.Kind, disks.StoredDisk | None]:
    """The disk that a thin image lies on, taken out of the options `backing` (a revision) and `backing_file`."""
    revision = kind.options.get("backing")
    name = kind.options.get("backing_file")
    if revision is None and name is None:
        return kind, None
    if kind.format != "qcow2":
        raise errors.UsageError(f"{kind.format} has no option backing here", hint="only qcow2 has")
    if revision is None or name is None:
        missing = "backing=REV" if revision is None else "backing_file=NAME"
        raise errors.UsageError(
            f"a thin image needs {missing} as well",
            hint="backing says which commit lies below, backing_file the name of its image, as the new one will say it",
        )
    _, disk = revisions.find_disk(repo, revision)
    options = {key: value for key, value in kind.options.items() if key != "backing"}
    if "backing_fmt" not in options and "backing_format" not in options:
        options["backing_fmt"] = "raw" if detect.named_like(name) == "raw" else "qcow2"
    return dataclasses.replace(kind, options=options), repo.open_disk(disk, monitor)


def tag(source: str, kind: kinds.Kind, size: int) -> str:
    """The same for what leads to the same bytes."""
    said: Mapping[str, str] = kind.options
    text = repr((source, kind.format, sorted(said.items()), kind.compressed, size))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
