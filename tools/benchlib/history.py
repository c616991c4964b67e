"""A long history, made in one process: `python history.py COUNT` in the environment of a vimgvc command.

Each commit changes one block of a small disk on the branch `vm`. The repository must be there and its
key remembered.
"""

from __future__ import annotations

import os
import sys

from vimgvc import errors, monitor
from vimgvc.commands import access
from vimgvc.disk import memory
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

SIZE, BLOCK = 1 << 20, 4096


def nobody(_attempt: int) -> access.Secret:
    raise errors.UsageError("the key is not remembered")


def main(count: int) -> None:
    opened = access.open_repository(
        os.environ["VIMGVC_REPOSITORY"], os.environ, None, nobody, monitor.NullMonitor(), durable=False
    )
    disk = bytearray(SIZE)
    for number in range(count):
        at = number * BLOCK % SIZE
        disk[at : at + BLOCK] = number.to_bytes(8, "little") * (BLOCK // 8)
        request = repository.CommitRequest(
            branch="vm", message=f"night {number}", author="bench <bench@localhost>", host="localhost"
        )
        opened.commit([ingest.Source("vm", memory.MemoryDisk.of(bytes(disk)), {"format": "raw"})], request)


if __name__ == "__main__":
    main(int(sys.argv[1]))
