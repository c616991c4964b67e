"""Debian-like disks without root: this machine's own files, and debugfs instead of apt.

v1  0.9 GiB of files of /usr in an 8 GiB ext4
v2  0.8 GiB of further files written into it
v3  90 files removed, 60 rewritten with changed bytes, a log of 20 MiB
u1  the files of v1 written by debugfs in another order into a filesystem with other parameters
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchlib import machine, synthetic

SIZE = "8G"
PROGRAMS = {"debugfs": "e2fsprogs", "mke2fs": "e2fsprogs"}
FIRST, FURTHER = 900 << 20, 800 << 20
FOLDERS = ("/usr/bin", "/usr/lib", "/usr/share", "/usr/local", "/opt")


def first(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="root-", dir=path.parent) as name:
        for file in pick(0, FIRST):
            target = Path(name) / file.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        machine.run(["mke2fs", "-q", "-t", "ext4", "-L", "first", "-d", name, path, SIZE])


def installed(before: Path, path: Path) -> None:
    synthetic.copy_sparse(before, path)
    _debugfs(path, _write(pick(FIRST, FIRST + FURTHER), set()))


def upgraded(before: Path, path: Path) -> None:
    synthetic.copy_sparse(before, path)
    rng = np.random.default_rng(3)
    files = list(pick(0, FIRST))
    chosen = [files[number] for number in rng.choice(len(files), 150, replace=False)]
    with tempfile.TemporaryDirectory(prefix="new-", dir=path.parent) as name:
        commands = [f"rm {file}" for file in chosen]
        for number, file in enumerate(chosen[:60]):
            content = bytearray(file.read_bytes())
            at = int(rng.integers(0, max(1, len(content) - 64)))
            content[at : at + 64] = rng.bytes(min(64, len(content) - at))
            new = Path(name) / str(number)
            new.write_bytes(content)
            commands += [f"cd {file.parent}", f"write {new} {file.name}"]
        log = Path(name) / "log"
        log.write_bytes(synthetic.text(rng, 20 << 20).tobytes())
        commands += ["cd /", f"write {log} syslog"]
        _debugfs(path, commands)


def second(path: Path) -> None:
    layout = ["-G", "4", "-i", "8192", "-L", "second"]
    machine.run(["mke2fs", "-q", "-t", "ext4", *layout, path, SIZE])
    files = list(pick(0, FIRST))
    order = np.random.default_rng(4).permutation(len(files))
    _debugfs(path, _write((files[number] for number in order), set()))


def pick(begin: int, end: int) -> Iterator[Path]:
    """Readable files, in a stable order, whose running total of bytes is between `begin` and `end`."""
    total = 0
    for folder in FOLDERS:
        for place, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                file = Path(place, name)
                if not _usable(file):
                    continue
                total += file.stat().st_size
                if total > end:
                    return
                if total > begin:
                    yield file


def _usable(file: Path) -> bool:
    facts = file.lstat()
    plain = stat.S_ISREG(facts.st_mode) and 0 < facts.st_size < 64 << 20 and os.access(file, os.R_OK)
    # debugfs has no way to quote these
    return plain and str(file).isascii() and not set(str(file)) & set(" \"'\\")


def _write(files: Iterable[Path], made: set[Path]) -> Iterator[str]:
    for file in files:
        for folder in reversed(file.parents[:-1]):
            if folder not in made:
                made.add(folder)
                yield f"mkdir {folder}"
        yield f"cd {file.parent}"
        yield f"write {file} {file.name}"  # takes a name in the current folder only


def _debugfs(path: Path, commands: Iterable[str]) -> None:
    """Run them. That a folder exists already is no failure of a mkdir, and debugfs says so on stderr only."""
    machine.run(["debugfs", "-w", "-f", "-", path], text_in="\n".join(commands) + "\n")
