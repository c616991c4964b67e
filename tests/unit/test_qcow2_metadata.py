"""Internal snapshots and bitmaps of qcow2 images."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from tests import qcow2_image
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory
from vimgvc.images import qcow2, qcow2_metadata

_MIB = 1 << 20


def _open(image: bytes, snapshot: str | None = None, **options: Any) -> qcow2.Qcow2Reader:
    return qcow2.Qcow2Reader(memory.MemoryDisk.of(image), "vm.qcow2", snapshot=snapshot, **options)


def _snapshots(image: bytes) -> list[qcow2_metadata.Snapshot]:
    return qcow2.snapshots(memory.MemoryDisk.of(image), "vm.qcow2")


def _with_table(entries: list[bytes], count: int | None = None, **fields: Any) -> bytes:
    image = qcow2_image.Image(_MIB, **fields)
    image.snapshots_offset = image.add(b"".join(entries))
    image.snapshots = len(entries) if count is None else count
    return image.build()


def _states(size: int | None = 3 * _MIB) -> qcow2_image.Image:
    """An image of 1 MiB of "now" with a snapshot "first" (id 1) of 3 MiB that begins with "then"."""
    image = qcow2_image.Image(_MIB, bits=12)
    image.data(0, b"now")
    table = bytearray(4096)
    struct.pack_into(">Q", table, 0, image.add(b"then".ljust(4096, b"\0")))
    l1 = image.add(struct.pack(">QQQ", image.add(bytes(table)), 0, 0))
    image.snapshots_offset = image.add(qcow2_image.snapshot(l1, 3, size=size, vm_state=12345))
    image.snapshots = 1
    return image


def test_fields_of_snapshots() -> None:
    """All fields are read, in the table's order, with and without the extra data of later versions."""
    entries = [
        qcow2_image.snapshot(65536, 1, size=5 * _MIB, vm_state=77),
        qcow2_image.snapshot(131072, 2, size=None, own_id=b"two", name="zwölf".encode(), vm_state=9),
        qcow2_image.snapshot(0, 0, size=0, own_id=b"", name=b"\xff", extra=b"later fields"),
    ]
    assert _snapshots(_with_table(entries)) == [
        qcow2_metadata.Snapshot("1", "first", 5 * _MIB, 1_700_000_000, 5, 6, 77, 65536, 1),
        qcow2_metadata.Snapshot("two", "zwölf", None, 1_700_000_000, 5, 6, 9, 131072, 2),
        qcow2_metadata.Snapshot("", "\\xff", 0, 1_700_000_000, 5, 6, 0, 0, 0),
    ]
    assert _snapshots(qcow2_image.Image(_MIB).build()) == []


def test_a_file_that_ends_with_its_table() -> None:
    """Behind the last entry the padding is missing where nothing lies behind the table; one byte less is damage."""
    entries = [qcow2_image.snapshot(0, 0, size=0, own_id=b"%d" % number, name=b"a name") for number in (1, 2)]
    whole = _with_table(entries)
    bare = whole[: whole.rindex(b"2a name") + len(b"2a name")]
    assert len(bare) % 8
    assert [one.id for one in _snapshots(bare)] == ["1", "2"]
    with pytest.raises(errors.UnsafeImage):
        _snapshots(bare[:-1])


def test_wide_state_size_counts() -> None:
    """The 64-bit size of the machine's state in the extra data replaces the 32-bit one."""
    entry = bytearray(qcow2_image.snapshot(0, 0, size=0, vm_state=5))
    struct.pack_into(">Q", entry, 40, 1 << 40)
    assert _snapshots(_with_table([bytes(entry)]))[0].vm_state_bytes == 1 << 40


def test_reading_a_snapshot() -> None:
    """A snapshot has its own size and content, found by id or name; the active disk stays what it is."""
    image = _states().build()
    for wanted in ("1", "first"):
        disk = _open(image, wanted)
        assert disk.size == 3 * _MIB
        assert reader.read(disk.pread_into, 0, disk.size) == b"then".ljust(3 * _MIB, b"\0")
        assert [item.length for item in disk.extents(0, disk.size)] == [4096, 3 * _MIB - 4096]
        assert disk.facts()["snapshot"] == "first"
    assert reader.read(_open(image).pread_into, 0, _MIB) == b"now".ljust(_MIB, b"\0")


