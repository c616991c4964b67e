"""qcow2 images written by QEMU, read natively: the same bytes, holes and snapshots as QEMU reads."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests import depth, programs
from tests.suites import reader
from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2, qcow2_layout, raw

pytestmark = pytest.mark.slow

_MIB = 1 << 20
_READS = 1000
_FAR = 1 << 41
_WIPES = {4: "write -z", 5: "write -z -u", 6: "discard"}


@dataclass(frozen=True)
class Layout:
    """One way to make an image: `options` of qemu-img create, and how it is written to."""

    name: str
    size: int = 24 * _MIB + 512
    options: dict[str, str] = field(default_factory=dict)
    writes: int = 40
    compressed: bool = False  # half of the writes are compressed
    backing: int = 0  # size of a backing image
    snapshots: int = 0
    data_file: bool = False

    @property
    def cluster(self) -> int:
        return int(self.options.get("cluster_size", "65536"))

    @property
    def data(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.options.items())


def _options(**values: str | int) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


_CLUSTERS = [512, 1024, 4096, 16384, 32768, 65536, 262144, 1 << 20, 2 << 20]
_LAYOUTS = [
    *[Layout(f"v3-{size}", options=_options(cluster_size=size)) for size in _CLUSTERS],
    *[Layout(f"v2-{size}", options=_options(cluster_size=size, compat="0.10")) for size in _CLUSTERS[::2]],
    *[Layout(f"zlib-{size}", options=_options(cluster_size=size), compressed=True) for size in _CLUSTERS[::2]],
    *[
        Layout(f"zstd-{size}", options=_options(cluster_size=size, compression_type="zstd"), compressed=True)
        for size in _CLUSTERS[1::2]
    ],
    *[
        Layout(f"extended-{size}", options=_options(cluster_size=size, extended_l2="on"))
        for size in (16384, 65536, 2 << 20)
    ],
    Layout("v2-zlib", options=_options(compat="0.10"), compressed=True),
    Layout("extended-zstd", options=_options(extended_l2="on", compression_type="zstd"), compressed=True),
    Layout("extended-zlib-backing", options=_options(extended_l2="on"), compressed=True, backing=12 * _MIB + 512),
    Layout("backing-shorter", backing=9 * _MIB + 1536),
    Layout("backing-longer", backing=40 * _MIB),
    Layout("backing-v2-4096", options=_options(cluster_size=4096, compat="0.10"), backing=9 * _MIB),
    Layout("snapshots", snapshots=3),
    Layout("snapshots-v2", options=_options(compat="0.10"), snapshots=2),
    Layout("snapshots-zstd", options=_options(compression_type="zstd"), compressed=True, snapshots=2),
    Layout("snapshots-extended", options=_options(extended_l2="on"), snapshots=2, backing=9 * _MIB),
    Layout("lazy", options=_options(lazy_refcounts="on")),
    Layout("refcounts-1", options=_options(refcount_bits=1)),
    Layout("refcounts-64", options=_options(refcount_bits=64)),
    *[Layout(f"preallocated-{how}", options=_options(preallocation=how)) for how in ("metadata", "falloc", "full")],
    Layout("extended-metadata", options=_options(extended_l2="on", preallocation="metadata")),
    Layout("data-file", data_file=True),
    Layout("data-file-raw", options=_options(data_file_raw="on"), data_file=True),
    Layout("data-file-extended", options=_options(extended_l2="on"), data_file=True),
    Layout("one-sector", size=512, writes=1),
    Layout("empty", size=0, writes=0),
    Layout("never-written", writes=0),
    Layout("large-sparse", size=3 << 40, writes=40, options=_options(cluster_size=2 << 20)),
]


def _runs(layout: Layout, rng: np.random.Generator, source: pathlib.Path, touched: set[int]) -> list[list[str]]:
    """Writes of random bytes, compressed clusters, zeros and discards, in shuffled order; a process for each list.

    `touched`: clusters written to before; QEMU writes compressed ones only where there is none. It puts them behind
    the last one in the same cluster of the file, even if that was freed and is another's by now: the image is damaged.
    Only the process knows where that was, so another one goes on when a compressed cluster has been written over.
    """
    runs: list[list[str]] = [[]] if layout.writes else []
    compressed: set[int] = set()  # by the process
    freed = False
    for number in rng.integers(0, max(1, min(layout.size, 24 * _MIB) // layout.cluster), layout.writes).tolist():
        start = number * layout.cluster
        if layout.size > _FAR and rng.integers(2):
            start += _FAR
        kind, room = int(rng.integers(8)), layout.size - start
        whole = min(int(rng.integers(1, 4)) * layout.cluster, room)
        length = whole
        if layout.compressed and kind < 4 and layout.cluster <= room and start not in touched:
            length = layout.cluster
            if freed:
                runs.append([])
                compressed, freed = set(), False
            runs[-1].append(f"write -q -c -s {source} {start} {length}")
            compressed.add(start)
            touched.add(start)
            continue
        if kind in _WIPES:
            runs[-1].append(f"{_WIPES[kind]} -q {start} {whole}")
        else:
            start += min(int(rng.integers(0, layout.cluster)), room - 512) // 512 * 512
            length = min(int(2 ** rng.uniform(9, 20)) // 512 * 512, layout.size - start)
            runs[-1].append(f"write -q -s {source} {start} {length}")
        clusters = range(start // layout.cluster * layout.cluster, start + length, layout.cluster)
        touched.update(clusters)
        freed = freed or not compressed.isdisjoint(clusters)
    return runs


def _write(path: pathlib.Path, layout: Layout, rng: np.random.Generator, touched: set[int]) -> None:
    source = path.parent / "source"
    half = rng.bytes(32768)
    source.write_bytes(half + half[:1000] * 32 + rng.bytes(300))
    for commands in _runs(layout, rng, source, touched):
        programs.qemu_io(path, "qcow2", *commands)


def _make(layout: Layout, folder: pathlib.Path, rng: np.random.Generator) -> pathlib.Path:
    path, options = folder / "disk.qcow2", dict(layout.options)
    more: list[str | pathlib.Path] = []
    if layout.backing:
        base = folder / "base.qcow2"
        programs.qemu_img("create", "-q", "-f", "qcow2", base, str(layout.backing))
        _write(base, Layout("base", size=layout.backing), rng, set())
        more = ["-b", base, "-F", "qcow2"]
    if layout.data_file:
        options["data_file"] = str(folder / "data")
    if options:
        more += ["-o", ",".join(f"{key}={value}" for key, value in options.items())]
    programs.qemu_img("create", "-q", "-f", "qcow2", *more, path, str(layout.size))
    touched: set[int] = set()
    for number in range(layout.snapshots):
        _write(path, layout, rng, touched)
        programs.qemu_img("snapshot", "-c", f"state {number}", path)
    _write(path, layout, rng, touched)
    return path


def _open(layout: Layout, path: pathlib.Path, snapshot: str | None = None) -> qcow2.Qcow2Reader:
    folder = path.parent
    backing = qcow2.Qcow2Reader(raw.RawReader(folder / "base.qcow2"), "base") if layout.backing else None
    data_file = raw.RawReader(folder / "data") if layout.data_file else None
    return qcow2.Qcow2Reader(raw.RawReader(path), "disk", backing=backing, data_file=data_file, snapshot=snapshot)


def _check_reads(disk: protocol.Reader, expected: pathlib.Path, rng: np.random.Generator) -> None:
    """Random unaligned ranges, most of them where something was written, are as in the raw file `expected`."""
    written = raw.RawReader(expected)
    assert disk.size == written.size
    data = [item for item in written.extents(0, written.size) if item.kind is extents.Kind.DATA]
    for number in range(_READS):
        if data and number % 4:
            item = data[int(rng.integers(len(data)))]
            offset = max(0, item.start + int(rng.integers(-1000, item.length + 1000)))
            offset = min(offset, disk.size)
        else:
            offset = int(rng.integers(0, disk.size + 1))
        length = min(int(2 ** rng.uniform(0, 18)), disk.size - offset)
        assert reader.read(disk.pread_into, offset, length) == reader.read(written.pread_into, offset, length)
    for item in data:
        start = item.start // 65536 * 65536
        length = min(item.end, disk.size) - start
        assert reader.read(disk.pread_into, start, length) == reader.read(written.pread_into, start, length)
    written.close()


def _check_extents(disk: protocol.Reader, expected: pathlib.Path) -> None:
    """Extents cover the disk, and what is not data is zeros."""
    written, position = raw.RawReader(expected), 0
    for item in disk.extents(0, disk.size):
        assert item.start == position
        position = item.end
        if item.kind is not extents.Kind.DATA:
            for part in written.extents(item.start, item.length):
                if part.kind is extents.Kind.DATA:
                    assert not any(reader.read(written.pread_into, part.start, part.length))
    assert position == disk.size
    written.close()


@pytest.mark.parametrize("layout", depth.of_run(_LAYOUTS, 24), ids=lambda layout: layout.name)
def test_reads_are_what_qemu_reads(layout: Layout, seed: int, tmp_path: pathlib.Path) -> None:
    """Of an image written in shuffled order, any range reads as QEMU converts it, and data is where QEMU maps it."""
    rng = np.random.default_rng(seed)
    path, expected = _make(layout, tmp_path, rng), tmp_path / "expected.raw"
    programs.qemu_img("convert", "-f", "qcow2", "-O", "raw", path, expected)
    disk = _open(layout, path)
    _check_reads(disk, expected, rng)
    _check_extents(disk, expected)
    mapped = [
        extents.Extent(item["start"], item["length"], extents.Kind.DATA if item["data"] else extents.Kind.HOLE)
        for item in json.loads(programs.qemu_img("map", "-f", "qcow2", "--output=json", path))
    ]
    found = [
        extents.Extent(item.start, item.length, item.kind if item.kind is extents.Kind.DATA else extents.Kind.HOLE)
        for item in disk.extents(0, disk.size)
    ]
    assert list(extents.merge(found)) == [item for item in extents.merge(mapped) if item.length]
    disk.check_unchanged()
    disk.close()
    for number in range(layout.snapshots):
        programs.qemu_img("convert", "-f", "qcow2", "-l", f"state {number}", "-O", "raw", path, expected)
        old = _open(layout, path, f"state {number}")
        _check_reads(old, expected, rng)
        _check_extents(old, expected)
        old.close()


def test_there_are_enough_layouts() -> None:
    """At least 40 layouts, each of its own name."""
    assert len({layout.name for layout in _LAYOUTS}) == len(_LAYOUTS) >= 40


@pytest.mark.parametrize("how", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("extended", ["off", "on"])
def test_facts_tell_how_qemu_made_it(how: str, extended: str, tmp_path: pathlib.Path) -> None:
    """Version, cluster size, preallocation and the other options of qemu-img create are found in the image."""
    options = f"preallocation={how},extended_l2={extended},lazy_refcounts=on,refcount_bits=8,cluster_size=32k"
    programs.qemu_img("create", "-q", "-f", "qcow2", "-o", options, tmp_path / "disk", "64M")
    disk = qcow2.Qcow2Reader(raw.RawReader(tmp_path / "disk"), "disk")
    assert disk.facts() == {
        "format": "qcow2",
        "compat": "1.1",
        "cluster_size": 32768,
        "lazy_refcounts": True,
        "extended_l2": extended == "on",
        "refcount_bits": 8,
        "compression_type": "zlib",
        "compressed": False,
        "preallocation": how,
    }
    disk.close()


def test_snapshots_and_bitmaps_are_those_that_qemu_lists(tmp_path: pathlib.Path) -> None:
    """Ids, names, dates, state sizes and bitmaps are what qemu-img info tells."""
    path = tmp_path / "disk"
    programs.qemu_img("create", "-q", "-f", "qcow2", path, "8M")
    for number in range(5):
        programs.qemu_img("snapshot", "-c", f"zustand {number} ü", path)
        programs.qemu_img("bitmap", "--add", "-g", str(512 << number), path, f"bitmap {number}")
    programs.qemu_img("bitmap", "--disable", path, "bitmap 3")
    programs.qemu_img("snapshot", "-d", "zustand 2 ü", path)
    programs.qemu_img("resize", "-q", path, "16M")
    info = json.loads(programs.qemu_img("info", "--output=json", path))
    file = raw.RawReader(path)
    assert [
        (item.id, item.name, item.seconds, item.nanoseconds, item.vm_state_bytes, item.size)
        for item in qcow2.snapshots(file, "disk")
    ] == [
        (item["id"], item["name"], item["date-sec"], item["date-nsec"], item["vm-state-size"], 8 * _MIB)
        for item in info["snapshots"]
    ]
    assert [(item.name, item.granularity, item.auto, item.in_use) for item in qcow2.bitmaps(file, "disk")] == [
        (item["name"], item["granularity"], "auto" in item["flags"], "in-use" in item["flags"])
        for item in info["format-specific"]["data"]["bitmaps"]
    ]
    file.close()


def test_header_is_encoded_as_qemu_does(tmp_path: pathlib.Path) -> None:
    """What was parsed of QEMU's headers is encoded to QEMU's bytes."""
    programs.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "base", "8M")
    for number, options in enumerate(
        ["compat=0.10", "lazy_refcounts=on", "extended_l2=on,compression_type=zstd", "cluster_size=512,refcount_bits=1"]
    ):
        path = tmp_path / f"disk{number}"
        programs.qemu_img(
            "create", "-q", "-f", "qcow2", "-o", options, "-b", tmp_path / "base", "-F", "qcow2", path, "8M"
        )
        content = path.read_bytes()
        header = qcow2_layout.parse_header(content[: qcow2_layout.MAX_HEAD], len(content), "disk")
        for version in (header, dataclasses.replace(header, extensions=())):
            encoded = qcow2_layout.encode_header(version)
            assert content.startswith(encoded)
            assert encoded.endswith(bytes(tmp_path / "base"))
