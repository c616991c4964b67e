"""Programs that run beside a supervisor, and how one waits for them."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

_PATIENCE = 60.0
_PAUSE = 0.05


class Failed(Exception):
    """A server did not start; the message says why."""


def free_port() -> int:
    """A port of the loopback interface that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def start(
    stack: contextlib.ExitStack, log: pathlib.Path, command: Sequence[str], environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A program in the foreground, its words in `log`, ended when `stack` is."""
    with log.open("ab") as words:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=environ)
    stack.callback(_end, process)
    return process


def run(command: Sequence[str], environ: Mapping[str, str] | None = None, *, tries: int = 1) -> str:
    """What a program printed that may be run again. Raises `Failed`."""
    words = ""
    for _ in range(tries):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE, env=environ)
        except subprocess.TimeoutExpired:
            words = f"takes more than {_PATIENCE:.0f} s"
            continue
        if done.returncode == 0:
            return done.stdout
        words = done.stderr.strip()[-500:]
    raise Failed(f"{' '.join(command)}: {words}")


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    """Return when `ready()`. Raises `Failed` when the process ends before, or takes a minute."""
    end = time.monotonic() + _PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise Failed(f"{process.args!r} is not ready: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(_PAUSE)


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
