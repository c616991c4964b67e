"""`python -m tests.servers.supervisor KIND PLACE`: run a server until nobody holds the lock on PLACE/users."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import pathlib
import sys


def main(kind: str, place: pathlib.Path) -> None:
    users = os.open(place / "users", os.O_RDWR)
    facts = place / "facts.json"
    work = place / "work"
    failure = ""
    with contextlib.ExitStack() as stack:
        try:
            work.mkdir()
            found = importlib.import_module(f"tests.servers.{kind}").run(work, stack)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test that wanted a server says so
            failure = f"{type(error).__name__}: {error}"
        else:
            facts.write_text(json.dumps(found))
            _answer("ready")
            fcntl.flock(users, fcntl.LOCK_EX)
            facts.unlink()
    work.rename(place / f"ended-{os.getpid()}")
    if failure:
        _answer(failure)


def _answer(words: str) -> None:
    os.write(1, words.encode())
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)  # whoever reads sees the end


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
