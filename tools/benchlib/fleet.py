"""Many writers and a collector at work on one repository, as the programs that they are.

Each writer commits a disk of its own to a branch of its own, of pieces that others have too, as fast as it can.
The collector forgets all but the newest three of each branch and collects, again and again. In the end whatever
was acknowledged and not forgotten must restore, byte for byte, and all of the repository is verified.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchlib import machine, tools

WRITERS, KEPT = 8, 3
#: What disks are made of: pieces of a pool that all writers have.
PIECE, PIECES, POOL = 1 << 17, 32, 128


class Place:
    """What a fleet needs of a place: see `benchlib.places`."""

    def __init__(self, url: str, env: Mapping[str, str]) -> None:
        self.url, self.env = url, env


def content(writer: int, number: int) -> bytes:
    """A disk: of the pieces that everybody has some, the first one is new."""
    rng = np.random.default_rng([writer, number])
    pieces = [rng.bytes(PIECE)]
    pieces += [np.random.default_rng([WRITERS, which]).bytes(PIECE) for which in rng.integers(0, POOL, PIECES - 1)]
    return b"".join(pieces)


@dataclass
class Ledger:
    """What was acknowledged, in which order does not matter; thread-safe."""

    made: dict[str, str] = field(default_factory=dict)  # commit -> hash of the disk
    forgotten: set[str] = field(default_factory=set)
    collections: int = 0
    removed: int = 0
    failures: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)


class Member:
    """A host with a home of its own."""

    def __init__(self, name: str, folder: Path, program: str, place: Place, ledger: Ledger) -> None:
        self.name, self.folder, self.ledger = name, folder / name, ledger
        self._program = program
        self.env = {**tools.base_env(self.folder), **place.env, "VIMGVC_REPOSITORY": place.url}
        tools.make_folders(self.folder)
        self.password = self.folder / "password"
        self.password.write_text(tools.PASSWORD)
        self.password.chmod(0o600)

    def unlock(self) -> None:
        self.call("key", "remember", "--password-file", str(self.password))

    def call(self, *words: str) -> dict[str, object]:
        """The JSON document of a command that succeeds. Raises `BenchError`."""
        argv = [self._program, *words, "--json"]
        done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise machine.BenchError(f"{self.name}: {' '.join(words)}: code {done.returncode}: {done.stdout.strip()}")
        return tools.last_document(done.stdout)

    def write(self, end: float) -> None:
        number, writer = 0, int(self.name)
        while time.monotonic() < end:
            data = content(writer, number)
            (self.folder / "disk.img").write_bytes(data)
            try:
                made = self.call("commit", "disk.img", "--branch", f"vm{writer}", "-m", str(number))
            except machine.BenchError as error:
                self._failed(error)
                continue
            with self.ledger.guard:
                self.ledger.made[str(made["id"])] = hashlib.sha256(data).hexdigest()
            number += 1

    def collect(self, end: float) -> None:
        while time.monotonic() < end:
            try:
                forgotten = self.call("forget", "--keep-last", str(KEPT), "--force")
                with self.ledger.guard:
                    self.ledger.forgotten |= {str(one) for one in _list(forgotten["forgotten"])}
                done = self.call("gc", "--force")
            except machine.BenchError as error:
                self._failed(error)
                continue
            with self.ledger.guard:
                self.ledger.collections += 1
                self.ledger.removed += int(str(done["packs_deleted"]))

    def _failed(self, error: machine.BenchError) -> None:
        machine.say(f"  {error}")
        with self.ledger.guard:
            self.ledger.failures.append(str(error))


def _list(found: object) -> list[object]:
    assert isinstance(found, list)
    return found


def run(folder: Path, program: str, place: Place, seconds: float, *, kdf: str = "256MiB") -> dict[str, float]:
    """commits, collections, removed packs; lost: what does not restore; problems: of `verify`; failures of commands."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ledger = Ledger()
    members = [Member(str(number), folder, program, place, ledger) for number in range(WRITERS + 1)]
    members[0].call("init", "--password-file", str(members[0].password), "--kdf-memory", kdf)
    for member in members:
        member.unlock()
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=member.write, args=(end,)) for member in members[:WRITERS]]
    threads.append(threading.Thread(target=members[WRITERS].collect, args=(end,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**_judge(members[0], ledger), "failures": len(ledger.failures)}


def _judge(member: Member, ledger: Ledger) -> dict[str, float]:
    lost = 0
    for commit in ledger.made.keys() - ledger.forgotten:
        target = member.folder / "restored"
        target.unlink(missing_ok=True)
        try:
            member.call("restore", commit, str(target))
            lost += hashlib.sha256(target.read_bytes()).hexdigest() != ledger.made[commit]
        except machine.BenchError as error:
            machine.say(f"  {error}")
            lost += 1
    try:
        problems = len(_list(member.call("verify", "--data")["problems"]))
    except machine.BenchError as error:
        machine.say(f"  {error}")
        problems = 1
    found: dict[str, float] = {
        "commits": len(ledger.made),
        "restored": len(ledger.made.keys() - ledger.forgotten),
        "collections": ledger.collections,
        "packs removed": ledger.removed,
        "lost": lost,
        "problems": problems,
    }
    machine.say(f"  {json.dumps(found)}")
    return found
