"""qcow2 images that we write, against those that QEMU makes of the same disk."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tests import depth, programs
from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2_plan, qcow2_stream, qcow2_target

pytestmark = pytest.mark.slow

DATA, ZERO, HOLE = extents.Kind.DATA, extents.Kind.ZERO, extents.Kind.HOLE
SIZE = (7 << 20) + 512
_BLOCK = 4096

_COMPRESSED_VERSIONS = [
    "compat=0.10",
    "compat=1.1",
    "compression_type=zstd",
    "extended_l2=on",
    "compression_type=zstd,extended_l2=on",
]
_VERSIONS = ["compat=0.10", "compat=1.1", "compat=1.1,lazy_refcounts=on", "compat=1.1,extended_l2=on"]
LAYOUTS = [
    f"{version},cluster_size={size},preallocation={mode}"
    for version, size, mode in itertools.product(
        _VERSIONS, ["512", "4096", "65536", "2097152"], ["off", "metadata", "falloc", "full"]
    )
    if "extended_l2" not in version or int(size) >= 16384
] + ["refcount_bits=1", "refcount_bits=8,cluster_size=1k", "refcount_bits=64,cluster_size=16k,extended_l2=on"]
COMPRESSED = [
    f"{version},cluster_size={size}"
    for version, size in itertools.product(
        [
            "compat=0.10",
            "compat=1.1",
            "compression_type=zstd",
            "extended_l2=on",
            "compression_type=zstd,extended_l2=on",
        ],
        ["512", "65536", "2097152"],
    )
    if "extended_l2" not in version or int(size) >= 16384
]
OVERLAYS = [
    *(f"{version},cluster_size={size}" for version in _VERSIONS[:2] for size in ("512", "65536", "2097152")),
    "extended_l2=on",
    "extended_l2=on,preallocation=metadata",
    "extended_l2=on,preallocation=full",
]


def options(text: str, *, compressed: bool = False) -> qcow2_plan.Options:
    return qcow2_plan.parse_options(dict(pair.split("=") for pair in text.split(",") if pair), compressed=compressed)


def make_disk(seed: int, size: int = SIZE) -> bytes:
    """Runs of all lengths, half compressible, with blocks of zeros strewn in and large holes."""
    rng = np.random.default_rng(seed)
    disk = bytearray(size)
    at = 0
    while at < size:
        length = min(int(2 ** rng.uniform(12, 20)) // _BLOCK * _BLOCK, size - at)
        if rng.integers(2):
            pattern = rng.bytes(min(length, 997))
            disk[at : at + length] = rng.bytes(length) if rng.integers(2) else (pattern * (length // 997 + 1))[:length]
        at += length
    disk[-600:-100] = rng.bytes(500)
    return bytes(disk)


def blocks(disk: bytes, base: bytes | None = None) -> list[extents.Extent]:
    """What is no zeros, in blocks of 4 KiB; with a base what differs from it, and whether that is zeros now."""
    found = []
    for start in range(0, len(disk), _BLOCK):
        block = disk[start : start + _BLOCK]
        if base is None or block != base[start : start + _BLOCK].ljust(len(block), b"\0"):
            kind = DATA if any(block) else ZERO
            if base is not None or kind is DATA:
                found.append(extents.Extent(start, len(block), kind))
    return list(extents.merge(found))


def fill(target: protocol.Target, disk: bytes, pieces: Iterable[extents.Extent], seed: int) -> None:
    """Write the blocks of `pieces` that are no zeros, shuffled, from two threads."""
    data = extents.merge(
        part
        for piece in pieces
        for part in (
            extents.Extent(start, min(_BLOCK, piece.end - start), DATA if any(disk[start : start + _BLOCK]) else HOLE)
            for start in range(piece.start, piece.end, _BLOCK)
        )
    )
    runs = [item for item in data if item.kind is DATA]
    order = np.random.default_rng(seed).permutation(len(runs)).tolist()

    def work(first: int) -> None:
        for number in order[first::2]:
            target.pwrite(runs[number].start, memoryview(disk)[runs[number].start : runs[number].end])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, number) for number in range(2)]:
            done.result()
    target.finish()


def info(path: pathlib.Path) -> dict[str, Any]:
    """What `qemu-img info` says of an image, less its name and its space."""
    found: dict[str, Any] = json.loads(programs.qemu_img("info", "-U", "-f", "qcow2", "--output=json", path))
    return {key: value for key, value in found.items() if key not in ("filename", "actual-size", "children")}


def check(path: pathlib.Path) -> dict[str, Any]:
    """Fails on any error or leak; returns what else `qemu-img check` tells."""
    found: dict[str, Any] = json.loads(programs.qemu_img("check", "-f", "qcow2", "--output=json", path))
    assert [found.get(key, 0) for key in ("check-errors", "corruptions", "leaks")] == [0, 0, 0]
    return found


def compare_space(ours: pathlib.Path, theirs: pathlib.Path, plan: qcow2_plan.Plan) -> None:
    """Sizes and allocated sizes differ by at most a cluster for each table; a file system has 4 KiB blocks."""
    tables = plan.data_offset // plan.cluster
    if plan.options.compressed:  # the refcounts are behind the data
        tables += sum(plan.refcount_clusters(plan.file_size // plan.cluster))
    mine, other = ours.stat(), theirs.stat()
    assert abs(mine.st_size - other.st_size) <= tables * plan.cluster
    assert abs(mine.st_blocks - other.st_blocks) * 512 <= tables * max(plan.cluster, _BLOCK)


def is_usable(path: pathlib.Path, seed: int) -> None:
    """A machine can go on writing to it: afterwards the image is still consistent."""
    rng = np.random.default_rng(seed)
    commands = []
    for _ in range(8):
        offset, length = rng.integers(0, 13 << 10), rng.integers(1, 999)
        commands.append(f"write -q -P 9 {offset * 512} {length * 512}")
    assert programs.qemu_io(path, "qcow2", *commands) == ""
    check(path)


@pytest.mark.parametrize("text", depth.of_run(LAYOUTS, 24))
def test_images_are_those_that_qemu_makes(text: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Content, info, size and allocated size are those of `qemu-img convert`; check finds nothing."""
    disk = make_disk(seed)
    raw, ours, theirs = tmp_path / "disk.raw", tmp_path / "ours", tmp_path / "theirs"
    raw.write_bytes(disk)
    target = qcow2_target.build(ours, SIZE, options(text), blocks(disk), tag="t1")
    fill(target, disk, blocks(disk), seed)
    programs.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", text, raw, theirs)
    assert check(ours)["image-end-offset"] == ours.stat().st_size
    programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, ours)
    assert info(ours) == info(theirs)
    compare_space(ours, theirs, target.plan)
    is_usable(ours, seed)


