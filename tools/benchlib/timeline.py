"""tools/bench history: comparing, going back, drawing and collecting long histories."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchlib import child, machine, peers, report, rewind, tools
from benchlib.results import Record, Results, Target

MIB = 1 << 20
DIFF, GRAPH = "diff of a 1 TiB disk", "log --graph of 10,000 commits"


def _per_second(results: Results) -> float | None:
    """GB that are compared in a second."""
    size, seconds = results.numbers.get("disk bytes"), results.median(rewind.COMPARE, "vimgvc")
    return size / seconds / 1e9 if size and seconds else None


def _times(of: tuple[str, str], to: tuple[str, str]) -> Callable[[Results], float | None]:
    """How many times longer (measure, tool) `to` takes than `of`."""

    def value(results: Results) -> float | None:
        below, above = results.median(*of), results.median(*to)
        return above / below if above and below else None

    return value


def _number(key: str) -> Callable[[Results], float | None]:
    return lambda results: results.numbers.get(key)


def _median(measure: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(measure, "vimgvc")


def _peak(results: Results) -> float | None:
    return max((one.peak_bytes / MIB for one in results.records if one.measure == DIFF), default=None)


OWN = "vimgvc"
TARGETS = (
    Target(f"{DIFF}, 1 GiB of it changed", _median(DIFF), 2, at_least=False, unit="s"),
    Target(f"{DIFF}: memory", _peak, 200, at_least=False, unit="MiB"),
    Target(
        "in place, known base, 1 % in runs: faster than a full restore",
        _times((rewind.KNOWN, OWN), (rewind.FULL, OWN)),
        20,
        at_least=True,
        unit="x",
    ),
    Target(
        "in place, known base, 1 % in pages: faster than a full restore",
        _times((rewind.PAGES, OWN), (rewind.FULL, OWN)),
        20,
        at_least=True,
        unit="x",
    ),
    Target("in place, compared", _per_second, 2.5, at_least=True, unit="GB/s"),
    Target(
        "in place, compared: faster than restic",
        _times((rewind.COMPARE, OWN), (rewind.COMPARE, "restic")),
        5,
        at_least=True,
        unit="x",
    ),
    Target(GRAPH, _median(GRAPH), 1, at_least=False, unit="s"),
    Target("gc: memory", _number("gc MiB"), 300, at_least=False, unit="MiB"),
    Target("gc: time by reading and rewriting the packs", _number("gc by rewriting"), 1.3, at_least=False, unit="x"),
    Target("gc: stored by a fresh repository", _number("gc by fresh"), 1.1, at_least=False, unit="x"),
)
NOTES = [
    "A restore ends when what it wrote is on the disk. What is restored, or compared with, is in the page cache.",
    "restic writes only what differs when a file is there (`--overwrite always`, its default); it reads all of it.",
    "runs: 1 % in pieces of 256 KiB, as files are written; pages: in pages of 8 KiB, as databases do.",
    "limit: all of the disk read and hashed by the same library and threads, and nothing else.",
    "gc: every other commit of a disk of 64 GiB was forgotten.",
    "Rewriting: the same packs are read, as much is written and synced, the packs are removed; no byte is looked at.",
]


class Timeline:
    """Where to work, what runs, how often."""

    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        self.options, self.results = options, results
        self.work = options.results.resolve() / "history"
        self.program = str(Path(sys.executable).with_name("vimgvc"))

    def diff(self) -> None:
        machine.say("two commits of a disk of 1 TiB")
        where = self._made("differ_made", "32768")
        self._times(DIFF, [self.program, *where, "diff", "vm~1", "vm"])

    def rewind(self) -> None:
        programs = {"vimgvc": self.program}
        restic = peers.named("restic")
        if restic.problem:
            machine.say(f"restic: {restic.problem}")
        if restic.path:
            programs["restic"] = restic.path
        size = self.options.size << 30
        self.results.numbers["disk bytes"] = size
        going = rewind.Rewind(self.work, programs, self.results, size)
        going.prepare()
        for repetition in range(self.options.n):
            machine.say(f"repetition {repetition + 1} of {self.options.n}")
            for step in going.steps(repetition):
                step()

    def graph(self) -> None:
        machine.say("a history of 10,000 commits")
        where = self._made("graph_made", "10000")
        self._times(GRAPH, [self.program, *where, "log", "--graph"])

    def gc(self) -> None:
        machine.say(f"a collection among {self.options.commits} commits of 64 GiB")
        self._fresh()
        maker = str(machine.ROOT / "tools/benchlib/collect.py")
        words = [sys.executable, maker, str(self.work / "collect"), str(self.options.commits)]
        told = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, cwd=machine.ROOT).stdout)
        machine.say(f"  {json.dumps(told)}")
        self.results.numbers |= {
            "gc MiB": told["MiB"],
            "gc seconds": told["seconds"],
            "gc by rewriting": told["seconds"] / told["plain_rewrite"],
            "gc by fresh": told["ratio"],
        }

    def _fresh(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def _made(self, maker: str, size: str) -> list[str]:
        """A repository of one of the makers, and the options that open it."""
        self._fresh()
        place = self.work / "made"
        place.mkdir()
        words = [sys.executable, "-m", f"benchlib.{maker}", str(place), size]
        machine.run(words, env={"PYTHONPATH": str(machine.ROOT / "tools")})
        return ["-r", str(place / "repository"), "--key-file", str(place / "key")]

    def _times(self, measure: str, argv: list[str]) -> None:
        env = tools.base_env(self.work)
        for repetition in range(self.options.n):
            run = child.measure(argv, cwd=self.work, env=env, log=self.work / "log")
            one = Record(measure, OWN, repetition, run.seconds, run.cpu_seconds, run.peak_bytes)
            self.results.records.append(one)
            machine.say(
                f"  {measure:32} {run.seconds:6.2f} s  cpu {run.cpu_seconds:6.2f} s  {run.peak_bytes >> 20} MiB"
            )


MEASURES: dict[str, Callable[[Timeline], None]] = {
    "diff": Timeline.diff,
    "rewind": Timeline.rewind,
    "graph": Timeline.graph,
    "gc": Timeline.gc,
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench history", description="Measure what is done with histories.")
    parser.add_argument("-n", type=int, default=3, metavar="TIMES", help="repetitions; medians are reported (3)")
    parser.add_argument("--results", type=Path, default=machine.ROOT / ".bench", help="where to work (.bench)")
    parser.add_argument("--only", default=",".join(MEASURES), metavar="MEASURE,...", help="which (all)")
    parser.add_argument("--size", type=int, default=4, metavar="GIB", help="of the disk that is restored (4)")
    parser.add_argument(
        "--commits", type=int, default=1000, metavar="N", help="of the history that is collected (1000)"
    )
    options = parser.parse_args(words)
    chosen = machine.chosen(parser, options.only, MEASURES)
    results, code = Results(), 0
    timeline = Timeline(options, results)
    try:
        for name in chosen:
            MEASURES[name](timeline)
    except machine.BenchError as error:
        machine.say(f"tools/bench: {error}")
        code = 1
    finally:
        shutil.rmtree(timeline.work, ignore_errors=True)
    print(report.text(results, NOTES, TARGETS))
    return code
