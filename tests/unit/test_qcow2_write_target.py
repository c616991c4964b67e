"""qcow2 images as targets: the suite, for every way to lay one out."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.suites import reader, writer
from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2, qcow2_compressed, qcow2_plan, qcow2_target, raw

DATA, ZERO = extents.Kind.DATA, extents.Kind.ZERO
MODES = ["off", "metadata", "falloc", "full"]


def options(**chosen: str) -> qcow2_plan.Options:
    compressed = chosen.pop("compressed", "off") == "on"
    return qcow2_plan.parse_options(chosen, compressed=compressed)


def content(path: pathlib.Path, size: int) -> bytes:
    """The disk in a finished image, as our reader sees it; what rounds its size up is zeros."""
    image = qcow2.Qcow2Reader(raw.RawReader(path), str(path))
    room = bytearray(image.size)
    image.pread_into(0, memoryview(room))
    image.close()
    assert len(room) == -(-size // 512) * 512
    assert not any(room[size:])
    return bytes(room[:size])


class _Suite(writer.WriterSuite):
    chosen = ""  # options, as with -o
    sizes: dict[pathlib.Path, int]
    tables = 5  # clusters

    @pytest.fixture(autouse=True)
    def _remember(self) -> None:
        self.sizes = {}

    def create(self, folder: pathlib.Path, size: int) -> protocol.Target:
        self.sizes[folder] = size
        everything = [extents.Extent(0, size, DATA)] if size else []
        return qcow2_target.build(folder / "disk.qcow2", size, options(**self.pairs), everything, tag="t1")

    @property
    def pairs(self) -> dict[str, str]:
        return dict(pair.split("=") for pair in self.chosen.split(",") if pair)

    def result(self, folder: pathlib.Path) -> bytes | None:
        path = folder / "disk.qcow2"
        return content(path, self.sizes[folder]) if path.exists() else None

    def allocated(self, folder: pathlib.Path) -> int | None:
        """Less the tables, which the suite does not know of."""
        status = (folder / "disk.qcow2").stat()
        if self.pairs.get("preallocation", "off") in ("falloc", "full"):
            return None
        return status.st_blocks * 512 - self.tables * int(self.pairs.get("cluster_size", 65536))


class TestPlain(_Suite):
    """As it comes."""


class TestOld(_Suite):
    chosen = "compat=0.10"


class TestSmallClusters(_Suite):
    chosen = "cluster_size=4096"
    tables = 1 + 1 + 5 + 1 + 16


class TestLargeClusters(_Suite):
    chosen = "cluster_size=2097152"

    def allocated(self, folder: pathlib.Path) -> int | None:
        """The tables are whole clusters: more than the suite allows."""
        return None


class TestSubclusters(_Suite):
    chosen = "extended_l2=on"


class TestMetadata(_Suite):
    chosen = "preallocation=metadata"


class TestFalloc(_Suite):
    chosen = "preallocation=falloc"


class TestFull(_Suite):
    chosen = "preallocation=full,extended_l2=on"


class _Compressed(_Suite):
    def allocated(self, folder: pathlib.Path) -> int | None:
        """Clusters that were written again have left pieces behind."""
        return None


class TestCompressed(_Compressed):
    chosen = "compressed=on"


class TestCompressedOld(_Compressed):
    chosen = "compressed=on,compat=0.10,cluster_size=4096"


class TestCompressedZstd(_Compressed):
    chosen = "compressed=on,compression_type=zstd,extended_l2=on,cluster_size=16k"


@pytest.mark.parametrize("compressed", ["off", "on"])
def test_only_what_was_planned_is_written(compressed: str, tmp_path: pathlib.Path) -> None:
    """A write beside the plan is the caller's mistake; reading and zeroing there are harmless."""
    chosen = options(compressed=compressed)
    target = qcow2_target.build(tmp_path / "a", 1 << 20, chosen, [extents.Extent(65536, 65536, DATA)], tag="t1")
    for offset, length in [(0, 1), (65535, 2), (65536, 65537), (131072, 1)]:
        with pytest.raises(ValueError, match="planned"):
            target.pwrite(offset, memoryview(b"x" * length))
    target.zero(0, 1 << 20)
    assert reader.read(target.pread_into, 0, 1 << 20) == bytes(1 << 20)
    target.pwrite(65536, memoryview(b"y" * 65536))
    target.finish()
    assert content(tmp_path / "a", 1 << 20) == bytes(65536) + b"y" * 65536 + bytes(14 * 65536)


