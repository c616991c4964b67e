"""The SFTP backend passes the suite of all backends on a real OpenSSH server."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.servers import sshd
from tests.sftp import conftest
from tests.suites import backend
from vimgvc.backends import files, protocol, sftp, sftp_url, skeleton


class OfSftp(backend.BackendSuite):
    """Directories are made without the server: what a test does not use it does not pay for."""

    kind = "plain"

    @pytest.fixture(autouse=True)
    def _use(self, server: sshd.Sshd) -> Iterator[None]:
        self.server = server
        self.opened: list[sftp.SftpBackend] = []
        yield
        for one in self.opened:
            one.close()

    def create(self, folder: pathlib.Path) -> protocol.Backend:
        root = str(folder / "repository")
        skeleton.make_root(files.RealFiles(), root)
        skeleton.make_areas(files.RealFiles(), root)
        address = sftp_url.parse(self.server.url(root, self.kind))
        self.opened.append(sftp.SftpBackend(address, os.environ, conftest.TRIED, conftest.QUICK))
        return self.opened[-1]

    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        root = sftp_url.parse(backend.url).path.decode()
        quarantine = pathlib.Path(root, "quarantine")
        return {
            str(path.relative_to(quarantine)): path.read_bytes() for path in quarantine.rglob("*") if path.is_file()
        }


class TestSftpBackend(OfSftp):
    pass


class TestBare(OfSftp):
    """N11: a server with nothing but version 3 of the protocol."""

    kind = "bare"

    @pytest.mark.deep
    def test_concurrent_use(self, backend: protocol.Backend) -> None:
        """As elsewhere; what threads share does not depend on the extensions."""
        super().test_concurrent_use(backend)
