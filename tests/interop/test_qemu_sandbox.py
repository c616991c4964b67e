"""The limits of a child take effect, and nothing of it is left, however it or we end.

Rows I3, I4 and I34 for children: they reach no network and no file but those that they were given.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import children, needs, programs
from vimgvc import errors
from vimgvc.images import block_graph, meeting, qemu, sandbox

pytestmark = pytest.mark.slow

_CANARY = "the canary sings"


def _run(script: str, policy: sandbox.Policy | None = None) -> tuple[int | None, str, str]:
    """Exit status, output and last message of a confined shell script."""
    bash = needs.require_tool("bash", "bash")
    with qemu.Child(bash, ["-c", script], policy or sandbox.Policy(cpu=20), name="bash") as child:
        code = child.wait(60)
        return code, child.output().decode().strip(), child.messages()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Iterator[int]:
    """A descriptor of a folder for a child to write in."""
    path = tmp_path / "writable"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _landlock() -> int:
    """The kernel's version of Landlock; 0 or less if it has none."""
    libc = ctypes.CDLL(None)
    return int(libc.syscall(444, None, ctypes.c_size_t(0), 1))


def test_a_program_runs_and_ends() -> None:
    """Output, messages and exit status of a program arrive; its environment is ours, not the user's."""
    code, said, message = _run("echo $LC_ALL $HOME-; echo oh >&2; exit 7")
    assert (code, said, message) == (7, "C -", "oh")


def test_memory_is_limited() -> None:
    """More address space than the limit is refused, while the same program with less runs."""
    dd = needs.require_tool("dd", "coreutils")
    assert _run(f"{dd} if=/dev/null bs=100M count=1")[0] == 0
    code, _, message = _run(f"{dd} if=/dev/null bs=3G count=1")
    assert code == 1
    assert "memory exhausted" in message


def test_processor_time_is_limited() -> None:
    """A program that computes for ever is ended when its time is used up."""
    assert _run("while :; do :; done", sandbox.Policy(cpu=1))[0] in (-signal.SIGKILL, -signal.SIGXCPU)


def test_files_have_a_limit(folder: int) -> None:
    """A file may grow up to the limit, and the program learns that it may not grow further."""
    fill = "head -c {} /dev/urandom > made; echo $?"
    policy = sandbox.Policy(cpu=20, folder=folder, file_bytes=1 << 20)
    assert _run(fill.format(1 << 20), policy)[1] == "0"
    code, said, message = _run(fill.format((1 << 20) + 1), policy)
    assert (code, said) == (0, "1")
    assert "File too large" in message
    assert os.stat("made", dir_fd=folder).st_size == 1 << 20


def test_messages_are_bounded() -> None:
    """A program that talks for ever takes no more memory than its file of messages."""
    code, said, _ = _run("for i in {1..20000}; do echo $i; done; exit 3")
    assert code == 3
    assert len(said) <= sandbox.MESSAGES


