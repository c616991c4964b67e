"""OVF descriptors: the XML that says which disks a machine has. Reading what matters of one, writing a plain one.

Read without a document type: no entities, nothing external, bounded length, depth and count.
Spec: DMTF DSP0243; specs/foreign-formats.md, "OVA".
"""

from __future__ import annotations

import re
import urllib.parse
import xml.parsers.expat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax import saxutils

from vimgvc import errors

MAX_LENGTH = 4 << 20
_MAX_DEPTH = 64
_MAX_ELEMENTS = 100_000
MAX_DISKS = 256

STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

_UNITS = re.compile(r"byte(?: \* ([0-9]{1,4})(?:\^([0-9]{1,2}))?)?")
_PLAIN_UNITS = {"kilobytes": 1 << 10, "megabytes": 1 << 20, "gigabytes": 1 << 30}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the package, as `References` lists it; `size` is what is said, None if nothing."""

    id: str
    href: str
    size: int | None
    compression: str
    chunked: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk: `file` is the id of its file, "" if it is empty; `capacity` in bytes."""

    id: str
    file: str
    format: str
    capacity: int
    parent: str


@dataclass(frozen=True, slots=True)
class Envelope:
    systems: tuple[str, ...]
    files: tuple[File, ...]
    disks: tuple[Disk, ...]


@dataclass(slots=True)
class _Found:
    systems: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    elements: int = 0
    depth: int = 0


class _Refused(Exception):
    """Carries out of expat what is refused; never leaves this module."""


def parse(text: bytes, name: str) -> Envelope:
    """The envelope in `text`, which messages call `name`. Raises `UnsafeImage`."""
    if len(text) > MAX_LENGTH:
        raise errors.UnsafeImage(f"{name}: the descriptor has {len(text)} bytes, allowed are {MAX_LENGTH}")
    found = _Found()
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda tag, attributes: _element(found, tag, attributes)
    parser.EndElementHandler = lambda _tag: _leave(found)
    parser.StartDoctypeDeclHandler = _no_document_type
    parser.EntityDeclHandler = _no_document_type
    try:
        parser.Parse(text, True)  # noqa: FBT003 - the C signature
    except _Refused as error:
        raise errors.UnsafeImage(f"{name}: {error}") from error
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
        raise errors.UnsafeImage(f"{name}: the descriptor is no well-formed XML ({error})") from error
    return Envelope(tuple(found.systems), tuple(found.files), tuple(found.disks))


def _no_document_type(*_: object) -> None:
    raise _Refused("the descriptor has a document type or entities, allowed is XML without")


def _element(found: _Found, tag: str, attributes: dict[str, str]) -> None:
    found.elements += 1
    found.depth += 1
    if found.elements > _MAX_ELEMENTS or found.depth > _MAX_DEPTH:
        limits = f"{_MAX_ELEMENTS} elements, {_MAX_DEPTH} deep"
        raise _Refused(f"the descriptor has more than {limits}")
    local = tag.rpartition(" ")[2]
    values = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
    if local == "File" and "href" in values:
        size = _number(values["size"]) if "size" in values else None
        found.files.append(
            File(
                values.get("id", ""), values["href"], size, values.get("compression", ""), bool(values.get("chunkSize"))
            )
        )
    elif local == "Disk" and "diskId" in values:
        found.disks.append(_disk(values))
    elif local == "VirtualSystem":
        found.systems.append(values.get("id", ""))
    if len(found.files) > 4 * MAX_DISKS or len(found.disks) > MAX_DISKS:
        raise _Refused(f"the descriptor has more than {MAX_DISKS} disks or {4 * MAX_DISKS} files")


def _leave(found: _Found) -> None:
    found.depth -= 1


def _disk(values: dict[str, str]) -> Disk:
    units = values.get("capacityAllocationUnits", "byte")
    capacity = _number(values.get("capacity", "0")) * _unit(units)
    if capacity >= 1 << 62:
        raise _Refused(f"the capacity of a disk is {capacity}, allowed is up to {1 << 62}")
    return Disk(
        values["diskId"], values.get("fileRef", ""), values.get("format", ""), capacity, values.get("parentRef", "")
    )


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise _Refused(f"a size is {text[:40]!a}, allowed is a decimal number")
    return int(text)


def _unit(text: str) -> int:
    plain = _PLAIN_UNITS.get(text.strip().lower())
    if plain:
        return plain
    match = _UNITS.fullmatch(" ".join(text.replace("*", " * ").split()))
    base, power = (int(match[1] or 1), int(match[2] or 1)) if match else (0, 0)
    if not match or base**power > 1 << 62:
        raise _Refused(f"the unit of a capacity is {text[:40]!a}, allowed is byte * 2^n")
    return int(base**power)


