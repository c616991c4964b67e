"""What a partition holds, by the bytes that its format always has in the same place.

Only for telling people: nothing is decided by it, and nothing but these bytes is read.
"""

from __future__ import annotations

import struct

from vimgvc.disk import extents, protocol

#: Enough for every magic but ISO 9660's and ZFS's.
HEAD = 68 << 10
_ZFS_AT, _ZFS_STEP, _ZFS_LENGTH = 128 << 10, 1 << 10, 128 << 10
_ZFS_MAGIC = (b"\x0c\xb1\xba\x00\0\0\0\0", b"\0\0\0\0\x00\xba\xb1\x0c")
#: (offset, bytes, name); the first that fits counts, so what may be inside another comes after it.
_MAGICS = (
    (0, b"LUKS\xba\xbe", "luks"),
    (3, b"-FVE-FS-", "bitlocker"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (3, b"ReFS\0\0\0\0", "refs"),
    (0, b"XFSB", "xfs"),
    (0, b"hsqs", "squashfs"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "mdraid"),
    (0, b"\xfc\x4e\x2b\xa9", "mdraid"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0x10034, b"ReIsEr2Fs", "reiserfs"),
    (0x10034, b"ReIsErFs", "reiserfs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"H+\0\4", "hfsplus"),
    (1024, b"HX\0\5", "hfsplus"),
    (32, b"NXSB", "apfs"),
    (0x8001, b"CD001", "iso9660"),
    (0x1055C, b"\x19\x01\x54\x19", "ufs"),
)
_SWAP = (b"SWAPSPACE2", b"SWAP-SPACE")
_PAGES = (4096, 8192, 16384, 65536)
_FAT = (b"FAT12   ", b"FAT16   ", b"FAT     ")
_EXT_AT = 1024
#: Features that ext4 has and ext3 refuses (Linux, fs/ext4/ext4.h).
_EXT_JOURNAL, _EXT_JOURNAL_DEVICE = 0x4, 0x8
_EXT3_INCOMPAT, _EXT3_RO_COMPAT = 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4


def detect(reader: protocol.Reader, start: int, length: int) -> str | None:
    """The name of what lies in `[start, start + length)`; None when it is nothing known.

    Raises what `reader` raises.
    """
    head = _read(reader, start, min(HEAD, length))
    return _by_magic(head) or _zfs(reader, start, length)


def _by_magic(head: bytes) -> str | None:
    for offset, magic, name in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return name
    return _lvm(head) or _ext(head) or _swap(head) or _vfat(head)


def _lvm(head: bytes) -> str | None:
    """Its label is in one of the first four sectors."""
    sectors = (head[at : at + 32] for at in range(0, 2048, 512))
    return "lvm" if any(one[:8] == b"LABELONE" and one[24:32] == b"LVM2 001" for one in sectors) else None


def _ext(head: bytes) -> str | None:
    block = head[_EXT_AT : _EXT_AT + 104]
    if len(block) < 104 or block[56:58] != b"\x53\xef":
        return None
    compat, incompat, ro_compat = struct.unpack_from("<III", block, 92)
    if incompat & _EXT_JOURNAL_DEVICE:
        return "jbd"
    if incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        return "ext4"
    return "ext3" if compat & _EXT_JOURNAL else "ext2"


def _swap(head: bytes) -> str | None:
    """Its magic ends the first page, whatever the machine's pages are."""
    return "swap" if any(head[page - 10 : page] in _SWAP for page in _PAGES) else None


def _vfat(head: bytes) -> str | None:
    signed = head[510:512] == b"\x55\xaa"
    return "vfat" if signed and (head[82:90] == b"FAT32   " or head[54:62] in _FAT) else None


def _zfs(reader: protocol.Reader, start: int, length: int) -> str | None:
    """The first label has a ring of blocks, of which any may be the first that was written."""
    if length < _ZFS_AT + _ZFS_LENGTH:
        return None
    ring = _read(reader, start + _ZFS_AT, _ZFS_LENGTH)
    return "zfs" if any(ring[at : at + 8] in _ZFS_MAGIC for at in range(0, _ZFS_LENGTH, _ZFS_STEP)) else None


def _read(reader: protocol.Reader, start: int, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    for item in reader.extents(start, length):
        if item.kind is extents.Kind.DATA:
            reader.pread_into(item.start, view[item.start - start : item.end - start])
    return bytes(data)
