"""The measures: each is a function that takes what there is and adds to the results."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchlib import child, machine, session, tools
from benchlib.tools import Tool

# Tools without a target and slow: measured once.
ONCE = frozenset({"borg-fixed", "desync"})
# What one version shares with another is stored once.
SHARES_BLOCKS = frozenset({"vimgvc", "limit", "restic", "borg", "borg-fixed"})

DISK = "vm.img"


@dataclass
class Bench:
    """What the measures share. `programs`: tool name -> path of the program, for those that are there."""

    run: session.Session
    programs: dict[str, str]
    repetitions: int

    def tools(self, names: Sequence[str]) -> list[Tool]:
        """Those of `names` that are there."""
        return [self._make(name) for name in names if name in self.programs]

    def _make(self, name: str) -> Tool:
        program, place = self.programs[name], self.run.work / name
        match name:
            case "vimgvc":
                return tools.Vimgvc(program, place)
            case "limit":
                return tools.Limit(place)
            case "restic":
                return tools.Restic(program, place)
            case "borg":
                return tools.Borg(program, place)
            case "borg-fixed":
                chunks = ["--chunker-params", "fixed,4194304"]
                return tools.Borg(program, place, name="borg-fixed", chunks=chunks)
            case "desync":
                return tools.Desync(program, place)
            case "qemu-img":
                return tools.QemuImg(program, place)
        raise AssertionError(name)


ALL = ("vimgvc", "limit", "restic", "borg", "borg-fixed", "desync", "qemu-img")


def debian(bench: Bench) -> None:
    """The life of a disk: first commit, two versions, unchanged, restore, and a second machine."""
    for repetition in range(bench.repetitions):
        everyone = [tool for tool in bench.tools(ALL) if repetition == 0 or tool.name not in ONCE]
        machine.say(f"debian, repetition {repetition + 1} of {bench.repetitions}")
        bench.run.begin(everyone)
        order = session.in_turn(everyone, repetition)
        _version(bench, "first commit", "debian-v1", order, repetition)
        if repetition == 0:
            _second_machine(bench, order)
        _version(bench, "packages installed", "debian-v2", order, repetition)
        _version(bench, "package upgrade", "debian-v3", order, repetition)
        for tool in order:
            bench.run.note_stored("three versions", tool)
        for tool in (tool for tool in order if tool.name in SHARES_BLOCKS):
            bench.run.commit("unchanged, read again", tool, DISK, "unchanged", repetition)
        for tool in order:
            bench.run.restore("restore", tool, DISK, "debian-v3", repetition)


def _version(bench: Bench, measure: str, version: str, order: Sequence[Tool], repetition: int) -> None:
    bench.run.insert(version, DISK)
    for tool in order:
        bench.run.commit(measure, tool, DISK, version, repetition)
        if measure == "first commit":
            bench.run.note_stored("first version", tool)


def _second_machine(bench: Bench, order: Sequence[Tool]) -> None:
    """How much the other machine adds to a repository that holds the first version of this one."""
    bench.run.insert("debian-u1", "second.img")

    def commit(tool: Tool) -> None:
        before = tool.stored()
        bench.run.commit("second machine", tool, "second.img", "second", 0)
        bench.run.note_stored("a second machine adds", tool, since=before)

    for tool in order:
        # the limit finds blocks again only where they were
        if tool.name in SHARES_BLOCKS - {"limit"}:
            bench.run.undone(tool, functools.partial(commit, tool))


def database(bench: Bench) -> None:
    """A gibibyte of pages, then 1 % of them written anew."""
    everyone = bench.tools(("vimgvc", "limit", "restic", "borg"))
    bench.run.begin(everyone)
    machine.say("database")
    for version, measure in (("db-v1", "database, first"), ("db-v2", "database, 1 % rewritten")):
        bench.run.insert(version, DISK)
        for tool in everyone:
            before = tool.stored()
            bench.run.commit(measure, tool, DISK, version, 0)
            bench.run.note_stored(f"{measure}: adds", tool, since=before)


def big(bench: Bench) -> None:
    """64 GiB with 2 GiB of data. restic and borg read the holes too, which takes minutes: left out."""
    machine.say("64 GiB with 2 GiB of data (restic and borg would read the holes: left out)")
    everyone = bench.tools(("vimgvc", "limit", "qemu-img"))
    bench.run.begin(everyone)
    bench.run.insert("big", DISK)
    for tool in everyone:
        bench.run.commit("64 GiB, first", tool, DISK, "big", 0)
    for tool in everyone:
        if tool.name in SHARES_BLOCKS:
            bench.run.commit("64 GiB, unchanged", tool, DISK, "big again", 0)


def tebi(bench: Bench) -> None:
    """1 TiB with 1 GiB of data, against the same data without the holes."""
    machine.say("1 TiB with 1 GiB of data")
    pairs = [("1 TiB sparse", "sparse1t"), ("its 1 GiB alone", "sparse1g")]
    for repetition in range(bench.repetitions):
        for measure, version in pairs if repetition % 2 == 0 else reversed(pairs):
            everyone = bench.tools(("vimgvc",))
            bench.run.begin(everyone)
            bench.run.insert(version, DISK)
            for tool in everyone:
                bench.run.commit(measure, tool, DISK, version, repetition)


def durability(bench: Bench) -> None:
    """The first commit of the Debian disk with and without fsync and reading back, in pairs."""
    if "vimgvc" not in bench.programs:
        return
    machine.say("durability")
    pairs: list[tuple[str, list[str]]] = [("durable", []), ("not durable", ["--no-verify", "--no-fsync"])]
    for repetition in range(bench.repetitions + 2):
        for measure, options in pairs if repetition % 2 == 0 else reversed(pairs):
            tool = tools.Vimgvc(bench.programs["vimgvc"], bench.run.work / "vimgvc", options=options)
            bench.run.begin([tool])
            bench.run.insert("debian-v1", DISK)
            bench.run.commit(measure, tool, DISK, "v1", repetition)


def startup(bench: Bench) -> None:
    """What a command takes that has next to nothing to do; with the passphrase for comparison."""
    if "vimgvc" not in bench.programs:
        return
    machine.say("start-up")
    program, place = bench.programs["vimgvc"], bench.run.work / "vimgvc"
    tool = tools.Vimgvc(program, place)
    bench.run.begin([tool])
    history = str(machine.ROOT / "tools/benchlib/history.py")
    env = {**tool.env(), "PYTHONPATH": str(machine.ROOT)}
    child.measure([sys.executable, history, "1000"], cwd=bench.run.work, env=env, log=bench.run.work / "history.log")
    for repetition in range(max(5, bench.repetitions)):
        bench.run.command("--version", tool, [program, "--version"], repetition)
        bench.run.command("log of 1,000 commits", tool, [program, "log", "vm"], repetition)
    for repetition in range(bench.repetitions):
        argv = [program, "log", "vm", *tool.with_passphrase()]
        bench.run.command("log with the passphrase", tool, argv, repetition)


def index(bench: Bench) -> None:
    """tools/bench_index, in a process of its own."""
    script = machine.ROOT / "tools/bench_index"
    machine.say("index of 16 M chunks")
    bench.run.begin([])
    argv = [sys.executable, str(script), "--folder", str(bench.run.work)]
    run = child.measure(argv, cwd=bench.run.work, env=tools.base_env(bench.run.work), log=bench.run.work / "index.log")
    lookup = json.loads(run.output)["lookup"]
    batches = [value for key, value in lookup.items() if key.startswith("batch_65536_")]
    bench.run.results.numbers["index resident MiB"] = lookup["end"]["VmRSS"]
    bench.run.results.numbers["index lookups per second"] = min(batch["lookups_per_second"] for batch in batches)


# Name -> the disks it needs, and what does it.
MEASURES: dict[str, tuple[tuple[str, ...], Callable[[Bench], None]]] = {
    "debian": (("debian-v1", "debian-v2", "debian-v3", "debian-u1"), debian),
    "durability": (("debian-v1",), durability),
    "tebi": (("sparse1t", "sparse1g"), tebi),
    "database": (("db-v1", "db-v2"), database),
    "big": (("big",), big),
    "startup": ((), startup),
    "index": ((), index),
}


def missing_disks(names: Sequence[str], corpus: Path) -> list[str]:
    wanted = {disk for name in names for disk in MEASURES[name][0]}
    return sorted(disk for disk in wanted if not (corpus / f"{disk}.img").exists())
