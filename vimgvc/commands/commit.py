"""`vimgvc commit`: disk images become a commit."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vimgvc import errors
from vimgvc.commands import access as keys
from vimgvc.commands import images as opening
from vimgvc.commands import machines, stamps
from vimgvc.images import in_place_target, lenient, raw
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import ingest
from vimgvc.repo import disk as disks
from vimgvc.repo import inbox, repository

Effort = repository.Effort
Result = repository.CommitResult
Delivered = inbox.Delivered
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Image:
    """The disk called `name` in the commit, in the file or device `path`."""

    name: str
    path: str


def name_images(arguments: Sequence[str]) -> list[Image]:
    """What the user means by each IMAGE or NAME=IMAGE. Raises `UsageError` where two disks get one name."""
    images = [_name(argument) for argument in arguments]
    for at, image in enumerate(images):
        for other in images[:at]:
            if image.name == other.name:
                raise errors.UsageError(
                    f"two disks would be called '{image.name}': {other.path} and {image.path}",
                    hint=f"name one of them yourself: NAME={image.path}",
                )
    return images


def _name(argument: str) -> Image:
    match = _NAMED.fullmatch(argument)
    if match and not pathlib.Path(argument).exists():
        return Image(match["name"], match["path"])
    return Image(reflog.name_from_stem(pathlib.PurePath(argument).stem), argument)


def name_files(arguments: Sequence[str]) -> list[Image]:
    """What is meant by each --attach FILE or NAME=FILE: called like the file, or NAME. Raises `UsageError`."""
    files = []
    for argument in arguments:
        match = _NAMED.fullmatch(argument)
        if match and not pathlib.Path(argument).exists():
            files.append(Image(match["name"], match["path"]))
        else:
            files.append(Image(_text("file's name", pathlib.PurePath(argument).name), argument))
    return files


@dataclass(frozen=True, slots=True)
class Step:
    """One commit to be made: how the images are opened for it, and what it says, if not the usual.

    `snapshot`: what to call the internal snapshot that it is to be of; it is not recorded twice.
    """

    access: opening.Access
    message: str | None
    snapshot: str | None = None


def steps(
    images: Sequence[Image], access: opening.Access, message: str | None, *, all_snapshots: bool
) -> Iterator[Step]:
    """The commits to be made, in order: with `all_snapshots` one for each internal snapshot, then the usual one.

    Raises `UsageError` unless that is one image that can have some, and what opening it raises.
    """
    if all_snapshots:
        if len(images) != 1 or access.snapshot:
            what = "is about one image" if len(images) != 1 else "and --snapshot exclude each other"
            raise errors.UsageError(f"--all-snapshots {what}", hint="commit the others on their own")
        for snapshot in opening.snapshots(images[0].path, access):
            title = f"snapshot '{snapshot.name}' of {images[0].name}"
            yield Step(
                replace(access, snapshot=snapshot.id or snapshot.name),
                title if message is None else f"{message} ({title})",
                title,
            )
    yield Step(access, message)


@dataclass(frozen=True, slots=True)
class Opened:
    """What is to be recorded: disks, and files beside them."""

    disks: list[ingest.Source]
    files: list[ingest.Source]


@contextlib.contextmanager
def open_images(
    images: Sequence[Image], access: opening.Access, monitor: Monitor, files: Sequence[Image] = ()
) -> Iterator[Opened]:
    """The images opened for reading, and `files` to be attached; what the user should know is told to `monitor`.

    An archive with a machine stands for all its disks, and its description.
    Raises `NotFound`, `UnsafeImage`, `UsageError`, `Unsupported`, `BackendError`.
    """
    with contextlib.ExitStack() as stack:
        found = Opened([], [])
        for image in images:
            if in_place_target.is_marked(image.path):
                monitor.problem(
                    f"{image.path}: a restore to it in place was interrupted; it is a mixture of two states"
                )
            if machines.is_machine(image.path, access):
                machine = stack.enter_context(machines.open_machine(image.path, access, monitor))
                found.disks.extend(machine.disks)
                found.files.extend(machine.files)
                continue
            opened = opening.open_image(image.path, access)
            stack.callback(opened.reader.close)
            for note in opened.notes:
                monitor.note(opening.about(image.path, note))
            found.disks.append(ingest.Source(image.name, opened.reader, opened.container))
        for file in files:
            try:
                reader = raw.RawReader(file.path)
            except errors.NotFound as error:
                raise errors.NotFound("file", file.path) from error
            stack.callback(reader.close)
            found.files.append(ingest.Source(file.name, reader, {}))
        yield found


def request(
    images: Sequence[Image],
    *,
    branch: str | None,
    message: str | None,
    author: str,
    host: str,
    allow_empty: bool,
    once: bool = False,
) -> repository.CommitRequest:
    """What the commit is to say, with the defaults filled in. Raises `UsageError` before any work is done."""
    if message is not None and not message.strip():
        raise errors.UsageError("the message is empty", hint="say what changed, or leave -m away")
    names = ", ".join(image.name for image in images)
    return repository.CommitRequest(
        branch=reflog.check_name(images[0].name if branch is None else branch),
        message=f"snapshot of {names}" if message is None else _text("message", message),
        author=_text("author", author),
        host=host,
        allow_empty=allow_empty,
        once=once,
    )


def _text(what: str, argument: str) -> str:
    """An argument of the command line as text, whatever encoding the locale made Python assume."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError:
        raise errors.UsageError(f"the {what} is not valid UTF-8", hint="check the encoding of your terminal") from None


