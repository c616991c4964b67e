"""The tools that are measured: how each makes a repository, commits a disk and gives it back.

Each has a directory of its own for everything it keeps: repository, keys, caches, home. So a copy of
that directory is a copy of its whole state.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchlib import machine

PASSWORD = "correct horse battery staple"

Argv = Sequence[str]


class Tool(Protocol):
    """A directory `place` and the commands that work in it; every command runs beside the disk."""

    name: str
    place: Path

    def env(self) -> Mapping[str, str]: ...

    def start(self) -> Sequence[Argv]:
        """Make an empty repository. Not measured."""

    def commit(self, disk: str, label: str) -> Argv:
        """Record the file `disk` of the current directory as `label`, reading all of it."""

    def restore(self, disk: str, label: str, folder: Path) -> tuple[Argv, Path] | None:
        """Give `label` back in the empty directory `folder`; and where the disk will be. None: it keeps nothing."""

    def stored(self) -> int | None:
        """Bytes of the files of the repository. None: it keeps nothing."""


def base_env(place: Path) -> dict[str, str]:
    """What every tool gets: nothing of the user's, everything below `place`."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "XDG_CONFIG_HOME": str(place / "home/config"),
        "XDG_CACHE_HOME": str(place / "home/cache"),
        "XDG_STATE_HOME": str(place / "home/state"),
        "LANG": "C.UTF-8",
    }


def make_folders(place: Path) -> None:
    """Those that `base_env` names."""
    for folder in base_env(place).values():
        if folder.startswith(str(place)):
            Path(folder).mkdir(parents=True, exist_ok=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


class Vimgvc:
    """The key is remembered once, so no measured command derives it from the passphrase."""

    def __init__(self, program: str, place: Path, *, name: str = "vimgvc", options: Sequence[str] = ()) -> None:
        self.name, self.place = name, place
        self._program, self._options = program, options

    def env(self) -> Mapping[str, str]:
        return {**base_env(self.place), "VIMGVC_REPOSITORY": str(self.place / "repo")}

    def start(self) -> Sequence[Argv]:
        password = str(self.place / "password")
        return [
            ["sh", "-c", 'umask 077; printf %s "$2" > "$1"', "sh", password, PASSWORD],
            [self._program, "init", str(self.place / "repo"), *self.with_passphrase()],
            [self._program, "key", "remember", *self.with_passphrase()],
        ]

    def with_passphrase(self) -> Argv:
        """Options that have the key derived: what is given is used, even when a key is remembered."""
        return ["--password-file", str(self.place / "password")]

    def commit(self, disk: str, label: str) -> Argv:
        return [self._program, "commit", disk, "-m", label, "--json", *self._options]

    def restore(self, disk: str, label: str, folder: Path) -> tuple[Argv, Path]:
        return [self._program, "restore", Path(disk).stem, str(folder / disk), "--json"], folder / disk

    def stored(self) -> int:
        return size_of(self.place / "repo")


class Restic:
    """Compression `auto` (zstd 3).

    `--force` reads the disk whether or not it seems to have changed. Every command opens the repository
    with the passphrase.
    """

    name = "restic"

    def __init__(self, program: str, place: Path) -> None:
        self.place, self._program = place, program

    def env(self) -> Mapping[str, str]:
        return {
            **base_env(self.place),
            "RESTIC_REPOSITORY": str(self.place / "repo"),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self.place / "cache"),
        }

    def start(self) -> Sequence[Argv]:
        return [[self._program, "init"]]

    def commit(self, disk: str, label: str) -> Argv:
        return [self._program, "backup", "--quiet", "--force", "--tag", label, disk]

    def restore(self, disk: str, label: str, folder: Path) -> tuple[Argv, Path]:
        argv = [self._program, "restore", "latest", "--quiet", "--sparse", "--tag", label, "--target", str(folder)]
        return argv, folder / disk

    def stored(self) -> int:
        return size_of(self.place / "repo")


