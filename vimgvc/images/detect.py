"""Which container a file is, by its content, and whether that is what the user said.

Content is never believed against the user: a guest can write any header into its own raw disk. So a
file that looks like a container is refused until the format is declared, a declared "raw" is raw
whatever the content, and any other declared format must be what the content shows.

Magic numbers: the formats' own documents, and the probe functions of QEMU's block drivers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images import raw

HEAD = 65536
TAIL = 512

_ISO_AT = 0x8001
_VDI_AT = 64

# A descriptor file is text; as in QEMU, comments and blank lines may come before the version.
_VMDK_TEXT = re.compile(rb"\s*#\s*disk descriptorfile|(?:[ \t]*(?:#[^\n]*)?\r?\n)*version=[123]\r?\n", re.IGNORECASE)

_Probe = Callable[[bytes, bytes], bool]


def _starts(*magics: bytes) -> _Probe:
    return lambda head, _tail: head.startswith(magics)


#: Format name (QEMU's where it has one) and whether this head and tail are of it.
_CONTAINERS: dict[str, _Probe] = {
    "qcow2": lambda head, _tail: head.startswith(b"QFI\xfb") and head[4:8] != b"\0\0\0\1",
    "qcow": _starts(b"QFI\xfb\0\0\0\1"),
    "vmdk": lambda head, _tail: head.startswith((b"KDMV", b"COWD")) or bool(_VMDK_TEXT.match(head)),
    "vdi": lambda head, _tail: head[_VDI_AT : _VDI_AT + 4] == b"\x7f\x10\xda\xbe",
    "vhdx": _starts(b"vhdxfile"),
    "vpc": lambda head, tail: head.startswith(b"conectix") or tail.startswith(b"conectix"),
    "qed": _starts(b"QED\0"),
    "parallels": _starts(b"WithoutFreeSpace", b"WithouFreSpacExt"),
    "luks": _starts(b"LUKS\xba\xbe"),
    "dmg": lambda _head, tail: tail.startswith(b"koly"),
    "bochs": _starts(b"Bochs Virtual HD Image"),
    "cloop": _starts(b"#!/bin/sh\n#V2.0 Format\n"),
    "cow": _starts(b"OOOM"),
    "ova": lambda head, _tail: head[257:262] == b"ustar" and head[:100].rstrip(b"\0").lower().endswith(b".ovf"),
}

#: What users call some of them.
_ALIASES = {"vhd": "vpc", "qcow1": "qcow", "img": "raw", "iso": "raw"}

_RAW_SUFFIXES = (".raw", ".img", ".iso", ".bin", ".dd")
_CONTAINER_SUFFIXES = {
    ".qcow2": "qcow2",
    ".qcow": "qcow",
    ".vmdk": "vmdk",
    ".vdi": "vdi",
    ".vhdx": "vhdx",
    ".vhd": "vpc",
    ".vpc": "vpc",
    ".qed": "qed",
    ".hdd": "parallels",
    ".hds": "parallels",
    ".dmg": "dmg",
    ".ova": "ova",
}


def canonical(name: str) -> str:
    """The name of a format, of what users call it. Raises `UsageError` for what is none."""
    found = _ALIASES.get(name.lower(), name.lower())
    if found != "raw" and found not in _CONTAINERS:
        known = ", ".join(sorted({"raw", *_CONTAINERS}))
        raise errors.UsageError(f"no image format is called {name!r}", hint=f"known are {known}")
    return found


def named_like(path: str) -> str | None:
    """The format that a file's name promises, if any."""
    suffix = os.path.splitext(path)[1].lower()
    return "raw" if suffix in _RAW_SUFFIXES else _CONTAINER_SUFFIXES.get(suffix)


def formats_of(head: bytes, tail: bytes) -> tuple[str, ...]:
    """Every container that a disk with these first bytes (up to `HEAD`) and last `TAIL` bytes could be.

    "raw" is among them if something that only a raw disk has is there as well: an ISO 9660 volume, or
    a boot sector behind a container's header. An empty result means a raw disk like any other.
    """
    found = [name for name, probe in _CONTAINERS.items() if probe(head, tail)]
    boot_sector = head[510:512] == b"\x55\xaa"
    by_header = any(probe(head, b"") for probe in _CONTAINERS.values())
    if head[_ISO_AT : _ISO_AT + 5] == b"CD001" or (boot_sector and by_header):
        found.append("raw")
    return tuple(found)


def detect_reader(reader: protocol.Reader, name: str) -> str:
    """The format of an open file that messages call `name`: "raw" unless it looks like a container.

    Raises `UnsafeImage` if it looks like more than one thing.
    """
    found = look(reader)
    if len(found) > 1:
        raise errors.UnsafeImage(f"{name}: could be {' or '.join(found)}", hint="say with --format which of them it is")
    return found[0]


def look(reader: protocol.Reader) -> tuple[str, ...]:
    """Everything that an open file could be, by its content; "raw" alone for a raw disk like any other."""
    head, tail = bytearray(min(HEAD, reader.size)), bytearray(min(TAIL, reader.size))
    reader.pread_into(0, memoryview(head))
    reader.pread_into(reader.size - len(tail), memoryview(tail))
    return formats_of(bytes(head), bytes(tail)) or ("raw",)


def detect(path: raw.Path) -> str:
    """The format of a file or device, by its content."""
    reader = raw.RawReader(path)
    try:
        return detect_reader(reader, reader.path)
    finally:
        reader.close()


def check_declared_reader(reader: protocol.Reader, name: str, declared: str | None) -> str:
    """The format to read an open file as (specs/images.md §2).

    Raises `UsageError` (no such format) or `UnsafeImage` (name, declaration and content do not agree).
    """
    if declared is not None:
        return _check_declared(reader, name, declared)
    found = detect_reader(reader, name)
    suffix = os.path.splitext(name)[1].lower()
    if found == "raw":
        if suffix == ".ovf":
            raise errors.UnsafeImage(
                f"{name}: is named like the description of a machine, whose disks are other files",
                hint="commit those, and this one with --attach",
            )
        named = _CONTAINER_SUFFIXES.get(suffix)
        if named:
            raise errors.UnsafeImage(
                f"{name}: is named like {named}, but its content is not",
                hint="it may be damaged; if it is a raw disk, say --format raw",
            )
        return found
    if suffix in _RAW_SUFFIXES:
        raise errors.UnsafeImage(
            f"{name}: is named like a raw disk, but looks like {found}",
            hint=f"say --format raw to store it as it is, or --format {found}",
        )
    return found


def check_declared(path: raw.Path, declared: str | None) -> str:
    """As `check_declared_reader`, for a file or device by its name."""
    reader = raw.RawReader(path)
    try:
        return check_declared_reader(reader, reader.path, declared)
    finally:
        reader.close()


def _check_declared(reader: protocol.Reader, name: str, declared: str) -> str:
    wanted = canonical(declared)
    if wanted == "raw":
        return wanted
    found = look(reader)
    if wanted not in found:
        raise errors.UnsafeImage(
            f"{name}: was declared to be {wanted}, but looks like {' or '.join(found)}",
            hint="give the format that it has, or --format raw to store it as it is",
        )
    return wanted
