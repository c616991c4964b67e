"""Damaged and hostile qcow2 images: errors that name the guest's range, never zeros for what is missing."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests import qcow2_image, qcow2_opened
from vimgvc import errors
from vimgvc.disk import extents

_MIB = 1 << 20


def test_i16_entries_that_lead_nowhere() -> None:
    """Misaligned entries, entries beyond the end of the file or with reserved bits are errors with the guest's range.

    Their neighbours are read as if nothing was.
    """
    image = qcow2_image.Image(_MIB)
    image.data(0, b"good" * 16384)
    cases = {
        2: (65536 + 512, "not aligned"),
        4: (1 << 40, "beyond the end"),
        6: ((1 << 56) - 65536, "beyond the end"),
        8: (1 << 56 | 65536, "reserved"),
        10: (65536 | 2, "reserved"),
        12: (qcow2_image.ZERO | 65536 + 512, "not aligned"),
    }
    image.entries |= {index: entry for index, (entry, _) in cases.items()}
    disk = qcow2_opened.open_image(image.build())
    assert qcow2_opened.read(disk, 0, 65536) == b"good" * 16384
    for index, (_, match) in cases.items():
        qcow2_opened.check_damaged(disk, index * 65536, (index + 1) * 65536, match)
        assert qcow2_opened.read(disk, (index + 1) * 65536, 65536) == bytes(65536)
    with pytest.raises(errors.ImageDamaged, match="guest bytes 131072 to 196607"):
        qcow2_opened.read(disk, 0, _MIB)


def test_i16_zero_flag_in_version_2() -> None:
    """Version 2 has no zero flag: a cluster with it is damaged, as QEMU says too."""
    image = qcow2_image.Image(_MIB, version=2, entries={1: qcow2_image.ZERO})
    qcow2_opened.check_damaged(qcow2_opened.open_image(image.build()), 65536, 131072, "version 2")


@pytest.mark.parametrize(
    ("entry", "match"),
    [(4096 + 512, "not aligned"), (1 << 50, "beyond"), (1 << 56 | 4096, "reserved"), (4096 | 1, "reserved")],
)
def test_i16_tables_that_are_nowhere(entry: int, match: str) -> None:
    """An L1 entry that cannot be makes its whole part of the disk unreadable, and no other."""
    image = qcow2_image.Image(6 * _MIB, bits=12)
    image.data(0, b"first")
    image.data(2 * 512, b"third")
    disk = qcow2_opened.open_image(qcow2_image.patched(image.build(), ">Q", 4096 + 8, entry))
    assert qcow2_opened.read(disk, 0, 5) == b"first"
    assert qcow2_opened.read(disk, 4 * _MIB, 5) == b"third"
    qcow2_opened.check_damaged(disk, 2 * _MIB, 4 * _MIB, f"L1 entry .*{match}")


def test_i16_entries_into_metadata() -> None:
    """An L2 table that is the L1 table, and a cluster that is the header, are read once and as they are."""
    image = qcow2_image.Image(_MIB, entries={1: qcow2_image.COPIED | 65536})
    built = image.build()
    assert qcow2_opened.read(qcow2_opened.open_image(built), 65536, 65536) == built[65536:131072]
    # The only entry of the table is then its own offset: a cluster with the table in it.
    own = qcow2_image.patched(built, ">Q", 65536, qcow2_image.COPIED | 65536)
    assert qcow2_opened.read(qcow2_opened.open_image(own), 0, _MIB) == own[65536:131072] + bytes(_MIB - 65536)


def test_i16_contradicting_subclusters() -> None:
    """A subcluster that is allocated and zero, or allocated without a cluster, damages its cluster."""
    image = qcow2_image.Image(_MIB, incompatible=qcow2_image.EXTENDED)
    offset = image.data(1, b"x")
    image.entries[2] = (offset, 1 << 33 | 1 << 1)
    image.entries[4] = (0, 1 << 5)
    image.entries[6] = (offset | 1, 1)
    image.entries[8] = (offset, 1 << 7 | 1 << 32)
    disk = qcow2_opened.open_image(image.build())
    qcow2_opened.check_damaged(disk, 131072, 196608, "contradict")
    qcow2_opened.check_damaged(disk, 4 * 65536, 5 * 65536, "contradict")
    qcow2_opened.check_damaged(disk, 6 * 65536, 7 * 65536, "reserved")
    kinds = [(item.length, item.kind) for item in disk.extents(8 * 65536, 65536)]
    hole, zero, data = extents.Kind.HOLE, extents.Kind.ZERO, extents.Kind.DATA
    assert kinds == [(2048, zero), (6 * 2048, hole), (2048, data), (24 * 2048, hole)]


def test_i16_table_behind_a_hole() -> None:
    """A part without a table does not lend its place to the next one, which is where its entry says."""
    built = qcow2_image.Image(64 * 512 * 2, bits=9).build()
    own = qcow2_image.patched(built, ">QQ", 512, 0, qcow2_image.COPIED | 512)
    content = qcow2_opened.read(qcow2_opened.open_image(own), 0, 64 * 512 * 2)
    assert content == bytes(65 * 512) + own[512:1024] + bytes(62 * 512)


@pytest.mark.parametrize("compression", [0, 1])
def test_i18_streams_that_are_wrong(compression: int, seed: int) -> None:
    """Streams of more or less than a cluster, cut or made up, are errors that name the guest's range."""
    features, zstd = (qcow2_image.COMPRESSION, True) if compression else (0, False)
    rng = np.random.default_rng(seed)
    noise = rng.bytes(65536)
    good = qcow2_image.compress(noise, zstd=zstd)
    streams = [
        qcow2_image.compress(noise + b"x", zstd=zstd),
        qcow2_image.compress(bytes(10 * _MIB), zstd=zstd),
        qcow2_image.compress(noise[:-1], zstd=zstd),
        qcow2_image.compress(b"", zstd=zstd),
        good[:-600],
        rng.bytes(3000),
        bytes(3000),
    ]
    image = qcow2_image.Image(_MIB, incompatible=features, compression=compression)
    for index, stream in enumerate(streams):
        image.stream(index, stream)
        image.add(bytes(512), align=512)  # what follows does not complete it
    disk = qcow2_opened.open_image(image.build())
    for index in range(len(streams)):
        qcow2_opened.check_damaged(disk, index * 65536, (index + 1) * 65536, "compressed data does not")


