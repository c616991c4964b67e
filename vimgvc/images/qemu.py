"""qemu's tools as children. Nothing else in the package runs them, or any other program.

They are started by `sandbox`'s launcher and told with a block graph what to open. A tool that is missing,
or too old to be trusted with a hostile image, is an error that says what to install.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import select
import shutil
import signal
import socket
import subprocess  # what it runs is one of two programs, and a command line of ours
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from vimgvc import errors
from vimgvc.images import block_graph, meeting, sandbox

IMG = "qemu-img"
NBD = "qemu-nbd"
SECRET = block_graph.SECRET

#: Seconds until a child must have opened what it was given.
OPENING = 30.0

_VERSION = re.compile(rb"qemu-(?:img|nbd)(?: version)? (\d+)\.(\d+)(?:\.(\d+))?([^\n]{0,60})")
_INSTALL = "install it with 'apt-get install qemu-utils' (Debian, Ubuntu) or 'dnf install qemu-img' (Fedora)"

#: CVE-2024-4467: a name in a qcow2 header could make qemu-img open anything. The first versions without it.
_FIXED = {(7, 2): 13, (9, 0): 2}
_FIXED_SINCE = (9, 1)

_CONNECTIONS = 16
_GONE = -int(signal.SIGKILL)


def is_safe(version: tuple[int, int, int]) -> bool:
    """Whether this version of qemu has the fix of CVE-2024-4467."""
    return version[:2] >= _FIXED_SINCE or version[2] >= _FIXED.get(version[:2], 1 << 31)


def parse_version(text: bytes) -> tuple[tuple[int, int, int], str] | None:
    """What `--version` of a tool says: the numbers, and the text behind the tool's name."""
    found = _VERSION.match(text)
    if found is None:
        return None
    major, minor, micro = (int(part or 0) for part in found.groups()[:3])
    return (major, minor, micro), f"{major}.{minor}.{micro}{found[4].decode(errors='replace')}".strip()


def available() -> str:
    """The version of the tools. Raises `VimgvcError` if they are missing or too old, with what to do."""
    find(NBD)
    return find(IMG)[1]


