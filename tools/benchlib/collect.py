"""What a collection costs: `python collect.py FOLDER [COMMITS]`.

Makes, in FOLDER, the history of a 64 GiB sparse disk of which each commit changes 64 places, most of them in a part
that changes often, without cutting an image each time; forgets every other commit; and collects. Prints one line of
JSON: times, the most memory of the collection (which runs in a process of its own), the bytes beside those of a
repository that only ever held the commits that are kept, and what it takes to read the same packs, to write as much,
durable, and to remove them, without looking at what they hold.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import BinaryIO

import numpy as np

from vimgvc import monitor
from vimgvc.backends import local, protocol
from vimgvc.codec import keys, segment
from vimgvc.model import commit, geometry, manifest, reflog
from vimgvc.pipeline import tree
from vimgvc.repo import collect, forgetting, keyring, repository
from vimgvc.store import catalog, pack, writer

SIZE = 64 << 30
USED, HOT, CHANGED = 4096, 96, 64
CHUNK = 32 << 10
SECRET = keys.Secret(keys.KEYFILE, bytes(range(64)))
TIME = "2027-01-15T08:00:00Z"


class Sink:
    """Chunks and nodes into segments."""

    def __init__(self, repo: repository.Repository, kind: int, out: writer.Writer) -> None:
        self.seals, self.kind, self.out = repo.seals, kind, out
        self.limit = {segment.DATA: 1 << 20, segment.TREE: 128 << 10}[kind]
        self.sealer = repo.seals.sealer(level=3, verify=True, capacity=self.limit + (256 << 10))
        self.waiting: list[bytes] = []
        self.ids: list[bytes] = []
        self.size = 0

    def put(self, data: bytes) -> bytes:
        slot = self.seals.slot_id(self.kind, data)
        if self.out.claim([slot]):
            if self.size + len(data) > self.limit:
                self.flush()
            self.waiting.append(data)
            self.ids.append(slot)
            self.size += len(data)
        return slot

    def flush(self) -> None:
        if self.waiting:
            plain, ids = b"".join(self.waiting), b"".join(self.ids)
            shape, stored = self.sealer.seal(self.kind, bytearray(plain), len(plain), ids)
            self.out.add(shape, stored, ids, [len(one) for one in self.waiting])
        self.waiting, self.ids, self.size = [], [], 0


def content(window: int, version: int) -> bytes:
    """Half of it compresses."""
    rng = np.random.default_rng([window, version])
    return rng.bytes(CHUNK // 2) + bytes(rng.integers(0, 16, CHUNK // 2, np.uint8))


def states(count: int) -> list[dict[int, int]]:
    """For each commit the windows that it changes, with the version each then has."""
    rng = np.random.default_rng(4)
    changes = [dict.fromkeys(range(USED), 0)]
    for version in range(1, count):
        hot, cold = rng.integers(0, HOT, CHANGED * 3 // 4), rng.integers(0, USED, CHANGED // 4)
        changes.append(dict.fromkeys([*hot.tolist(), *cold.tolist()], version))
    return changes


def make(folder: pathlib.Path, count: int, kept: set[int]) -> list[str]:
    """A repository with the commits `kept` of `count`; their identifiers."""
    repo = repository.Repository.create(local.LocalBackend.create(folder, durable=False), SECRET, profile=keys.CHEAPEST)
    state: dict[int, int] = {}
    ids: list[str] = []
    leaves: dict[int, tuple[int, bytes]] = {}
    found = catalog.open_catalog(repo.backend, repo.seals, None, monitor.NullMonitor()).index
    for number, changes in enumerate(states(count)):
        state |= changes
        if number in kept:
            ids.append(one_commit(repo, found, state, leaves, ids))
    return ids


def one_commit(
    repo: repository.Repository,
    found: object,
    state: dict[int, int],
    leaves: dict[int, tuple[int, bytes]],
    before: list[str],
) -> str:
    out = writer.Writer(repo.backend, repo.seals, found)  # type: ignore[arg-type]
    chunks, nodes = Sink(repo, segment.DATA, out), Sink(repo, segment.TREE, out)
    builder = tree.Builder(SIZE, nodes.put)
    spread = geometry.windows(SIZE) // USED
    blocks = CHUNK // geometry.BLOCK
    for window, version in sorted(state.items()):
        if leaves.get(window, (-1, b""))[0] != version:
            chunk = chunks.put(content(window, version))
            leaf = manifest.Leaf(((blocks, False), (1024 - blocks, True)), chunk)
            leaves[window] = (version, nodes.put(leaf.encode()))
        builder.add(window * spread, leaves[window][1])
    root = builder.finish()
    chunks.flush()
    nodes.flush()
    out.finish()
    disk = commit.Disk("vm", SIZE, root.hex(), {"format": "raw"}, 0, 0, 0, 0, 0)
    made = commit.Commit("", tuple(before[-1:]), "vm", f"night {len(before)}", "bench", "host", TIME, (disk,))
    commit_id = repo.graph.store(made.encode())
    repo.logs.publish(reflog.BRANCH, "vm", commit_id, repo.last_refs(), time=TIME, host="host")
    return commit_id


def packs(folder: pathlib.Path) -> dict[str, int]:
    """Name of each pack -> its size."""
    return {item.name: item.size for item in local.LocalBackend(folder).list("packs")}


def stored(folder: pathlib.Path) -> int:
    backend = local.LocalBackend(folder)
    return sum(item.size for area in protocol.AREAS for item in backend.list(area))


def opened(folder: pathlib.Path) -> repository.Repository:
    backend = local.LocalBackend(folder)
    return repository.Repository.open(backend, unlocked=keyring.Keyring(backend).unlock(SECRET))


class Phases(monitor.NullMonitor):
    """Notes when each phase begins."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []

    def start(self, task: str, total: int, unit: str = "bytes") -> None:
        self.begun.append((task, time.monotonic()))