def test_snapshot_without_a_size() -> None:
    """A snapshot that does not say its size has that of the disk; what its table does not reach is a hole."""
    image = _states(None)
    assert _open(image.build(), "1").size == _MIB
    image.size = 2 * _MIB
    short = image.build().replace(struct.pack(">I", 3) + b"\0\1\0\5", struct.pack(">I", 1) + b"\0\1\0\5")
    found = _open(short, "1")
    assert reader.read(found.pread_into, 0, 2 * _MIB) == b"then".ljust(2 * _MIB, b"\0")


def test_which_snapshot() -> None:
    """An id goes before a name; what is not there is not found, and what two are called is asked about."""
    found = _snapshots(
        _with_table(
            [
                qcow2_image.snapshot(0, 0, size=0, own_id=b"2", name=b"1"),
                qcow2_image.snapshot(0, 0, size=0, own_id=b"1", name=b"twin"),
                qcow2_image.snapshot(0, 0, size=0, own_id=b"3", name=b"twin"),
            ]
        )
    )
    assert qcow2_metadata.find(found, "1", "vm") == found[1]
    assert qcow2_metadata.find(found, "2", "vm") == found[0]
    with pytest.raises(errors.UsageError, match="2 snapshots"):
        qcow2_metadata.find(found, "twin", "vm")
    with pytest.raises(errors.NotFound) as caught:
        qcow2_metadata.find(found, "4", "vm")
    assert "'twin'" in caught.value.hint


@pytest.mark.parametrize("count", [65537, 2**32 - 1])
def test_i13_too_many_snapshots(count: int) -> None:
    """Too many snapshots do not concern who reads the disk; who asks for one is refused."""
    image = _with_table([], count)
    assert _open(image).size == _MIB
    for ask in (lambda: _snapshots(image), lambda: _open(image, "1")):
        with pytest.raises(errors.UnsafeImage, match=f"nb_snapshots is {count}"):
            ask()


def test_i13_tables_that_are_wrong() -> None:
    """A table that is misaligned, beyond the file, cut or with too much extra data is refused when it is wanted."""
    good = qcow2_image.snapshot(0, 0, size=0)
    long_extra = bytearray(good)
    struct.pack_into(">I", long_extra, 36, 1025)
    cases = [
        (_with_table([bytes(long_extra)]), "1025 bytes of extra data"),
        (_with_table([good], 2000), "beyond the file"),
        (qcow2_image.patched(_with_table([good]), ">Q", 64, 65537), "snapshots_offset is 65537"),
        (qcow2_image.patched(_with_table([good]), ">Q", 64, 0), "snapshots_offset is 0"),
        (qcow2_image.patched(_with_table([good]), ">Q", 64, 2**64 - 65536), "beyond the file"),
    ]
    for image, match in cases:
        assert _open(image).size == _MIB
        with pytest.raises(errors.UnsafeImage, match=match):
            _open(image, "1")


def test_i13_table_over_the_limit() -> None:
    """A snapshot table of more than 64 MiB is refused, after at most that much was read."""
    entry = qcow2_image.snapshot(0, 0, size=None, extra=bytes(1024), name=b"n" * 65528)
    image = _with_table([entry] * 1010)
    with pytest.raises(errors.UnsafeImage, match="limit of 67108864"):
        _open(image, "nobody")


def test_i13_largest_table_is_read() -> None:
    """The largest number of snapshots is listed."""
    image = _with_table([qcow2_image.snapshot(0, 0, size=0)] * 65536)
    assert len(_snapshots(image)) == 65536


@pytest.mark.parametrize(
    ("offset", "entries", "match"),
    [
        (4097, 3, "table_offset is 4097"),
        (0, 3, "table_offset is 0"),
        (1 << 40, 3, "beyond"),
        (4096, 2**32 - 1, "l1_size is 4294967295"),
        (4096, 1, "l1_size is 1, .* needs 2"),
    ],
)
def test_i13_bad_table_of_a_snapshot(offset: int, entries: int, match: str) -> None:
    """A snapshot whose L1 table cannot be is refused when it is wanted, and only then."""
    image = _states()
    built = qcow2_image.patched(image.build(), ">QI", image.snapshots_offset, offset, entries)
    assert _open(built).size == _MIB
    with pytest.raises(errors.UnsafeImage, match=match):
        _open(built, "first")


