r"""VMDK descriptors: the text that says what a disk consists of. A strict parser of lines.

```
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="twoGbMaxExtentSparse"
RW 4192256 SPARSE "disk-s001.vmdk"
ddb.adapterType = "lsilogic"
```

Spec: specs/foreign-formats.md, "vmdk".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimgvc.images.gates import judge

MAX_LENGTH = 1 << 20
MAX_EXTENTS = 512  # each is an open file
_MAX_LINE = 1024
_MAX_STALE = 16
_NO_PARENT = "ffffffff"

_EXTENT = re.compile(
    rb"(RW|RDONLY|NOACCESS) +([0-9]{1,15}) +([A-Z]{1,16})"
    rb"(?: +\"([^\"\r\n]{1,255})\"(?: +([0-9]{1,15})(?: .*)?)?)?[ \t]*"
)
_ENTRY = re.compile(rb"([A-Za-z][A-Za-z0-9_.\-]{0,127})[ \t]*=[ \t]*(?:\"([^\"]*)\"|([^\"\s]*))[ \t]*")
_CREATE_TYPES = {
    "monolithicSparse": ("SPARSE",),
    "streamOptimized": ("SPARSE",),
    "monolithicFlat": ("FLAT", "ZERO"),
    "twoGbMaxExtentSparse": ("SPARSE", "ZERO"),
    "twoGbMaxExtentFlat": ("FLAT", "ZERO"),
    "vmfs": ("VMFS", "FLAT", "ZERO"),
    "vmfsSparse": ("VMFSSPARSE",),
    "seSparse": ("SESPARSE",),
}


@dataclass(frozen=True, slots=True)
class Extent:
    """`sectors` of the disk in the file `name` (as the text has it; None: zeros) from sector `start` on."""

    sectors: int
    kind: str
    name: bytes | None
    start: int = 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    create_type: str
    extents: tuple[Extent, ...]
    adapter_type: str
    hwversion: str


def read(j: judge.Judge) -> Descriptor:
    """The descriptor that a whole file is."""
    j.between("the descriptor's length", j.size, 1, MAX_LENGTH)
    return parse(j, ended(j, j.read(0, j.size, "the descriptor")))


def ended(j: judge.Judge, data: bytes) -> bytes:
    """The text up to its first zero.

    Programs fill up with zeros, and leave a few bytes of an older text that was longer.
    """
    text, _, rest = data.partition(b"\0")
    if len(rest.replace(b"\0", b"")) > _MAX_STALE:
        raise j.refuse("the descriptor", "text with a NUL", "text without, but for zeros at its end")
    return text


def parse(j: judge.Judge, text: bytes) -> Descriptor:
    """Parse a descriptor. Refused: anything but comments, blank lines, entries and extents that we know."""
    if b"parentFileNameHint" in text:
        raise j.refers("its descriptor names a parent")
    values: dict[str, str] = {}
    extents: list[Extent] = []
    for line in text.split(b"\n"):
        bare = line.removesuffix(b"\r").strip(b" \t")
        if not bare or bare.startswith(b"#"):
            continue
        if len(bare) > _MAX_LINE or b"\r" in bare:
            raise j.refuse("a line of the descriptor", bare, f"up to {_MAX_LINE} bytes, ended by LF or CR LF")
        if bare.startswith((b"RW ", b"RDONLY ", b"NOACCESS ")):
            extents.append(_extent(j, bare))
            j.between("the number of extents", len(extents), 0, MAX_EXTENTS)
            continue
        _entry(j, bare, values)
    return _descriptor(j, values, extents)


def _entry(j: judge.Judge, line: bytes, values: dict[str, str]) -> None:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise j.refuse("a line of the descriptor", line, "name=value, or an extent")
    key = match[1].decode("ascii").lower()
    if key in ("cid", "parentcid", "createtype", "version") and key in values:
        raise j.refuse(f"the number of {match[1].decode()} lines", 2, "1")
    values[key] = (match[2] or match[3] or b"").decode("latin-1")


def _extent(j: judge.Judge, line: bytes) -> Extent:
    match = _EXTENT.fullmatch(line)
    if match is None:
        raise j.refuse("an extent", line, 'RW sectors kind "name" [sector]')
    access, sectors, kind, name, start = match.groups()
    j.among("an extent's access", access.decode(), ["RW", "RDONLY"])
    j.between("an extent's sectors", int(sectors), 1, 1 << 46)
    if (name is None) != (kind == b"ZERO"):
        raise j.refuse("an extent", line, 'RW sectors kind "name" [sector]')
    if start and kind not in (b"FLAT", b"VMFS") and int(start):
        raise j.refuse("the start of an extent", int(start), "0 unless it is flat")
    if name is not None:
        _check_name(j, name)
    return Extent(int(sectors), kind.decode(), name, int(start or 0))


def _check_name(j: judge.Judge, name: bytes) -> None:
    if b"/" in name or b"\\" in name or name in (b".", b"..") or any(byte < 32 or byte == 127 for byte in name):
        raise j.refuse("the name of an extent", name, "the name of a file beside the descriptor")
    if re.match(rb"[A-Za-z][A-Za-z0-9+.\-]*:", name):
        raise j.refuse("the name of an extent", name, "a name without a scheme")


def _descriptor(j: judge.Judge, values: dict[str, str], extents: list[Extent]) -> Descriptor:
    if not values and not extents:
        raise j.part()
    j.among("the descriptor's version", values.get("version"), ["1", "2", "3"])
    if "cid" not in values:
        raise j.refuse("CID", "missing", "8 hexadecimal digits")
    if values.get("parentcid", "").lower() != _NO_PARENT:
        raise j.refers("its descriptor has a parent (parentCID)")
    kind = values.get("createtype", "")
    if kind not in _CREATE_TYPES:
        raise j.unsupported(f"VMDK images of type {kind[:40]!a}")
    for item in extents:
        if item.kind not in _CREATE_TYPES[kind]:
            raise j.refuse("an extent's kind", item.kind, " or ".join(_CREATE_TYPES[kind]) + f" for {kind}")
    j.between("the number of extents", len(extents), 1, MAX_EXTENTS)
    return Descriptor(
        kind, tuple(extents), _plain(values.get("ddb.adaptertype", "")), _plain(values.get("ddb.virtualhwversion", ""))
    )


def _plain(text: str) -> str:
    """`text` if it is a word that can be recorded, else nothing."""
    return text if re.fullmatch(r"[A-Za-z0-9._\-]{1,32}", text) else ""