def test_no_network() -> None:
    """A program reaches no server, not even one on this machine that everybody else reaches."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]}"
        subprocess.run([needs.require_tool("bash", "bash"), "-c", connect], check=True)
        code, _, message = _run(connect)
    assert code != 0
    assert "unreachable" in message or "denied" in message


def test_only_passed_files_are_read(tmp_path: pathlib.Path) -> None:
    """I34: what was passed is read through its descriptor; nothing else of the user's is, by whatever name."""
    if _landlock() < 1:
        pytest.skip("this kernel has no Landlock")
    passed, other = tmp_path / "passed", tmp_path / "other"
    passed.write_text(_CANARY)
    other.write_text(_CANARY)
    with passed.open() as file:
        fd = meeting.duplicate(file.fileno())
    try:
        policy = sandbox.Policy(cpu=20, reads=[fd])
        passed.rename(tmp_path / "renamed")
        assert _run(f"cat /proc/self/fd/{fd}", policy)[:2] == (0, _CANARY)
        for name in (other, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ"):
            code, said, message = _run(f"cat {name}", policy)
            assert (code, said) == (1, ""), name
            assert "denied" in message
        code, _, message = _run(f"echo more >> /proc/self/fd/{fd}", policy)
        assert code == 1
        assert "denied" in message
    finally:
        os.close(fd)


def test_only_the_given_folder_is_written(tmp_path: pathlib.Path, folder: int) -> None:
    """Files are made in the given folder only; folders, links and pipes not even there."""
    if _landlock() < 1:
        pytest.skip("this kernel has no Landlock")
    policy = sandbox.Policy(cpu=20, folder=folder)
    assert _run("echo 1 > made; cat made; rm made", policy)[:2] == (0, "1")
    for script in (f"echo 1 > {tmp_path}/made", "echo 1 > ../made", "mkdir x", "ln -s y x", "mkfifo x", "mknod x p"):
        assert _run(script, policy)[0] not in (0, None), script
    assert os.listdir(folder) == []
    assert _run(f"echo 1 > {tmp_path}/made")[0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["writable"]


def test_others_cannot_be_signalled() -> None:
    """A program ends nobody but itself, whoever it runs as."""
    if _landlock() < 6:
        pytest.skip("this kernel's Landlock knows no signals")
    other = subprocess.Popen([needs.require_tool("bash", "bash"), "-c", "read"], stdin=subprocess.PIPE)
    try:
        assert _run(f"kill -9 {other.pid}")[0] == 1
        assert other.poll() is None
    finally:
        other.communicate()


@contextlib.contextmanager
def _serving(path: pathlib.Path) -> Iterator[tuple[qemu.Child, meeting.Meeting]]:
    """A qemu-nbd that has opened a raw file."""
    needs.require_tool("qemu-nbd", "qemu-utils")
    path.write_bytes(bytes(1 << 20))
    place = meeting.Meeting()
    with path.open("rb") as file:
        fd = meeting.duplicate(file.fileno())
    try:
        graph = block_graph.image("raw", fd)
        child = qemu.serve(graph, place, reads=[fd], secret=None, cpu=20, name="disk")
    finally:
        os.close(fd)
    try:
        with place.connect() as connection:
            assert connection.recv(8) == b"NBDMAGIC"
        yield child, place
    finally:
        child.close()
        place.close()


def test_the_program_has_no_rights(tmp_path: pathlib.Path) -> None:
    """A running qemu-nbd: no new privileges, no capability but one of root's, own network, all limits, own session."""
    with _serving(tmp_path / "disk") as (child, _):
        pid = children.program_of(children.guard_of(child))
        assert pid is not None
        status = children.status(pid)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) & ~0b10 == 0
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        found = {line[:26].strip(): line[26:47].strip() for line in limits.splitlines()}
        assert found["Max address space"] == str(2 << 30)
        assert found["Max core file size"] == "0"
        assert found["Max file size"] == str(sandbox.MESSAGES)
        assert found["Max cpu time"] == "20"
        assert os.getsid(pid) != os.getsid(0)
        if os.geteuid() == 0:
            assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        assert "SECRET" not in pathlib.Path(f"/proc/{pid}/environ").read_text()


def test_nothing_is_left_after_closing(tmp_path: pathlib.Path) -> None:
    """Closing ends the program and its guard and removes their folder; closing again does nothing."""
    with _serving(tmp_path / "disk") as (child, place):
        guard = children.guard_of(child)
        pid = children.program_of(guard)
        path = pathlib.Path(place.scratch.path)
        assert path.stat().st_mode & 0o777 == 0o700
        child.close()
        child.close()
        assert pid is not None
        assert children.is_gone(pid)
        assert children.is_gone(guard)
        assert not path.exists()


def test_a_killed_guard_takes_the_program_along(tmp_path: pathlib.Path) -> None:
    """When the guard is killed the program is, and we learn of it instead of waiting."""
    with _serving(tmp_path / "disk") as (child, _):
        guard = children.guard_of(child)
        pid = children.program_of(guard)
        assert pid is not None
        os.kill(guard, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
        assert children.is_gone(pid)


def test_a_killed_program_is_noticed(tmp_path: pathlib.Path) -> None:
    """The signal that ended a program is told, and whoever connects then is refused at once."""
    with _serving(tmp_path / "disk") as (child, place):
        pid = children.program_of(children.guard_of(child))
        assert pid is not None
        os.kill(pid, signal.SIGSEGV)
        code = child.wait(30)
        assert code == -signal.SIGSEGV
        assert "SIGSEGV" in child.failure(code)
        with pytest.raises(ConnectionRefusedError):
            place.connect()


_USER = """
import os, pathlib, sys, threading
sys.path.insert(0, sys.argv[2])
from tests import children
from vimgvc.images import block_graph, meeting, qemu

found = []
def start():
    place = meeting.Meeting()
    fd = os.open(sys.argv[1], os.O_RDONLY)
    inherited = meeting.duplicate(fd)
    graph = block_graph.image("raw", inherited)
    found.append((qemu.serve(graph, place, reads=[inherited], secret=None, cpu=20, name="disk"), place))
thread = threading.Thread(target=start)
thread.start()
thread.join()
child, place = found[0]
place.connect().recv(8)
guard = children.guard_of(child)
print(guard, children.program_of(guard), place.scratch.path, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_is_left_when_we_are_killed(how: signal.Signals | None, tmp_path: pathlib.Path) -> None:
    """Killed or gone without closing: program, guard and folder go too. The thread that started them may end before."""
    needs.require_tool("qemu-nbd", "qemu-utils")
    disk, temporary = tmp_path / "disk", tmp_path / "tmp"
    disk.write_bytes(bytes(4096))
    temporary.mkdir()
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _USER, disk, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
        text=True,
    )
    assert process.stdout is not None
    guard, program, path = process.stdout.readline().split()
    assert pathlib.Path(path).parent == temporary
    assert children.program_of(int(guard)) == int(program)
    if how is not None:
        process.send_signal(how)
    process.communicate()
    assert children.is_gone(int(program))
    assert children.is_gone(int(guard))
    assert list(temporary.iterdir()) == []


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Without qemu the error names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.VimgvcError, match=r"qemu-(nbd|img)") as caught:
        qemu.available()
    assert "apt-get install qemu-utils" in caught.value.hint


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo "qemu-nbd version 7.2.12"', "CVE-2024-4467"),
        ('echo "qemu-nbd version 8.2.2 (Debian 1:8.2.2+ds)"', "CVE-2024-4467"),
        ("echo hello", "version"),
        ("exit 1", "version"),
        ("kill -9 $$", "SIGKILL"),
    ],
)
def test_tools_that_are_not_accepted(
    script: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Tools that are too old, or that do not say how old they are, are not given any image."""
    for name in ("qemu-img", "qemu-nbd"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.VimgvcError, match=says):
        qemu.available()


def test_the_version_is_told() -> None:
    """The version of the tools that are installed, as they say it."""
    assert qemu.available() in programs.qemu_img("--version")


def test_a_launcher_that_cannot_confine_does_not_run(tmp_path: pathlib.Path) -> None:
    """If a limit that there is cannot be set, the program is not run at all."""
    made = tmp_path / "made"
    # A folder that cannot be entered, since its descriptor is of a file.
    with (tmp_path / "file").open("w") as file:
        code, _, message = _run(f"echo 1 > {made}", sandbox.Policy(cpu=20, folder=file.fileno()))
    assert code == sandbox.NOT_CONFINED
    assert message.startswith("sandbox: ")
    assert not made.exists()
