"""qcow2 images as streams: the bytes are those of a file, and never anything but the disk."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory
from vimgvc.images import qcow2, qcow2_plan, qcow2_stream, qcow2_target

DATA, ZERO = extents.Kind.DATA, extents.Kind.ZERO
LAYOUTS = [
    "",
    "cluster_size=512",
    "cluster_size=2M",
    "compat=0.10",
    "compat=0.10,cluster_size=4k",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,preallocation=metadata",
    "preallocation=metadata,lazy_refcounts=on",
    "preallocation=full,cluster_size=1k",
    "refcount_bits=1",
    "refcount_bits=64,cluster_size=512",
]
COMPRESSED = [
    "",
    "cluster_size=512",
    "cluster_size=2M",
    "compat=0.10,cluster_size=4k",
    "extended_l2=on,cluster_size=16k",
    "compression_type=zstd,cluster_size=32k",
    "compression_type=zstd,refcount_bits=64",
]


def options(text: str, *, compressed: bool = False) -> qcow2_plan.Options:
    pairs = dict(pair.split("=") for pair in text.split(",") if pair)
    return qcow2_plan.parse_options(pairs, compressed=compressed)


def window(content: bytes, item: extents.Extent) -> memoryview:
    return memoryview(content)[item.start : item.end]


def stream(made: qcow2_stream.Stream, content: bytes) -> bytes:
    """The whole image; windows are measured and encoded in odd orders, as threads do."""
    windows = list(made.windows())
    if made.two_passes:
        for item in reversed(windows):
            made.measure(item.start, window(content, item))
    head = b"".join(made.head())
    parts = {item.start: bytes(made.encode(item.start, window(content, item))) for item in windows[::-1]}
    return head + b"".join(parts[item.start] for item in windows) + b"".join(made.tail())


def check(image: bytes, content: bytes) -> qcow2.Qcow2Reader:
    """Fails unless `image` reads as `content`."""
    opened = qcow2.Qcow2Reader(memory.MemoryDisk.of(image), "image")
    assert opened.size == -(-len(content) // 512) * 512
    assert reader.read(opened.pread_into, 0, opened.size) == content.ljust(opened.size, b"\0")
    return opened


def squeezable(size: int, seed: int) -> reader.Sample:
    """A sample whose pieces compress well, badly or not at all."""
    sample = reader.make_sample(size, seed)
    content = bytearray(sample.content)
    rng = np.random.default_rng(seed)
    for start in range(0, size, 8192):  # inside one piece of the sample
        if rng.integers(3) and any(content[start : start + 8192]):
            content[start : start + 6000] = rng.bytes(int(rng.integers(1, 40))).ljust(40) * 150
    return reader.Sample(bytes(content[:size]), sample.holes)


@pytest.mark.parametrize("text", LAYOUTS)
def test_a_stream_is_the_file(text: str, seed: int, tmp_path: pathlib.Path) -> None:
    """What is streamed is, byte for byte, what a target makes of the same plan, and as long as promised."""
    size = 5_000_003 if "512" not in text else 1_000_003
    sample = reader.make_sample(size, seed)
    target = qcow2_target.build(tmp_path / "a", size, options(text), sample.data(), tag="t1")
    for piece in sample.data():
        target.pwrite(piece.start, window(sample.content, piece))
    target.finish()
    made = qcow2_stream.Stream(size, options(text), sample.data())
    image = stream(made, sample.content)
    assert len(image) == made.file_size
    assert image == (tmp_path / "a").read_bytes()
    check(image, sample.content)


@pytest.mark.slow
@pytest.mark.parametrize("text", COMPRESSED)
@pytest.mark.parametrize("kind", [squeezable, reader.make_sample], ids=["squeezable", "random"])
def test_a_compressed_stream_is_the_disk(text: str, kind: type, seed: int) -> None:
    """What is measured in one pass holds in the next: the image is as long as promised and reads as the disk."""
    size = 4_500_003 if "512" not in text else 400_003
    sample = kind(size, seed)
    made = qcow2_stream.Stream(size, options(text, compressed=True), sample.data())
    image = stream(made, sample.content)
    assert len(image) == made.file_size
    check(image, sample.content)


@pytest.mark.parametrize("size", [*reader.SIZES, 65537, 4 << 20])
@pytest.mark.parametrize("compressed", [False, True])
def test_sizes_are_rounded_up_to_sectors(size: int, compressed: bool, seed: int) -> None:
    """Any size is possible; the image has whole sectors, and the plan says so."""
    sample = squeezable(size, seed)
    made = qcow2_stream.Stream(size, options("", compressed=compressed), sample.data())
    check(stream(made, sample.content), sample.content)
    assert made.plan.disk_size == -(-size // 512) * 512


def test_windows_hold_all_data_in_order(seed: int) -> None:
    """Windows are ascending, inside one cell of the grid each, and touch every cluster that has data."""
    rng = np.random.default_rng(seed)
    size, cluster = (1 << 30) + 777, 65536
    starts = np.sort(rng.choice(size // 4096, 2000, replace=False)) * 4096
    data = [extents.Extent(start, 4096, DATA) for start in starts.tolist()]
    found = list(qcow2_stream.Stream(size, options(""), data).windows())
    ends = [0] + [item.end for item in found]
    assert all(item.start >= end for item, end in zip(found, ends, strict=False))
    assert all(item.start // qcow2_stream.WINDOW == (item.end - 1) // qcow2_stream.WINDOW for item in found)
    cells = {item.start // qcow2_stream.WINDOW: item for item in found}
    assert len(cells) == len(found)
    for start in starts.tolist():
        item = cells[start // qcow2_stream.WINDOW]
        assert item.start <= start // cluster * cluster
        assert item.end >= min(-(-(start + 4096) // cluster) * cluster, size)


def test_overlays_stream(seed: int) -> None:
    """An overlay streams what changed; over its backing file it is the new disk."""
    rng = np.random.default_rng(seed)
    size = 3 << 20
    old = rng.bytes(size)
    changed = [extents.Extent(8192, 4096, DATA), extents.Extent(1 << 20, 1 << 20, ZERO)]
    new = bytearray(old)
    new[8192:12288] = rng.bytes(4096)
    new[1 << 20 : 2 << 20] = bytes(1 << 20)
    for text, compressed in [("", False), ("compat=0.10", False), ("extended_l2=on", False), ("", True)]:
        chosen = options(f"{text},backing_file=base,backing_fmt=raw", compressed=compressed)
        image = stream(qcow2_stream.Stream(size, chosen, changed), bytes(new))
        assert len(image) < size
        opened = qcow2.Qcow2Reader(memory.MemoryDisk.of(image), "image", backing=memory.MemoryDisk.of(old))
        assert reader.read(opened.pread_into, 0, size) == bytes(new)
        assert opened.header.backing_file == b"base"


def test_a_disk_that_changes_is_noticed(seed: int) -> None:
    """A window that compresses to another length than was measured is refused: its place would be wrong."""
    size = 8 << 20
    sample = squeezable(size, seed)
    made = qcow2_stream.Stream(size, options("", compressed=True), [extents.Extent(0, size, DATA)])
    windows = list(made.windows())
    for item in windows:
        made.measure(item.start, window(sample.content, item))
    b"".join(made.head())
    with pytest.raises(errors.VimgvcError, match="not what was measured"):
        made.encode(windows[1].start, memoryview(np.random.default_rng(seed).bytes(windows[1].length)))


def test_nothing_is_written_unmeasured(seed: int) -> None:
    """A compressed stream does not begin before every window was measured."""
    sample = squeezable(8 << 20, seed)
    made = qcow2_stream.Stream(8 << 20, options("", compressed=True), [extents.Extent(0, 8 << 20, DATA)])
    made.measure(0, memoryview(sample.content)[: 4 << 20])
    with pytest.raises(ValueError, match="measured"):
        b"".join(made.head())


@pytest.mark.parametrize("cluster", [512, 4096])
def test_places_of_compressed_clusters(cluster: int, seed: int) -> None:
    """However lengths are cut into batches, places are those of a plain loop: in order, whole clusters aligned."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, cluster, 4000).astype(np.uint32)
    lengths[rng.integers(3, size=4000) == 0] = cluster
    lengths[rng.integers(5, size=4000) == 0] = 0
    expected, at = [], 3 * cluster
    for length in lengths.tolist():
        at += -at % cluster if length == cluster else 0
        expected.append(at)
        at += length
    found: list[int] = []
    end, first = 3 * cluster, 0
    while first < lengths.size:
        step = int(rng.integers(1, 300))
        part = lengths[first : first + step]
        offsets, end = qcow2_stream.place(part, end, cluster)
        found += offsets.tolist()
        first += step
    own = lengths > 0  # a cluster of zeros has no place
    assert np.array(found)[own].tolist() == np.array(expected)[own].tolist()
    assert end == at
