"""One sshd for each process of the run, and backends that end with their test."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from tests import needs
from tests.servers import proxy, s3_places, sshd
from vimgvc.backends import files, sftp, sftp_link, sftp_url, skeleton

#: Short pauses, so that a test of many broken connections ends soon.
QUICK = sftp_link.Patience(connect=20, stall=60, give_up=60, pause=0.01, longest_pause=0.05)

#: Believes of every place that it is safe: what a test does not ask about it does not pay for.
TRIED = s3_places.Tried()

Open = Callable[..., sftp.SftpBackend]


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    base = pathlib.Path(tmp_path_factory.getbasetemp())
    shared = base.parent if base.name.startswith("popen-") else base  # the same for all processes of a run
    programs = (("sshd", sshd.PACKAGE), ("ssh-keygen", "openssh-client"))
    with needs.require_server("sshd", shared, *programs) as facts:
        yield sshd.Sshd.of(facts)


@pytest.fixture
def server(_running: sshd.Sshd, monkeypatch: pytest.MonkeyPatch) -> sshd.Sshd:
    """The server, and a home directory that may log in to it."""
    sshd.use(_running, monkeypatch)
    return _running


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """An empty place for blobs with its areas, made without the server."""
    path = tmp_path / "repository"
    skeleton.make_root(files.RealFiles(), str(path))
    skeleton.make_areas(files.RealFiles(), str(path))
    return path


@pytest.fixture
def connect(server: sshd.Sshd) -> Iterator[Open]:
    """`connect(root, kind, port=, patience=)`: a backend that is closed after the test."""
    opened: list[sftp.SftpBackend] = []

    def make(
        root: pathlib.Path, kind: str = "plain", *, port: int = 0, patience: sftp_link.Patience = QUICK
    ) -> sftp.SftpBackend:
        url = f"sftp://127.0.0.1:{port}{root}" if port else server.url(root, kind)
        opened.append(sftp.SftpBackend(sftp_url.parse(url), os.environ, TRIED, patience))
        return opened[-1]

    yield make
    for backend in opened:
        backend.close()


@pytest.fixture
def flaky(server: sshd.Sshd) -> Iterator[proxy.Proxy]:
    """A way to the server that can be broken."""
    with proxy.Proxy("127.0.0.1", server.ports["plain"]) as way:
        yield way
