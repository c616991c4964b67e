"""Running one measured process: time, processor time, peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchlib import machine


@dataclass(frozen=True)
class Run:
    """What one process took.

    `peak_bytes` is the largest resident size of it or of a child it waited for; pages of mapped files
    count. It cannot be less than what this very process occupies, which is why nothing large is
    imported before the last measurement.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measure(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> Run:
    """Run it to its end, which must be a success. Its messages go to `log`, its standard output beside it."""
    output = log.with_suffix(".out")
    with output.open("wb") as out, log.open("ab") as err:
        began = time.perf_counter()
        process = subprocess.Popen(argv, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise machine.BenchError(f"{' '.join(argv)}\nfailed with code {process.returncode}:\n{tail}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, output.read_text(errors="replace"))
