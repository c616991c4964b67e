"""The bytes of a qcow2 image's header and table entries (specs/qcow2.md §1). Pure: no files.

All numbers are big-endian. What a header claims is checked here, before anybody believes it enough to
allocate or to read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from vimgvc import errors

MAGIC = b"QFI\xfb"

# magic, version, backing name offset, its length, cluster_bits, size, crypt_method, l1_size, l1 offset,
# refcount table offset, its clusters, nb_snapshots, snapshots offset
FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
# incompatible, compatible, autoclear features, refcount_order, header_length
FEATURES = struct.Struct(">QQQII")
EXTENSION = struct.Struct(">II")  # type, length of the data; the data is padded to a multiple of 8
BITMAPS_EXTENSION = struct.Struct(">IIQQ")  # nb_bitmaps, reserved, directory size, directory offset
CRYPT_EXTENSION = struct.Struct(">QQ")  # offset, length of the LUKS header
# l1 offset, l1_size, id length, name length, seconds, nanoseconds, guest's clock in ns, VM state size, extra length
SNAPSHOT = struct.Struct(">QIHHIIQII")
SNAPSHOT_EXTRA = struct.Struct(">QQ")  # VM state size, disk size
# table offset, table entries, flags, type, granularity_bits, name length, extra length
BITMAP = struct.Struct(">QIIBBHI")

V2_LENGTH, V3_LENGTH, LENGTH = 72, 104, 112
_COMPRESSION_AT = 104
_SMALL_CLUSTER = 4096  # up to here QEMU writes no names of features: a long backing name may want the room

# Incompatible features.
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = 1, 2, 4, 8, 16
_KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
# Compatible and autoclear features.
LAZY_REFCOUNTS = 1
BITMAPS_VALID, DATA_FILE_RAW = 1, 2

CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = 0, 1, 2
ZLIB, ZSTD = 0, 1

EXT_END, EXT_BACKING_FORMAT, EXT_FEATURES = 0, 0xE2792ACA, 0x6803F857
EXT_BITMAPS, EXT_CRYPT, EXT_DATA_FILE = 0x23852875, 0x0537BE77, 0x44415441

# Entries of L1 and L2 tables.
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
L1_RESERVED = 0x7F00_0000_0000_01FF
L2_RESERVED = 0x3F00_0000_0000_01FE  # of a standard cluster; with extended L2 entries bit 0 too
SUBCLUSTERS = 32

MIN_CLUSTER_BITS, MAX_CLUSTER_BITS, MIN_EXTENDED_BITS = 9, 21, 14
#: No header is longer: it lies in the first cluster.
MAX_HEAD = 1 << MAX_CLUSTER_BITS
MAX_L1_BYTES = 32 << 20
MAX_NAME = 1023
MAX_FORMAT = 15
MAX_EXTENSIONS = 1024
MAX_REFCOUNT_ORDER = 6
MAX_SNAPSHOTS, MAX_SNAPSHOTS_BYTES, MAX_SNAPSHOT_EXTRA = 65536, 64 << 20, 1024
MAX_BITMAPS = 65535
#: The largest disk that is believed in: 64 TiB.
MAX_SIZE = 64 << 40

#: (kind of feature, bit) and the name that programs show which do not know it: what QEMU writes.
FEATURE_NAMES: tuple[tuple[int, int, str], ...] = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)


@dataclass(frozen=True, slots=True)
class Bitmaps:
    """Where the directory of `count` bitmaps lies, in bytes. Not checked by `parse_header`."""

    count: int
    directory_size: int
    directory_offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says; offsets and sizes in bytes unless named otherwise.

    `extensions` are those that have no field of their own, in order: (type, data). A parsed header
    satisfies specs/qcow2.md §1; snapshots, bitmaps and refcounts are not looked at.
    """

    size: int
    version: int = 3
    cluster_bits: int = 16
    crypt: int = CRYPT_NONE
    l1_entries: int = 0
    l1_offset: int = 0
    refcount_offset: int = 0
    refcount_clusters: int = 0
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = LENGTH
    compression: int = ZLIB
    backing_file: bytes | None = None
    backing_format: bytes | None = None
    data_file_name: bytes | None = None
    bitmaps: Bitmaps | None = None
    extensions: tuple[tuple[int, bytes], ...] = field(default=())

    def facts(self) -> dict[str, Any]:
        """What a commit records that the header alone tells."""
        return {
            "format": "qcow2",
            "compat": "0.10" if self.version == 2 else "1.1",
            "cluster_size": self.cluster_size,
            "lazy_refcounts": bool(self.compatible & LAZY_REFCOUNTS),
            "extended_l2": self.extended_l2,
            **({"refcount_bits": 1 << self.refcount_order} if self.refcount_order <= MAX_REFCOUNT_ORDER else {}),
            "compression_type": "zstd" if self.compression == ZSTD else "zlib",
        }

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended_l2(self) -> bool:
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        return bool(self.incompatible & DATA_FILE)

    @property
    def l2_entry_size(self) -> int:
        return 16 if self.extended_l2 else 8

    @property
    def l2_entries(self) -> int:
        """Entries of one L2 table, which is one cluster."""
        return self.cluster_size // self.l2_entry_size

    @property
    def l1_needed(self) -> int:
        """Entries of the L1 table that a disk of `size` bytes has."""
        return l1_needed(self, self.size)