@pytest.mark.parametrize("compressed", ["off", "on"])
def test_the_image_is_read_before_it_has_its_name(compressed: str, seed: int, tmp_path: pathlib.Path) -> None:
    """`reader` shows the disk as the finished image will; more can be written afterwards."""
    size = 1_000_003
    sample = reader.make_sample(size, seed)
    target = qcow2_target.build(tmp_path / "a", size, options(compressed=compressed), sample.data(), tag="t1")
    for piece in sample.data():
        target.pwrite(piece.start, memoryview(sample.content)[piece.start : piece.end])
    image = target.reader()
    assert image.size == 1_000_448
    assert reader.read(image.pread_into, 0, size) == sample.content
    image.close()
    first = sample.data()[0]
    target.pwrite(first.start, memoryview(b"z" * first.length))
    image = target.reader()
    assert reader.read(image.pread_into, first.start, first.length) == b"z" * first.length
    assert not (tmp_path / "a").exists()
    target.finish()
    expected = bytearray(sample.content)
    expected[first.start : first.end] = b"z" * first.length
    assert content(tmp_path / "a", size) == bytes(expected)


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_runs_are_continued(mode: str, seed: int, tmp_path: pathlib.Path) -> None:
    """The same plan finds what an interrupted run wrote; another plan begins anew."""
    size, data = 1 << 20, np.random.default_rng(seed).bytes(131072)
    chosen, planned = options(preallocation=mode), [extents.Extent(65536, 262144, DATA)]
    first = qcow2_target.build(tmp_path / "a", size, chosen, planned, tag="t1")
    first.pwrite(131072, memoryview(data))
    first.abort()
    other = qcow2_target.build(tmp_path / "a", size, options(lazy_refcounts="on"), planned, tag="t1")
    assert not other.resumed
    other.abort()
    again = qcow2_target.build(tmp_path / "a", size, chosen, planned, tag="t1")
    assert again.resumed
    assert reader.read(again.pread_into, 131072, len(data)) == data
    again.zero(0, 131072)
    again.zero(262144, size - 262144)
    again.finish()
    assert content(tmp_path / "a", size) == bytes(131072) + data + bytes(size - 262144)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("text", ["", "compat=0.10", "extended_l2=on"])
@pytest.mark.parametrize("compressed", ["off", "on"])
def test_unwritten_pieces_hide_the_backing_file(text: str, compressed: str, seed: int, tmp_path: pathlib.Path) -> None:
    """What was planned as data and never written reads as zeros, not as the backing file."""
    old = np.random.default_rng(seed).bytes(1 << 20)
    (tmp_path / "base.raw").write_bytes(old)
    pairs = dict(pair.split("=") for pair in text.split(",") if pair)
    target = _overlay(tmp_path, 1 << 20, [extents.Extent(131072, 262144, DATA)], compressed=compressed, **pairs)
    target.pwrite(196608, memoryview(b"x" * 4096))
    target.finish()
    base = raw.RawReader(tmp_path / "base.raw")
    image = qcow2.Qcow2Reader(raw.RawReader(tmp_path / "over.qcow2"), "over", backing=base)
    new = old[:131072] + bytes(65536) + b"x" * 4096 + bytes(192512) + old[393216:]
    assert reader.read(image.pread_into, 0, 1 << 20) == new
    image.close()


def test_compressed_runs_begin_again(seed: int, tmp_path: pathlib.Path) -> None:
    """Of an interrupted compressed image nothing stays, not even after a kill."""
    size, data = 1 << 20, np.random.default_rng(seed).bytes(1 << 20)
    chosen, planned = options(compressed="on"), [extents.Extent(0, size, DATA)]
    first = qcow2_target.build(tmp_path / "a", size, chosen, planned, tag="t1")
    first.pwrite(0, memoryview(data))
    partial = next(tmp_path.iterdir())
    rest = partial.read_bytes()
    first.abort()
    assert list(tmp_path.iterdir()) == []
    partial.write_bytes(rest)  # as a kill leaves it
    clean = tmp_path / "clean"
    clean.mkdir()
    for folder in (tmp_path, clean):
        again = qcow2_target.build(folder / "a", size, chosen, planned, tag="t1")
        assert not again.resumed
        again.pwrite(65536, memoryview(bytes(65535) + b"x"))
        again.finish()
        assert content(folder / "a", size) == bytes(131071) + b"x" + bytes(size - 131072)
    assert (tmp_path / "a").read_bytes() == (clean / "a").read_bytes()


