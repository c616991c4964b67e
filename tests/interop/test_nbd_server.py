"""Our NBD server to the clients of QEMU and libnbd."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests import nbd_peers as peers
from tests import needs
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory
from vimgvc.nbd import server

pytestmark = pytest.mark.slow

_QEMU, _LIBNBD = "qemu-utils", "libnbd-bin"


def _run(tool: str, package: str, *arguments: str | pathlib.Path, fails: bool = False) -> str:
    program = needs.require_tool(tool, package)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stdout


class _Damaged:
    """A disk with 4 KiB that cannot be read."""

    def __init__(self, disk: memory.MemoryDisk, bad: int) -> None:
        self._disk, self._bad, self.size = disk, bad, disk.size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        if offset < self._bad + 4096 and self._bad < offset + buffer.nbytes:
            raise errors.IntegrityError("pack", "the tag does not fit")
        self._disk.pread_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return self._disk.extents(offset, length)

    def close(self) -> None:
        self._disk.close()


@contextlib.contextmanager
def _serving(sample: reader.Sample, *, bad: int | None = None) -> Iterator[tuple[server.Server, str]]:
    kinds = extents.cover(sample.holes, 0, len(sample.content), extents.Kind.DATA)
    disk = memory.MemoryDisk.of(sample.content, kinds)
    with peers.short_folder() as folder:
        served = server.Server(disk if bad is None else _Damaged(disk, bad), str(folder / "s"))
        with served:
            yield served, f"nbd+unix:///?socket={folder / 's'}"


@pytest.mark.parametrize("size", [512, 4096, (12 << 20) + 512])
def test_qemu_img_converts_and_compares(size: int, seed: int, tmp_path: pathlib.Path) -> None:
    """What qemu-img makes of the export is the disk, to any format, in order or not."""
    sample = reader.make_sample(size, seed)
    (tmp_path / "expected.raw").write_bytes(sample.content)
    with _serving(sample) as (served, uri):
        for options in (["-O", "raw"], ["-W", "-m", "8", "-O", "raw"], ["-O", "qcow2"], ["-c", "-O", "qcow2"]):
            target = tmp_path / "target"
            _run("qemu-img", _QEMU, "convert", "-f", "raw", *options, uri, target)
            fmt = options[-1]
            _run("qemu-img", _QEMU, "compare", "-f", fmt, "-F", "raw", target, tmp_path / "expected.raw")
            target.unlink()
        _run("qemu-img", _QEMU, "compare", "-f", "raw", "-F", "raw", uri, tmp_path / "expected.raw")
        assert served.failure is None


@pytest.mark.parametrize("size", [0, 1, 513, 1_000_003])
def test_odd_sizes(size: int, seed: int, tmp_path: pathlib.Path) -> None:
    """A disk of any size is copied exactly by libnbd."""
    sample = reader.make_sample(size, seed)
    with _serving(sample) as (_, uri):
        assert json.loads(_run("nbdinfo", _LIBNBD, "--json", uri))["exports"][0]["export-size"] == size
        _run("nbdcopy", _LIBNBD, uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == sample.content


def test_what_is_offered() -> None:
    """What nbdinfo sees is what the specification says, and nothing else."""
    with _serving(reader.make_sample(1 << 20, 1)) as (_, uri):
        shown = json.loads(_run("nbdinfo", _LIBNBD, "--json", uri))
        (export,) = shown["exports"]
        assert (shown["protocol"], shown["TLS"], shown["structured"]) == ("newstyle-fixed", False, True)
        assert {name for name, value in export.items() if value is True} == {"is_read_only", "can_df", "can_multi_conn"}
        assert export["contexts"] == ["base:allocation"]
        sizes = [export[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
        assert sizes == [1, 4096, 32 << 20]
        listed = json.loads(_run("nbdinfo", _LIBNBD, "--list", "--json", uri))["exports"]
        assert [item["export-name"] for item in listed] == [""]


def test_holes_are_seen(seed: int, tmp_path: pathlib.Path) -> None:
    """qemu-img and nbdinfo map the extents of the disk, and a copy is as sparse."""
    sample = reader.make_sample(8 << 20, seed)
    holes = [(item.start, item.length) for item in sample.holes]
    with _serving(sample) as (_, uri):
        mapped = json.loads(_run("qemu-img", _QEMU, "map", "-f", "raw", "--output=json", uri))
        assert [(item["start"], item["length"]) for item in mapped if not item["data"]] == holes
        mapped = json.loads(_run("nbdinfo", _LIBNBD, "--map", "--json", uri))
        assert [(item["offset"], item["length"]) for item in mapped if item["type"] == 3] == holes
        _run("nbdcopy", _LIBNBD, uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == sample.content


@pytest.mark.parametrize(
    ("tool", "package", "arguments"),
    [
        ("qemu-img", _QEMU, ["convert", "-f", "raw", "-O", "raw"]),
        ("nbdcopy", _LIBNBD, []),
        ("nbdcopy", _LIBNBD, ["--connections=4", "--requests=64"]),
    ],
    ids=["qemu-img", "nbdcopy", "nbdcopy-parallel"],
)
def test_b6_damage_fails_the_copy(
    tool: str, package: str, arguments: list[str], seed: int, tmp_path: pathlib.Path
) -> None:
    """B6: no client takes a disk with a damaged chunk for whole; who serves it learns the cause."""
    sample = reader.Sample(b"x" * (8 << 20), ())
    with _serving(sample, bad=5_000_000) as (served, uri):
        _run(tool, package, *arguments, uri, tmp_path / "copy", fails=True)
        assert isinstance(served.failure, errors.IntegrityError)


def test_b6_ranges_beside_damage(tmp_path: pathlib.Path) -> None:
    """B6: qemu-io reads what is beside a damaged chunk, and only the damage fails."""
    sample = reader.Sample(b"x" * (8 << 20), ())
    with _serving(sample, bad=4 << 20) as (_, uri):
        _run("qemu-io", _QEMU, "-r", "-f", "raw", "-c", "read -P 120 0 4M", "-c", "read -P 120 4198400 3M", uri)
        _run("qemu-io", _QEMU, "-r", "-f", "raw", "-c", "read 4M 512", uri, fails=True)


def test_b5_writing_tools_are_refused() -> None:
    """B5: qemu-io cannot open the export for writing, nbdcopy cannot copy to it."""
    sample = reader.make_sample(1 << 20, 1)
    with _serving(sample) as (_, uri):
        _run("qemu-io", _QEMU, "-f", "raw", "-c", "write 0 512", uri, fails=True)
        _run("nbdcopy", _LIBNBD, "--", "/etc/hostname", uri, fails=True)
        _run("qemu-img", _QEMU, "compare", "-f", "raw", "-F", "raw", uri, uri)
