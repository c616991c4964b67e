"""Real servers on this machine, empty places in them, and how each tool names such a place.

An S3 server (Ceph's gateway, which keeps everything in memory) and an SFTP server (OpenSSH); both are those
of the tests.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchlib import machine
from tests.servers import environment, processes, s3_requests, shared, sshd

PACKAGES = {
    "radosgw": "radosgw",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
}
REMOTE = "FAR"  # what rclone calls a place


@dataclass(frozen=True)
class Bucket:
    client: s3_requests.Client
    bucket: str
    host: str
    port: int
    name: str = "S3"

    def env(self) -> Mapping[str, str]:
        keys = {"ACCESS_KEY_ID": self.client.access, "SECRET_ACCESS_KEY": self.client.secret}
        rclone = {"TYPE": "s3", "PROVIDER": "Ceph", "ENDPOINT": self._endpoint, **keys}
        return {
            **{f"AWS_{key}": value for key, value in keys.items()},
            "AWS_REGION": self.client.region,
            "AWS_DEFAULT_REGION": self.client.region,
            **{f"RCLONE_CONFIG_{REMOTE}_{key}": value for key, value in rclone.items()},
        }

    @property
    def _endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    def url(self) -> str:
        return f"s3://{self.bucket}/vms?endpoint={self._endpoint}"

    def restic(self) -> str:
        return f"s3:{self._endpoint}/{self.bucket}/restic"

    def rclone(self) -> str:
        return f"{REMOTE}:{self.bucket}/rclone"

    def through(self, port: int) -> Bucket:
        return Bucket(self.client, self.bucket, self.host, port)

    def packs(self) -> int:
        """How many there are; at most a thousand."""
        return len(self.client.keys(self.bucket, "vms/packs/"))


@dataclass(frozen=True)
class Folder:
    server: sshd.Sshd
    path: Path
    host: str
    port: int
    name: str = "SFTP"

    def env(self) -> Mapping[str, str]:
        rclone = {
            "TYPE": "sftp",
            "HOST": self.host,
            "PORT": str(self.port),
            "USER": getpass.getuser(),
            "KEY_FILE": str(self.server.identity),
            "KNOWN_HOSTS_FILE": str(self._known_hosts),
        }
        return {
            **{f"RCLONE_CONFIG_{REMOTE}_{key}": value for key, value in rclone.items()},
            "BORG_RSH": f"ssh -F {self.config}",
        }

    @property
    def _known_hosts(self) -> Path:
        """For tools that know a host by its port."""
        file = self.server.folder / "known_hosts_ports"
        file.write_text(self.server.known_hosts.read_text().replace(self.host, f"[{self.host}]:{self.port}"))
        return file

    @property
    def config(self) -> Path:
        """For tools that call ssh."""
        file = self.server.folder / "config"
        file.write_text(self.server.config)
        return file

    def url(self) -> str:
        return f"sftp://{self.host}:{self.port}{self.path}/vms"

    def restic(self) -> str:
        return f"sftp://{getpass.getuser()}@{self.host}:{self.port}/{self.path}/restic"

    def rclone(self) -> str:
        return f"{REMOTE}:{self.path}/rclone"

    def borg(self) -> str:
        return f"ssh://{getpass.getuser()}@{self.host}:{self.port}{self.path}/borg"

    def through(self, port: int) -> Folder:
        return Folder(self.server, self.path, self.host, port)


#: An empty place; `through` is the same one, reached at another port.
Place = Bucket | Folder


class Servers:
    """Both servers, while they are used; `bucket` and `folder` make places."""

    def __init__(self, work: Path, facts: Mapping[str, Mapping[str, str]]) -> None:
        self._work, self._numbers = work, itertools.count()
        self._client = s3_requests.Client(**facts["rgw"])
        self._sshd = sshd.Sshd.of(dict(facts["sshd"]))

    def bucket(self) -> Bucket:
        name = f"bench-{next(self._numbers)}"
        self._client.make_bucket(name)
        host, port = self._client.host.split(":")
        return Bucket(self._client, name, host, int(port))

    def folder(self) -> Folder:
        path = Path(tempfile.mkdtemp(prefix="far-", dir=self._work))
        return Folder(self._sshd, path, "127.0.0.1", self._sshd.ports["plain"])

    def configure(self, home: Path) -> None:
        """What a user has who logs in to the SFTP server."""
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        (home / ".ssh/config").write_text(self._sshd.config)


@contextlib.contextmanager
def servers(work: Path) -> Iterator[Servers]:
    """Both, with nothing in them. Raises `BenchError`."""
    machine.require(PACKAGES)
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="servers-", dir=work))  # they end behind this, in their own time
    try:
        with contextlib.ExitStack() as stack:
            yield Servers(work, {kind: stack.enter_context(shared.server(kind, folder)) for kind in ("rgw", "sshd")})
    except processes.Failed as failed:
        raise machine.BenchError(str(failed)) from None


def rclone() -> str | None:
    """The program, of PATH or of the servers of the tests."""
    with contextlib.suppress(processes.Failed):
        found = environment.programs() / "rclone"
        if found.exists():
            return str(found)
    return shutil.which("rclone")