def test_clusters_in_pieces_need_bounded_memory(seed: int, tmp_path: pathlib.Path) -> None:
    """More half-written clusters than may wait are compressed early and still become whole."""
    size = 80 << 20
    rng = np.random.default_rng(seed)
    chosen = options(compressed="on", compression_type="zstd", cluster_size="2M")
    target = qcow2_target.build(tmp_path / "a", size, chosen, [extents.Extent(0, size, DATA)], tag="t1")
    assert isinstance(target, qcow2_compressed.CompressedTarget)
    marks = {}
    for half in (0, 1 << 20):
        for cluster in rng.permutation(40).tolist():
            offset = cluster * (2 << 20) + half
            marks[offset] = rng.bytes(16)
            target.pwrite(offset, memoryview(marks[offset] * (1 << 16)))
            assert len(target._waiting) * chosen.cluster_size <= qcow2_compressed._WAITING
    target.finish()
    image = qcow2.Qcow2Reader(raw.RawReader(tmp_path / "a"), "a")
    for offset, mark in marks.items():
        assert reader.read(image.pread_into, offset, 1 << 20) == mark * (1 << 16)
    image.close()


def _overlay(folder: pathlib.Path, size: int, changed: list[extents.Extent], **chosen: str) -> protocol.Target:
    with_backing = options(backing_file="base.raw", backing_fmt="raw", **chosen)
    return qcow2_target.build(folder / "over.qcow2", size, with_backing, changed, tag="t1")


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"compat": "0.10"},
        {"extended_l2": "on"},
        {"extended_l2": "on", "preallocation": "metadata"},
        {"compressed": "on"},
        {"compressed": "on", "compat": "0.10"},
        {"compressed": "on", "extended_l2": "on"},
    ],
    ids=str,
)
def test_overlays_show_the_changed_disk(chosen: dict[str, str], seed: int, tmp_path: pathlib.Path) -> None:
    """Over its backing file an overlay of the planned pieces is the new disk, zeros included, also if it grew."""
    rng = np.random.default_rng(seed)
    size, old = 1_200_000, rng.bytes(1_000_000)
    (tmp_path / "base.raw").write_bytes(old)
    new = bytearray(old.ljust(size, b"\0"))
    changed = []
    for number in range(4096, 1_150_000, 70_000):
        kind = ZERO if rng.integers(2) else DATA
        length = int(rng.choice([4096, 65536, 135168])) if number < 400_000 else 4096
        changed.append(extents.Extent(number, min(length, 69_632), kind))
        new[number : changed[-1].end] = bytes(changed[-1].length) if kind is ZERO else rng.bytes(changed[-1].length)
    target = _overlay(tmp_path, size, changed, **chosen)
    for piece in target.plan.pieces():  # type: ignore[attr-defined]
        for start in range(piece.start, piece.end, 4096):
            part = bytes(new[start : min(start + 4096, piece.end)])
            if any(part):  # zeros are not written
                target.pwrite(start, memoryview(part))
    target.finish()
    image = qcow2.Qcow2Reader(
        raw.RawReader(tmp_path / "over.qcow2"), "over", backing=raw.RawReader(tmp_path / "base.raw")
    )
    assert reader.read(image.pread_into, 0, size) == bytes(new)
    image.close()


@pytest.mark.parametrize("compressed", ["off", "on"])
def test_overlays_do_not_invent_the_backing_file(compressed: str, tmp_path: pathlib.Path) -> None:
    """Where an overlay shows its backing file, it is neither read nor zeroed as if that were zeros."""
    target = _overlay(tmp_path, 1 << 20, [extents.Extent(0, 65536, ZERO)], compressed=compressed)
    assert reader.read(target.pread_into, 0, 65536) == bytes(65536)
    with pytest.raises(ValueError, match="backing file's"):
        reader.read(target.pread_into, 65535, 2)
    with pytest.raises(ValueError, match="backing file's"):
        target.zero(65535, 2)
    target.abort()


def test_no_room_is_told_at_once(tmp_path: pathlib.Path) -> None:
    """Data that the file system has no room for is refused before anything is written."""
    for mode in MODES[:1] + MODES[2:]:
        with pytest.raises(errors.NoSpace):
            qcow2_target.build(
                tmp_path / "a",
                1 << 40,
                options(preallocation=mode),
                [extents.Extent(0, 1 << 40, DATA)],
                tag="t1",
            )
    assert list(tmp_path.iterdir()) == []
