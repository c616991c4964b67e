"""Containers of pieces and tables as targets: the suite, for each kind of layout, read back by another reader."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from tests import made_images
from tests.suites import reader, writer
from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import gates, made_target, makers, raw
from vimgvc.images.makers import plan as plans
from vimgvc.images.makers import vdi

DATA = extents.Kind.DATA
_TIB = 1 << 40
LAYOUTS: list[tuple[str, dict[str, str]]] = [
    ("vdi", {}),
    ("vdi", {"static": "on"}),
    ("vpc", {}),
    ("vpc", {"subformat": "fixed"}),
    ("vhdx", {"block_size": "1M"}),
    ("vhdx", {"subformat": "fixed", "block_size": "1M", "log_size": "2M"}),
    ("vmdk", {}),
    ("vmdk", {"zeroed_grain": "on"}),
    ("qed", {}),
    ("qed", {"cluster_size": "4k", "table_size": "2"}),
    ("qcow", {}),
    ("parallels", {}),
    ("parallels", {"cluster_size": "64k"}),
]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=str)


def build(
    path: pathlib.Path, size: int, layout: tuple[str, Mapping[str, str]], data: list[extents.Extent]
) -> made_target.MadeTarget:
    return made_target.build(path, size, *layout, data, tag="t1")


def content(fmt: str, path: pathlib.Path, size: int) -> bytes:
    """The disk in a finished container; what rounds its size up is zeros."""
    found = made_images.content(fmt, path.read_bytes())
    assert len(found) == -(-size // 512) * 512
    assert not any(found[size:])
    return found[:size]


class _Suite(writer.WriterSuite):
    layout: tuple[str, dict[str, str]]
    sizes: dict[pathlib.Path, int]

    @pytest.fixture(autouse=True)
    def _remember(self) -> None:
        self.sizes = {}

    def create(self, folder: pathlib.Path, size: int) -> protocol.Target:
        self.sizes[folder] = size
        return build(folder / "disk", size, self.layout, [extents.Extent(0, size, DATA)] if size else [])

    def result(self, folder: pathlib.Path) -> bytes | None:
        path = folder / "disk"
        return content(self.layout[0], path, self.sizes[folder]) if path.exists() else None

    def allocated(self, folder: pathlib.Path) -> int | None:
        """Tables take some, and the suite does not know of them."""
        return None


class TestVdi(_Suite):
    layout = "vdi", {}


class TestVpc(_Suite):
    """With a gap in front of each piece."""

    layout = "vpc", {}


class TestVpcFixed(_Suite):
    layout = "vpc", {"subformat": "fixed"}


class TestVhdx(_Suite):
    layout = "vhdx", {"block_size": "1M"}


class TestQed(_Suite):
    """With two levels of tables."""

    layout = "qed", {"cluster_size": "4k", "table_size": "2"}


class TestParallels(_Suite):
    layout = "parallels", {"cluster_size": "64k"}


@layouts
def test_only_what_there_is_has_a_place(layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path) -> None:
    """A disk with little data is a small file, whose sound tables lead to that data and nothing else."""
    size = (12 << 20) + 512
    mark = np.random.default_rng(seed).bytes(1000)
    planned = [extents.Extent(5 << 20, 4096, DATA), extents.Extent(size - 1000, 1000, DATA)]
    target = build(tmp_path / "a", size, layout, planned)
    assert [item for item in target.extents(0, size) if item.kind is DATA][-1].end == size
    for item in planned:
        target.pwrite(item.start, memoryview(mark))
    target.finish()
    expected = bytearray(size)
    for item in planned:
        expected[item.start : item.start + 1000] = mark
    assert content(layout[0], tmp_path / "a", size) == bytes(expected)
    allocated = (tmp_path / "a").stat().st_blocks * 512
    assert allocated < 1 << 20


@layouts
def test_the_image_is_read_before_it_has_its_name(
    layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path
) -> None:
    """`reader` finds the disk by the tables in the file, and by nothing that is only remembered."""
    size = 3_000_003
    sample = reader.make_sample(size, seed)
    target = build(tmp_path / "a", size, layout, sample.data())
    for piece in sample.data():
        target.pwrite(piece.start, memoryview(sample.content)[piece.start : piece.end])
    image = target.reader()
    assert image.size == 3_000_320
    for offset, length in reader.ranges(size, seed, 200):
        assert reader.read(image.pread_into, offset, length) == sample.content[offset : offset + length]
    assert not any(reader.read(image.pread_into, size, 317))
    for item in image.extents(0, size):
        assert item.kind is DATA or not any(sample.content[item.start : item.end])
    image.close()
    assert not (tmp_path / "a").exists()
    target.finish()
    assert content(layout[0], tmp_path / "a", size) == sample.content


def test_only_what_was_planned_is_written(tmp_path: pathlib.Path) -> None:
    """A write beside the plan is the caller's mistake; reading and zeroing there are harmless."""
    target = build(tmp_path / "a", 8 << 20, ("vpc", {}), [extents.Extent(3 << 20, 65536, DATA)])
    for offset, length in [(0, 1), ((2 << 20) - 1, 2), ((4 << 20) - 1, 2), (4 << 20, 1)]:
        with pytest.raises(ValueError, match="planned"):
            target.pwrite(offset, memoryview(b"x" * length))
    target.pwrite(3 << 20, memoryview(b"y" * 65536))
    target.zero((3 << 20) + 4096, (5 << 20) - 4096)
    expected = bytes(3 << 20) + b"y" * 4096 + bytes((5 << 20) - 4096)
    assert reader.read(target.pread_into, 0, 8 << 20) == expected
    target.finish()
    assert content("vpc", tmp_path / "a", 8 << 20) == expected
    with pytest.raises(errors.VimgvcError, match="no longer open"):
        target.pwrite(3 << 20, memoryview(b"z"))