def resized(text: bytes, sizes: Mapping[str, int]) -> bytes:
    """A descriptor that `parse` accepts, with the sizes of files, by `href`, put in where it tells sizes.

    Raises `Unsupported` if it is written in an encoding in which tags cannot be found.
    """
    places: list[tuple[int, int]] = []
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")

    def element(tag: str, attributes: dict[str, str]) -> None:
        href = next((value for key, value in attributes.items() if key.rpartition(" ")[2] == "href"), None)
        if tag.rpartition(" ")[2] == "File" and href is not None and href in sizes:
            places.append((parser.CurrentByteIndex, sizes[href]))

    parser.StartElementHandler = element
    parser.Parse(text, True)  # noqa: FBT003 - the C signature
    for start, size in reversed(places):
        tag = _TAG.match(text, start)
        if tag is None:
            raise errors.Unsupported("descriptors in this encoding", hint="export the disks one by one")
        changed = _SIZE_ATTRIBUTE.sub(lambda match, size=size: match[1] + b'"%d"' % size, tag[0])  # type: ignore[misc]
        text = text[:start] + changed + text[tag.end() :]
    return text


_TAG = re.compile(rb"""<[A-Za-z_](?:[^<>"']|"[^"<]*"|'[^'<]*')*>""")
_SIZE_ATTRIBUTE = re.compile(rb"""(\s(?:[\w.-]+:)?size\s*=\s*)(?:"[0-9]*"|'[0-9]*')""")


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk to describe: the file's name and length, the disk's size, both in bytes."""

    name: str
    length: int
    capacity: int


def write(name: str, disks: Sequence[NewDisk], others: Sequence[tuple[str, int]] = ()) -> bytes:
    """A descriptor of a machine `name` with `disks` in streamOptimized files, one processor and 1 GiB of memory.

    `others` are names and lengths of further files, which are listed and mean nothing.

    What a commit knows of a machine is its disks. The rest is what importers want to see: VirtualBox and
    VMware read the controller's type, and both know this one.
    """
    files = "".join(
        f'    <File ovf:id="file{number}" ovf:href={_quoted(urllib.parse.quote(file))} ovf:size="{length}"/>\n'
        for number, (file, length) in enumerate([*((disk.name, disk.length) for disk in disks), *others], 1)
    )
    described = "".join(
        f'    <Disk ovf:diskId="vmdisk{number}" ovf:fileRef="file{number}" ovf:capacity="{disk.capacity}" '
        f'ovf:capacityAllocationUnits="byte" ovf:format="{STREAM_OPTIMIZED}"/>\n'
        for number, disk in enumerate(disks, 1)
    )
    items = [
        _item(1, "1 virtual CPU", 3, AllocationUnits="hertz * 10^6", VirtualQuantity="1"),
        _item(2, "1024 MB of memory", 4, AllocationUnits="byte * 2^20", VirtualQuantity="1024"),
    ]
    controllers = range(-(-len(disks) // _PORTS))
    for number in controllers:
        kind = {"ResourceSubType": "AHCI", "Address": str(number)}
        items.append(_item(3 + number, f"SATA controller {number}", 20, **kind))
    for number in range(len(disks)):
        place = {
            "Parent": str(3 + number // _PORTS),
            "AddressOnParent": str(number % _PORTS),
            "HostResource": f"ovf:/disk/vmdisk{number + 1}",
        }
        items.append(_item(3 + len(controllers) + number, f"disk {number + 1}", 17, **place))
    return _TEXT.format(
        files=files, disks=described, items="".join(items), id=_quoted(name), name=saxutils.escape(name)
    ).encode("utf-8")


_PORTS = 30  # of a SATA controller


def _item(number: int, caption: str, kind: int, **values: str) -> str:
    # In the order of the schema, which is that of the alphabet.
    values |= {"Caption": caption, "ElementName": caption, "InstanceID": str(number), "ResourceType": str(kind)}
    body = "".join(f"        <rasd:{key}>{saxutils.escape(values[key])}</rasd:{key}>\n" for key in sorted(values))
    return f"      <Item>\n{body}      </Item>\n"


def _quoted(text: str) -> str:
    return saxutils.quoteattr(text)


_TEXT = """\
<?xml version="1.0" encoding="UTF-8"?>
<Envelope ovf:version="1.0" \
xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" \
xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" \
xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
{files}  </References>
  <DiskSection>
    <Info>The virtual disks of the package</Info>
{disks}  </DiskSection>
  <VirtualSystem ovf:id={id}>
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="102">
      <Info>The guest operating system is not recorded</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Processors, memory and network are not recorded: set them after importing</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>
      </System>
{items}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""
