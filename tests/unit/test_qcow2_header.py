"""What a qcow2 header may say."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from tests import qcow2_image
from vimgvc import errors
from vimgvc.disk import memory
from vimgvc.images import qcow2_layout as layout
from vimgvc.images import qcow2_metadata

_MIB = 1 << 20


def _parse(image: bytes, *, file_size: int | None = None, **limits: int) -> layout.Header:
    return layout.parse_header(image[: layout.MAX_HEAD], file_size or len(image), "vm.qcow2", **limits)


def _image(size: int = _MIB, **fields: Any) -> bytes:
    return qcow2_image.Image(size, **fields).build()


def _refused(image: bytes, match: str, *, file_size: int | None = None) -> None:
    with pytest.raises(errors.UnsafeImage, match=match) as caught:
        _parse(image, file_size=file_size)
    assert caught.value.message.startswith("vm.qcow2: ")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("bits", [9, 12, 16, 21])
def test_fields_are_read(version: int, bits: int) -> None:
    """Every field that the header has is in what is parsed, for both versions and the outer cluster sizes."""
    extensions = qcow2_image.extension(0xE2792ACA, b"qcow2") + qcow2_image.extension(0x1234, b"odd") + bytes(8)
    header = _parse(_image(3 * _MIB + 1, bits=bits, version=version, backing=b"base", extensions=extensions))
    per_table = (1 << bits) ** 2 // 8
    assert (header.version, header.cluster_bits, header.size) == (version, bits, 3 * _MIB + 1)
    assert header.l1_entries == header.l1_needed == -(-(3 * _MIB + 1) // per_table)
    assert (header.l1_offset, header.l2_entries, header.refcount_order) == (1 << bits, (1 << bits) // 8, 4)
    assert (header.backing_file, header.backing_format, header.extensions) == (b"base", b"qcow2", ((0x1234, b"odd"),))


@pytest.mark.parametrize("version", [2, 3])
def test_encoding_is_the_inverse(version: int) -> None:
    """A header that is encoded and parsed again is the same, with every field set."""
    header = layout.Header(
        size=5 * _MIB,
        version=version,
        l1_entries=1,
        l1_offset=65536,
        refcount_offset=131072,
        refcount_clusters=2,
        snapshots=3,
        snapshots_offset=196608,
        incompatible=layout.COMPRESSION | layout.DIRTY if version == 3 else 0,
        compatible=layout.LAZY_REFCOUNTS if version == 3 else 0,
        autoclear=layout.BITMAPS_VALID if version == 3 else 0,
        refcount_order=6 if version == 3 else 4,
        header_length=112 if version == 3 else 72,
        compression=layout.ZSTD if version == 3 else layout.ZLIB,
        backing_file=b"base.qcow2",
        backing_format=b"qcow2",
        data_file_name=b"data",
        bitmaps=layout.Bitmaps(1, 32, 65536),
        extensions=((layout.EXT_FEATURES, b"x" * 48), (7, b"seven")),
    )
    assert _parse(layout.encode_header(header), file_size=_MIB) == header


def test_encoding_adds_the_names_of_features() -> None:
    """Version 3 tells programs that do not know them what features are called; version 2 has none."""
    assert b"lazy refcounts" in layout.encode_header(layout.Header(size=0))
    assert len(layout.encode_header(layout.Header(size=0, version=2))) == 80
    assert len(layout.encode_header(layout.Header(size=0, cluster_bits=12))) == 120


def test_header_that_does_not_fit_is_a_mistake() -> None:
    """A header larger than a cluster is not made."""
    with pytest.raises(ValueError, match="does not fit"):
        layout.encode_header(layout.Header(size=0, cluster_bits=9, backing_file=b"x" * 393))


def test_i08_features() -> None:
    """Unknown incompatible bits are refused by number; known ones, and unknown others, are parsed."""
    for bit in (5, 31, 63):
        _refused(qcow2_image.patched(_image(), ">Q", 72, 1 << bit), f"unknown bits {bit}")
    _refused(qcow2_image.patched(_image(), ">Q", 72, 0b1100001), "unknown bits 5, 6")
    found = _parse(qcow2_image.patched(_image(), ">QQQ", 72, 3, 1 << 60, 1 << 61))
    assert (found.incompatible, found.compatible, found.autoclear) == (3, 1 << 60, 1 << 61)


@pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1])
def test_i09_version(version: int) -> None:
    """Versions other than 2 and 3 are refused."""
    _refused(qcow2_image.patched(_image(), ">I", 4, version), f"version is {version}")


@pytest.mark.parametrize("length", [0, 72, 96, 103, 105, 116, 65544, 2**31, 2**32 - 8])
def test_i09_header_length(length: int) -> None:
    """A length below 104, not a multiple of 8, or above the cluster, is refused."""
    _refused(qcow2_image.patched(_image(), ">I", 100, length), f"header_length is {length}")


def test_i09_header_longer_than_known() -> None:
    """A header may have fields that this program does not know, as long as no feature bit tells."""
    image = qcow2_image.patched(_image(), ">I", 100, 512)
    assert _parse(qcow2_image.patched(image, ">Q", 300, 2**64 - 1)).header_length == 512


@pytest.mark.parametrize("bits", [0, 8, 22, 63, 64, 2**32 - 1])
def test_i10_cluster_bits(bits: int) -> None:
    """Clusters of less than 512 bytes and more than 2 MiB are refused."""
    _refused(qcow2_image.patched(_image(), ">I", 20, bits), f"cluster_bits is {bits}")


def test_i10_extended_entries_need_large_clusters() -> None:
    """Extended L2 entries with clusters below 16 KiB are refused."""
    _refused(_image(bits=13, incompatible=qcow2_image.EXTENDED), "cluster_bits is 13")
    assert _parse(_image(bits=14, incompatible=qcow2_image.EXTENDED)).extended_l2


def test_i11_l1_table() -> None:
    """An L1 table over 32 MiB, too small for the disk, misaligned, at 0 or beyond the file is refused."""
    image = _image(4 << 30)
    for entries in (2**32 - 1, 536870913, (32 << 20) // 8 + 1):
        _refused(qcow2_image.patched(image, ">I", 36, entries), f"l1_size is {entries}, the limit is 4194304")
    for entries in (0, 7):
        _refused(qcow2_image.patched(image, ">I", 36, entries), f"l1_size is {entries}, .* needs 8")
    for offset in (0, 1, 65536 + 512, 2**64 - 65535):
        _refused(qcow2_image.patched(image, ">Q", 40, offset), f"l1_table_offset is {offset}")
    for offset in (2 << 16, 2**63, 2**64 - 65536):
        _refused(qcow2_image.patched(image, ">Q", 40, offset), f"l1_table_offset is {offset}, .* beyond")
    largest = qcow2_image.patched(image, ">I", 36, (32 << 20) // 8)
    assert _parse(largest, file_size=65536 + (32 << 20)).l1_entries == 4194304
    _refused(largest, "beyond", file_size=65535 + (32 << 20))


def test_i12_refcounts_are_ignored() -> None:
    """Whatever the header says of refcounts, reading is not touched by it, and nothing is allocated."""
    image = qcow2_image.patched(_image(), ">QI", 48, 12345, 2**32 - 1)
    found = _parse(qcow2_image.patched(image, ">I", 96, 7))
    assert (found.refcount_offset, found.refcount_clusters, found.refcount_order) == (12345, 2**32 - 1, 7)


def test_i13_snapshots_are_ignored() -> None:
    """The number of snapshots and their place are nobody's business until a snapshot is asked for."""
    found = _parse(qcow2_image.patched(_image(), ">IQ", 60, 2**32 - 1, 3))
    assert (found.snapshots, found.snapshots_offset) == (2**32 - 1, 3)


