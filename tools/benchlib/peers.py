"""Which other tools are there to compare with, and how to get those that are not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

# A directory that is searched before PATH, for tools that are not installed.
FOLDER = "VIMGVC_PEERS"


@dataclass(frozen=True)
class Peer:
    program: str
    ask: tuple[str, ...]  # arguments that make it print its version
    wanted: tuple[int, ...]  # at least this version makes a fair comparison
    hint: str


PEERS = (
    Peer(
        "restic",
        ("version",),
        (0, 17),
        "from your distribution, https://restic.net, or: go install github.com/restic/restic/cmd/restic@latest",
    ),
    Peer("borg", ("--version",), (1, 2), "apt-get install borgbackup, or https://www.borgbackup.org"),
    Peer("desync", ("--help",), (), "from your distribution, or its project page https://github.com/folbricht/desync"),
    Peer("qemu-img", ("--version",), (5, 1), "apt-get install qemu-utils"),
)


@dataclass(frozen=True)
class Found:
    path: str | None
    version: str
    problem: str | None


def find(peer: Peer) -> Found:
    """Where it is; `problem` says what is wrong with what was found, or that nothing was."""
    path = shutil.which(peer.program, path=os.pathsep.join([os.environ.get(FOLDER, ""), os.environ.get("PATH", "")]))
    if path is None:
        return Found(None, "", f"missing; get it: {peer.hint}")
    answer = subprocess.run([path, *peer.ask], capture_output=True, text=True, check=False)
    match = re.search(r"\d+(?:\.\d+)+", answer.stdout + answer.stderr) if peer.wanted else None
    version = match[0] if match else "version unknown"
    if match and tuple(int(part) for part in version.split(".")) < peer.wanted:
        wanted = ".".join(str(part) for part in peer.wanted)
        return Found(path, version, f"older than {wanted}; get a newer one: {peer.hint}")
    return Found(path, version, None)


def named(program: str) -> Found:
    """`find` for one of `PEERS`."""
    return find(next(peer for peer in PEERS if peer.program == program))


def main() -> int:
    """Print what is there. 0 when all are, 1 otherwise."""
    complete = True
    for peer in PEERS:
        found = find(peer)
        complete = complete and found.problem is None
        print(f"{peer.program:10} {found.version:16} {found.path or '':32} {found.problem or 'ok'}")
    if not complete:
        print(f"Programs in the directory named by ${FOLDER} are found before those in $PATH.")
    return 0 if complete else 1
