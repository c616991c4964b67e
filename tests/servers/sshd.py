"""A real OpenSSH server on the loopback device.

It has a port for each of `KINDS`, which differ in what its SFTP server allows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil

import pytest

from tests import needs
from tests.servers import processes

PACKAGE = "openssh-server"

#: What is behind each port: the arguments of OpenSSH's internal SFTP server, and more of sshd_config.
KINDS: dict[str, tuple[str, str]] = {
    "plain": ("", ""),
    # As a backup server might be set up: nothing can be taken away or put over something.
    "append_only": ("-P remove,rename,posix-rename,rmdir,setstat,fsetstat,lsetstat,symlink", ""),
    "bare": ("-P hardlink,fsync,posix-rename,statvfs,limits", ""),
    "no_sync": ("-P fsync", ""),
    "read_only": ("-R", ""),
    "no_files": ("-P write", ""),
    "one_channel": ("", "MaxSessions 1"),
    "three_channels": ("", "MaxSessions 3"),
}


@dataclasses.dataclass(frozen=True)
class Sshd:
    """`folder` has its keys; `config` is what a user's ~/.ssh/config must say."""

    folder: pathlib.Path
    ports: dict[str, int]

    @classmethod
    def of(cls, facts: dict[str, str]) -> Sshd:
        return cls(pathlib.Path(facts["folder"]), {kind: int(facts[kind]) for kind in KINDS})

    @property
    def known_hosts(self) -> pathlib.Path:
        return self.folder / "known_hosts"

    @property
    def identity(self) -> pathlib.Path:
        return self.folder / "user_key"

    @property
    def config(self) -> str:
        lines = (f"IdentityFile {self.identity}", f"UserKnownHostsFile {self.known_hosts}", "IdentitiesOnly yes")
        return "Host *\n" + "".join(f"  {line}\n" for line in lines)

    def url(self, path: pathlib.Path | str, kind: str = "plain") -> str:
        return f"sftp://127.0.0.1:{self.ports[kind]}{path}"


def use(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test's own home directory what ssh needs to log in."""
    home = pathlib.Path(os.environ["HOME"])
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "config").write_text(server.config)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def run(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Start one; see `tests.servers.supervisor`."""
    for name in ("host_key", "user_key"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(folder / name)]
        processes.run(made)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    # Without a port: at whichever port of this machine the key is shown, directly or through a proxy.
    (folder / "known_hosts").write_text("127.0.0.1 " + (folder / "host_key.pub").read_text())
    if os.geteuid() == 0:
        pathlib.Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    ports = {kind: processes.free_port() for kind in KINDS}
    log, config = folder / "log", folder / "sshd_config"
    config.write_text(_config(folder, ports))
    process = processes.start(
        stack, log, [needs.require_tool("sshd", PACKAGE), "-D", "-e", "-f", f"{folder}/sshd_config"]
    )
    for port in ports.values():
        processes.wait_until(functools.partial(processes.listens, port), process, log)
    return {"folder": str(folder), **{kind: str(port) for kind, port in ports.items()}}


def _config(folder: pathlib.Path, ports: dict[str, int]) -> str:
    lines = [
        *(f"ListenAddress 127.0.0.1:{port}" for port in ports.values()),
        f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/pid",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        "UsePAM no",
        "MaxStartups 100",
        "Subsystem sftp internal-sftp",
    ]
    for kind, (arguments, more) in KINDS.items():
        lines.append(f"Match LocalPort {ports[kind]}")
        if arguments:
            lines.append(f"  ForceCommand internal-sftp {arguments}")
        if more:
            lines.append(f"  {more}")
    return "".join(f"{line}\n" for line in lines)
