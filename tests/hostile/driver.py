"""Runs the program many times: `driver.py JOBS ANSWERS`, both JSON, below strace.

Each job is a fork of a process in which everything is imported already, with limits of its own: so a
run costs no start-up, and neither memory nor a hang of one is another's. Before each, a file that does
not exist is opened to mark the trace.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import pathlib
import pkgutil
import resource
import signal
import sys
import time
from typing import Any

#: Opened before each job; `rig` finds it in the trace.
MARK = "/no-such-folder/job/"

_SECONDS = 600
_CPU_SECONDS = 20
_SUBREAPER = 36


def main(jobs_file: str, answers_file: str) -> int:
    program = _imported()
    jobs: list[dict[str, Any]] = json.loads(pathlib.Path(jobs_file).read_text())
    # What a child leaves running when it ends becomes ours, and is seen.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    answers = {}
    for job in jobs:
        _mark(job["name"])
        answers[job["name"]] = _run(program, job)
    _mark("")
    pathlib.Path(answers_file).write_text(json.dumps(answers))
    return 0


def _imported() -> Any:
    """`vimgvc.cli.main`, with every module of the package imported and qemu's version asked for."""
    import vimgvc
    from vimgvc import errors

    for module in pkgutil.walk_packages(vimgvc.__path__, "vimgvc."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with contextlib.suppress(errors.VimgvcError):
        importlib.import_module("vimgvc.images.qemu").available()
    return importlib.import_module("vimgvc.cli.main")


def _mark(name: str) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(MARK + name, os.O_RDONLY))


def _run(program: Any, job: dict[str, Any]) -> dict[str, Any]:
    messages = pathlib.Path(job["messages"])
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _become(job, messages)
            os._exit(program.run(job["argv"]))
        finally:
            os._exit(99)
    _pid, status, usage = os.wait4(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss << 10,
        "left_behind": _left_behind(),
        "messages": messages.read_text(errors="replace"),
    }


def _become(job: dict[str, Any], messages: pathlib.Path) -> None:
    signal.alarm(_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    out = os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(job["folder"])


def _left_behind() -> int:
    """Processes that outlived the job; they are waited for, so that the next one does not inherit them."""
    count = 0
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return count
        if pid == 0:
            count += 1
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return count


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
