"""Opening images by name and format. The one place that knows which format is read by what."""

from __future__ import annotations

from vimgvc.disk import protocol
from vimgvc.images import detect, raw


def open_image(path: raw.Path, declared: str | None = None) -> tuple[protocol.Source, dict[str, str]]:
    """The disk in an image, and what a commit records about its container.

    `declared`: the format the user said, else the content decides. Opened once: what is judged is what
    is read. Raises what `raw.RawReader` and `detect.check_declared_reader` raise.
    """
    reader = raw.RawReader(path)
    try:
        detect.check_declared_reader(reader, reader.path, declared)
    except BaseException:
        reader.close()
        raise
    return reader, {"format": "raw"}
