"""Going back in place: a disk of which some is other than recorded becomes what it was, beside a full restore."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchlib import child, machine, sparse, tools
from benchlib.results import Record, Results

DISK = "disk.img"
FULL, KNOWN, PAGES, COMPARE, EQUAL = (
    "full restore",
    "in place, known base",
    "in place, known base, pages",
    "in place, compared",
    "in place, nothing to do",
)


class Rewind:
    """Three states of a disk, and a repository of each tool that has them.

    `rewind_made` makes the states; `then` is what everybody goes back to.
    """

    def __init__(self, work: Path, programs: dict[str, str], results: Results, size: int) -> None:
        self.work, self.results, self.size = work, results, size
        self.vimgvc = tools.Vimgvc(programs["vimgvc"], work / "vimgvc")
        self.program = programs["vimgvc"]
        self.restic = tools.Restic(programs["restic"], work / "restic") if "restic" in programs else None
        self._target = work / "target"

    def prepare(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        machine.say(f"a disk of {machine.mebibytes(self.size)}, and 1 % of it changed in two ways")
        words = [sys.executable, "-m", "benchlib.rewind_made", str(self.work), str(self.size)]
        machine.run(words, env={"PYTHONPATH": str(machine.ROOT / "tools")})
        self._begin(self.vimgvc)
        for name in ("then", "runs", "pages"):
            argv = [self.program, "commit", f"disk={self.state(name)}", "--branch", "disk", "--no-fsync", "--no-verify"]
            machine.run(argv, env=self.vimgvc.env())
            machine.run([self.program, "tag", name, "disk"], env=self.vimgvc.env())
        if self.restic:
            self._begin(self.restic)
            argv = [*self.restic.commit(DISK, "then")]
            self._insert("then")
            child.measure(argv, cwd=self._target, env=self.restic.env(), log=self.work / "log")

    def state(self, name: str) -> Path:
        return self.work / f"{name}.img"

    def _begin(self, tool: tools.Tool) -> None:
        tools.make_folders(tool.place)
        for argv in tool.start():
            machine.run(argv, env=tool.env())

    def _insert(self, name: str | None) -> None:
        """The target is a disk of that state, or nothing is there; in the page cache, and on the disk."""
        shutil.rmtree(self._target, ignore_errors=True)
        self._target.mkdir()
        if name:
            shutil.copyfile(self.state(name), self._target / DISK)
            sparse.warm(self._target / DISK)

    def ours(self, measure: str, state: str | None, options: Sequence[str], repetition: int) -> None:
        argv = [self.program, "restore", "then", DISK, *options]
        self._measure(measure, self.vimgvc, argv, state, repetition)

    def theirs(self, measure: str, state: str | None, repetition: int) -> None:
        assert self.restic is not None
        argv, _ = self.restic.restore(DISK, "then", self._target)
        self._measure(measure, self.restic, argv, state, repetition)

    def limit(self, repetition: int) -> None:
        """What reading and hashing alone takes."""
        threads = str(len(os.sched_getaffinity(0)))
        argv = [sys.executable, str(machine.ROOT / "tools/benchlib/hashing.py"), DISK, threads]
        self._measure(EQUAL, tools.Limit(self.work), argv, "then", repetition)

    def _measure(self, measure: str, tool: tools.Tool, argv: Sequence[str], state: str | None, repetition: int) -> None:
        """Until what it wrote is on the disk; then compare, which is not measured."""
        self._insert(state)
        os.sync()
        began = time.perf_counter()
        run = child.measure(argv, cwd=self._target, env=tool.env(), log=self.work / "log")
        with (self._target / DISK).open("rb") as file:
            os.fsync(file.fileno())
        seconds = time.perf_counter() - began
        if not sparse.same(self.state("then"), self._target / DISK):
            raise machine.BenchError(f"{tool.name} restored something else than what it was given")
        self.results.records.append(Record(measure, tool.name, repetition, seconds, run.cpu_seconds, run.peak_bytes))
        machine.say(
            f"  {measure:28} {tool.name:8} {seconds:7.2f} s  cpu {run.cpu_seconds:6.2f} s  "
            f"peak {run.peak_bytes >> 20:5} MiB"
        )

    def steps(self, repetition: int) -> list[Callable[[], None]]:
        call = functools.partial
        found: list[Callable[[], None]] = [
            call(self.ours, FULL, None, [], repetition),
            call(self.ours, KNOWN, "runs", ["--in-place", "--base", "runs"], repetition),
            call(self.ours, PAGES, "pages", ["--in-place", "--base", "pages"], repetition),
            call(self.ours, COMPARE, "runs", ["--in-place"], repetition),
            call(self.ours, EQUAL, "then", ["--in-place"], repetition),
            call(self.limit, repetition),
        ]
        if self.restic:
            found += [call(self.theirs, FULL, None, repetition), call(self.theirs, COMPARE, "runs", repetition)]
            found += [call(self.theirs, EQUAL, "then", repetition)]
        return found if repetition % 2 == 0 else found[::-1]