def find(tool: str) -> tuple[str, str]:
    """The path and version of a tool; raises as `available`."""
    path = shutil.which(tool)
    if path is None:
        raise errors.VimgvcError(f"{tool} is needed for this and is not installed", hint=_INSTALL)
    path = os.path.abspath(path)
    status = os.stat(path)
    return path, _version(tool, path, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _version(tool: str, path: str, _stamp: tuple[int, int, int]) -> str:
    with Child(path, ["--version"], sandbox.Policy(cpu=10), name=tool) as child:
        code = child.wait(OPENING)
        text = child.output()
        found = parse_version(text) if code == 0 else None
        if found is None:
            reason = child.failure(code) if code else f"says {text[:60]!r}"
            raise errors.VimgvcError(f"{path} does not tell its version: {reason}", hint=_INSTALL)
    version, said = found
    if not is_safe(version):
        raise errors.VimgvcError(
            f"{tool} {said} is too old: it can be made to open other files than the image (CVE-2024-4467)",
            hint="use qemu 7.2.13, 9.0.2, 9.1 or later",
        )
    return said


class Child:
    """A confined program that runs. Close it; leaving it by `with` does.

    `name`: what messages call it. `hide`: texts of ours in its messages, and what stands for them there.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        policy: sandbox.Policy,
        *,
        name: str,
        hide: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._hide = dict(hide or {})
        self._status: int | None = None
        self._control, theirs = socket.socketpair()
        self._streams = [_message_file(), _message_file()]
        inherited = meeting.duplicate(theirs.fileno())
        theirs.close()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - see the import
                sandbox.command(policy, inherited, program, arguments),
                stdin=subprocess.DEVNULL,
                stdout=self._streams[0],
                stderr=self._streams[1],
                pass_fds={inherited, *policy.descriptors()},
                # Without it glibc reserves 64 MiB of address space for each of many threads.
                env={"LC_ALL": "C", "PATH": os.defpath, "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            self._control.close()
            for fd in self._streams:
                os.close(fd)
            raise errors.from_os_error(error, f"starting {name}") from error
        finally:
            os.close(inherited)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status (negative: the signal that ended it), or None if it still runs after `timeout` seconds."""
        if self._status is None:
            poll = select.poll()
            poll.register(self._control, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                return None
            with contextlib.suppress(OSError):
                said = self._control.recv(16)
                self._status = int(said) if said else _GONE
            if self._status is None:
                self._status = _GONE
        return self._status

    def output(self) -> bytes:
        """The beginning of what it wrote to standard output."""
        return _written(self._streams[0])

    def messages(self) -> str:
        """The last lines of what it wrote to standard error, in one."""
        text = _written(self._streams[1]).decode(errors="replace")
        for ours, theirs in self._hide.items():
            text = text.replace(ours, theirs)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return "; ".join(line.removeprefix(f"{self._name}: ") for line in lines[-2:])[:300]

    def failure(self, code: int | None) -> str:
        """What became of it, for a message."""
        if code is None:
            return f"{self._name} does not answer"
        if code < 0:
            try:
                how = signal.Signals(-code).name
            except ValueError:
                how = f"signal {-code}"
            return f"{self._name} was ended by {how}"
        return self.messages() or f"{self._name} failed with status {code}"

    def close(self) -> None:
        """End it and wait until it is gone, with its scratch folders. Never raises."""
        if self._control.fileno() < 0:
            return
        self._control.close()
        try:
            self._process.wait(OPENING)
        except subprocess.TimeoutExpired:  # the guard itself was stopped
            self._process.kill()
            self._process.wait()
        for fd in self._streams:
            os.close(fd)


def _message_file() -> int:
    """A file in memory that cannot grow: no pipe that fills, no disk that is filled."""
    fd = os.memfd_create("messages", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, sandbox.MESSAGES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd


def _written(fd: int) -> bytes:
    return os.pread(fd, sandbox.MESSAGES, 0).rstrip(b"\0")


def serve(
    graph: dict[str, Any], place: meeting.Meeting, *, reads: Sequence[int], secret: int | None, cpu: int, name: str
) -> Child:
    """qemu-nbd, exporting `graph` read-only at `place`. `secret`: descriptor of the passphrase; `cpu`: seconds."""
    spelled = block_graph.name(graph)
    options = ["--read-only", "--persistent", f"--shared={_CONNECTIONS}"]
    if secret is not None:
        options += block_graph.secret(secret)
    listener = place.listen()
    try:
        inherited = meeting.duplicate(listener.fileno())
    finally:
        listener.close()
    policy = sandbox.Policy(
        cpu=cpu,
        reads=reads,
        extra=[] if secret is None else [secret],
        listen=inherited,
        scratch=[place.scratch],
    )
    hide = {f"'{spelled}'": name, spelled: name} | {block_graph.inherited(fd): name for fd in reads}
    try:
        return Child(find(NBD)[0], [*options, spelled], policy, name=NBD, hide=hide)
    finally:
        # Only the child listens now: when it ends, whoever is connected or connecting learns of it.
        os.close(inherited)


def convert(
    place: meeting.Meeting,
    target: sandbox.Scratch,
    output: str,
    fmt: str,
    options: Sequence[str],
    *,
    secret: int | None,
    cpu: int,
    file_bytes: int,
    name: str,
) -> Child:
    """qemu-img, writing what is exported at `place` to the file `output` in the folder `target`.

    `options`: "key=value" each. Both folders go away with the child.
    """
    spelled = block_graph.name(block_graph.export(place.address))
    arguments = ["convert", "-O", fmt]
    if secret is not None:
        arguments += block_graph.secret(secret)
    if options:
        arguments += ["-o", ",".join(options)]
    policy = sandbox.Policy(
        cpu=cpu,
        folder=target.fd,
        extra=[place.fd, *([] if secret is None else [secret])],
        scratch=[target, place.scratch],
        file_bytes=file_bytes,
    )
    # "./": then no name is taken for a protocol or an option.
    hide = {spelled: "the disk", f"./{output}": name}
    return Child(find(IMG)[0], [*arguments, spelled, f"./{output}"], policy, name=IMG, hide=hide)


def ended(child: Child, name: str, *, asked: float) -> errors.VimgvcError:
    """The error for a child that did not open an image within the time since `asked` (monotonic seconds)."""
    left = max(0.5, OPENING - (time.monotonic() - asked))
    code = child.wait(left)
    return refusal(child.failure(code), code, name)


def refusal(message: str, code: int | None, name: str) -> errors.VimgvcError:
    """The error for what qemu said when it did not open an image."""
    if code is None:
        return errors.UnsafeImage(f"{name}: {message} within {OPENING:.0f} seconds of opening it")
    if code < 0:
        return errors.VimgvcError(f"{name}: {message} while it opened the image")
    if code == sandbox.NOT_CONFINED:
        return errors.VimgvcError(f"{name}: qemu could not be confined: {message}")
    if "Failed to get" in message and "lock" in message:
        return errors.Busy(f"{name}: is in use by another process: {message}", hint="shut the machine down first")
    if "Invalid password" in message or "invalid password" in message:
        return errors.NoKey(
            f"{name}: the passphrase does not open it",
            hint="all bytes of the secret file count, a line feed at its end as well",
        )
    return errors.UnsafeImage(f"{name}: qemu does not open it: {message}")
