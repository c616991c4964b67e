"""Builds the disks and remembers which are up to date, in `corpus.json` beside them.

The disks are sparse, one of them 1 TiB: copy the directory with tools that keep holes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchlib import debian, machine, rootless, sparse, synthetic

FACTS = "corpus.json"
GIB = 1 << 30


@dataclass(frozen=True)
class Disk:
    """One disk: how it is made, and of which other. A higher `recipe` has it built again."""

    name: str
    family: str
    recipe: int
    make: Callable[[Path, Path | None], None]
    base: str | None = None


def debian_disks(mirror: str | None) -> list[Disk]:
    sources = debian.mirrors(mirror)

    def chain(before: Path | None) -> Path:
        assert before is not None
        return before

    return [
        Disk("debian-v1", "debian", 1, lambda path, _: debian.first(path, sources)),
        Disk("debian-v2", "debian", 1, lambda path, v1: debian.installed(chain(v1), path), "debian-v1"),
        Disk("debian-v3", "debian", 1, lambda path, v2: debian.upgraded(chain(v2), path, sources), "debian-v2"),
        Disk("debian-u1", "debian", 1, lambda path, v1: debian.second(chain(v1), path), "debian-v1"),
    ]


def rootless_disks() -> list[Disk]:
    def chain(before: Path | None) -> Path:
        assert before is not None
        return before

    return [
        Disk("debian-v1", "debian", -1, lambda path, _: rootless.first(path)),
        Disk("debian-v2", "debian", -1, lambda path, v1: rootless.installed(chain(v1), path), "debian-v1"),
        Disk("debian-v3", "debian", -1, lambda path, v2: rootless.upgraded(chain(v2), path), "debian-v2"),
        Disk("debian-u1", "debian", -1, lambda path, _: rootless.second(path), "debian-v1"),
    ]


def synthetic_disks() -> list[Disk]:
    def rewrite(path: Path, before: Path | None) -> None:
        assert before is not None
        synthetic.rewrite_pages(before, path, share=0.01, seed=12)

    def tebi(path: Path, *, packed: bool) -> None:
        synthetic.scattered(path, size=1024 * GIB, data=GIB, seed=13, packed=packed)

    return [
        Disk("big", "big", 1, lambda path, _: synthetic.scattered(path, size=64 * GIB, data=2 * GIB, seed=10)),
        Disk("db-v1", "db", 1, lambda path, _: synthetic.database(path, seed=11)),
        Disk("db-v2", "db", 1, rewrite, "db-v1"),
        Disk("sparse1t", "sparse1t", 1, lambda path, _: tebi(path, packed=False)),
        Disk("sparse1g", "sparse1t", 1, lambda path, _: tebi(path, packed=True)),
    ]


class Corpus:
    """A directory of disks. A disk is `<name>.img`, complete whenever it has that name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._facts_file = root / FACTS
        self.facts: dict[str, dict[str, Any]] = {}
        if self._facts_file.exists():
            self.facts = json.loads(self._facts_file.read_text())

    def path(self, name: str) -> Path:
        return self.root / f"{name}.img"

    def has(self, name: str) -> bool:
        return name in self.facts and self.path(name).exists()

    def ensure(self, disk: Disk) -> None:
        base = self.path(disk.base) if disk.base else None
        built_on = self.facts[disk.base]["built"] if disk.base else None
        known = self.facts.get(disk.name, {})
        if self.has(disk.name) and (known["recipe"], known["built_on"]) == (disk.recipe, built_on):
            machine.say(f"{disk.name}: there ({machine.mebibytes(known['data_bytes'])} of data)")
            return
        machine.say(f"{disk.name}: building")
        began = time.monotonic()
        partial = self.root / f"{disk.name}.partial"
        partial.unlink(missing_ok=True)
        disk.make(partial, base)
        # Space that is allocated but was never written counts as data or not, as the page cache has it.
        # A copy has only data and holes, so that every reader sees the same.
        final = partial.with_suffix(".copy")
        synthetic.copy_sparse(partial, final)
        partial.unlink()
        os.replace(final, self.path(disk.name))
        self._remember(disk, base, built_on)
        facts = self.facts[disk.name]
        changed = f", {machine.mebibytes(facts['changed_bytes'])} changed" if base else ""
        machine.say(
            f"{disk.name}: {machine.mebibytes(facts['data_bytes'])} of data{changed}, {time.monotonic() - began:.0f} s"
        )

    def _remember(self, disk: Disk, base: Path | None, built_on: int | None) -> None:
        path = self.path(disk.name)
        self.facts[disk.name] = {
            "recipe": disk.recipe,
            "built": time.time_ns(),
            "built_on": built_on,
            "size": path.stat().st_size,
            "data_bytes": sparse.data_bytes(path),
            "changed_bytes": sparse.changed_bytes(base, path) if base else None,
        }
        temporary = self._facts_file.with_suffix(".partial")
        temporary.write_text(json.dumps(self.facts, indent=1, sort_keys=True) + "\n")
        os.replace(temporary, self._facts_file)


def choose(families: list[str], *, mirror: str | None, without_root: bool) -> list[Disk]:
    """The disks of these families, in building order."""
    disks = [disk for disk in synthetic_disks() if disk.family in families]
    if "debian" not in families:
        return disks
    if not without_root and os.geteuid() == 0:
        machine.require(debian.PROGRAMS)
        reason = debian.possible()
    else:
        reason = "not root"
    if reason is None:
        return [*debian_disks(mirror), *disks]
    machine.require(rootless.PROGRAMS)
    machine.say(f"no debootstrap and apt ({reason}): the Debian disks are made of this machine's files with debugfs")
    return [*rootless_disks(), *disks]


FAMILIES = ("debian", "big", "db", "sparse1t")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/corpus",
        description="Build the disks that tools/bench measures with. A second run builds only what is missing.",
        epilog="families: debian (v1, v2, v3, u1), big (64 GiB with 2 GiB of data), "
        "db (a database, and 1% of its pages rewritten), sparse1t (1 TiB with 1 GiB of data). About 12 GiB in all.",
    )
    parser.add_argument("directory", nargs="?", default=machine.ROOT / ".corpus", type=Path, help="(.corpus)")
    parser.add_argument("--only", default=",".join(FAMILIES), metavar="FAMILY,...", help="which to build")
    parser.add_argument("--mirror", help="where to get Debian (default: where apt gets it)")
    parser.add_argument("--without-root", action="store_true", help="make the Debian disks without mounting anything")
    options = parser.parse_args(arguments)
    families = options.only.split(",")
    if unknown := set(families) - set(FAMILIES):
        parser.error(f"unknown family: {', '.join(sorted(unknown))}")
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
        corpus = Corpus(options.directory.resolve())
        for disk in choose(families, mirror=options.mirror, without_root=options.without_root):
            corpus.ensure(disk)
    except machine.BenchError as error:
        machine.say(f"tools/corpus: {error}")
        return 1
    return 0
