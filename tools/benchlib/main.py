"""tools/bench: which measures, which tools, where; then runs them and writes what came out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchlib import images, machine, measures, offsite, peers, report, session, timeline
from benchlib.results import Results

NOTES = (
    "Repositories are on the filesystem of the disks. vimgvc syncs what it restores before it ends, others do not.",
    "What earlier runs wrote is synced before each run.",
    "vimgvc uses a remembered key; restic (scrypt) and borg (PBKDF2) derive theirs in every command.",
    "limit: read, hash, compress and seal with the same libraries and threads, and store nothing.",
    "borg-fixed: chunks of 4 MiB, as its manual advises for disk images. desync and qemu-img do not encrypt.",
    "Peak memory is the resident size, with the pages of mapped files.",
)


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Measure vimgvc beside other tools, on the same disks.",
        epilog="Containers of disks are measured by: tools/bench images; comparing, going back and collecting by: "
        "tools/bench history; copies in other places by: tools/bench offsite",
    )
    parser.add_argument("-n", type=int, default=3, metavar="TIMES", help="repetitions; medians are reported (3)")
    parser.add_argument("--quick", action="store_true", help="the Debian disk only, once")
    parser.add_argument("--only", metavar="MEASURE,...", help=f"of: {', '.join(measures.MEASURES)}")
    parser.add_argument("--tools", metavar="TOOL,...", help=f"of: {', '.join(measures.ALL)}")
    parser.add_argument("--corpus", type=Path, default=machine.ROOT / ".corpus", help="where the disks are (.corpus)")
    parser.add_argument("--results", type=Path, default=machine.ROOT / ".bench", help="where to work (.bench)")
    parser.add_argument(
        "--cached-holes",
        action="store_true",
        help="have the holes of the disks in the page cache too: the best case for tools that read them",
    )
    options = parser.parse_args(words)
    options.only = options.only.split(",") if options.only else ["debian"] if options.quick else list(measures.MEASURES)
    options.tools = options.tools.split(",") if options.tools else list(measures.ALL)
    for given, known in ((options.only, measures.MEASURES), (options.tools, measures.ALL)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if options.quick:
        options.n = 1
    if options.n < 1:
        parser.error("-n must be at least 1")
    return options


def find_programs(wanted: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Program and version of each tool that is there; says which are not."""
    programs: dict[str, str] = {}
    versions: dict[str, str] = {}
    own = Path(sys.executable).with_name("vimgvc")
    if "vimgvc" in wanted and own.exists():
        programs["vimgvc"] = str(own)
        versions["vimgvc"] = machine.run([own, "--version"]).split()[-1]
    programs["limit"] = sys.executable
    for peer in peers.PEERS:
        found = peers.find(peer)
        if found.problem:
            machine.say(f"{peer.program}: {found.problem}")
        if found.path:
            programs[peer.program], versions[peer.program] = found.path, found.version
    if "borg" in programs:
        programs["borg-fixed"] = programs["borg"]
    return {name: program for name, program in programs.items() if name in wanted}, versions


def notes(options: argparse.Namespace) -> list[str]:
    holes = "their holes too" if options.cached_holes else "their holes are not, as nothing else reads them"
    return [f"The data of the disks is in the page cache, {holes}.", *NOTES]


def facts(options: argparse.Namespace, versions: dict[str, str]) -> dict[str, Any]:
    """What somebody needs to judge the numbers."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    disks = options.corpus / "corpus.json"
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "repetitions": options.n,
        "versions": versions,
        "disks": json.loads(disks.read_text()) if disks.exists() else {},
        "notes": notes(options),
    }


def perform(options: argparse.Namespace) -> None:
    if missing := measures.missing_disks(options.only, options.corpus):
        raise machine.BenchError(f"missing disks: {', '.join(missing)}\nbuild them with: tools/corpus")
    programs, versions = find_programs(options.tools)
    about = facts(options, versions)
    results = Results()
    work = options.results.resolve() / "work"
    bench = measures.Bench(
        session.Session(work, options.corpus.resolve(), results, cached_holes=options.cached_holes), programs, options.n
    )
    try:
        for name in options.only:
            measures.MEASURES[name][1](bench)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if results.records or results.numbers:
            publish(results, about, options.results)


def publish(results: Results, about: dict[str, Any], folder: Path) -> None:
    """Print the tables; write them, the JSON and the chart, under the time of the run and as `latest`."""
    stem = folder / f"bench-{about['when'].replace(':', '')}"
    written = report.text(results, about["notes"])
    stem.with_suffix(".md").write_text(written)
    stem.with_suffix(".json").write_text(json.dumps({"about": about, **results.document()}, indent=1) + "\n")
    try:
        from benchlib import chart

        chart.draw(results, stem.with_suffix(".png"))
    except ImportError:
        machine.say("no chart: matplotlib is missing; install it with: .venv/bin/python -m pip install --group bench")
    for suffix in (".md", ".json", ".png"):
        if stem.with_suffix(suffix).exists():
            shutil.copyfile(stem.with_suffix(suffix), folder / f"latest{suffix}")
    print(written)
    machine.say(f"written: {stem}.md, .json, .png")


def main(words: list[str]) -> int:
    if words[:1] == ["images"]:
        return images.main(words[1:])
    if words[:1] == ["history"]:
        return timeline.main(words[1:])
    if words[:1] == ["offsite"]:
        return offsite.main(words[1:])
    options = arguments(words)
    try:
        options.results.mkdir(parents=True, exist_ok=True)
        perform(options)
    except machine.BenchError as error:
        machine.say(f"tools/bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
