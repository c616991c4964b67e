"""tools/bench offsite: copies to other places, beside other tools; commits to them; lines that are long."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchlib import child, delay, fleet, machine, offsite_targets, peers, places, report, session, sparse, tools
from benchlib.results import Record, Results
from tests.servers import http_proxy, proxy

VERSIONS = ("debian-v1", "debian-v2", "debian-v3")
DISK = "vm.img"
ROUND_TRIP = 0.050

Step = Callable[[], None]


class Offsite:
    """Where to work, what runs, how often; and the repositories whose copies are made."""

    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        self.options, self.results = options, results
        self.work = options.results.resolve() / "offsite"
        self.program = str(Path(sys.executable).with_name("vimgvc"))
        self.vimgvc = tools.Vimgvc(self.program, self.work / "vimgvc")
        self.restic = self._restic()
        self.borg = peers.named("borg").path
        self.rclone = places.rclone()
        for name, found in (("restic", self.restic), ("borg", self.borg), ("rclone", self.rclone)):
            if not found:
                machine.say(f"{name} is missing: left out")
        self._disks = self.work / "disks"

    def _restic(self) -> tools.Restic | None:
        found = peers.named("restic")
        return tools.Restic(found.path, self.work / "restic") if found.path else None

    # --- measures ---------------------------------------------------------------------------------

    def push(self) -> None:
        """All of the Debian series to empty places."""
        self._series()
        for repetition in range(self.options.n):
            machine.say(f"push, repetition {repetition + 1} of {self.options.n}")
            with places.servers(self.work) as servers:
                self._log_in(servers)
                steps: list[Step] = []
                for place in (servers.bucket(), servers.folder()):
                    steps += self._copies(place, repetition)
                for step in session.in_turn(steps, repetition):
                    step()

    def _copies(self, place: places.Place, repetition: int) -> list[Step]:
        measure = f"copy to {place.name}"
        remote = f"{place.name.lower()}-{repetition}"
        steps: list[Step] = [functools.partial(self._push, measure, place, remote, repetition)]
        if self.restic:
            steps.append(functools.partial(self._restic_copy, measure, place, repetition))
        if self.rclone:
            words = [self.rclone, "sync", str(self.vimgvc.place / "repo"), place.rclone()]
            steps.append(functools.partial(self._run, measure, "rclone", words, place.env(), repetition))
        if self.borg and isinstance(place, places.Folder):
            steps.append(functools.partial(self._borg, measure, place, repetition))
        return steps

    def _push(self, measure: str, place: places.Place, remote: str, repetition: int) -> None:
        """To an empty place; then every byte there is checked by its hash, which is not measured."""
        env = {**self.vimgvc.env(), **place.env()}
        machine.run([self.program, "remote", "add", remote, place.url()], env=env)
        self._run(measure, "vimgvc", [self.program, "push", remote], env, repetition)
        if repetition == 0:
            machine.run([self.program, "verify", "--remote", remote], env=env)

    def _restic_copy(self, measure: str, place: places.Place, repetition: int) -> None:
        assert self.restic is not None
        program = self.restic.start()[0][0]
        near = dict(self.restic.env())
        env = {**near, **place.env(), "RESTIC_REPOSITORY": place.restic(), "RESTIC_FROM_PASSWORD": tools.PASSWORD}
        source = ["--from-repo", near["RESTIC_REPOSITORY"]]
        ssh: list[str] = ["-o", f"sftp.args=-F {place.config}"] if isinstance(place, places.Folder) else []
        machine.run([program, *ssh, "init", *source, "--copy-chunker-params"], env=env)
        self._run(measure, "restic", [program, *ssh, "copy", "--quiet", *source], env, repetition)

    def _borg(self, measure: str, place: places.Folder, repetition: int) -> None:
        """It copies no repositories: the three disks are recorded there."""
        assert self.borg is not None
        tool = tools.Borg(self.borg, self.work / "borg")
        shutil.rmtree(tool.place, ignore_errors=True)
        tools.make_folders(tool.place)
        env = {**tool.env(), **place.env(), "BORG_REPO": place.borg()}
        machine.run(tool.start()[0], env=env)
        runs = []
        for version in VERSIONS:
            self._insert(version)
            runs.append(child.measure(tool.commit(DISK, version), cwd=self._disks, env=env, log=self.work / "log"))
        seconds, cpu = sum(run.seconds for run in runs), sum(run.cpu_seconds for run in runs)
        self._note(Record(measure, "borg", repetition, seconds, cpu, max(run.peak_bytes for run in runs)))

    def increment(self) -> None:
        """A disk of which 1 % is written anew, to a place that has what was before: bytes and requests."""
        self._start()
        self._commit("db-v1")
        with places.servers(self.work) as servers, contextlib.ExitStack() as stack:
            self._log_in(servers)
            bucket, folder = servers.bucket(), servers.folder()
            asked = stack.enter_context(http_proxy.HttpProxy(bucket.host, bucket.port))
            lines = [stack.enter_context(proxy.Proxy(bucket.host, port)) for port in (asked.port, folder.port)]
            ways: list[tuple[places.Place, proxy.Proxy]] = [(bucket, lines[0]), (folder, lines[1])]
            for place, line in ways:
                env = {**self.vimgvc.env(), **place.env()}
                machine.run([self.program, "remote", "add", place.name, place.through(line.port).url()], env=env)
                machine.run([self.program, "push", place.name], env=env)
            asked.forget()
            before, stored = bucket.packs(), self._commit("db-v2")
            for place, line in ways:
                known = len(line.carried)
                words = [self.program, "push", place.name]
                self._run(f"1 % to {place.name}", "vimgvc", words, place.env(), 0)
                moved = sum(sum(one.values()) for one in line.carried[known:])
                machine.say(f"  {moved} bytes on the line for {stored} stored")
                self.results.numbers[f"wire {place.name}"] = moved / stored
            packs = bucket.packs() - before
            machine.say(f"  {len(asked.seen)} requests, {packs} packs")
            self.results.numbers["requests beside packs"] = len(asked.seen) - packs

    def latency(self) -> None:
        """The same copy over a short line and a long one, both through the same program."""
        self._series()
        for repetition in range(self.options.n):
            machine.say(f"latency, repetition {repetition + 1} of {self.options.n}")
            with places.servers(self.work) as servers:
                self._log_in(servers)
                steps: list[Step] = [
                    functools.partial(self._over, make(), trip, repetition)
                    for make in (servers.bucket, servers.folder)
                    for trip in (0.0, ROUND_TRIP)
                ]
                for step in session.in_turn(steps, repetition):
                    step()

    def _over(self, place: places.Place, trip: float, repetition: int) -> None:
        with delay.Line(place.host, place.port, trip / 2) as line:
            measure = f"to {place.name}, {trip * 1000:.0f} ms"
            self._push(measure, place.through(line.port), f"{place.name.lower()}-{trip * 1000:.0f}-{repetition}", 1)

    def direct(self) -> None:
        """A commit to S3 beside one to this machine."""
        for repetition in range(self.options.n):
            machine.say(f"direct, repetition {repetition + 1} of {self.options.n}")
            self._start()
            with places.servers(self.work) as servers:
                place = servers.bucket()
                far = {**self.vimgvc.env(), **place.env(), "VIMGVC_REPOSITORY": place.url()}
                for argv in self.vimgvc.start()[1:]:
                    words = [place.url() if word == str(self.vimgvc.place / "repo") else word for word in argv]
                    machine.run(words, env=far)
                for version in VERSIONS:
                    self._insert(version)
                    near = self.vimgvc.env()
                    steps: list[Step] = [
                        functools.partial(self._run, f"commit {version}", name, self._words(version), env, repetition)
                        for name, env in (("vimgvc", near), ("vimgvc to S3", far))
                    ]
                    for step in session.in_turn(steps, repetition):
                        step()

    def tebi(self) -> None:
        """A dense history of 1 TiB pushed, cloned and pulled: how much memory that takes."""
        self._start()
        with places.servers(self.work) as servers:
            for place in (servers.bucket(), servers.folder()):
                self._tebi(servers, place)
        peaks = [one.peak_bytes for one in self.results.records if one.measure.startswith("1 TiB")]
        self.results.numbers["tebi MiB"] = max(peaks) / (1 << 20)

    def _tebi(self, servers: places.Servers, place: places.Place) -> None:
        work, measure = self.work / "tebi", f"1 TiB to {place.name}"
        shutil.rmtree(work, ignore_errors=True)
        maker = [sys.executable, "-m", "benchlib.tebi_made", str(work)]
        env = {}
        for side in ("repository", "copy"):
            tool = tools.Vimgvc(self.program, work / f"of-{side}")
            tools.make_folders(tool.place)
            servers.configure(Path(tool.env()["HOME"]))
            env[side] = {**tool.env(), **place.env(), "VIMGVC_REPOSITORY": str(work / side)}
        program = [self.program, "--key-file", str(work / "key")]
        self._made([*maker, "first"])
        machine.run([*program, "remote", "add", "far", place.url()], env=env["repository"])
        self._run(measure, "push", [*program, "push", "far"], env["repository"], 0)
        self._run(measure, "clone", [*program, "clone", place.url(), str(work / "copy")], env["copy"], 0)
        self._made([*maker, "second"])
        self._run(f"{measure}, 1 % more", "push", [*program, "push", "far"], env["repository"], 0)
        self._run(f"{measure}, 1 % more", "pull", [*program, "pull"], env["copy"], 0)
        shutil.rmtree(work)

    def writers(self) -> None:
        """Eight writers and a collector on one repository in S3."""
        self._start()
        with places.servers(self.work) as servers:
            bucket = servers.bucket()
            place = fleet.Place(bucket.url(), bucket.env())
            found = fleet.run(self.work / "fleet", self.program, place, self.options.seconds)
        self.results.numbers |= {f"fleet {key}": value for key, value in found.items()}

    # --- how --------------------------------------------------------------------------------------

    def _start(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self._disks.mkdir(parents=True)
        tools.make_folders(self.vimgvc.place)
        for argv in self.vimgvc.start():
            machine.run(argv, env=self.vimgvc.env())

    def _series(self) -> None:
        """Repositories of the three versions."""
        self._start()
        for version in VERSIONS:
            self._commit(version)
        if self.restic:
            tools.make_folders(self.restic.place)
            machine.run(self.restic.start()[0], env=self.restic.env())
            for version in VERSIONS:
                self._insert(version)
                words = self.restic.commit(DISK, version)
                child.measure(words, cwd=self._disks, env=self.restic.env(), log=self.work / "log")

    def _log_in(self, servers: places.Servers) -> None:
        servers.configure(Path(self.vimgvc.env()["HOME"]))

    def _insert(self, version: str) -> None:
        (self._disks / DISK).unlink(missing_ok=True)
        os.link(self.options.corpus.resolve() / f"{version}.img", self._disks / DISK)
        sparse.warm(self._disks / DISK)

    def _words(self, label: str) -> list[str]:
        return [str(word) for word in self.vimgvc.commit(DISK, label)]

    def _commit(self, version: str) -> int:
        """Bytes stored."""
        self._insert(version)
        run = child.measure(self._words(version), cwd=self._disks, env=self.vimgvc.env(), log=self.work / "log")
        return sum(int(disk["stored_bytes"]) for disk in tools.last_document(run.output)["disks"])

    def _made(self, words: Sequence[str]) -> None:
        root = str(machine.ROOT)
        machine.run(words, env={"PYTHONPATH": os.pathsep.join([f"{root}/tools", root])})

    def _run(self, measure: str, tool: str, argv: Sequence[str], env: Mapping[str, str], repetition: int) -> None:
        os.sync()
        given = {**self.vimgvc.env(), **env}
        run = child.measure(argv, cwd=self._disks, env=given, log=self.work / "log")
        self._note(Record(measure, tool, repetition, run.seconds, run.cpu_seconds, run.peak_bytes))

    def _note(self, record: Record) -> None:
        self.results.records.append(record)
        machine.say(
            f"  {record.measure:24} {record.tool:12} {record.seconds:8.2f} s  cpu {record.cpu_seconds:6.2f} s  "
            f"peak {record.peak_bytes >> 20:5} MiB"
        )


MEASURES: dict[str, Callable[[Offsite], None]] = {
    "push": Offsite.push,
    "increment": Offsite.increment,
    "latency": Offsite.latency,
    "direct": Offsite.direct,
    "tebi": Offsite.tebi,
    "writers": Offsite.writers,
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench offsite", description="Measure copies in other places.")
    parser.add_argument("-n", type=int, default=3, metavar="TIMES", help="repetitions; medians are reported (3)")
    parser.add_argument("--corpus", type=Path, default=machine.ROOT / ".corpus", help="where the disks are (.corpus)")
    parser.add_argument("--results", type=Path, default=machine.ROOT / ".bench", help="where to work (.bench)")
    parser.add_argument("--only", default=",".join(MEASURES), metavar="MEASURE,...", help="which (all)")
    parser.add_argument("--seconds", type=float, default=600, help="that writers and collector are at work (600)")
    options = parser.parse_args(words)
    chosen = machine.chosen(parser, options.only, MEASURES)
    results, code, began = Results(), 0, time.monotonic()
    offsite = Offsite(options, results)
    try:
        for name in chosen:
            MEASURES[name](offsite)
    except machine.BenchError as error:
        machine.say(f"tools/bench: {error}")
        code = 1
    finally:
        shutil.rmtree(offsite.work, ignore_errors=True)
    print(report.text(results, offsite_targets.NOTES, offsite_targets.TARGETS))
    machine.say(f"{time.monotonic() - began:.0f} s in all")
    return code
