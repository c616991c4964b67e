"""Who is logged in, to which host: by ssh's own configuration, and never to a host that nobody vouches for."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests import needs
from tests.servers import sshd
from tests.sftp.conftest import Open
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import registry


def configure(text: str) -> None:
    pathlib.Path(os.environ["HOME"], ".ssh", "config").write_text(text)


class TestHostKeys:
    @pytest.mark.parametrize("strict", ["yes", "no", "accept-new"])
    def test_n21_unknown(self, connect: Open, server: sshd.Sshd, root: pathlib.Path, strict: str) -> None:
        """N21: a host that is not in known_hosts is refused, whatever ssh's configuration says, and not added."""
        empty = root / "known_hosts"
        empty.touch()
        text = server.config.replace(str(server.known_hosts), str(empty)) + f"  StrictHostKeyChecking {strict}\n"
        configure(text)
        with pytest.raises(errors.RemoteError, match="SHA256:") as raised:
            connect(root).size(backend.pack(1))
        assert (raised.value.kind, raised.value.exit_code) == ("host key", 25)
        assert "known_hosts" in raised.value.hint
        assert empty.read_bytes() == b""

    def test_n21_changed(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """N21: a host with another key than known_hosts has is refused."""
        other = root / "known_hosts"
        other.write_text(f"[127.0.0.1]:{server.ports['plain']} {(server.folder / 'user_key.pub').read_text()}")
        configure(server.config.replace(str(server.known_hosts), str(other)))
        with pytest.raises(errors.RemoteError, match="could be somebody else") as raised:
            connect(root).size(backend.pack(1))
        assert raised.value.kind == "host key"

    def test_n21_another_kind_of_key(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """N21: a host that no longer has the kind of key that known_hosts has is refused."""
        keygen = needs.require_tool("ssh-keygen", "openssh-client")
        subprocess.run([keygen, "-q", "-t", "ecdsa", "-N", "", "-f", str(root / "other")], check=True)
        other = root / "known_hosts"
        other.write_text(f"[127.0.0.1]:{server.ports['plain']} {(root / 'other.pub').read_text()}")
        configure(server.config.replace(str(server.known_hosts), str(other)))
        with pytest.raises(errors.RemoteError) as raised:
            connect(root).size(backend.pack(1))
        # Servers may just hang up when there is no kind of key that both sides want.
        assert raised.value.kind in ("host key", "unreachable")

    def test_n21_switched_off(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """N21: a configuration that switches the check off is refused, with what to change."""
        configure(server.config.replace(str(server.known_hosts), "none"))
        with pytest.raises(errors.RemoteError, match="says not to check") as raised:
            connect(root).size(backend.pack(1))
        assert "known_hosts" in raised.value.hint

    def test_default_known_hosts(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """Without a word about it, ~/.ssh/known_hosts is what counts."""
        configure("".join(line for line in server.config.splitlines(True) if "UserKnownHosts" not in line))
        with pytest.raises(errors.RemoteError, match="could be somebody else"):
            connect(root).size(backend.pack(1))
        home = pathlib.Path(os.environ["HOME"], ".ssh", "known_hosts")
        home.write_bytes(server.known_hosts.read_bytes())
        assert list(connect(root).list("packs")) == []


class TestKeys:
    def test_n24_no_key(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """A user whose keys are not accepted is told so, with what to do; no password is asked."""
        configure(server.config.replace(str(server.identity), str(server.folder / "host_key")))
        with pytest.raises(errors.RemoteError, match="accepts none of the keys") as raised:
            connect(root).size(backend.pack(1))
        assert (raised.value.kind, raised.value.exit_code) == ("denied", 25)

    @pytest.fixture
    def agent(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        program = needs.require_tool("ssh-agent", "openssh-client")
        path = str(tmp_path_factory.mktemp("a") / "s")  # short: the path of a socket has 107 bytes
        process = subprocess.Popen([program, "-D", "-a", path], stdout=subprocess.DEVNULL)
        while not os.path.exists(path) and process.poll() is None:
            pass
        yield path
        process.terminate()
        process.wait()

    def test_agent(
        self, connect: Open, server: sshd.Sshd, root: pathlib.Path, agent: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key that only ssh-agent has is used."""
        add = needs.require_tool("ssh-add", "openssh-client")
        environ = os.environ | {"SSH_AUTH_SOCK": agent}
        subprocess.run([add, "-q", str(server.identity)], env=environ, check=True)
        configure(f"Host *\n  UserKnownHostsFile {server.known_hosts}\n")
        with pytest.raises(errors.RemoteError, match="accepts none of the keys"):
            connect(root).size(backend.pack(1))
        monkeypatch.setenv("SSH_AUTH_SOCK", agent)
        assert list(connect(root).list("packs")) == []

    def test_n22_encrypted_key(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """A key with a passphrase that no agent has is no key: it is not asked for, and nothing of it is shown."""
        key = root / "locked"
        keygen = needs.require_tool("ssh-keygen", "openssh-client")
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "a secret", "-f", str(key)], check=True)
        configure(server.config.replace(str(server.identity), str(key)))
        with pytest.raises(errors.RemoteError, match="accepts none of the keys"):
            connect(root).size(backend.pack(1))


class TestHosts:
    def test_aliases(self, server: sshd.Sshd, root: pathlib.Path) -> None:
        """Host, port, user and key may all come from ~/.ssh/config."""
        port = server.ports["plain"]
        configure(f"Host backup\n  HostName 127.0.0.1\n  Port {port}\n" + server.config)
        place = registry.open_backend(f"sftp://backup{root}x", create=True, environ=os.environ)
        assert place.put(backend.pack(1), [b"x"])
        assert place.url == f"sftp://backup{root}x"
        place.close()

    def test_jump(self, server: sshd.Sshd, root: pathlib.Path) -> None:
        """A host may be behind another one (ProxyJump); the key of each is checked."""
        port, jump = server.ports["plain"], server.ports["one_channel"]
        configure(
            f"Host inner\n  HostName 127.0.0.1\n  Port {port}\n  ProxyJump outer\n"
            f"Host outer\n  HostName 127.0.0.1\n  Port {jump}\n" + server.config
        )
        place = registry.open_backend(f"sftp://inner{root}x", create=True, environ=os.environ)
        assert place.put(backend.pack(1), [b"x"])
        place.close()

    def test_bad_configuration(self, connect: Open, server: sshd.Sshd, root: pathlib.Path) -> None:
        """A configuration that makes no sense is an error in one line."""
        configure(server.config + "  Port many\n")
        with pytest.raises(errors.RemoteError, match="ssh's configuration"):
            connect(root).size(backend.pack(1))

    def test_home(self, server: sshd.Sshd) -> None:
        """`/~/` counts from where the server logs the user in."""
        home = pathlib.Path(os.path.expanduser(f"~{os.environ.get('LOGNAME', 'root')}"))
        name = f"vimgvc-test-{os.getpid()}"
        url = f"sftp://127.0.0.1:{server.ports['plain']}/~/{name}/deep"
        place = registry.open_backend(url, create=True, environ=os.environ)
        try:
            assert place.url == url
            assert place.put(backend.pack(1), [b"x"])
            made = [path for path in (home, pathlib.Path("/root")) if (path / name / "deep" / "packs").is_dir()]
            assert made
        finally:
            place.close()
            subprocess.run(["rm", "-rf", str(made[0] / name)], check=True)