def test_i18_frame_that_declares_much() -> None:
    """A frame that declares a terabyte is an error, and nothing of that size is allocated."""
    image = qcow2_image.Image(_MIB, incompatible=qcow2_image.COMPRESSION, compression=1)
    image.stream(0, struct.pack("<IBQ", 0xFD2FB528, 0xE0, 1 << 40) + b"\3\0\0x")
    qcow2_opened.check_damaged(qcow2_opened.open_image(image.build()), 0, 65536, "compressed data does not")


def test_i18_stream_beyond_the_end() -> None:
    """Stored data may lack the rest of its last sector, and no more; it must begin inside the file."""
    content = np.random.default_rng(1).bytes(65536)
    stored = qcow2_image.compress(content, zstd=False)
    image = qcow2_image.Image(_MIB)
    image.packed(0, b"x")
    built = image.build()
    start = len(built)  # the file ends with the stream
    table = built.index(struct.pack(">Q", image.entries[0]))
    fits = image.descriptor(start, len(stored))
    for entry, match in [
        (fits, None),
        (fits + (1 << 54), "ends beyond the end"),
        (image.descriptor(start + len(stored) - 1, 1), "does not"),
        (image.descriptor(start + len(stored), 1), "beyond the end"),
        (image.descriptor((1 << 54) - 512, 1), "beyond the end"),
    ]:
        disk = qcow2_opened.open_image(qcow2_image.patched(built, ">Q", table, entry) + stored)
        if match is None:
            assert qcow2_opened.read(disk, 0, 65536) == content
        else:
            qcow2_opened.check_damaged(disk, 0, 65536, match)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65537, (1 << 29) + 1])