class Borg:
    """zstd 3; the cache of known files is off, so that the disk is read.

    Chunks as borg cuts them by default, or for `borg-fixed` as its manual advises for disk images: 4 MiB
    each, holes not read.
    """

    def __init__(self, program: str, place: Path, *, name: str = "borg", chunks: Sequence[str] = ()) -> None:
        self.name, self.place = name, place
        self._program, self._chunks = program, chunks

    def env(self) -> Mapping[str, str]:
        return {
            **base_env(self.place),
            "BORG_REPO": str(self.place / "repo"),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.place / "base"),
        }

    def start(self) -> Sequence[Argv]:
        return [[self._program, "init", "--encryption", "repokey-blake2"]]

    def commit(self, disk: str, label: str) -> Argv:
        options = ["--compression", "zstd,3", "--sparse", "--files-cache=disabled", *self._chunks]
        return [self._program, "create", *options, f"::{label}", disk]

    def restore(self, disk: str, label: str, folder: Path) -> tuple[Argv, Path]:
        # borg extracts into the current directory
        argv = ["sh", "-c", 'cd "$1" && exec "$2" extract --sparse "::$3"', "sh", str(folder), self._program, label]
        return argv, folder / disk

    def stored(self) -> int:
        return size_of(self.place / "repo")


class Desync:
    """Two threads, default chunk sizes. It compresses but does not encrypt."""

    name = "desync"

    def __init__(self, program: str, place: Path) -> None:
        self.place, self._program = place, program

    def env(self) -> Mapping[str, str]:
        return base_env(self.place)

    def start(self) -> Sequence[Argv]:
        return [["mkdir", "-p", str(self.place / "repo/store")]]

    def commit(self, disk: str, label: str) -> Argv:
        return [self._program, "make", "-n", "2", "-s", str(self.place / "repo/store"), self._index(label), disk]

    def restore(self, disk: str, label: str, folder: Path) -> tuple[Argv, Path]:
        store, target = str(self.place / "repo/store"), folder / disk
        return [self._program, "extract", "-n", "2", "-s", store, self._index(label), str(target)], target

    def stored(self) -> int:
        return size_of(self.place / "repo")

    def _index(self, label: str) -> str:
        return str(self.place / f"repo/{label}.caibx")


class QemuImg:
    """A compressed qcow2 for each version. No deduplication, no encryption."""

    name = "qemu-img"

    def __init__(self, program: str, place: Path) -> None:
        self.place, self._program = place, program

    def env(self) -> Mapping[str, str]:
        return base_env(self.place)

    def start(self) -> Sequence[Argv]:
        return [["mkdir", "-p", str(self.place / "repo")]]

    def commit(self, disk: str, label: str) -> Argv:
        options = ["-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd"]
        return [self._program, "convert", *options, disk, self._image(label)]

    def restore(self, disk: str, label: str, folder: Path) -> tuple[Argv, Path]:
        target = folder / disk
        return [self._program, "convert", "-f", "qcow2", "-O", "raw", self._image(label), str(target)], target

    def stored(self) -> int:
        return size_of(self.place / "repo")

    def _image(self, label: str) -> str:
        return str(self.place / f"repo/{label}.qcow2")


class Limit:
    """`benchlib.limit`: the same libraries and threads without a store. It cannot give anything back."""

    name = "limit"

    def __init__(self, place: Path) -> None:
        self.place = place

    def env(self) -> Mapping[str, str]:
        return {**base_env(self.place), "PYTHONPATH": str(machine.ROOT / "tools")}

    def start(self) -> Sequence[Argv]:
        return []

    def commit(self, disk: str, label: str) -> Argv:
        script = str(machine.ROOT / "tools/benchlib/limit.py")
        threads = str(len(os.sched_getaffinity(0)))
        return [sys.executable, script, disk, threads, str(self.place / "ids")]

    def restore(self, disk: str, label: str, folder: Path) -> None:
        return None

    def stored(self) -> None:
        return None


def last_document(output: str) -> dict[str, Any]:
    """The JSON document that a command printed; empty when it printed none."""
    text = output.strip()
    if not text:
        return {}
    try:
        document = json.loads(text)
    except ValueError:
        document = json.loads(text.splitlines()[-1])
    return document if isinstance(document, dict) else {}