def test_i14_bitmaps_are_ignored() -> None:
    """A bitmaps extension of another length is no bitmaps extension; one that makes no sense is parsed as it is."""
    short = qcow2_image.extension(0x23852875, b"x" * 16) + bytes(8)
    assert _parse(_image(extensions=short)).bitmaps is None
    odd = qcow2_image.extension(0x23852875, struct.pack(">IIQQ", 2**32 - 1, 9, 2**64 - 1, 3)) + bytes(8)
    assert _parse(_image(extensions=odd)).bitmaps == layout.Bitmaps(2**32 - 1, 2**64 - 1, 3)


def test_i15_extensions() -> None:
    """An extension longer than what is left, one that is there twice, and a missing end marker are refused."""
    for length in (0x7FFFFFFF, 0xFFFFFFFF, 65536 - 112 - 7):
        _refused(_image(extensions=struct.pack(">II", 5, length)), f"extension 0x00000005 has {length} bytes")
    twice = qcow2_image.extension(9, b"a") + qcow2_image.extension(9, b"b") + bytes(8)
    _refused(_image(extensions=twice), "extension 0x00000009 is there twice")
    for kind in (0xE2792ACA, 0x44415441, 0x23852875, 0x6803F857, 0x0537BE77):
        _refused(_image(extensions=qcow2_image.extension(kind, b"") * 2 + bytes(8)), "twice")
    _refused(_image(extensions=struct.pack(">II", 5, 65536 - 112 - 8) + bytes(65536 - 112 - 8)), "no end marker")
    _refused(_image(extensions=qcow2_image.extension(5, b"x"), backing=b"base"), "no end marker")
    many = b"".join(qcow2_image.extension(number, b"") for number in range(1, 1026)) + bytes(8)
    _refused(_image(extensions=many), "limit of 1024")
    _refused(_image(extensions=qcow2_image.extension(0xE2792ACA, b"x" * 16) + bytes(8)), "limit is 15")
    _refused(_image(extensions=qcow2_image.extension(0x44415441, b"x" * 1024) + bytes(8)), "limit is 1023")


