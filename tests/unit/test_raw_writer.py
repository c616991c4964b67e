"""RawWriter on files: the suite."""

from __future__ import annotations

import pathlib

from tests.suites import writer
from vimgvc.images import raw


class TestRawWriter(writer.WriterSuite):
    def create(self, folder: pathlib.Path, size: int) -> raw.RawWriter:
        return raw.RawWriter(folder / "disk.raw", size, tag="t1")

    def result(self, folder: pathlib.Path) -> bytes | None:
        path = folder / "disk.raw"
        return path.read_bytes() if path.exists() else None

    def allocated(self, folder: pathlib.Path) -> int | None:
        return (folder / "disk.raw").stat().st_blocks * 512
