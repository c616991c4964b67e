"""One run of the program: its options, where its words go, its repository and its progress."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimgvc import errors, monitor
from vimgvc.cli import options, output
from vimgvc.commands import locate

if TYPE_CHECKING:
    from vimgvc.commands import access


@dataclass(frozen=True, slots=True)
class Session:
    options: options.Globals
    out: output.Output
    environment: Mapping[str, str]

    def location(self) -> str:
        """Where the repository is: --repo, VIMGVC_REPOSITORY, or the nearest one upwards."""
        name = self.options.repo or self.environment.get("VIMGVC_REPOSITORY")
        found = locate.named(name) if name else locate.nearest(pathlib.Path.cwd())
        self.out.detail(f"repository {found}")
        return found

    def new_location(self, directory: str | None) -> str:
        """Where `init` makes one: DIR, --repo, VIMGVC_REPOSITORY, or .vimgvc here."""
        return directory or self.options.repo or self.environment.get("VIMGVC_REPOSITORY") or locate.NAME

    def repository(self, *, durable: bool = True) -> access.Repository:
        """The open repository. Raises `NoRepository`, `NoKey`, `Rollback` and what opening raises."""
        from vimgvc.cli import progress, sources
        from vimgvc.commands import access

        given = sources.given(self.options, self.environment)
        return access.open_repository(
            self.location(), self.environment, given, sources.asked, progress.Plain(self.out), durable=durable
        )

    @contextlib.contextmanager
    def progress(self) -> Iterator[monitor.Monitor]:
        from vimgvc.cli import progress

        with progress.on_terminal(self.out) as shown:
            yield shown


def begin(given: options.Globals) -> Session:
    """Check the common options and change to the directory of -C."""
    given.check()
    if given.start:
        try:
            os.chdir(given.start)
        except OSError as error:
            raise errors.UsageError(
                f"cannot change to {given.start}: {error.strerror}", hint="check the path after -C"
            ) from None
    out = output.Output(sys.stdout, sys.stderr, os.environ, json=given.json, quiet=given.quiet, verbose=given.verbose)
    return Session(given, out, os.environ)
