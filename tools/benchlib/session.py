"""Runs tools on disks, in turn, under the same conditions."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from benchlib import child, machine, sparse
from benchlib.results import Record, Results
from benchlib.tools import Tool, last_document, make_folders

T = TypeVar("T")


class Session:
    """A working directory and the results so far.

    Before each measured run the disk is read into the page cache and what earlier runs wrote is synced,
    so that no tool pays for another. Disks are hard links, because tools tell a disk by its name and
    successive versions of one disk have one name.
    """

    def __init__(self, work: Path, corpus: Path, results: Results, *, cached_holes: bool = False) -> None:
        self.work, self.corpus, self.results = work, corpus, results
        self._cached_holes = cached_holes
        self._disks = work / "disks"

    def begin(self, tools: Sequence[Tool]) -> None:
        """Remove everything and make empty repositories."""
        shutil.rmtree(self.work, ignore_errors=True)
        self._disks.mkdir(parents=True)
        for tool in tools:
            make_folders(tool.place)
            for argv in tool.start():
                child.measure(argv, cwd=self._disks, env=tool.env(), log=self._log(tool))

    def insert(self, version: str, disk: str) -> None:
        """From now on the file `disk` is that version."""
        (self._disks / disk).unlink(missing_ok=True)
        try:
            os.link(self.corpus / f"{version}.img", self._disks / disk)
        except OSError as error:
            raise machine.BenchError(f"the disks and the work must be on one filesystem: {error}") from error

    def commit(self, measure: str, tool: Tool, disk: str, label: str, repetition: int) -> None:
        sparse.warm(self._disks / disk, holes=self._cached_holes)
        run = self._run(tool, tool.commit(disk, label))
        facts = last_document(run.output) if tool.name.startswith("vimgvc") else {}
        self._record(measure, tool, repetition, run, facts)

    def restore(self, measure: str, tool: Tool, disk: str, label: str, repetition: int) -> None:
        """Into an empty directory; then compare, which is not measured."""
        folder = self.work / "restored"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        how = tool.restore(disk, label, folder)
        if how is None:
            return
        argv, target = how
        run = self._run(tool, argv)
        began = time.perf_counter()
        os.sync()
        durable = dataclasses.replace(run, seconds=run.seconds + time.perf_counter() - began)
        if not sparse.same(self._disks / disk, target):
            raise machine.BenchError(f"{tool.name} restored something else than what it was given")
        self._record(measure, tool, repetition, run, {})
        self._record(f"{measure} and sync", tool, repetition, durable, {})
        shutil.rmtree(folder)

    def command(self, measure: str, tool: Tool, argv: Sequence[str], repetition: int) -> None:
        self._record(measure, tool, repetition, self._run(tool, argv), {})

    def note_stored(self, measure: str, tool: Tool, since: int | None = None) -> None:
        if (stored := tool.stored()) is not None:
            self.results.stored.setdefault(measure, {})[tool.name] = stored - (since or 0)

    def undone(self, tool: Tool, work: Callable[[], None]) -> None:
        """Do something with the tool, then put its directory back as it was."""
        kept = tool.place.with_name(f"{tool.place.name}.kept")
        machine.run(["cp", "-a", "--reflink=auto", tool.place, kept])
        work()
        shutil.rmtree(tool.place)
        kept.rename(tool.place)

    def _run(self, tool: Tool, argv: Sequence[str]) -> child.Run:
        os.sync()
        return child.measure(argv, cwd=self._disks, env=tool.env(), log=self._log(tool))

    def _record(self, measure: str, tool: Tool, repetition: int, run: child.Run, facts: dict[str, object]) -> None:
        self.results.records.append(
            Record(measure, tool.name, repetition, run.seconds, run.cpu_seconds, run.peak_bytes, facts)
        )
        machine.say(
            f"  {measure:24} {tool.name:12} {run.seconds:8.2f} s  cpu {run.cpu_seconds:6.2f} s  "
            f"peak {run.peak_bytes >> 20:5} MiB"
        )

    def _log(self, tool: Tool) -> Path:
        return self.work / f"{tool.name}.log"


def in_turn(tools: Sequence[T], repetition: int) -> list[T]:
    """Another order for each repetition: none is always the first or behind the same other."""
    order = list(tools)
    if repetition % 2:
        order.reverse()
    shift = repetition // 2 % max(1, len(order))
    return order[shift:] + order[:shift]