def test_old_images_have_no_extensions() -> None:
    """In version 2 the backing name may stand directly behind the header; then there is no end marker."""
    found = _parse(_image(version=2, extensions=b"", backing=b"base"))
    assert (found.backing_file, found.extensions) == (b"base", ())


def test_i02_backing_name() -> None:
    """A name outside the first cluster, inside the header, or longer than 1023 bytes is refused."""
    assert _parse(_image(backing=b"n" * 1023)).backing_file == b"n" * 1023
    _refused(_image(backing=b"n" * 1024), "backing_file_size is 1024")
    _refused(qcow2_image.patched(_image(backing=b"base"), ">I", 16, 2**32 - 1), "backing_file_size is 4294967295")
    for offset in (1, 111, 65537, 2**63, 2**64 - 1):
        _refused(qcow2_image.patched(_image(), ">QI", 8, offset, 4), f"backing_file_offset is {offset}")
    _refused(qcow2_image.patched(_image(), ">QI", 8, 65534, 3), "backing_file_size is 3")
    assert _parse(qcow2_image.patched(_image(), ">QI", 8, 0, 2**32 - 1)).backing_file is None
    assert _parse(qcow2_image.patched(_image(), ">QI", 8, 200, 0)).backing_file is None


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (1 << 32) + 1, 64 << 40])
def test_i19_sizes(size: int) -> None:
    """Every size up to 64 TiB is kept exactly."""
    header = layout.Header(size=size, cluster_bits=21, l1_entries=128, l1_offset=1 << 21)
    assert _parse(layout.encode_header(header), file_size=4 << 21).size == size


@pytest.mark.parametrize("size", [(64 << 40) + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_i19_sizes_beyond_the_limit(size: int) -> None:
    """A disk that claims to be larger than the limit is refused, whatever its tables."""
    _refused(qcow2_image.patched(_image(), ">Q", 24, size), f"size is {size} bytes, the limit is {64 << 40}")
    with pytest.raises(errors.UnsafeImage, match="the limit is 1048575"):
        _parse(_image(), max_size=_MIB - 1)


def test_i20_encryption_is_reported() -> None:
    """The header of an encrypted image is parsed; an unknown method is refused."""
    for method in (1, 2):
        assert _parse(qcow2_image.patched(_image(), ">I", 32, method)).crypt == method
    for method in (3, 2**32 - 1):
        _refused(qcow2_image.patched(_image(), ">I", 32, method), f"crypt_method is {method}")


def test_compression_type_and_its_bit_belong_together() -> None:
    """Type zstd without the feature bit, the bit without zstd, and an unknown type are refused."""
    assert _parse(_image(incompatible=qcow2_image.COMPRESSION, compression=1)).compression == layout.ZSTD
    _refused(_image(compression=1), "contradicts")
    _refused(_image(incompatible=qcow2_image.COMPRESSION), "contradicts")
    _refused(_image(incompatible=qcow2_image.COMPRESSION, compression=2), "compression_type is 2")
    short = qcow2_image.patched(_image(compression=1), ">I", 100, 104)
    assert _parse(qcow2_image.patched(short, ">Q", 104, 0)).compression == layout.ZLIB


def test_i30_truncated_everywhere() -> None:
    """A file cut anywhere in its header and L1 table is refused."""
    image = _image(backing=b"base", extensions=qcow2_image.extension(0xE2792ACA, b"qcow2") + bytes(8))
    for length in [*range(200), *range(512, len(image), 512), len(image) - 1]:
        cut = memory.MemoryDisk.of(image[:length])
        if length < 65536 + 8:
            with pytest.raises(errors.UnsafeImage):
                qcow2_metadata.read_header(cut, "vm.qcow2")
        else:
            assert qcow2_metadata.read_header(cut, "vm.qcow2").size == _MIB


def test_random_headers_only_raise_what_is_promised(seed: int) -> None:
    """A header with any bytes changed is parsed or refused with a typed error."""
    rng = np.random.default_rng(seed)
    image = _image(backing=b"base", extensions=qcow2_image.extension(0xE2792ACA, b"qcow2") + bytes(8))
    verdicts: set[type] = set()
    for _ in range(3000):
        odd = bytearray(image[:4096])
        for at in rng.integers(4, 160, int(rng.integers(1, 5))).tolist():
            odd[at] = int(rng.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        try:
            verdicts.add(type(_parse(bytes(odd), file_size=len(image))))
        except errors.UnsafeImage:
            verdicts.add(errors.UnsafeImage)
    assert verdicts == {layout.Header, errors.UnsafeImage}
