"""qcow2 images from struct code of their own: docs/interop/qcow2.txt of QEMU, nothing of vimgvc.

Layout: header, refcount table, refcount block, L1, L2 tables, then data in the order of the guest.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import zstandard

from tests.hostile import case

HEADER = {
    "magic": (0, ">I"),
    "version": (4, ">I"),
    "backing_offset": (8, ">Q"),
    "backing_size": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "crypt": (32, ">I"),
    "l1_size": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "refcount_offset": (48, ">Q"),
    "refcount_clusters": (56, ">I"),
    "nb_snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "compatible": (80, ">Q"),
    "autoclear": (88, ">Q"),
    "refcount_order": (96, ">I"),
    "header_length": (100, ">I"),
    "compression": (104, ">B"),
}
COPIED = 1 << 63
COMPRESSED = 1 << 62

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED = (1 << bit for bit in range(5))

ZERO = "zero"
ALLOCATED_ZERO = "allocated zero"


@dataclass(frozen=True, slots=True)
class Squeezed:
    """A compressed cluster. `stream`: what is stored instead of what compression makes of `plain`."""

    plain: bytes
    stream: bytes | None = None


Cluster = bytes | str | Squeezed


@dataclass
class Spec:
    """What the image is to hold: guest cluster number -> content; the others are not allocated."""

    size: int = 4 << 16
    clusters: dict[int, Cluster] = field(default_factory=dict)
    version: int = 3
    bits: int = 16
    extended: bool = False
    zstd: bool = False
    backing: bytes = b""
    backing_format: bytes = b""
    below: bytes = b""
    extensions: Sequence[tuple[int, bytes]] = ()
    data_file: bool = False
    snapshots: Sequence[tuple[str, str]] = ()
    header_length: int = 112


@dataclass
class Built:
    """The file, where its parts lie, and the disk it holds. `outside`: the external data file."""

    data: bytearray
    content: bytes
    l1: int
    l2: list[int]
    where: dict[int, int]
    end_of_header: int
    outside: bytes = b""

    def set(self, **fields: int) -> Built:
        """Overwrite fields of the header."""
        for name, value in fields.items():
            offset, form = HEADER[name]
            case.put(self.data, offset, form, value)
        return self

    def put(self, offset: int, form: str, *values: int | bytes) -> Built:
        case.put(self.data, offset, form, *values)
        return self

    def entry(self, number: int, value: int) -> Built:
        """Overwrite the L2 entry of a guest cluster of the first L2 table."""
        return self.put(self.l2[0] + number * 8, ">Q", value)

    def make(self) -> case.Make:
        return case.write(self.content, bytes(self.data))

    def refused(self) -> case.Make:
        return case.write(None, bytes(self.data))


def plain(size: int = 4 << 16, bits: int = 16, **more: object) -> Built:
    """An ordinary image: the first, third and last cluster hold data."""
    cluster = 1 << bits
    last = (size - 1) // cluster
    clusters = {number: case.noise(number + 1, cluster) for number in {0, 2, last} if number <= last}
    return build(Spec(size=size, bits=bits, clusters=dict(clusters), **more))  # type: ignore[arg-type]


def build(spec: Spec) -> Built:
    return _Builder(spec).build()


class _Builder:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.cluster = 1 << spec.bits
        self.entry = 16 if spec.extended else 8
        self.per_table = self.cluster // self.entry
        self.l1_size = -(-spec.size // (self.cluster * self.per_table))
        l1_clusters = max(1, -(-self.l1_size * 8 // self.cluster))
        self.l1 = 3 * self.cluster
        tables = sorted({number // self.per_table for number in spec.clusters})
        self.l2 = {table: self.l1 + (l1_clusters + at) * self.cluster for at, table in enumerate(tables)}
        self.next = self.l1 + (l1_clusters + len(tables)) * self.cluster
        self.body: dict[int, bytes] = {}
        self.counts: dict[int, int] = dict.fromkeys(range(0, self.next, self.cluster), 1)
        self.where: dict[int, int] = {}
        self.outside = bytearray(spec.size if spec.data_file else 0)

    def build(self) -> Built:
        spec = self.spec
        content = bytearray(case.pad(spec.below, 1)[: spec.size].ljust(spec.size, b"\0"))
        l2 = bytearray(self.cluster * len(self.l2))
        first = min(self.l2.values(), default=0)
        for number, what in spec.clusters.items():
            table, slot = divmod(number, self.per_table)
            entry, bitmap = self._store(number, what)
            case.put(l2, self.l2[table] - first + slot * self.entry, ">Q", entry)
            if spec.extended:
                case.put(l2, self.l2[table] - first + slot * self.entry + 8, ">Q", bitmap)
            start = number * self.cluster
            shown = _shown(what, self.cluster)
            content[start : start + self.cluster] = shown[: spec.size - start]
        l1 = b"".join(
            struct.pack(">Q", self.l2[table] | COPIED if table in self.l2 else 0) for table in range(self.l1_size)
        )
        snapshots = self._snapshots(l1)
        data = bytearray(self._end())
        head = self._header(snapshots)
        data[: len(head)] = head
        case.put(data, self.cluster, ">Q", 2 * self.cluster)
        data[self.l1 : self.l1 + len(l1)] = l1
        if self.l2:
            data[first : first + len(l2)] = l2
        for offset, piece in self.body.items():
            data[offset : offset + len(piece)] = piece
        for offset, count in self.counts.items():
            if offset // self.cluster < self.cluster // 2:
                case.put(data, 2 * self.cluster + offset // self.cluster * 2, ">H", count)
        return Built(
            data, bytes(content), self.l1, list(self.l2.values()), self.where, len(head), outside=bytes(self.outside)
        )

    def _end(self) -> int:
        return -(-self.next // self.cluster) * self.cluster

    def _take(self, length: int) -> int:
        """Whole new clusters."""
        self.next = self._end()
        at = self.next
        self.next += -(-length // self.cluster) * self.cluster
        for offset in range(at, self.next, self.cluster):
            self.counts[offset] = 1
        return at

    def _store(self, number: int, what: Cluster) -> tuple[int, int]:
        """L2 entry and subcluster bitmap."""
        if isinstance(what, Squeezed):
            return self._squeeze(number, what), 0
        if what == ZERO:
            return (0, 0xFFFFFFFF << 32) if self.spec.extended else (1, 0)
        if self.spec.data_file:
            at = number * self.cluster
            self.outside[at : at + self.cluster] = bytes(what)  # type: ignore[arg-type]
            return at | COPIED, 0
        at = self._take(self.cluster)
        self.where[number] = at
        if what == ALLOCATED_ZERO:
            self.body[at] = b"\xee" * self.cluster
            return (at | COPIED, 0xFFFFFFFF << 32) if self.spec.extended else (at | COPIED | 1, 0)
        assert isinstance(what, bytes)
        self.body[at] = what
        return at | COPIED, 0xFFFFFFFF

    def _squeeze(self, number: int, what: Squeezed) -> int:
        stream = compress(what.plain, zstd=self.spec.zstd) if what.stream is None else what.stream
        if self.next % self.cluster == 0:
            self.next = self._end()
        at = self.next
        self.next += len(stream)
        self.body[at] = stream
        self.where[number] = at
        for offset in range(at // self.cluster * self.cluster, self.next, self.cluster):
            self.counts[offset] = self.counts.get(offset, 0) + 1
        return descriptor(at, len(stream), self.spec.bits)

    def _snapshots(self, l1: bytes) -> tuple[int, int]:
        """Each snapshot has the disk as it is: number and offset of the table."""
        if not self.spec.snapshots:
            return 0, 0
        table = b""
        for name, name_id in self.spec.snapshots:
            at = self._take(len(l1))
            self.body[at] = l1
            table += snapshot(at, len(l1) // 8, name.encode(), name_id.encode(), size=self.spec.size)
        at = self._take(len(table))
        self.body[at] = table
        return len(self.spec.snapshots), at

    def _header(self, snapshots: tuple[int, int]) -> bytes:
        spec = self.spec
        incompatible = (
            (EXTENDED if spec.extended else 0)
            | (COMPRESSION if spec.zstd else 0)
            | (DATA_FILE if spec.data_file else 0)
        )
        head = bytearray(spec.header_length if spec.version >= 3 else 72)
        fields = {
            "magic": 0x514649FB,
            "version": spec.version,
            "cluster_bits": spec.bits,
            "size": spec.size,
            "l1_size": self.l1_size,
            "l1_offset": self.l1,
            "refcount_offset": self.cluster,
            "refcount_clusters": 1,
            "nb_snapshots": snapshots[0],
            "snapshots_offset": snapshots[1],
        }
        if spec.version >= 3:
            fields |= {"incompatible": incompatible, "refcount_order": 4, "header_length": spec.header_length}
            if spec.header_length >= 105:
                fields["compression"] = int(spec.zstd)
        for name, value in fields.items():
            offset, form = HEADER[name]
            case.put(head, offset, form, value)
        extensions = list(spec.extensions)
        if spec.backing_format:
            extensions.insert(0, (0xE2792ACA, spec.backing_format))
        for kind, body in extensions:
            head += extension(kind, body)
        head += bytes(8)
        if spec.backing:
            case.put(head, 8, ">QI", len(head), len(spec.backing))
            head += spec.backing
        return bytes(head)


def _shown(what: Cluster, cluster: int) -> bytes:
    if isinstance(what, Squeezed):
        return what.plain
    return bytes(cluster) if isinstance(what, str) else what


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", kind, len(body)) + case.pad(body, 8)


def snapshot(l1: int, l1_size: int, name: bytes, name_id: bytes, *, size: int, extra: bytes | None = None) -> bytes:
    """An entry of the snapshot table."""
    extra = struct.pack(">QQQ", 0, size, 0) if extra is None else extra
    head = struct.pack(">QIHHIIQII", l1, l1_size, len(name_id), len(name), 1_700_000_000, 0, 0, 0, len(extra))
    return case.pad(head + extra + name_id + name, 8)


def compress(data: bytes, *, zstd: bool = False) -> bytes:
    if zstd:
        return zstandard.ZstdCompressor(level=3).compress(data)
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -12)
    return squeezer.compress(data) + squeezer.flush()


def descriptor(at: int, length: int, bits: int, sectors: int | None = None) -> int:
    """The L2 entry of a compressed cluster that lies in `length` bytes at `at`."""
    shift = 62 - (bits - 8)
    more = (at + length - 1) // 512 - at // 512 if sectors is None else sectors
    return COMPRESSED | more << shift | at


def clone(built: Built) -> Built:
    return dataclasses.replace(built, data=bytearray(built.data))