def l1_needed(header: Header, size: int) -> int:
    """Entries of an L1 table for a disk of `size` bytes."""
    return -(-size // (header.cluster_size * header.l2_entries))


def compressed_bits(cluster_bits: int) -> int:
    """Bits of the offset in a compressed cluster's descriptor; above lie the additional sectors, below bit 62."""
    return 62 - (cluster_bits - 8)


def parse_header(head: bytes, file_size: int, name: str, *, max_size: int = MAX_SIZE) -> Header:
    """The header in the first cluster of an image that messages call `name`.

    `head`: the first bytes of the file, up to `MAX_HEAD` of them; `file_size` in bytes. Raises
    `UnsafeImage`. Encryption is reported, not refused; features that need consent (corrupt, data
    file, backing file) too.
    """
    return _Parser(head, file_size, name).header(max_size)


def encode_header(header: Header) -> bytes:
    """The bytes from the start of the file to the end of the backing name; at most a cluster, else `ValueError`.

    Version 3 gets a table of feature names unless `extensions` has one, or clusters are small.
    """
    extended = header.version > 2
    fixed_length = header.header_length if extended else V2_LENGTH
    area = b"".join(_encode_extension(kind, data) for kind, data in _extensions(header))
    area += EXTENSION.pack(EXT_END, 0)
    name = header.backing_file or b""
    fixed = FIXED.pack(
        MAGIC,
        header.version,
        fixed_length + len(area) if name else 0,
        len(name),
        header.cluster_bits,
        header.size,
        header.crypt,
        header.l1_entries,
        header.l1_offset,
        header.refcount_offset,
        header.refcount_clusters,
        header.snapshots,
        header.snapshots_offset,
    )
    if extended:
        fixed += FEATURES.pack(
            header.incompatible, header.compatible, header.autoclear, header.refcount_order, fixed_length
        )
        fixed = (fixed + bytes([header.compression])).ljust(fixed_length, b"\0")[:fixed_length]
    head = fixed + area + name
    if len(head) > header.cluster_size:
        msg = f"a header of {len(head)} bytes does not fit into a cluster of {header.cluster_size}"
        raise ValueError(msg)
    return head


def _extensions(header: Header) -> Iterator[tuple[int, bytes]]:
    """In the order in which QEMU writes them."""
    if header.backing_format is not None:
        yield EXT_BACKING_FORMAT, header.backing_format
    if header.data_file_name is not None:
        yield EXT_DATA_FILE, header.data_file_name
    roomy = header.cluster_size > _SMALL_CLUSTER
    if header.version > 2 and roomy and all(kind != EXT_FEATURES for kind, _ in header.extensions):
        table = [struct.pack(">BB46s", kind, bit, name.encode()) for kind, bit, name in FEATURE_NAMES]
        yield EXT_FEATURES, b"".join(table)
    if header.bitmaps is not None:
        bitmaps = header.bitmaps
        yield EXT_BITMAPS, BITMAPS_EXTENSION.pack(bitmaps.count, 0, bitmaps.directory_size, bitmaps.directory_offset)
    yield from header.extensions


def _encode_extension(kind: int, data: bytes) -> bytes:
    return EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8)