def record(
    place: repository.Repository | inbox.Outbox,
    environment: Mapping[str, str],
    opened: Opened,
    wanted: repository.CommitRequest,
    *,
    effort: repository.Effort,
    monitor: Monitor,
    verify_source: bool = False,
) -> Result | Delivered:
    """As `run`; with a write key a delivery instead of a commit."""
    if isinstance(place, repository.Repository):
        return run(place, environment, opened, wanted, effort=effort, monitor=monitor, verify_source=verify_source)
    done = place.deliver((opened.disks, opened.files), wanted, effort, monitor)
    if verify_source:
        _verify_all(done.there, opened, done.result, effort, monitor)
    return done


def run(
    repo: repository.Repository,
    environment: Mapping[str, str],
    opened: Opened,
    wanted: repository.CommitRequest,
    *,
    effort: repository.Effort,
    monitor: Monitor,
    verify_source: bool = False,
) -> Result:
    """Record the disks; durable on return. Raises what `Repository.commit` raises.

    With `verify_source` everything is read once more afterwards, holes too, and compared: raises
    `IntegrityError` where a source does not read twice the same, or told a hole where it has data.
    """
    states = [stamps.look_at(source.reader) for source in opened.disks]
    result = repo.commit(opened.disks, wanted, effort, monitor, attachments=opened.files)
    if result.created:
        keys.note_history(repo, environment, monitor)
    read = zip(states, result.commit.disks, strict=True)
    stamps.Stamps.of_user(environment, repo, monitor).remember_read(read, result.commit)
    if verify_source:
        _verify_all(repo, opened, result, effort, monitor)
    return result


def _verify_all(repo: repository.Repository, opened: Opened, result: Result, effort: Effort, monitor: Monitor) -> None:
    for source, stored in zip([*opened.disks, *opened.files], result.commit.stored(), strict=True):
        _verify(repo.open_disk(stored, monitor), source, result.commit.id, effort.threads, monitor)


def _verify(
    stored: disks.StoredDisk, source: ingest.Source, commit_id: str, threads: int | None, monitor: Monitor
) -> None:
    try:
        stored.matches(lenient.AllData(source.reader), monitor, threads)
    except errors.ImageDamaged:
        raise
    except errors.IntegrityError as error:
        raise errors.IntegrityError(
            f"commit {commit_id[:12]}, disk {source.name}",
            f"the source reads differently now: {error}",
            hint="do not trust this commit; check the disk and the memory of the machine that holds the image",
        ) from error
