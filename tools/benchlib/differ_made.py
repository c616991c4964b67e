"""Two commits of a disk of 1 TiB by their manifests alone: `python -m benchlib.differ_made FOLDER WINDOWS`.

So many windows of 4 MiB hold data, all over the disk, 64 chunks each; 16,384 chunks of them differ, about 1 GiB.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

from benchlib import collect
from vimgvc import monitor
from vimgvc.backends import local
from vimgvc.codec import keys, segment
from vimgvc.model import commit, geometry, manifest, reflog
from vimgvc.pipeline import tree
from vimgvc.repo import repository
from vimgvc.store import catalog, writer

SIZE = 1 << 40
CHANGED, CHUNKS = 16384, 64
SECRET = keys.Secret(keys.KEYFILE, bytes(range(64)))

Leaves = dict[int, manifest.Leaf]


def leaves(rng: np.random.Generator, count: int) -> Leaves:
    """Windows without a hole, with chunks of random lengths."""
    found = {}
    for number in np.sort(rng.choice(SIZE // geometry.WINDOW, count, replace=False)).tolist():
        cuts = np.sort(rng.choice(np.arange(1, geometry.BLOCKS_PER_WINDOW), CHUNKS - 1, replace=False))
        lengths = np.diff(np.concatenate([[0], cuts, [geometry.BLOCKS_PER_WINDOW]])).tolist()
        found[number] = manifest.Leaf(tuple((length, False) for length in lengths), rng.bytes(32 * CHUNKS))
    return found


def change(rng: np.random.Generator, before: Leaves) -> Leaves:
    """One chunk of some of the windows is another one."""
    after = dict(before)
    for number in rng.choice(list(before), CHANGED, replace=False).tolist():
        at = 32 * int(rng.integers(CHUNKS))
        ids = before[number].ids
        after[number] = manifest.Leaf(before[number].runs, ids[:at] + rng.bytes(32) + ids[at + 32 :])
    return after


def record(repo: repository.Repository, wanted: Leaves, parent: str | None) -> str:
    """A commit of nothing but a manifest."""
    found = catalog.open_catalog(repo.backend, repo.seals, None, monitor.NullMonitor())
    out = writer.Writer(repo.backend, repo.seals, found.index)
    nodes = collect.Sink(repo, segment.TREE, out)
    builder = tree.Builder(SIZE, nodes.put)
    for number, leaf in wanted.items():
        builder.add(number, nodes.put(leaf.encode()))
    root = builder.finish()
    nodes.flush()
    out.finish()
    now = "2027-01-15T08:00:00Z"
    disk = commit.Disk("vm", SIZE, root.hex(), {"format": "raw"}, 0, 0, 0, 0, 0)
    draft = commit.Commit("", (parent,) if parent else (), "vm", "", "bench", "bench", now, (disk,))
    made = repo.graph.store(draft.encode())
    repo.logs.publish(reflog.BRANCH, "vm", made, repo.last_refs(), time=now, host="bench")
    return made


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    key = folder / "key"
    key.write_bytes(SECRET.value)
    key.chmod(0o600)
    backend = local.LocalBackend.create(folder / "repository", durable=False)
    repo = repository.Repository.create(backend, SECRET, profile=keys.CHEAPEST)
    rng = np.random.default_rng(4)
    wanted = leaves(rng, int(sys.argv[2]))
    first = record(repo, wanted, None)
    record(repo, change(rng, wanted), first)


if __name__ == "__main__":
    main()