class _Parser:
    def __init__(self, head: bytes, file_size: int, name: str) -> None:
        self._head = head
        self._file_size = file_size
        self._name = name

    def header(self, max_size: int) -> Header:
        head = self._head
        if len(head) < V2_LENGTH or head[:4] != MAGIC:
            self._refuse("has no qcow2 header")
        fields = FIXED.unpack_from(head)
        (_, version, name_at, name_length, bits, size, crypt, l1_entries, l1_at, refcount_at, refcounts, *rest) = fields
        if version not in (2, 3):
            self._refuse(f"version is {version}, allowed are 2 and 3")
        if not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS:
            self._refuse(f"cluster_bits is {bits}, allowed are {MIN_CLUSTER_BITS} to {MAX_CLUSTER_BITS}")
        if crypt > CRYPT_LUKS:
            self._refuse(f"crypt_method is {crypt}, allowed are 0 to {CRYPT_LUKS}")
        if size > max_size:
            self._refuse(f"size is {size} bytes, the limit is {max_size}")
        incompatible, compatible, autoclear, order, length = self._features(version, bits)
        compression = self._compression(incompatible, length)
        area_end = self._name_end(name_at, length, bits)
        found = dict(self._extensions(length, area_end, empty=area_end == name_at))
        header = Header(
            size=size,
            version=version,
            cluster_bits=bits,
            crypt=crypt,
            l1_entries=l1_entries,
            l1_offset=l1_at,
            refcount_offset=refcount_at,
            refcount_clusters=refcounts,
            snapshots=rest[0],
            snapshots_offset=rest[1],
            incompatible=incompatible,
            compatible=compatible,
            autoclear=autoclear,
            refcount_order=order,
            header_length=length,
            compression=compression,
            backing_file=self._backing_name(name_at, name_length, bits),
            backing_format=self._text(found, EXT_BACKING_FORMAT, MAX_FORMAT),
            data_file_name=self._text(found, EXT_DATA_FILE, MAX_NAME),
            bitmaps=_bitmaps(found.pop(EXT_BITMAPS, b"")),
            extensions=tuple(found.items()),
        )
        check_l1(header, self._file_size, self._name)
        return header

    def _features(self, version: int, bits: int) -> tuple[int, int, int, int, int]:
        if version == 2:
            return 0, 0, 0, 4, V2_LENGTH
        if len(self._head) < V3_LENGTH:
            self._refuse("has no complete header")
        incompatible, compatible, autoclear, order, length = FEATURES.unpack_from(self._head, V2_LENGTH)
        if not V3_LENGTH <= length <= 1 << bits or length % 8:
            self._refuse(
                f"header_length is {length}, allowed are multiples of 8 from {V3_LENGTH} to the cluster's {1 << bits}"
            )
        if length > len(self._head):
            self._refuse(f"header_length is {length}, the file has {self._file_size} bytes")
        unknown = incompatible & ~_KNOWN_INCOMPATIBLE
        if unknown:
            bits_set = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
            self._refuse(f"incompatible_features has the unknown bits {bits_set}", hint="use a newer vimgvc")
        if incompatible & EXTENDED_L2 and bits < MIN_EXTENDED_BITS:
            self._refuse(f"cluster_bits is {bits}, extended L2 entries need at least {MIN_EXTENDED_BITS}")
        return incompatible, compatible, autoclear, order, length

    def _compression(self, incompatible: int, length: int) -> int:
        value = self._head[_COMPRESSION_AT] if length > _COMPRESSION_AT else ZLIB
        if value not in (ZLIB, ZSTD):
            self._refuse(f"compression_type is {value}, allowed are 0 (zlib) and 1 (zstd)", hint="use a newer vimgvc")
        if bool(incompatible & COMPRESSION) != bool(value):
            self._refuse(f"compression_type is {value}, which its incompatible feature bit contradicts")
        return value

    def _name_end(self, name_at: int, length: int, bits: int) -> int:
        """Where the area of extensions ends: at the backing name, else with the first cluster."""
        if not name_at:
            return 1 << bits
        if not length <= name_at <= 1 << bits:
            self._refuse(f"backing_file_offset is {name_at}, allowed are {length} to the cluster's {1 << bits}")
        return name_at

    def _backing_name(self, name_at: int, length: int, bits: int) -> bytes | None:
        if not name_at or not length:
            return None
        limit = min(MAX_NAME, (1 << bits) - name_at)
        if length > limit:
            self._refuse(f"backing_file_size is {length}, the limit is {limit}")
        if name_at + length > len(self._head):
            self._refuse("ends inside its backing file name")
        return self._head[name_at : name_at + length]

    def _extensions(self, at: int, end: int, *, empty: bool) -> Iterator[tuple[int, bytes]]:
        """Every extension but the end marker, each type once."""
        seen: set[int] = set()
        if empty and at == end:  # QEMU before 0.11 put the name directly behind the header
            return
        while True:
            if at + EXTENSION.size > min(end, len(self._head)):
                self._refuse("header extensions have no end marker")
            kind, length = EXTENSION.unpack_from(self._head, at)
            if kind == EXT_END:
                return
            at += EXTENSION.size
            if length > min(end, len(self._head)) - at:
                self._refuse(f"header extension {kind:#010x} has {length} bytes, {max(0, end - at)} are left")
            if kind in seen:
                self._refuse(f"header extension {kind:#010x} is there twice")
            if len(seen) == MAX_EXTENSIONS:
                self._refuse(f"has more header extensions than the limit of {MAX_EXTENSIONS}")
            seen.add(kind)
            yield kind, self._head[at : at + length]
            at += length + -length % 8

    def _text(self, found: dict[int, bytes], kind: int, limit: int) -> bytes | None:
        data = found.pop(kind, None)
        if data is not None and len(data) > limit:
            self._refuse(f"header extension {kind:#010x} has {len(data)} bytes, the limit is {limit}")
        return data

    def _refuse(self, reason: str, *, hint: str = "") -> NoReturn:
        raise errors.UnsafeImage(f"{self._name}: {reason}", hint=hint)