def run(folder: pathlib.Path) -> None:
    """The collection alone."""
    repo, phases = opened(folder), Phases()
    base = peak()
    before = packs(folder)
    started = time.monotonic()
    done = repo.collect(collect.Options(force=True, max_unused=float(os.environ.get("MAX_UNUSED", "0.05"))), phases)
    ended = time.monotonic()
    edges = [("look", started), *phases.begun, ("end", ended)]
    print(
        json.dumps(
            {
                "seconds": round(ended - started, 2),
                "phases": {name: round(later - at, 2) for (name, at), (_, later) in itertools.pairwise(edges)},
                "MiB": round(peak()),
                "MiB_before": round(base),
                "repacked": done.repacked_bytes,
                "written": sum(size for name, size in packs(folder).items() if name not in before),
                "unneeded": done.unneeded_bytes,
                "freed": done.freed_bytes,
                "packs": [done.packs_deleted, done.packs_written],
            }
        )
    )


def peak() -> float:
    found = re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def rewrite(folder: pathlib.Path, target: pathlib.Path, amount: int) -> float:
    """Seconds to read the packs in `folder`, write `amount` bytes of them into few files, durable, and remove them."""
    target.mkdir()
    paths = sorted(folder.glob("*/*"))
    os.sync()
    started = time.monotonic()
    share = amount / sum(path.stat().st_size for path in paths)
    out, room = None, 0
    for path in paths:
        content = path.read_bytes()
        if out is None or room <= 0:
            finish(out)
            out, room = (target / path.name).open("wb"), pack.TARGET_SIZE
        room -= out.write(content[: int(len(content) * share)])
    finish(out)
    for path in paths:
        path.unlink()
    return time.monotonic() - started


def finish(out: BinaryIO | None) -> None:
    if out is not None:
        out.flush()
        os.fsync(out.fileno())
        out.close()


def main(folder: pathlib.Path, count: int) -> None:
    started = time.monotonic()
    ids = make(folder / "repo", count, set(range(count)))
    made = time.monotonic() - started
    kept = set(range(1, count, 2)) | {count - 1}
    make(folder / "fresh", count, kept)
    repo = opened(folder / "repo")
    records = forgetting.Records(repo.backend, repo.seals)
    for number in sorted(set(range(count)) - kept):
        records.put(forgetting.Forgotten(ids[number], TIME, "host", ""))
    before = stored(folder / "repo")
    shutil.copytree(folder / "repo" / "packs", folder / "packs")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    os.sync()  # what was made just now, as before the same by hand
    command = [sys.executable, __file__, str(folder / "repo"), "collect"]
    told = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    for name in packs(folder / "repo"):  # what stayed was not rewritten
        (folder / name).unlink(missing_ok=True)
    fresh = stored(folder / "fresh")
    after = stored(folder / "repo")
    told |= {
        "before": before,
        "after": after,
        "fresh": fresh,
        "ratio": round(after / fresh, 4),
        "plain_rewrite": round(rewrite(folder / "packs", folder / "rewritten", told["written"]), 2),
        "made": round(made, 1),
        "problems": len(opened(folder / "repo").verify("data").problems),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[2:] == ["collect"]:
        run(pathlib.Path(sys.argv[1]))
    else:
        main(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
