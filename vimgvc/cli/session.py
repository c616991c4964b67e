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

    def repository(self, *, durable: bool = True, keep: bool = True) -> access.Repository:
        """The open repository. Raises `NoRepository`, `NoKey`, `Rollback` and what opening raises.

        Without `keep` nothing counts that was kept of it on this machine.
        """
        from vimgvc.commands import access

        found = self._open(durable=durable, keep=keep, adding=False)
        assert isinstance(found, access.Repository)
        return found

    def _open(self, *, durable: bool, keep: bool, adding: bool) -> access.Repository | access.Outbox:
        from vimgvc.cli import progress, sources
        from vimgvc.commands import access, elsewhere

        # read once: it may be a pipe
        given = sources.given(self.options, self.environment)
        told = progress.Plain(self.out)
        if adding and given is not None and access.only_adds(given):
            return access.open_outbox(self.location(), self.environment, given, told, durable=durable)
        found = access.open_repository(
            self.location(),
            self.environment,
            given,
            sources.asked,
            told,
            wish=self.wish(),
            durable=durable,
            keep=keep,
        )
        found.elsewhere = elsewhere.Elsewhere(found, self.environment, told)
        return found

    def adding(self, *, durable: bool = True) -> access.Repository | access.Outbox:
        """The open repository, or with a write key what it opens. Raises as `repository`."""
        return self._open(durable=durable, keep=True, adding=True)

    def wish(self) -> access.Wish:
        """What the user says of the state of a repository."""
        from vimgvc.commands import access

        return access.Wish(self.options.accept_rollback, self.options.expect_head)

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
    environment = dict(os.environ)
    limits = {"VIMGVC_LIMIT_UPLOAD": given.limit_upload, "VIMGVC_LIMIT_DOWNLOAD": given.limit_download}
    environment |= {name: rate for name, rate in limits.items() if rate}
    out = output.Output(sys.stdout, sys.stderr, os.environ, json=given.json, quiet=given.quiet, verbose=given.verbose)
    return Session(given, out, environment)