def check_l1(header: Header, file_size: int, name: str) -> None:
    """Refuse (`UnsafeImage`) an L1 table that is too large, too small for the disk, or not inside the file."""
    check_table(header, header.l1_offset, header.l1_entries, file_size, what="l1", name=name)
    if header.l1_entries < header.l1_needed:
        raise errors.UnsafeImage(
            f"{name}: l1_size is {header.l1_entries}, a disk of {header.size} bytes needs {header.l1_needed}"
        )


def check_table(header: Header, offset: int, entries: int, file_size: int, *, what: str, name: str) -> None:
    """Refuse (`UnsafeImage`) a table of 8-byte entries above the L1 limit, misaligned, or beyond the file's end."""
    if entries * 8 > MAX_L1_BYTES:
        raise errors.UnsafeImage(f"{name}: {what}_size is {entries}, the limit is {MAX_L1_BYTES // 8}")
    if not entries:
        return
    if offset % header.cluster_size or not offset:
        raise errors.UnsafeImage(
            f"{name}: {what}_table_offset is {offset}, which is no multiple of the cluster's {header.cluster_size}"
        )
    if offset + entries * 8 > file_size:
        raise errors.UnsafeImage(
            f"{name}: {what}_table_offset is {offset}, its {entries * 8} bytes end beyond the file's {file_size}"
        )


def _bitmaps(data: bytes) -> Bitmaps | None:
    """None also for an extension that makes no sense: bitmaps are never needed to read the disk."""
    if len(data) != BITMAPS_EXTENSION.size:
        return None
    count, _, size, offset = BITMAPS_EXTENSION.unpack(data)
    return Bitmaps(count, size, offset)
