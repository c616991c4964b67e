"""`vimgvc commit`: disk images become a commit."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import access
from vimgvc.images import registry
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

Effort = repository.Effort
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


@contextlib.contextmanager
def open_images(images: Sequence[Image], declared: str | None) -> Iterator[list[ingest.Source]]:
    """The images opened for reading; `declared` is the format that the user gave.

    Raises `NotFound`, `UnsafeImage`, `UsageError`, `BackendError`.
    """
    with contextlib.ExitStack() as stack:
        sources = []
        for image in images:
            reader, container = registry.open_image(image.path, declared)
            stack.callback(reader.close)
            sources.append(ingest.Source(image.name, reader, container))
        yield sources


def request(
    images: Sequence[Image], *, branch: str | None, message: str | None, author: str, host: str, allow_empty: bool
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
    )


def _text(what: str, argument: str) -> str:
    """An argument of the command line as text, whatever encoding the locale made Python assume."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError:
        raise errors.UsageError(f"the {what} is not valid UTF-8", hint="check the encoding of your terminal") from None


def run(
    repo: repository.Repository,
    environment: Mapping[str, str],
    sources: Sequence[ingest.Source],
    wanted: repository.CommitRequest,
    *,
    effort: repository.Effort,
    monitor: Monitor,
) -> repository.CommitResult:
    """Record the disks; durable on return. Raises what `Repository.commit` raises."""
    result = repo.commit(sources, wanted, effort, monitor)
    if result.created:
        access.note_history(repo, environment, monitor)
    return result
