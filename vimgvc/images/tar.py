"""Tar archives, read without extracting: where each member lies. And the headers to write one.

Strict: regular files only, flat and unique names, checksums right, everything inside the file. Read are
ustar and GNU headers, long names and sizes of either kind. Spec: specs/foreign-formats.md, "OVA".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.disk import protocol

BLOCK = 512
MAX_MEMBERS = 1024
MAX_NAME = 255
_MAX_EXTENSION = 64 << 10
_OCTAL = re.compile(rb" *([0-7]{1,12})[ \0]*")
_PAX = re.compile(rb"([0-9]{1,5}) ([^=]+)=")
_REGULAR, _LONG_NAME, _EXTENSION, _GLOBAL = (b"0", b"\0"), b"L", b"x", b"g"
_MAX_OCTAL = 1 << 33
#: Bytes of a name that fit into a header.
_MAX_PLAIN = 100


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file: its bytes are `length` bytes of the archive from `offset` on."""

    name: str
    offset: int
    length: int


def members(file: protocol.Reader, name: str) -> tuple[Member, ...]:
    """The members of the archive `file`, which messages call `name`, in order.

    Raises `UnsafeImage` for what is not a plain file in a flat archive, `ImageDamaged` if it ends early.
    """
    found: dict[str, Member] = {}
    for member in _members(file, name):
        if member.name in found:
            raise errors.UnsafeImage(f"{name}: holds two files called {member.name}")
        found[member.name] = member
        if len(found) > MAX_MEMBERS:
            raise errors.UnsafeImage(f"{name}: holds more than {MAX_MEMBERS} files")
    return tuple(found.values())


def _members(file: protocol.Reader, name: str) -> Iterator[Member]:
    position, extended = 0, 0
    known: dict[str, bytes] = {}
    while True:
        block = _read(file, name, position, BLOCK)
        if not any(block):
            return  # one such block says that this was all; what is behind it does not count
        kind, length = _judge(block, name, position)
        size = int(known["size"]) if kind == _REGULAR[0] and "size" in known else length
        position += BLOCK
        if position + size > file.size:
            raise errors.ImageDamaged(name, f"a file of {size} bytes at {position} ends behind the end of the archive")
        if kind in (_LONG_NAME, _EXTENSION, _GLOBAL):
            extended += 1
            if length > _MAX_EXTENSION or extended > 2 * MAX_MEMBERS:
                raise errors.UnsafeImage(f"{name}: an extension has {length} bytes, allowed are {_MAX_EXTENSION}")
            data = _read(file, name, position, length)
            # What is said for all members is dates and the like; a size or name for all makes no sense.
            if kind != _GLOBAL:
                known |= {"path": data.rstrip(b"\0")} if kind == _LONG_NAME else _records(data, name)
            position += -(-length // BLOCK) * BLOCK
            continue
        yield Member(_checked_name(known.get("path", _name(block)), name), position, size)
        position += -(-size // BLOCK) * BLOCK
        known = {}


def _judge(block: bytes, name: str, position: int) -> tuple[bytes, int]:
    """Kind and length of the member of a header."""
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if _octal(block[148:156]) != total:
        raise errors.UnsafeImage(f"{name}: the checksum of the header at {position} is not {total}")
    kind = block[156:157]
    if kind not in (*_REGULAR, _LONG_NAME, _EXTENSION, _GLOBAL):
        raise errors.UnsafeImage(f"{name}: the member at {position} is of type {kind!a}, allowed are regular files")
    length = _size(block[124:136])
    if length is None:
        raise errors.UnsafeImage(f"{name}: the length of the member at {position} is no number")
    return _REGULAR[0] if kind in _REGULAR else kind, length


def _octal(data: bytes) -> int | None:
    match = _OCTAL.fullmatch(data)
    return int(match[1], 8) if match else None


def _size(data: bytes) -> int | None:
    """Octal digits, or GNU's way for 8 GiB and more: a set upper bit and a big-endian number."""
    if data[0] == 0x80:
        number = int.from_bytes(data[1:], "big")
        return number if number < 1 << 62 else None
    return _octal(data)


def _name(block: bytes) -> bytes:
    name, prefix = block[:100].partition(b"\0")[0], b""
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _records(data: bytes, name: str) -> dict[str, bytes]:
    """The records of a pax header that matter: `path` and `size`."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        match = _PAX.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n":
            raise errors.UnsafeImage(f"{name}: an extension of a header is malformed")
        if match[2] in (b"path", b"size"):
            found[match[2].decode("ascii")] = data[match.end() : end - 1]
        position = end
    size = found.get("size")
    if size is not None and not re.fullmatch(rb"[0-9]{1,18}", size):
        raise errors.UnsafeImage(f"{name}: the size of a member is {size[:40]!a}, allowed is a decimal number")
    return found


def _checked_name(raw: bytes, archive: str) -> str:
    try:
        text = raw.removeprefix(b"./").decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.UnsafeImage(f"{archive}: the name of a member is {raw[:80]!a}, allowed is UTF-8") from error
    if not text or len(raw) > MAX_NAME or "/" in text or "\\" in text or text in (".", "..") or not text.isprintable():
        allowed = f"a file name of up to {MAX_NAME} bytes, without folders"
        raise errors.UnsafeImage(f"{archive}: the name of a member is {text[:80]!a}, allowed is {allowed}")
    return text


def _read(file: protocol.Reader, name: str, offset: int, length: int) -> bytes:
    if offset + length > file.size:
        raise errors.ImageDamaged(name, "the archive has no end")
    data = bytearray(length)
    file.pread_into(offset, memoryview(data))
    return bytes(data)


def header(name: str, length: int) -> bytes:
    """The header of a regular file: ustar, and above 8 GiB the size in GNU's way, which every importer reads.

    So is a name of more than 100 bytes: as the content of a member of its own in front.
    """
    encoded = name.encode("utf-8")
    if len(encoded) <= _MAX_PLAIN:
        return _block(encoded, length, _REGULAR[0])
    content = encoded + b"\0"
    padding = bytes(-len(content) % BLOCK)
    long = _block(b"././@LongLink", len(content), _LONG_NAME) + content + padding
    return long + _block(encoded[:_MAX_PLAIN], length, _REGULAR[0])


def _block(name: bytes, length: int, kind: bytes) -> bytes:
    size = b"%011o\0" % length if length < _MAX_OCTAL else b"\x80" + length.to_bytes(11, "big")
    fields = struct.pack(
        "100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x",
        name, b"0000644", b"0000000", b"0000000", size, b"00000000000", b" " * 8, kind, b"", b"ustar\0", b"00",
        b"", b"", b"0000000", b"0000000", b"",
    )  # fmt: skip
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]
