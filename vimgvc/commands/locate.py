"""Which repository a command means."""

from __future__ import annotations

import os
import pathlib

from vimgvc import errors

#: The directory that `init` makes, and that is looked for upwards.
NAME = ".vimgvc"
_HINT = "make one with 'vimgvc init', or name one with --repo DIR or VIMGVC_REPOSITORY"


def named(location: str) -> str:
    """The repository at `location`: the directory itself, the `.vimgvc` in it, or a bundle. Raises `NoRepository`."""
    if "://" in location:
        return location
    path = pathlib.Path(location)
    if path.is_file():
        from vimgvc.backends import bundle

        if bundle.is_bundle(path):
            return location
    for candidate in (path, path / NAME):
        if _is_repository(candidate, meant=True):
            return str(candidate)
    missing = "neither a directory nor a bundle" if path.exists() else "no such directory"
    what = "no repository there" if path.is_dir() else missing
    raise errors.NoRepository(f"{location}: {what}", hint=_HINT)


def nearest(start: pathlib.Path) -> str:
    """The repository in `start` or the nearest directory above it. Raises `NoRepository`."""
    for directory in (start, *start.parents):
        for candidate, meant in ((directory / NAME, True), (directory, False)):
            if _is_repository(candidate, meant=meant):
                return str(candidate)
    raise errors.NoRepository(f"no repository here or above ({start})", hint=_HINT)


def _is_repository(path: pathlib.Path, *, meant: bool) -> bool:
    """Whether `path` looks like one; a `config` that is lost must not hide the rest.

    Where that cannot be seen: an error if the directory is `meant` to be one, else it is not.
    """
    try:
        return (path / "config").is_file() or ((path / "packs").is_dir() and any((path / "keys").iterdir()))
    except FileNotFoundError:
        return False
    except OSError as error:
        if meant and os.path.isdir(path):  # noqa: PTH112 - pathlib's raises what is being handled here
            raise errors.from_os_error(error, str(path)) from error
        return False
