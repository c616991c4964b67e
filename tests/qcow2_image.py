"""qcow2 images from struct code of their own, for tests of the reader: also such that no program writes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import zstandard

COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED = 1, 2, 4, 8, 16


@dataclass
class Image:
    """An image that is put together cluster by cluster. Header in cluster 0, then the L1 table, then what is added.

    `entries`: guest cluster to its L2 entry, or to (entry, bitmap) with extended entries.
    """

    size: int
    bits: int = 16
    version: int = 3
    incompatible: int = 0
    autoclear: int = 0
    compression: int = 0
    extensions: bytes = bytes(8)
    backing: bytes = b""
    snapshots: int = 0
    snapshots_offset: int = 0
    entries: dict[int, int | tuple[int, int]] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    @property
    def cluster(self) -> int:
        return 1 << self.bits

    @property
    def width(self) -> int:
        return 16 if self.incompatible & EXTENDED else 8

    @property
    def l1_entries(self) -> int:
        return -(-self.size // (self.cluster * self.cluster // self.width))

    @property
    def body_at(self) -> int:
        """Where `body` begins: behind the header and the L1 table."""
        return self.cluster + -(-self.l1_entries * 8 // self.cluster) * self.cluster

    def add(self, content: bytes, *, align: int | None = None) -> int:
        """Put `content` into the file, by default at a cluster's beginning; its offset."""
        self.body += bytes(-(self.body_at + len(self.body)) % (align or self.cluster))
        offset = self.body_at + len(self.body)
        self.body += content
        return offset

    def data(self, index: int, content: bytes) -> int:
        """Give guest cluster `index` this content; where it lies."""
        offset = self.add(content.ljust(self.cluster, b"\0"))
        self._set(index, COPIED | offset, 0xFFFF_FFFF)
        return offset

    def zero(self, index: int) -> None:
        if self.incompatible & EXTENDED:
            self._set(index, 0, 0xFFFF_FFFF << 32)
        else:
            self._set(index, ZERO, 0)

    def packed(self, index: int, content: bytes) -> int:
        """The same, compressed."""
        return self.stream(index, compress(content.ljust(self.cluster, b"\0"), zstd=bool(self.compression)))

    def stream(self, index: int, stored: bytes, *, sectors: int | None = None) -> int:
        """Give guest cluster `index` this compressed stream; `sectors` overrides what its descriptor says."""
        offset = self.add(stored, align=1)
        self._set(index, self.descriptor(offset, len(stored), sectors), 0)
        return offset

    def descriptor(self, offset: int, length: int, sectors: int | None = None) -> int:
        more = (offset + length - 1) // 512 - offset // 512 if sectors is None else sectors
        return COMPRESSED | more << (62 - (self.bits - 8)) | offset

    def _set(self, index: int, entry: int, bitmap: int) -> None:
        self.entries[index] = (entry, bitmap) if self.incompatible & EXTENDED else entry

    def build(self) -> bytes:
        """The file. L2 tables come last, so that damage to the end is damage to them."""
        per_table = self.cluster // self.width
        l1 = [0] * self.l1_entries
        tables: dict[int, bytearray] = {}
        self.body += bytes(-len(self.body) % self.cluster)
        for index, entry in sorted(self.entries.items()):
            number, inside = divmod(index, per_table)
            if number not in tables:
                l1[number] = COPIED | self.body_at + len(self.body) + len(tables) * self.cluster
                tables[number] = bytearray(self.cluster)
            words = entry if isinstance(entry, tuple) else (entry,)
            struct.pack_into(f">{len(words)}Q", tables[number], inside * self.width, *words)
        head = self.header().ljust(self.cluster, b"\0") + struct.pack(f">{len(l1)}Q", *l1)
        return head.ljust(self.body_at, b"\0") + self.body + b"".join(tables.values())

    def header(self) -> bytes:
        length = 72 if self.version == 2 else 112
        name_at = length + len(self.extensions) if self.backing else 0
        fixed = struct.pack(
            ">4sIQIIQIIQQIIQ",
            b"QFI\xfb",
            self.version,
            name_at,
            len(self.backing),
            self.bits,
            self.size,
            0,
            self.l1_entries,
            self.cluster if self.l1_entries else 0,
            0,
            0,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version > 2:
            fixed += struct.pack(">QQQIIQ", self.incompatible, 0, self.autoclear, 4, 112, self.compression << 56)
        return fixed + self.extensions + self.backing


def compress(content: bytes, *, zstd: bool) -> bytes:
    if zstd:
        return zstandard.ZstdCompressor(level=3).compress(content)
    stream = zlib.compressobj(9, zlib.DEFLATED, -12)
    return stream.compress(content) + stream.flush()


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def snapshot(
    l1_offset: int,
    l1_entries: int,
    *,
    size: int | None,
    own_id: bytes = b"1",
    name: bytes = b"first",
    vm_state: int = 0,
    extra: bytes = b"",
) -> bytes:
    """An entry of the snapshot table."""
    if size is not None:
        extra = struct.pack(">QQ", vm_state, size) + extra
    head = struct.pack(
        ">QIHHIIQII", l1_offset, l1_entries, len(own_id), len(name), 1_700_000_000, 5, 6, vm_state, len(extra)
    )
    entry = head + extra + own_id + name
    return entry + bytes(-len(entry) % 8)


def patched(image: bytes, layout: str, offset: int, *values: int) -> bytes:
    """The image with other bytes at `offset`."""
    found = bytearray(image)
    struct.pack_into(layout, found, offset, *values)
    return bytes(found)
