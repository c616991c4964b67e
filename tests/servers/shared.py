"""One server of a kind for all processes of a test run.

The first process that wants one starts a supervisor, which starts the server. Every process that uses it
holds a shared lock on a file; the supervisor waits for the exclusive one, which it gets when the last
user has ended in whatever way, and stops the server then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from tests.servers import processes

_ROOT = pathlib.Path(__file__).parents[2]


@contextlib.contextmanager
def server(kind: str, folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """What `tests.servers.KIND.run` returned. Raises `processes.Failed`. `folder` is the same for the whole run."""
    place = folder / f"server-{kind}"
    place.mkdir(parents=True, exist_ok=True)
    users = os.open(place / "users", os.O_RDWR | os.O_CREAT)
    try:
        with (place / "starting").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for a supervisor that is stopping
            facts = place / "facts.json"
            if not facts.exists():
                _start(kind, place)
            found: dict[str, str] = json.loads(facts.read_text())
        yield found
    finally:
        os.close(users)


def _start(kind: str, place: pathlib.Path) -> None:
    command = [sys.executable, "-m", "tests.servers.supervisor", kind, str(place)]
    with (place / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=_ROOT, start_new_session=True
        )
    assert supervisor.stdout is not None
    with supervisor.stdout as words:
        answer = words.read().decode()  # the supervisor closes it when the server is there, or cannot be
    supervisor.returncode = 0  # it outlives this process; nobody waits for it here
    if answer != "ready":
        raise processes.Failed(answer or f"no answer: {(place / 'supervisor.log').read_text()[-1000:]}")
