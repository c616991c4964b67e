"""`vimgvc convert`: an image becomes an image in another format, without a repository."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from vimgvc import errors
from vimgvc.commands import contents, export, images, kinds, streams, targets
from vimgvc.monitor import Monitor


@dataclass(frozen=True, slots=True)
class Converted:
    """`container` is what the image was; the rest as of `export.Exported`."""

    image: str
    container: dict[str, object]
    kind: kinds.Kind
    size: int
    target: str
    compared: bool
    resumed: bool
    bytes_written: int
    seconds: float


def run(
    image: str,
    access: images.Access,
    target: str,
    wanted: export.Wanted,
    monitor: Monitor,
    *,
    put: streams.Put | None = None,
) -> Converted:
    """Write the disk in `image` to `target`, of which `-` is `put`.

    Raises what opening raises, and `export.run`.
    """
    started = time.monotonic()
    _check_different(image, target)
    opened = images.open_image(image, access)
    try:
        for note in opened.notes:
            monitor.note(images.about(image, note))
        kind = kinds.choose(target, opened.container, wanted.format, wanted.options, compressed=wanted.compressed)
        for warning in filter(None, [kinds.opens(opened.container, kind)]):
            monitor.problem(warning)
        if {"backing", "backing_file"} & set(kind.options):
            raise errors.UsageError("only export writes thin images", hint="commit the image, then export it")
        content = contents.Read(image, opened.reader, monitor, wanted.threads, size=wanted.size)
        if target == kinds.STDOUT and put is not None:
            written = targets.Written(streams.write(content, kind, put, wanted.threads, monitor))
            opened.reader.check_unchanged()
            compared = False
        else:
            place = targets.Place(target, export.tag(str(Path(image).resolve()), kind, content.size), wanted.force)
            written, compared = targets.write(content, kind, place, wanted.effort, monitor), wanted.compare
    finally:
        opened.reader.close()
    return Converted(
        image,
        opened.container,
        kind,
        content.size,
        target,
        compared,
        written.resumed,
        written.bytes_written,
        time.monotonic() - started,
    )


def _check_different(image: str, target: str) -> None:
    """Raises `UsageError` when the image would be replaced by what is made of it."""
    try:
        same = os.path.samestat(Path(image).stat(), Path(target).stat())
    except OSError:
        return
    if same:
        raise errors.UsageError(f"{target} is the image itself", hint="name another target")