@pytest.mark.parametrize("text", depth.of_run(LAYOUTS, 20))
def test_empty_images_are_those_that_qemu_creates(text: str, tmp_path: pathlib.Path) -> None:
    """A disk without data is what `qemu-img create` makes, preallocated or not."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    target = qcow2_target.build(ours, SIZE, options(text), [], tag="t1")
    target.finish()
    programs.qemu_img("create", "-q", "-f", "qcow2", "-o", text, theirs, str(SIZE))
    check(ours)
    programs.qemu_img("compare", "-f", "qcow2", "-F", "qcow2", ours, theirs)
    assert info(ours) == info(theirs)
    compare_space(ours, theirs, target.plan)


@pytest.mark.parametrize("text", depth.of_run(COMPRESSED, 7))
def test_compressed_images_are_those_that_qemu_makes(text: str, seed: int, tmp_path: pathlib.Path) -> None:
    """As with uncompressed images; both a target that is written in shuffled order, and a stream."""
    disk = make_disk(seed)
    raw, ours, theirs = tmp_path / "disk.raw", tmp_path / "ours", tmp_path / "theirs"
    raw.write_bytes(disk)
    programs.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", text, raw, theirs)
    target = qcow2_target.build(ours, SIZE, options(text, compressed=True), blocks(disk), tag="t1")
    fill(target, disk, blocks(disk), seed)
    streamed = tmp_path / "streamed"
    put_stream(streamed, disk, qcow2_stream.Stream(SIZE, options(text, compressed=True), blocks(disk)))
    for image in (ours, streamed):
        found = check(image)
        assert found["image-end-offset"] == image.stat().st_size
        programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, image)
        assert info(image) == info(theirs)
        assert found.get("compressed-clusters") == check(theirs).get("compressed-clusters")
        is_usable(image, seed)
    ours.unlink()
    again = qcow2_target.build(ours, SIZE, options(text, compressed=True), blocks(disk), tag="t1")
    for piece in again.plan.pieces():  # in order, as QEMU does it
        again.pwrite(piece.start, memoryview(disk)[piece.start : piece.end])
    again.finish()
    compare_space(ours, theirs, target.plan)


def put_stream(path: pathlib.Path, disk: bytes, stream: qcow2_stream.Stream) -> None:
    view = memoryview(disk)
    if stream.two_passes:
        for window in stream.windows():
            stream.measure(window.start, view[window.start : window.end])
    with path.open("wb") as file:
        for piece in stream.head():
            file.write(piece)
        for window in stream.windows():
            file.write(stream.encode(window.start, view[window.start : window.end]))
        for piece in stream.tail():
            file.write(piece)
    assert path.stat().st_size == stream.file_size


@pytest.mark.parametrize("text", depth.of_run(OVERLAYS, 5))
def test_overlays_are_those_that_qemu_makes(text: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Over the same backing file our overlay is the changed disk, as large as the one that QEMU makes."""
    base = make_disk(seed, SIZE - (1 << 20))
    disk = bytearray(base.ljust(SIZE, b"\0"))
    rng = np.random.default_rng(seed)
    for start in rng.choice(SIZE // _BLOCK, 30, replace=False).tolist():
        length = int(2 ** rng.uniform(12, 19)) // _BLOCK * _BLOCK
        part = slice(start * _BLOCK, min(start * _BLOCK + length, SIZE))
        disk[part] = bytes(part.stop - part.start) if rng.integers(2) else rng.bytes(part.stop - part.start)
    (tmp_path / "base.raw").write_bytes(base)
    raw, ours, theirs = tmp_path / "disk.raw", tmp_path / "ours", tmp_path / "theirs"
    raw.write_bytes(disk)
    text = f"{text},backing_file=base.raw,backing_fmt=raw"
    for compressed in (False, True) if "preallocation" not in text else (False,):
        flag = ["-c"] if compressed else []
        programs.qemu_img(
            "convert", *flag, "-f", "raw", "-O", "qcow2", "-B", tmp_path / "base.raw", "-o", text, raw, theirs
        )
        programs.qemu_img("rebase", "-u", "-f", "qcow2", "-b", "base.raw", "-F", "raw", theirs)
        chosen = options(text, compressed=compressed)
        target = qcow2_target.build(ours, SIZE, chosen, blocks(bytes(disk), base), tag="t1")
        fill(target, bytes(disk), list(target.plan.pieces()), seed)
        check(ours)
        programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, ours)
        assert info(ours) == info(theirs)
        assert ours.stat().st_size <= theirs.stat().st_size + target.plan.data_offset + 2 * target.plan.cluster
        is_usable(ours, seed)
        put_stream(ours, bytes(disk), qcow2_stream.Stream(SIZE, chosen, blocks(bytes(disk), base)))
        check(ours)
        programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, ours)
        for path in (ours, theirs):
            path.unlink()


