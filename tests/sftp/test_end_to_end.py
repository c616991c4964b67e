"""A repository on an SFTP server, used by the program as a user does."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.servers import proxy, sshd


class User:
    """Runs the program in `folder`, with a key file there and `url` as repository."""

    def __init__(self, folder: pathlib.Path, url: str, key: str = "disks.key") -> None:
        self.folder = folder
        self.environ = os.environ | {"VIMGVC_REPOSITORY": url}
        self.command = [sys.executable, "-m", "vimgvc", "--key-file", key]
        if not (folder / key).exists():
            (folder / key).touch(mode=0o600)
            (folder / key).write_bytes(bytes(range(32)))

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.mark.timeout(600)
def test_n24_a_users_day(server: sshd.Sshd, tmp_path: pathlib.Path, seed: int) -> None:
    """N24: init, commit, log, restore and verify work over SFTP where nothing may be removed or renamed."""
    rng = np.random.default_rng(seed)
    url = server.url(tmp_path / "remote" / "repository", "append_only")
    user = User(tmp_path, url)
    user.run("init", url)
    assert "already" in user.run("init", url, expect=2).stderr
    image = bytearray(rng.bytes(5 << 20)) + bytes(3 << 20)
    (tmp_path / "vm.img").write_bytes(image)
    user.run("commit", "vm.img", "-m", "first")
    image[1 << 20 : (1 << 20) + 4096] = rng.bytes(4096)
    (tmp_path / "vm.img").write_bytes(image)
    user.run("commit", "vm.img", "-m", "second")
    assert [line for line in user.run("log").stdout.splitlines() if "second" in line]
    user.run("restore", "vm", "back.img")
    assert (tmp_path / "back.img").read_bytes() == image
    user.run("verify", "--data")


@pytest.mark.timeout(600)
def test_n24_a_host_that_only_adds(server: sshd.Sshd, tmp_path: pathlib.Path, seed: int) -> None:
    """N24: with a write key, over a login that removes nothing, a host delivers; who holds the root key admits it."""
    image = np.random.default_rng(seed).bytes(3 << 20) + bytes(2 << 20)
    (tmp_path / "db.img").write_bytes(image)
    here = User(tmp_path, str(tmp_path / "repository"))
    here.run("init", str(tmp_path / "repository"))
    here.run("key", "add", "--write-only", "web1.key", "--label", "web1")
    (tmp_path / "repository" / "inbox").rmdir()  # as in one that was made before there were deliveries
    host = User(tmp_path, server.url(tmp_path / "repository", "append_only"), "web1.key")
    for message in ("first", "second"):
        host.run("commit", "db.img", "-m", message)
    host.run("restore", "web1/db", "back.img", expect=12)
    assert here.run("admit").stdout.count("admitted") == 2
    assert here.run("admit").stdout == "nothing waits\n"
    assert [line.split()[-1] for line in here.run("log", "--oneline").stdout.splitlines()] == ["second", "first"]
    here.run("restore", "web1/db", "back.img")
    assert (tmp_path / "back.img").read_bytes() == image
    here.run("verify", "--data")


@pytest.mark.timeout(600)
def test_a_remote(server: sshd.Sshd, tmp_path: pathlib.Path, seed: int) -> None:
    """A remote on a server: made, pushed to twice, cloned; what comes back is what was committed."""
    url, image = server.url(tmp_path / "away"), np.random.default_rng(seed).bytes(3 << 20)
    (tmp_path / "vm.img").write_bytes(image)
    user = User(tmp_path, str(tmp_path / "here"))
    user.run("init", str(tmp_path / "here"))
    user.run("commit", "vm.img")
    user.run("remote", "add", "away", url)
    user.run("push", "away")
    user.run("push", "away")
    user.run("clone", url, str(tmp_path / "back"))
    User(tmp_path, str(tmp_path / "back")).run("restore", "vm", "back.img")
    assert (tmp_path / "back.img").read_bytes() == image


@pytest.mark.timeout(600)
def test_only_metadata(server: sshd.Sshd, tmp_path: pathlib.Path, seed: int) -> None:
    """Data that was left on a server is read from there; without it that is told (25), and a pull brings it."""
    rng = np.random.default_rng(seed)
    away, image = tmp_path / "away", bytearray(rng.bytes(6 << 20))
    user = User(tmp_path, str(tmp_path / "here"))
    user.run("init", str(tmp_path / "here"))
    for number in range(2):
        image[number << 20 : (number << 20) + 4096] = rng.bytes(4096)
        (tmp_path / f"state{number}.img").write_bytes(image)
        user.run("commit", f"vm={tmp_path}/state{number}.img", "--branch", "vm")
    user.run("remote", "add", "away", server.url(away))
    user.run("push", "away")
    laptop = User(tmp_path, str(tmp_path / "laptop"))
    laptop.run("clone", "--only-metadata", server.url(away), str(tmp_path / "laptop"))
    assert sum(path.stat().st_size for path in (tmp_path / "laptop").rglob("*")) < 3 << 20
    laptop.run("restore", "vm~1", "first.img")
    assert (tmp_path / "first.img").read_bytes() == (tmp_path / "state0.img").read_bytes()
    away.rename(tmp_path / "gone")
    assert "remote 'away'" in laptop.run("restore", "vm", "second.img", expect=25).stderr
    laptop.run("diff", "vm~1", "vm")
    laptop.run("verify", "--data")
    (tmp_path / "gone").rename(away)
    laptop.run("pull")
    away.rename(tmp_path / "gone")
    laptop.run("restore", "vm", "second.img")
    assert (tmp_path / "second.img").read_bytes() == image
    assert "not here" not in laptop.run("verify", "--data").stdout


@pytest.mark.timeout(300)
def test_gc(server: sshd.Sshd, tmp_path: pathlib.Path, seed: int) -> None:
    """What goes from a server is what gc said would go, to the byte; N24: who may only add is told so, first."""
    rng = np.random.default_rng(seed)
    states = [rng.bytes(1 << 20) + bytes(number + 1) for number in range(3)]
    root = tmp_path / "repository"
    user, adds = (User(tmp_path, server.url(root, kind)) for kind in ("plain", "append_only"))
    user.run("init")
    for state in states:
        (tmp_path / "vm.img").write_bytes(state)
        user.run("commit", "vm.img")
    user.run("forget", "vm~2", "vm~1", "--force")
    there = _files(root)
    refused = adds.run("gc", "--force", expect=25).stderr
    assert "gc lacks the right to delete" in refused
    assert len(refused.splitlines()) == 2
    assert _files(root) == there
    said = json.loads(user.run("gc", "--dry-run", "--json").stdout)
    assert _files(root) == there
    done = json.loads(user.run("gc", "--force", "--json").stdout)
    assert {**said, "dry_run": False, "needs_force": done["needs_force"], "seconds": done["seconds"]} == done
    assert done["packs_deleted"] > 0
    assert sum(there.values()) - sum(_files(root).values()) == done["freed_bytes"] > 2 << 20
    user.run("verify", "--data")
    user.run("restore", "vm", "back.img")
    assert (tmp_path / "back.img").read_bytes() == states[-1]
    assert "nothing to remove" in user.run("gc").stdout


def _files(root: pathlib.Path) -> dict[str, int]:
    """The blobs that count, with their sizes; a second name of one is none."""
    found = {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    return {name: size for name, size in found.items() if not name.startswith("gc/") and ".tmp-" not in name}


def test_wrong_places(server: sshd.Sshd, tmp_path: pathlib.Path) -> None:
    """What is no repository, or cannot be reached, is one line, a hint and the right exit code."""
    nothing = User(tmp_path, server.url(tmp_path / "nothing")).run("log", expect=10)
    assert "hint: make one with 'vimgvc init sftp://" in nothing.stderr
    (pathlib.Path(os.environ["HOME"]) / ".ssh" / "config").write_text("Host *\n  UserKnownHostsFile /dev/null\n")
    refused = User(tmp_path, server.url(tmp_path)).run("log", expect=25)
    assert len(refused.stderr.splitlines()) == 2
    assert "could be somebody else" in refused.stderr


def test_n11_not_power_safe(server: sshd.Sshd, tmp_path: pathlib.Path) -> None:
    """N11: whoever opens a place on a server without fsync is told that it is not power-safe, and only then."""
    for kind, told in (("no_sync", True), ("plain", False)):
        url = server.url(tmp_path / kind, kind)
        done = User(tmp_path, url).run("init", url)
        assert ("is not power-safe" in done.stderr) == told


@pytest.mark.timeout(300)
def test_n2_interrupted(server: sshd.Sshd, flaky: proxy.Proxy, tmp_path: pathlib.Path) -> None:
    """N2: Ctrl-C ends a command at once that waits for a server which says nothing any more."""
    root = tmp_path / "repository"
    User(tmp_path, "").run("init", server.url(root))
    for at in (0, 4_500):
        flaky.faults.append(proxy.Fault("stall", "down", at))
        before = len(flaky.carried)
        user = User(tmp_path, f"sftp://127.0.0.1:{flaky.port}{root}")
        command = [*user.command, "log"]
        process = subprocess.Popen(command, cwd=tmp_path, env=user.environ, stderr=subprocess.PIPE, text=True)
        while len(flaky.carried) == before or flaky.carried[-1]["down"] <= at:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, words = process.communicate()
        assert process.returncode == 130
        assert "Traceback" not in words


@pytest.mark.timeout(300)
def test_n2_interrupted_threads(server: sshd.Sshd, flaky: proxy.Proxy, tmp_path: pathlib.Path, seed: int) -> None:
    """N2: one Ctrl-C ends a commit of which several threads wait for a server that is dead."""
    root = tmp_path / "repository"
    User(tmp_path, "").run("init", server.url(root))
    (tmp_path / "vm.img").write_bytes(np.random.default_rng(seed).bytes(20 << 20))
    flaky.faults.append(proxy.Fault("stall", "up", 300_000))
    user = User(tmp_path, f"sftp://127.0.0.1:{flaky.port}{root}")
    command = [*user.command, "commit", "vm.img"]
    process = subprocess.Popen(command, cwd=tmp_path, env=user.environ, stderr=subprocess.PIPE, text=True)
    while not flaky.struck:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=100)  # sooner than the connection would be taken for dead
    assert process.returncode == 130
    assert "Traceback" not in words


def test_without_the_library(tmp_path: pathlib.Path) -> None:
    """Where the library is not installed, that is said in one line, with what to install."""
    (tmp_path / "asyncssh.py").write_text("raise ModuleNotFoundError('No module named asyncssh', name='asyncssh')\n")
    environ = os.environ | {"PYTHONPATH": f"{tmp_path}:{pathlib.Path(__file__).parents[2]}"}
    command = [sys.executable, "-m", "vimgvc", "--repo", "sftp://host/a", "log"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 23
    assert "pip install 'vimgvc[sftp]'" in done.stderr
