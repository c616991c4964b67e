"""The program under watch: what it opened, what it connected to, what it needed.

found = rig.run(jobs, folder)
found[name].code, .peak_bytes, .opened, .tried, .sockets
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import vimgvc
from tests import needs
from tests.hostile import driver

ROOT = pathlib.Path(__file__).parents[2]

_LINE = re.compile(r"^(?P<pid>\d+) +(?:<\.\.\. )?(?P<call>\w+)(?P<rest>.*)$")
_OPENED = re.compile(r"= \d+<(?P<path>.*)>$")
_QUOTED = re.compile(r'"(?P<path>(?:[^"\\]|\\.)*)"')
_SOCKET = re.compile(r"\((?:\d+<[^>]*>, )?\{?(?:sa_family=)?(?P<family>(?:AF|PF)_\w+)(?P<more>.*)")
_OPENS = {"open", "openat", "openat2", "creat"}
_SOCKETS = {"socket", "connect", "bind"}


@dataclass(frozen=True, slots=True)
class Job:
    """`vimgvc *argv` in `folder`."""

    name: str
    argv: tuple[str, ...]
    folder: pathlib.Path


@dataclass(slots=True)
class Answer:
    """What one run did. `opened`: real paths; `tried`: paths as they were given, also in vain.

    `sockets`: family and address of every socket that was made, bound or connected. `programs`: what was run.
    """

    code: int = -1
    seconds: float = 0
    cpu_seconds: float = 0
    peak_bytes: int = 0
    left_behind: int = 0
    messages: str = ""
    opened: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)


def run(jobs: Iterable[Job], folder: pathlib.Path, environment: Mapping[str, str]) -> dict[str, Answer]:
    """Run the jobs one after the other; skips where tracing is not allowed."""
    strace = needs.require_tool("strace", "strace")
    (folder / "messages").mkdir()
    described = [
        {
            "name": job.name,
            "argv": job.argv,
            "folder": str(job.folder),
            "messages": str(folder / "messages" / str(number)),
        }
        for number, job in enumerate(jobs)
    ]
    (folder / "jobs").write_text(json.dumps(described))
    calls = ",".join([*sorted(_OPENS), *sorted(_SOCKETS), "execve"])
    argv = [strace, "-f", "--seccomp-bpf", "-y", "-s", "2048", "-e", f"trace={calls}", "-o", str(folder / "trace")]
    argv += [sys.executable, driver.__file__, str(folder / "jobs"), str(folder / "answers")]
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(argv, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = {name: Answer(**facts) for name, facts in json.loads((folder / "answers").read_text()).items()}
    with (folder / "trace").open(errors="surrogateescape") as lines:
        read_trace(lines, answers)
    return answers


def read_trace(lines: Iterable[str], answers: Mapping[str, Answer]) -> None:
    """Add what a trace says to the answers of the jobs that its marks name."""
    now = Answer()
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        call, rest = match["call"], match["rest"]
        if call in _OPENS:
            if driver.MARK in rest:
                now = answers.get(rest.partition(driver.MARK)[2].partition('"')[0], Answer())
                continue
            _note_open(now, rest)
        elif call in _SOCKETS:
            _note_socket(now, call, rest)
        elif call == "execve" and (program := _QUOTED.search(rest)):
            now.programs.add(os.path.basename(program["path"]))


def _note_open(now: Answer, rest: str) -> None:
    if opened := _OPENED.search(rest.rstrip("\n")):
        now.opened.add(_text(opened["path"]))
    if tried := _QUOTED.search(rest):
        now.tried.add(_text(tried["path"]))


def _note_socket(now: Answer, call: str, rest: str) -> None:
    if found := _SOCKET.search(rest):
        address = _QUOTED.search(found["more"])
        now.sockets.add(" ".join([found["family"], call, _text(address["path"]) if address else ""]).strip())


def _text(quoted: str) -> str:
    """A path as strace writes it, with its escapes undone."""
    if "\\" not in quoted:
        return quoted
    return (
        quoted.encode("latin-1", "surrogateescape").decode("unicode_escape").encode("latin-1").decode(errors="replace")
    )


#: What the interpreter and the libraries ask the machine, and what memory is left for.
_MACHINE = re.compile(
    r"/etc/(ld\.so\.cache|localtime|ssl/openssl\.cnf)|/dev/(null|u?random)|/memfd:.*|/sys/(devices/system/(cpu|node)|fs/cgroup)(/.*)?"
    r"|/proc/sys/(vm/overcommit_memory|crypto/.*|kernel/random/boot_id)|/proc/\d+/(cgroup|fd|status|task/\d+/comm)|/proc/(cpuinfo|meminfo)"
)


class Fence:
    """What may be opened whatever an image says: the program, the system's libraries, places of its own."""

    def __init__(self, *own: pathlib.Path) -> None:
        package = pathlib.Path(vimgvc.__file__).parent
        homes = {"/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, str(package), *map(str, own)}
        self._exact = set(homes)
        self._below = tuple(f"{place}/" for place in homes)

    def outside(self, answer: Answer, named: Iterable[str]) -> list[str]:
        """What was opened and is neither inside nor one of the files that the user named."""
        mine = {*self._exact, *named}
        return sorted(
            path
            for path in answer.opened
            if path not in mine and not path.startswith(self._below) and not _MACHINE.fullmatch(path)
        )