def test_i19_odd_sizes(size: int) -> None:
    """Sizes that are no multiple of anything are kept; the last cluster need not be in the file as a whole."""
    image = qcow2_image.Image(size)
    if not size:
        assert list(qcow2_opened.open_image(image.build()).extents(0, 0)) == []
        return
    last = (size - 1) // 65536
    offset = image.data(last, b"x" * 65536)
    built = image.build()
    table = built[image.body_at + len(image.body) :]
    # The table moves before the data, and the file is cut where the guest's last byte is.
    moved = built[:offset] + table + b"x" * (size - last * 65536)
    moved = moved.replace(struct.pack(">Q", image.entries[last]), struct.pack(">Q", 1 << 63 | offset + len(table)))
    l1 = 65536 + last // 8192 * 8
    disk = qcow2_opened.open_image(qcow2_image.patched(moved, ">Q", l1, 1 << 63 | offset))
    assert disk.size == size
    assert qcow2_opened.read(disk, last * 65536, size - last * 65536) == b"x" * (size - last * 65536)
    short = qcow2_opened.open_image(qcow2_image.patched(moved[:-1], ">Q", l1, 1 << 63 | offset))
    qcow2_opened.check_damaged(short, last * 65536, size, "beyond the end")


def test_i19_odd_sizes_of_subclusters() -> None:
    """Of the last cluster the file needs what the guest sees, although its bitmap claims all of it."""
    image = qcow2_image.Image(3 * 2048 + 100, incompatible=qcow2_image.EXTENDED)
    built = image.build()
    table, data = len(built), len(built) + 65536
    entry = struct.pack(">QQ", qcow2_image.COPIED | data, 0xFFFF_FFFF)
    moved = qcow2_image.patched(built, ">Q", 65536, table) + entry.ljust(65536, b"\0")
    content = b"x" * image.size
    assert qcow2_opened.read(qcow2_opened.open_image(moved + content), 0, image.size) == content
    short = qcow2_opened.open_image(moved + content[:-1])
    qcow2_opened.check_damaged(short, 3 * 2048, image.size, "beyond the end")


def test_i30_truncated_anywhere(seed: int) -> None:
    """A file that was cut never gives zeros for what is missing: it is refused, or reading there fails."""
    rng = np.random.default_rng(seed)
    content = rng.integers(1, 256, 9 << 12, np.uint8).tobytes()
    image = qcow2_image.Image(len(content), bits=12)
    for index in range(9):
        (image.packed if index % 4 == 1 else image.data)(index, content[index << 12 : (index + 1) << 12])
    whole = image.build()
    assert qcow2_opened.read(qcow2_opened.open_image(whole), 0, len(content)) == content
    early = _table_first(image)
    assert qcow2_opened.read(qcow2_opened.open_image(early), 0, len(content)) == content
    for file in (whole, early):
        cuts = {*range(0, len(file), 512), *rng.integers(0, len(file), 100).tolist()}
        for cut in sorted(cuts):
            try:
                disk = qcow2_opened.open_image(file[:cut])
            except errors.UnsafeImage:
                continue
            for index in range(9):
                piece = content[index << 12 : (index + 1) << 12]
                try:
                    assert qcow2_opened.read(disk, index << 12, 4096) == piece
                except errors.ImageDamaged:
                    assert cut < len(file)


def _table_first(image: qcow2_image.Image) -> bytes:
    """The same image with its L2 table before its data."""
    shift = image.cluster
    moved = qcow2_image.Image(image.size, bits=image.bits)
    moved.entries = {index: entry + shift for index, entry in image.entries.items() if isinstance(entry, int)}
    table = moved.build()[moved.body_at :]
    head = image.build()[: image.body_at]
    return qcow2_image.patched(head, ">Q", image.cluster, 1 << 63 | image.body_at) + table + image.body