def test_i19_size_of_a_snapshot() -> None:
    """The limit of sizes holds for a snapshot too."""
    with pytest.raises(errors.UnsafeImage, match="snapshot's size is 9223372036854775808"):
        _open(_states(1 << 63).build(), "1")
    with pytest.raises(errors.UnsafeImage, match="the limit is 2097152"):
        _open(_states().build(), "1", max_size=2 * _MIB)


def test_snapshots_with_a_data_file() -> None:
    """An image with an external data file cannot have snapshots."""
    image = _with_table([qcow2_image.snapshot(0, 0, size=0)], incompatible=qcow2_image.DATA_FILE)
    with pytest.raises(errors.UnsafeImage, match="external data file"):
        _open(image, "1", data_file=memory.MemoryDisk(_MIB))


def _bitmap(name: bytes, *, flags: int = 0, kind: int = 1, granularity: int = 16, extra: bytes = b"") -> bytes:
    head = struct.pack(">QIIBBHI", 0, 0, flags, kind, granularity, len(name), len(extra))
    return (head + extra + name).ljust(-(-(24 + len(extra) + len(name)) // 8) * 8, b"\0")


def _with_bitmaps(entries: list[bytes], *, count: int | None = None, autoclear: int = 1, offset: int = 0) -> bytes:
    directory = b"".join(entries)
    image = qcow2_image.Image(_MIB, autoclear=autoclear)
    place = offset or image.add(directory)
    fields = struct.pack(">IIQQ", len(entries) if count is None else count, 0, len(directory), place)
    image.extensions = qcow2_image.extension(0x23852875, fields) + bytes(8)
    return image.build()


def _bitmaps(image: bytes) -> list[qcow2_metadata.Bitmap]:
    return qcow2.bitmaps(memory.MemoryDisk.of(image), "vm.qcow2")


def test_bitmaps_are_listed() -> None:
    """Name, granularity and flags of every bitmap, in order."""
    entries = [_bitmap(b"daily", flags=2), _bitmap(b"x", flags=1, granularity=9, extra=b"later")]
    assert _bitmaps(_with_bitmaps(entries)) == [
        qcow2_metadata.Bitmap("daily", 65536, in_use=False, auto=True),
        qcow2_metadata.Bitmap("x", 512, in_use=True, auto=False),
    ]
    assert _bitmaps(qcow2_image.Image(_MIB).build()) == []


def test_i14_bitmaps_that_are_not_to_be_believed() -> None:
    """Inconsistent, too many or malformed bitmaps are no bitmaps, and the disk is read."""
    good = _bitmap(b"daily")
    images = [
        _with_bitmaps([good], autoclear=0),
        _with_bitmaps([good], count=65536),
        _with_bitmaps([good], count=2**32 - 1),
        _with_bitmaps([good], count=2),
        _with_bitmaps([good], offset=65537),
        _with_bitmaps([good], offset=1 << 40),
        _with_bitmaps([good, _bitmap(b"")]),
        _with_bitmaps([good, _bitmap(b"x", kind=2)]),
        _with_bitmaps([good, _bitmap(b"x", flags=8)]),
        _with_bitmaps([good, _bitmap(b"x", granularity=64)]),
    ]
    for image in images:
        assert _bitmaps(image) == []
        assert list(_open(image).extents(0, _MIB)) == [extents.Extent(0, _MIB, extents.Kind.HOLE)]


def test_random_damage_only_raises_what_is_promised(seed: int) -> None:
    """Whatever is in the tables, listing and reading give results or typed errors."""
    rng = np.random.default_rng(seed)
    image = _states()
    image.packed(3, b"packed")
    built = image.build()
    for _ in range(500):
        odd = bytearray(built)
        for at in rng.integers(4096, len(built), 40).tolist():
            odd[at] = int(rng.integers(256))
        for snapshot in (None, "first"):
            try:
                disk = _open(bytes(odd), snapshot)
                assert sum(item.length for item in disk.extents(0, disk.size)) == disk.size
                assert len(reader.read(disk.pread_into, 0, min(disk.size, _MIB))) == min(disk.size, _MIB)
            except (errors.UnsafeImage, errors.ImageDamaged, errors.NotFound):
                continue