@layouts
def test_interrupted_runs_are_continued(layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path) -> None:
    """The same plan finds what an interrupted run wrote, also when it had begun its tables; another begins anew."""
    size, data = 8 << 20, np.random.default_rng(seed).bytes(131072)
    planned = [extents.Extent(1 << 20, 4 << 20, DATA)]
    first = build(tmp_path / "a", size, layout, planned)
    first.pwrite(2 << 20, memoryview(data))
    first.reader()
    first.abort()
    other = build(tmp_path / "a", size, layout, [extents.Extent(1 << 20, 6 << 20, DATA)])
    is_whole = layout[1].get("static") == "on" or layout[1].get("subformat") == "fixed"
    assert other.resumed == is_whole  # then every plan is the same
    other.abort(keep=is_whole)
    again = build(tmp_path / "a", size, layout, planned)
    assert again.resumed
    assert reader.read(again.pread_into, 2 << 20, len(data)) == data
    again.zero(0, 2 << 20)
    again.zero((2 << 20) + len(data), size - (2 << 20) - len(data))
    again.finish()
    assert content(layout[0], tmp_path / "a", size) == bytes(2 << 20) + data + bytes(size - (2 << 20) - len(data))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class _Forgetful(vdi.Vdi):
    """Leaves out its map: what was written cannot be found."""

    def around(self, plan: plans.Plan, name: str) -> Iterator[tuple[int, bytes]]:
        yield next(iter(super().around(plan, name)))
        yield 512, b"\x07" * 4 * self.count


def test_x9_tables_that_are_wrong_give_no_image(tmp_path: pathlib.Path) -> None:
    """What was written is judged as any image would be; what does not pass gets no name, compared or not."""
    maker = _Forgetful(8 << 20, {})
    plan = makers.Plan(8 << 20, maker, [extents.Extent(0, 1 << 20, DATA)])
    target = made_target.MadeTarget(raw.RawWriter(tmp_path / "a", plan.file_size, tag="t1"), plan)
    target.pwrite(0, memoryview(b"x" * 4096))
    with pytest.raises(errors.IntegrityError, match="what was written is not right"):
        target.finish()
    target.abort(keep=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layout", "size", "data"),
    [
        (("vpc", {}), (2040 << 30) + 512, 0),
        (("vpc", {"subformat": "fixed"}), (2040 << 30) + 512, 0),
        (("vdi", {}), 512 * _TIB, 0),
        (("vhdx", {}), (64 << 40) + 512, 0),
        (("qed", {"cluster_size": "4k", "table_size": "2"}), (1024 * 1024 * 4096) + 512, 0),
        (("qcow", {}), (64 << 40) + 512, 0),
        (("parallels", {"cluster_size": "4k"}), 4 * _TIB, 0),
        (("vmdk", {}), 4 * _TIB, 2 * _TIB),
        (("vmdk", {}), 1024 * _TIB + 512, 0),
    ],
    ids=str,
)
def test_disks_that_a_format_cannot_hold(
    layout: tuple[str, dict[str, str]], size: int, data: int, tmp_path: pathlib.Path
) -> None:
    """More than a table can count is a usage error before anything is made."""
    with pytest.raises(errors.UsageError, match="cannot hold"):
        build(tmp_path / "a", size, layout, [extents.Extent(0, data, DATA)] if data else [])
    assert list(tmp_path.iterdir()) == []


def test_qed_tables_that_nobody_can_count_with(tmp_path: pathlib.Path) -> None:
    """Clusters and tables with which a disk could have 2^64 bytes or more are refused: QEMU takes them for none."""
    with pytest.raises(errors.UsageError, match="opened by no program"):
        build(tmp_path / "a", 1 << 30, ("qed", {"cluster_size": "2M", "table_size": "16"}), [])
    assert list(tmp_path.iterdir()) == []


def test_large_tables_that_are_mostly_empty(tmp_path: pathlib.Path) -> None:
    """Tables of 16 MiB each with one entry take little space, and the gate counts of them what is there."""
    size, cluster = 16 * _TIB, 1 << 20
    places = range(0, size, 2 * _TIB)
    planned = [extents.Extent(place, 4096, DATA) for place in places]
    target = build(tmp_path / "a", size, ("qed", {"cluster_size": "1M", "table_size": "16"}), planned)
    for place in places:
        target.pwrite(place + 1, memoryview(place.to_bytes(8, "little")))
    image = target.reader()
    for place in places:
        assert reader.read(image.pread_into, place + 1, 8) == place.to_bytes(8, "little")
        assert not any(reader.read(image.pread_into, place + cluster, 4096))
    target.finish()
    with contextlib.closing(raw.RawReader(tmp_path / "a")) as file:
        assert file.allocated_bytes < 32 << 20
        facts = gates.check("qed", file, "a")
    assert (facts.size, facts.data_bytes) == (size, len(places) * cluster)


def test_a_disk_with_much_data_needs_room(tmp_path: pathlib.Path) -> None:
    """What cannot fit is refused before anything is made."""
    with pytest.raises(errors.NoSpace):
        build(tmp_path / "a", 64 << 40, ("vdi", {}), [extents.Extent(0, 60 << 40, DATA)])
    assert list(tmp_path.iterdir()) == []
