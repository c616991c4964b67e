"""A qcow2 committed through a qemu-nbd: `python through_qemu.py IMAGE` in the environment of a vimgvc command."""

from __future__ import annotations

import os
import sys

from vimgvc import errors, monitor
from vimgvc.commands import access
from vimgvc.images import foreign, gates, raw
from vimgvc.pipeline import ingest
from vimgvc.repo import repository


def nobody(_attempt: int) -> access.Secret:
    raise errors.UsageError("the key is not remembered")


def main(path: str) -> None:
    opened = access.open_repository(os.environ["VIMGVC_REPOSITORY"], os.environ, None, nobody, monitor.NullMonitor())
    disk = foreign.open_foreign(raw.RawReader(path), "qcow2", gates.Facts("qcow2", None, {}))
    request = repository.CommitRequest(branch="disk", message="through qemu", author="bench", host="localhost")
    opened.commit([ingest.Source("disk", disk, {"format": "qcow2"})], request)
    disk.close()


if __name__ == "__main__":
    main(sys.argv[1])
