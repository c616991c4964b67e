"""Reading qcow2 images: the contract of a Reader, and damage."""

from __future__ import annotations

import concurrent.futures
import pathlib
from typing import Any

import numpy as np
import pytest

from tests import qcow2_image, qcow2_opened
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory
from vimgvc.images import qcow2, qcow2_tables

_KIB, _MIB = 1 << 10, 1 << 20


def _image_of(sample: reader.Sample, **fields: Any) -> bytes:
    """The sample, its clusters in shuffled order; every third one compressed where that is possible."""
    image = qcow2_image.Image(len(sample.content), **fields)
    order = np.random.default_rng(5).permutation(-(-len(sample.content) // image.cluster)).tolist()
    for index in order:
        start = index * image.cluster
        piece = sample.content[start : start + image.cluster]
        if any(hole.start <= start and hole.end >= start + len(piece) for hole in sample.holes):
            continue
        if index % 3 == 1:
            image.packed(index, piece)
        elif not any(piece) and image.version > 2:
            image.zero(index)
        else:
            image.data(index, piece)
    return image.build()


class TestSmallClusters(reader.ReaderSuite):
    hole_grid = 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> qcow2.Qcow2Reader:
        return qcow2_opened.open_image(_image_of(sample, bits=9, version=2))


class TestClusters(reader.ReaderSuite):
    hole_grid = 16 * _KIB

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> qcow2.Qcow2Reader:
        return qcow2_opened.open_image(_image_of(sample, bits=14))


class TestExtendedEntries(reader.ReaderSuite):
    hole_grid = 16 * _KIB

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> qcow2.Qcow2Reader:
        features = qcow2_image.EXTENDED | qcow2_image.COMPRESSION
        return qcow2_opened.open_image(_image_of(sample, bits=14, incompatible=features, compression=1))


class TestOverlay(reader.ReaderSuite):
    """Every second cluster is in the overlay, the others come from a backing disk."""

    hole_grid = 16 * _KIB

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> qcow2.Qcow2Reader:
        size, content = len(sample.content), sample.content
        base, image = memory.MemoryDisk(max(size - 5000, 0)), qcow2_image.Image(size, bits=14, backing=b"base")
        for item in sample.data():
            for start in range(item.start, item.end, image.cluster):
                piece = content[start : min(start + image.cluster, item.end)]
                if start // image.cluster % 2 or start + len(piece) > base.size:
                    image.data(start // image.cluster, piece)
                else:
                    base.pwrite(start, memoryview(piece))
        return qcow2_opened.open_image(image.build(), backing=base)


@pytest.mark.parametrize("bits", [9, 12, 16, 21])
@pytest.mark.parametrize("compression", [0, 1])
def test_compressed_clusters(bits: int, compression: int, seed: int) -> None:
    """Compressed clusters that follow each other without a gap read as what they were, however they are cut."""
    rng = np.random.default_rng(seed)
    features = qcow2_image.COMPRESSION if compression else 0
    image = qcow2_image.Image(5 << bits, bits=bits, incompatible=features, compression=compression)
    content = bytearray(image.size)
    for index in (3, 0, 4, 1):
        piece = np.repeat(rng.integers(0, 256, image.cluster // 8, np.uint8), 8).tobytes()
        content[index << bits : (index + 1) << bits] = piece
        image.packed(index, piece)
    disk = qcow2_opened.open_image(image.build())
    for offset, length in reader.ranges(image.size, seed, 50):
        assert qcow2_opened.read(disk, offset, length) == content[offset : offset + length]
    assert disk.facts()["compressed"]


@pytest.mark.parametrize("pieces", [1, 3])
def test_zstd_frames_without_a_size(pieces: int, seed: int) -> None:
    """A cluster may be several frames, and frames need not say how much they become."""
    import zstandard

    content = np.random.default_rng(seed).integers(0, 4, 64 * _KIB, np.uint8).tobytes()
    packer = zstandard.ZstdCompressor(write_content_size=False)
    step = -(-len(content) // pieces)
    stored = b"".join(packer.compress(content[at : at + step]) for at in range(0, len(content), step))
    image = qcow2_image.Image(_MIB, incompatible=qcow2_image.COMPRESSION, compression=1)
    image.stream(2, stored)
    image.packed(3, content)  # begins in the sector in which the other ends
    assert qcow2_opened.read(qcow2_opened.open_image(image.build()), 128 * _KIB, 128 * _KIB) == content * 2


def test_i17_many_references_to_one_cluster() -> None:
    """A disk of clusters that are all the same compressed one costs one decompression and little memory."""
    image = qcow2_image.Image(1 << 30)
    offset = image.packed(0, bytes(65536))
    image.entries |= dict.fromkeys(range(16384), image.entries[0])
    file = qcow2_opened.recorded(image.build())
    disk = qcow2.Qcow2Reader(file, "bomb")
    buffer = memoryview(bytearray(4 * _MIB))
    for start in range(0, disk.size, 4 * _MIB):
        disk.pread_into(start, buffer)
    assert sum(1 for start, _ in file.reads if start == offset) == 1
    assert list(disk.extents(0, disk.size)) == [extents.Extent(0, 1 << 30, extents.Kind.DATA)]


def test_i20_encrypted_images_are_refused() -> None:
    """An encrypted image is not read as if it were not; the hint says how it can be."""
    for method in (1, 2):
        with pytest.raises(errors.UnsafeImage, match=f"crypt_method is {method}") as caught:
            qcow2_opened.open_image(qcow2_image.patched(qcow2_image.Image(_MIB).build(), ">I", 32, method))
        assert "--image-secret-file" in caught.value.hint
        assert "--as-raw" in caught.value.hint


def test_i08_dirty_and_corrupt() -> None:
    """A dirty image is read, with a note; a corrupt one only when that is asked for, and it is tagged."""
    assert qcow2_opened.open_image(qcow2_image.Image(_MIB).build()).notes == ()
    dirty = qcow2_opened.open_image(qcow2_image.Image(_MIB, incompatible=qcow2_image.DIRTY).build())
    assert ["dirty" in note for note in dirty.notes] == [True]
    corrupt = qcow2_image.Image(_MIB, incompatible=qcow2_image.CORRUPT).build()
    with pytest.raises(errors.UnsafeImage, match="corrupt") as caught:
        qcow2_opened.open_image(corrupt)
    assert "--force-read" in caught.value.hint
    assert ["source-corrupt" in note for note in qcow2_opened.open_image(corrupt, force_read=True).notes] == [True]


def test_i01_backing_files_need_consent() -> None:
    """An image that names a backing file is not read without one, least of all as zeros."""
    image = qcow2_image.Image(_MIB, backing=b"/etc/passwd").build()
    with pytest.raises(errors.UnsafeImage, match="backing file") as caught:
        qcow2_opened.open_image(image)
    assert "--allow-chain" in caught.value.hint


def test_i07_external_data_file() -> None:
    """Data in another file is read from the file that the user gave, at the guest's own offsets, and from no other."""
    extensions = qcow2_image.extension(0x44415441, b"/etc/passwd") + bytes(8)
    image = qcow2_image.Image(_MIB, incompatible=qcow2_image.DATA_FILE, extensions=extensions)
    image.entries = {
        0: qcow2_image.COPIED,
        2: qcow2_image.COPIED | 131072,
        4: qcow2_image.COPIED | 131072,
        6: qcow2_image.COMPRESSED | 6 * 65536,
        15: qcow2_image.COPIED | 15 * 65536,
    }
    built = image.build()
    with pytest.raises(errors.UnsafeImage, match="another file") as caught:
        qcow2_opened.open_image(built)
    assert "--data-file" in caught.value.hint
    content = np.random.default_rng(1).bytes(_MIB - 1)
    disk = qcow2_opened.open_image(built, data_file=memory.MemoryDisk.of(content))
    assert qcow2_opened.read(disk, 0, 65536 * 4) == content[:65536] + bytes(65536) + content[131072:196608] + bytes(
        65536
    )
    qcow2_opened.check_damaged(disk, 4 * 65536, 5 * 65536, "another place")
    qcow2_opened.check_damaged(disk, 6 * 65536, 7 * 65536, "external file")
    qcow2_opened.check_damaged(disk, 15 * 65536, _MIB, "beyond the end")
    assert disk.facts()["data_file"] is True
    with pytest.raises(errors.UsageError):
        qcow2_opened.open_image(qcow2_image.Image(_MIB).build(), data_file=memory.MemoryDisk(1))


def test_i35_small_reads_of_large_compressed_clusters() -> None:
    """Reading 2 MiB clusters in pieces of 4 KiB, by four threads, decompresses each of them once."""
    image = qcow2_image.Image(8 << 21, bits=21)
    offsets = {image.packed(index, bytes([index + 1]) * (2 << 20)) for index in range(8)}
    file = qcow2_opened.recorded(image.build())
    disk = qcow2.Qcow2Reader(file, "vm.qcow2")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pieces = list(pool.map(lambda at: qcow2_opened.read(disk, at, 4096), range(0, disk.size, 4096)))
    assert pieces == [bytes([at // 512 + 1]) * 4096 for at in range(len(pieces))]
    assert sorted(start for start, _ in file.reads if start in offsets) == sorted(offsets)


def test_i35_tables_are_read_once() -> None:
    """A maximally fragmented disk costs its data, one read of each table, and nothing twice."""
    image = qcow2_image.Image(64 * _MIB, bits=12)
    for index in range(image.size >> 12):
        image.data(index ^ 1, index.to_bytes(4, "big"))
    file = qcow2_opened.recorded(image.build())
    disk = qcow2.Qcow2Reader(file, "vm.qcow2")
    buffer = memoryview(bytearray(4 * _MIB))
    for start in range(0, disk.size, 4 * _MIB):
        disk.pread_into(start, buffer)
        first = int.from_bytes(buffer[:4], "big")
        assert first ^ 1 == start >> 12
    assert len(file.reads) <= (image.size >> 12) + 16


def test_runs_are_read_at_once() -> None:
    """Clusters that lie behind one another are one read of the file, and holes are none."""
    image = qcow2_image.Image(64 * _MIB)
    image.add(b"".join(bytes([index % 251]) * 65536 for index in range(900)))
    image.entries = {index: qcow2_image.COPIED | (image.body_at + index * 65536) for index in range(900)}
    file = qcow2_opened.recorded(image.build())
    disk = qcow2.Qcow2Reader(file, "vm.qcow2")
    qcow2_opened.read(disk, 0, 1)
    file.reads.clear()
    qcow2_opened.read(disk, 1000, 50 * _MIB)
    assert file.reads == [(image.body_at + 1000, 50 * _MIB)]
    file.reads.clear()
    assert qcow2_opened.read(disk, 60 * _MIB, 4 * _MIB) == bytes(4 * _MIB)
    assert file.reads == []


def test_large_holes_are_stepped_over() -> None:
    """Listing the extents of an empty disk of 64 TiB reads little, and so does telling how it was made."""
    file = qcow2_opened.recorded(qcow2_image.Image(64 << 40).build())
    disk = qcow2.Qcow2Reader(file, "vm.qcow2")
    file.reads.clear()
    assert list(disk.extents(0, disk.size)) == [extents.Extent(0, 64 << 40, extents.Kind.HOLE)]
    assert disk.facts()["preallocation"] == "off"
    assert sum(length for _, length in file.reads) < 8 * _MIB
    assert len(file.reads) < 200


def test_memory_of_the_tables_is_bounded() -> None:
    """However many tables were read, runs of a few MiB are kept."""
    image = qcow2_image.Image(2 << 30, bits=12)
    for index in range(0, image.size >> 12, 2):
        image.entries[index] = qcow2_image.ZERO
    disk = qcow2_opened.open_image(image.build())
    assert sum(1 for _ in disk.extents(0, disk.size)) == image.size >> 12
    kept = disk._tables._cache
    assert sum(span.cost for span in kept.values()) <= qcow2_tables._CACHE_BYTES
    assert 1 < len(kept) < disk._tables.spans


def test_backing_extents_show_through() -> None:
    """Where the overlay has nothing, the kinds of the backing disk are told; behind its end are holes."""
    base = memory.MemoryDisk(_MIB)
    base.pwrite(65536, memoryview(b"x" * 65536))
    image = qcow2_image.Image(2 * _MIB, backing=b"base")
    image.zero(4)
    image.data(20, b"x")
    found = [
        (item.start >> 16, item.length >> 16, item.kind)
        for item in qcow2_opened.open_image(image.build(), backing=base).extents(0, 2 * _MIB)
    ]
    hole, zero, data = extents.Kind.HOLE, extents.Kind.ZERO, extents.Kind.DATA
    assert found == [
        (0, 1, hole),
        (1, 1, data),
        (2, 2, hole),
        (4, 1, zero),
        (5, 15, hole),
        (20, 1, data),
        (21, 11, hole),
    ]


def test_closing_and_watching_reach_every_file() -> None:
    """Closing closes the image and its backing disk; both are asked whether they changed."""
    asked: list[str] = []

    class Watched(memory.MemoryDisk):
        name = ""

        def check_unchanged(self) -> None:
            asked.append(self.name)

    file, base = Watched.of(qcow2_image.Image(_MIB, backing=b"base").build()), Watched(_MIB)
    assert isinstance(file, Watched)
    file.name, base.name = "file", "base"
    disk = qcow2.Qcow2Reader(file, "vm.qcow2", backing=base)
    disk.check_unchanged()
    assert asked == ["file", "base"]
    disk.close()
    assert not file._open
    assert not base._open


def test_facts_are_what_the_header_says() -> None:
    """The facts of an image are those by which one like it can be made."""
    extensions = qcow2_image.extension(0xE2792ACA, b"raw") + bytes(8)
    image = qcow2_image.Image(
        _MIB, bits=14, incompatible=16 | 8, compression=1, backing=b"b\xff", extensions=extensions
    )
    built = qcow2_image.patched(image.build(), ">Q", 80, 1)
    assert qcow2_opened.open_image(built, backing=memory.MemoryDisk(0)).facts() == {
        "format": "qcow2",
        "compat": "1.1",
        "cluster_size": 16384,
        "lazy_refcounts": True,
        "extended_l2": True,
        "refcount_bits": 16,
        "compression_type": "zstd",
        "compressed": False,
        "preallocation": "off",
        "backing_file": "b\\xff",
        "backing_format": "raw",
    }
