"""A long history that forks and merges: `python -m benchlib.graph_made FOLDER COUNT`.

Every commit has the same disk. Of each hundred, 40 are on the branch `vm`, the others on one of 20 branches, which
begin at `vm` and are merged into it.
"""

from __future__ import annotations

import pathlib
import sys

from vimgvc.backends import local
from vimgvc.codec import keys
from vimgvc.disk import memory
from vimgvc.model import commit, reflog
from vimgvc.pipeline import ingest
from vimgvc.repo import refs, repository

SECRET = keys.Secret(keys.KEYFILE, bytes(range(64)))
START = 1_800_000_000
BRANCHES = 20


class History:
    def __init__(self, folder: pathlib.Path) -> None:
        backend = local.LocalBackend.create(folder / "repository", durable=False)
        self.repo = repository.Repository.create(backend, SECRET, profile=keys.CHEAPEST)
        request = repository.CommitRequest(branch="vm", message="installed", author="bench", host="bench")
        source = ingest.Source("vm", memory.MemoryDisk.of(b"x" * 4096), {"format": "raw"})
        first = self.repo.commit([source], request).commit
        self.disks = first.disks
        self.known: dict[str, refs.Ref] = self.repo.last_refs()
        self.tips = {"vm": first.id}
        self.count = 1

    def add(self, branch: str, *parents: str) -> None:
        time = repository.timestamp(lambda: START + 60.0 * self.count)
        message = f"night {self.count}"
        draft = commit.Commit("", parents, branch, message, "bench", "bench", time, self.disks)
        made = self.repo.graph.store(draft.encode())
        ref = self.repo.logs.publish(reflog.BRANCH, branch, made, self.known, time=time, host="bench")
        self.known[ref.blind] = ref
        self.tips[branch] = made
        self.count += 1


def main(folder: pathlib.Path, count: int) -> None:
    key = folder / "key"
    key.write_bytes(SECRET.value)
    key.chmod(0o600)
    history = History(folder)
    while history.count < count:
        branch = f"try-{history.count // 100 % BRANCHES}"
        history.add(branch, history.tips["vm"])
        for number in range(98):
            own = "vm" if number % 5 in (0, 1) else branch
            history.add(own, history.tips[own])
        history.add("vm", history.tips["vm"], history.tips[branch])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
