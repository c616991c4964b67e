"""A dense disk of 1 TiB of few different chunks: `python -m benchlib.tebi_made FOLDER first|second`.

`first` makes FOLDER/repository, FOLDER/key and a commit of a disk without a hole: 512 MiB of chunks that do not
compress, in another order in each of its 262,144 windows, so that no node of its manifest is like another.
`second` commits it again with other chunks in 1 % of the windows.
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
CHUNK = 64 << 10
CHUNKS, MORE = 8192, 512
IN_WINDOW = geometry.WINDOW // CHUNK
SECRET = keys.Secret(keys.KEYFILE, bytes(range(64)))


def record(repo: repository.Repository, seed: int, count: int, changed: float) -> None:
    """The commit that follows; of the windows that are not `changed` it finds the chunks of the first one."""
    parents = repo.branches()
    found = catalog.open_catalog(repo.backend, repo.seals, None, monitor.NullMonitor())
    out = writer.Writer(repo.backend, repo.seals, found.index)
    data = collect.Sink(repo, segment.DATA, out)
    old, new = _chunks(data, 1, CHUNKS), _chunks(data, seed, count)
    data.flush()
    nodes = collect.Sink(repo, segment.TREE, out)
    builder = tree.Builder(SIZE, nodes.put)
    runs = tuple((CHUNK // geometry.BLOCK, False) for _ in range(IN_WINDOW))
    order, other = np.random.default_rng(7), np.random.default_rng(seed)
    for number in range(SIZE // geometry.WINDOW):
        ids = old[order.integers(0, CHUNKS, IN_WINDOW)]
        if other.random() < changed:
            ids = new[other.integers(0, count, IN_WINDOW)]
        builder.add(number, nodes.put(manifest.Leaf(runs, ids.tobytes()).encode()))
    root = builder.finish()
    nodes.flush()
    out.finish()
    now = f"2027-01-15T08:00:{seed:02}Z"
    disk = commit.Disk("vm", SIZE, root.hex(), {"format": "raw"}, 0, 0, 0, 0, 0)
    draft = commit.Commit("", tuple(parents.values()), "vm", "", "bench", "bench", now, (disk,))
    made = repo.graph.store(draft.encode())
    repo.logs.publish(reflog.BRANCH, "vm", made, repo.last_refs(), time=now, host="bench")


def _chunks(sink: collect.Sink, seed: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Their identifiers, a row each."""
    rng = np.random.default_rng(seed)
    ids = b"".join(sink.put(rng.bytes(CHUNK)) for _ in range(count))
    return np.frombuffer(ids, np.uint8).reshape(count, -1)


def main() -> None:
    folder, which = pathlib.Path(sys.argv[1]), sys.argv[2]
    place, key = folder / "repository", folder / "key"
    if which == "first":
        key.write_bytes(SECRET.value)
        key.chmod(0o600)
        backend = local.LocalBackend.create(place, durable=False)
        record(repository.Repository.create(backend, SECRET, profile=keys.CHEAPEST), 1, CHUNKS, 0)
    else:
        backend = local.LocalBackend.open(place, durable=False)
        record(repository.Repository.open(backend, [SECRET]), 2, MORE, 0.01)


if __name__ == "__main__":
    main()
