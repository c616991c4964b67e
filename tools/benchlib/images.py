"""tools/bench images: containers in and out, beside what qemu's own tools take for it."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchlib import child, machine, report, rootless, sparse, tools
from benchlib.results import Record, Results, Target

SIZE, DATA = "2G", 1300 << 20
COMPRESSED = {"qcow2 zlib": "compression_type=zlib", "qcow2 zstd": "compression_type=zstd"}
#: What is exported, and what `qemu-img convert` gets for the same.
OUT = ("qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels")

Argv = Sequence[str | Path]

EXPORT, UNCOMPARED, TWO_STEPS = "export", "no compare", "restore, convert"


def _ratio(of: str, to: tuple[str, str], bound: float) -> Target:
    """How many times longer (measure, tool) `to` takes than vimgvc at the measure `of`."""

    def value(results: Results) -> float | None:
        above, below = results.median(*to), results.median(of, "vimgvc")
        return above / below if above and below else None

    return Target(f"{of}: by {to[1]}{'' if to[0] == of else ' of ' + to[0]}", value, bound, at_least=True, unit="x")


def _export(form: str, tool: str) -> Target:
    def value(results: Results) -> float | None:
        above, below = results.median(f"export {form}", TWO_STEPS), results.median(f"export {form}", tool)
        return above / below if above and below else None

    return Target(f"{form}: {tool}", value, 1.5 if form == "qcow2" else 1.2, at_least=True, unit="x")


TARGETS = (
    _ratio("commit qcow2", ("commit raw", "vimgvc"), 0.9),
    _ratio("qcow2 again", ("raw again", "vimgvc"), 0.9),
    _ratio("commit qcow2", ("commit qcow2", "qemu-nbd"), 1.5),
    _ratio("qcow2 again", ("qcow2 again", "qemu-nbd"), 1.5),
    *(
        _ratio(f"{what} {name}", (f"convert {name}", "qemu-img"), 1)
        for name in COMPRESSED
        for what in ("commit", "convert")
    ),
    *(_export(form, tool) for form in OUT for tool in (EXPORT, UNCOMPARED)),
)
NOTES = (
    "The source is in the page cache. A run ends when what it wrote is on the disk.",
    "restore, convert: `vimgvc restore` to raw, then `qemu-img convert`. no compare: `export --no-compare`.",
    "`export` reads what it wrote again and compares it; the two steps do not.",
)


class Images:
    """A disk, the containers that it is in, and a repository that has it."""

    def __init__(self, work: Path, program: str, results: Results) -> None:
        self.work, self.results = work, results
        self.tool = tools.Vimgvc(program, work / "vimgvc")
        self.program, self.raw = program, work / "disk.raw"
        self._out = work / "out"

    def prepare(self) -> None:
        machine.require({"qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"})
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        machine.say(f"a disk of {SIZE} with {machine.mebibytes(DATA)} of files, in four containers")
        with tempfile.TemporaryDirectory(prefix="root-", dir=self.work) as name:
            for file in rootless.pick(0, DATA):
                target = Path(name) / file.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            machine.run(["mke2fs", "-q", "-t", "ext4", "-d", name, self.raw, SIZE])
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
        machine.run([*convert, self.raw, self.image("qcow2")])
        for kind, option in COMPRESSED.items():
            machine.run([*convert, "-c", "-W", "-o", option, self.raw, self.image(kind)])

    def image(self, kind: str) -> Path:
        return self.raw if kind == "raw" else self.work / f"{kind.replace(' ', '-')}.qcow2"

    def empty(self) -> None:
        """An empty repository whose key is remembered."""
        shutil.rmtree(self.tool.place, ignore_errors=True)
        tools.make_folders(self.tool.place)
        for argv in self.tool.start():
            machine.run(argv, env=self.tool.env())

    def run(self, measure: str, tool: str, repetition: int, *argvs: Argv) -> None:
        """One after the other, until all is on the disk; not measured are what they made before and its removal."""
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir()
        self._sync()
        runs, began = [], time.perf_counter()
        for argv in argvs:
            words = [os.fspath(word) for word in argv]
            runs.append(child.measure(words, cwd=self._out, env=self.tool.env(), log=self.work / "log"))
        self._sync()
        seconds = time.perf_counter() - began
        cpu, peak = sum(run.cpu_seconds for run in runs), max(run.peak_bytes for run in runs)
        self.results.records.append(Record(measure, tool, repetition, seconds, cpu, peak))
        machine.say(f"  {measure:20} {tool:18} {seconds:7.2f} s  cpu {cpu:6.2f} s  peak {peak >> 20:5} MiB")

    def _sync(self) -> None:
        """Of this file system only: what others write elsewhere is none of ours."""
        machine.run(["sync", "-f", self.work])

    def commit(self, kind: str, repetition: int) -> None:
        self.empty()
        sparse.warm(self.image(kind))
        argv: Argv = [self.program, "commit", self.image(kind), "--branch", "disk"]
        self.run(f"commit {kind}", "vimgvc", repetition, argv)
        self.run(f"{kind} again", "vimgvc", repetition, argv)

    def commit_through_qemu(self, repetition: int) -> None:
        self.empty()
        sparse.warm(self.image("qcow2"))
        script = machine.ROOT / "tools/benchlib/through_qemu.py"
        argv: Argv = [sys.executable, script, self.image("qcow2")]
        self.run("commit qcow2", "qemu-nbd", repetition, argv)
        self.run("qcow2 again", "qemu-nbd", repetition, argv)

    def convert(self, kind: str, repetition: int, *, ours: bool) -> None:
        sparse.warm(self.image(kind))
        own: Argv = [
            self.program,
            "convert",
            self.image(kind),
            "out.raw",
            "--format",
            "raw",
            "--no-compare",
        ]
        theirs: Argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.image(kind), "out.raw"]
        self.run(f"convert {kind}", "vimgvc" if ours else "qemu-img", repetition, own if ours else theirs)
        if not sparse.same(self.raw, self._out / "out.raw"):
            raise machine.BenchError(f"{kind} was converted to something else")

    def export(self, form: str, tool: str, repetition: int) -> None:
        argv = [self.program, "export", "disk", "out", "--format", form]
        steps: list[Argv] = [argv if tool == EXPORT else [*argv, "--no-compare"]]
        if tool == TWO_STEPS:
            options = ["-o", "force_size=on"] if form == "vpc" else []
            convert = ["qemu-img", "convert", "-f", "raw", "-O", form, *options, "raw", "out"]
            steps = [[self.program, "restore", "disk", "raw"], convert]
        self.run(f"export {form}", tool, repetition, *steps)
        machine.run(["qemu-img", "compare", "-f", form, "-F", "raw", self._out / "out", self.raw])


def _steps(images: Images, repetition: int, forms: Sequence[str], *, only_out: bool) -> list[list[Callable[[], None]]]:
    """What is done in a repetition: groups of runs that are compared with each other."""
    call = functools.partial
    commits: list[Callable[[], None]] = [
        *(call(images.commit, kind, repetition) for kind in ("raw", "qcow2", *COMPRESSED)),
        call(images.commit_through_qemu, repetition),
    ]
    converts = [call(images.convert, kind, repetition, ours=ours) for kind in COMPRESSED for ours in (True, False)]
    groups: list[list[Callable[[], None]]] = [] if only_out else [commits, [*converts]]
    how = (EXPORT, UNCOMPARED, TWO_STEPS)
    return groups + [[call(images.export, form, tool, repetition) for tool in how] for form in forms]


def _processor(results: Results) -> str:
    """Processor time, which other load of the machine disturbs less."""
    cpu: dict[tuple[str, str], list[float]] = {}
    for item in results.records:
        cpu.setdefault((item.measure, item.tool), []).append(item.cpu_seconds)
    measures = dict.fromkeys(measure for measure, _ in cpu)
    rows = [
        f"{measure}: "
        + ", ".join(f"{tool} {statistics.median(values):.2f}" for (of, tool), values in cpu.items() if of == measure)
        for measure in measures
    ]
    return "Processor seconds, medians. " + "; ".join(rows) + "."


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench images", description="Measure containers in and out.")
    parser.add_argument("-n", type=int, default=3, metavar="TIMES", help="repetitions; medians are reported (3)")
    parser.add_argument("--results", type=Path, default=machine.ROOT / ".bench", help="where to work (.bench)")
    parser.add_argument("--only", metavar="FORMAT,...", default=",".join(OUT), help="what to export (all)")
    parser.add_argument("--exports", action="store_true", help="measure nothing but exports")
    options = parser.parse_args(words)
    results = Results()
    images = Images(options.results.resolve() / "images", str(Path(sys.executable).with_name("vimgvc")), results)
    code = 0
    try:
        images.prepare()
        if options.exports:
            images.commit("raw", 0)
        for repetition in range(options.n):
            machine.say(f"repetition {repetition + 1} of {options.n}")
            for group in _steps(images, repetition, options.only.split(","), only_out=options.exports):
                for step in group if repetition % 2 == 0 else reversed(group):
                    step()
    except machine.BenchError as error:
        machine.say(f"tools/bench: {error}")
        code = 1
    finally:
        shutil.rmtree(images.work, ignore_errors=True)
    print(report.text(results, [*NOTES, _processor(results)], TARGETS))
    return code