@pytest.mark.parametrize("text", depth.of_run(LAYOUTS[::5], 6))
def test_streams_are_read_by_qemu(text: str, seed: int, tmp_path: pathlib.Path) -> None:
    """A streamed image is sound and the same disk."""
    disk = make_disk(seed)
    (tmp_path / "disk.raw").write_bytes(disk)
    put_stream(tmp_path / "ours", disk, qcow2_stream.Stream(SIZE, options(text), blocks(disk)))
    check(tmp_path / "ours")
    programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "disk.raw", tmp_path / "ours")


_ODD = [0, 1, 511, 512, 513, 65535, 65537, 1_000_003]
_FEW = ["", "preallocation=metadata", "compat=0.10,cluster_size=512", "extended_l2=on"]


@pytest.mark.parametrize(("size", "text"), depth.of_run(itertools.product(_ODD, _FEW), 18))
def test_odd_sizes(size: int, text: str, seed: int, tmp_path: pathlib.Path) -> None:
    """Sizes are rounded up to sectors, as QEMU does it; the image is sound whatever the last cluster holds."""
    disk = np.random.default_rng(seed).bytes(size)
    (tmp_path / "disk.raw").write_bytes(disk.ljust(-(-size // 512) * 512, b"\0"))
    for compressed in (False, True) if "preallocation" not in text else (False,):
        data = [extents.Extent(0, size, DATA)] if size else []
        target = qcow2_target.build(
            tmp_path / "ours", size, options(text, compressed=compressed), data, tag="t1", force=True
        )
        target.pwrite(0, memoryview(disk))
        target.finish()
        check(tmp_path / "ours")
        programs.qemu_img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "disk.raw", tmp_path / "ours")
        assert info(tmp_path / "ours")["virtual-size"] == -(-size // 512) * 512


def test_large_disks(tmp_path: pathlib.Path) -> None:
    """Of 64 TiB with little data everything lies where it should."""
    size = 64 << 40
    data = [extents.Extent(at, 65536, DATA) for at in (0, 1 << 40, size - 65536)]
    target = qcow2_target.build(tmp_path / "ours", size, options(""), data, tag="t1")
    for number, item in enumerate(data):
        target.pwrite(item.start, memoryview(bytes([number + 1]) * item.length))
    target.finish()
    check(tmp_path / "ours")
    reads = [f"read -q -P {number + 1} {item.start} {item.length}" for number, item in enumerate(data)]
    assert programs.qemu_io(tmp_path / "ours", "qcow2", *reads, f"read -q -P 0 {1 << 30} 65536") == ""
