"""OVA: a machine in a tar archive. Its disks are read where they lie, and a new one is laid out to be copied.

The descriptor comes first and names the disks, a manifest has their digests. Nothing is extracted.
Spec: DMTF DSP0243; specs/foreign-formats.md, "OVA".
"""

from __future__ import annotations

import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.disk import memory, protocol, room
from vimgvc.images import ovf, pieces, tar

_MAX_MANIFEST = 1 << 20
_DIGEST = re.compile(r"(SHA1|SHA256|SHA512) ?\((.{1,255})\) ?= ?([0-9A-Fa-f]{40,128})", re.ASCII)
_HEX = {"SHA1": 40, "SHA256": 64, "SHA512": 128}
_PIECE = 1 << 20
_MAX_NAME = 60

#: Formats by the address that an OVF gives them; others are left to the content.
_FORMATS = (
    ("http://www.vmware.com/interfaces/specifications/vmdk.html", "vmdk"),
    ("http://www.vmware.com/specifications/vmdk.html", "vmdk"),
    ("http://go.microsoft.com/fwlink/?linkid=137171", "vpc"),
    ("http://www.gnome.org/~markmc/qcow-image-format.html", "qcow2"),
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the machine: `member` holds it, None if it is empty; `format` as declared, None if unknown.

    `capacity`: bytes, as the descriptor says; the image decides.
    """

    id: str
    member: tar.Member | None
    format: str | None
    capacity: int

    @property
    def name(self) -> str:
        """What to call it: its file's name without the ending."""
        return self.member.name.rpartition(".")[0] or self.member.name if self.member else self.id


@dataclass(frozen=True, slots=True)
class Ova:
    """`digests`: of each member that the manifest has, the algorithm and the digest in hexadecimal."""

    systems: tuple[str, ...]
    descriptor: bytes
    manifest: bytes | None
    certificate: bytes | None
    members: tuple[tar.Member, ...]
    disks: tuple[Disk, ...]
    digests: Mapping[str, tuple[str, str]]


def parse_ova(file: protocol.Source, name: str) -> Ova:
    """What is in the open OVA `file`, which messages call `name`.

    Raises `UnsafeImage` (archive, descriptor or manifest break a rule), `Unsupported` (compressed or
    divided files), `ImageDamaged` (cut short), `IntegrityError` (the descriptor's digest is another).
    """
    members = tar.members(file, name)
    if not members or not members[0].name.lower().endswith(".ovf"):
        first = members[0].name if members else "nothing"
        raise errors.UnsafeImage(f"{name}: begins with {first}, allowed is a descriptor (.ovf)")
    by_name = {member.name: member for member in members}
    stem = members[0].name[:-4]
    descriptor = _content(file, members[0], name, ovf.MAX_LENGTH)
    envelope = ovf.parse(descriptor, f"{name}: {members[0].name}")
    manifest = _optional(file, by_name.get(f"{stem}.mf"), name)
    ova = Ova(
        systems=envelope.systems,
        descriptor=descriptor,
        manifest=manifest,
        certificate=_optional(file, by_name.get(f"{stem}.cert"), name),
        members=members,
        disks=tuple(_disks(envelope, by_name, name)),
        digests=_digests(manifest, name) if manifest is not None else {},
    )
    check_digest(file, ova, members[0], name)
    return ova


def slice_of(file: protocol.Source, member: tar.Member) -> pieces.SliceReader:
    """A member's bytes as a Source; `file` stays open when it is closed."""
    return pieces.SliceReader(file, member.offset, member.length)


def check_digest(file: protocol.Source, ova: Ova, member: tar.Member, name: str) -> bool:
    """Whether the manifest has a digest of `member`. Reads all of it; raises `IntegrityError` if it is wrong."""
    found = ova.digests.get(member.name)
    if found is None:
        return False
    algorithm, expected = found
    if not hmac.compare_digest(_digest(slice_of(file, member), algorithm), expected.lower()):
        raise errors.IntegrityError(
            f"{name}: {member.name}",
            f"its {algorithm} digest is not that of the manifest",
            hint="the archive was damaged or changed after it was made",
        )
    return True


def _disks(envelope: ovf.Envelope, members: Mapping[str, tar.Member], name: str) -> list[Disk]:
    files = {item.id: item for item in envelope.files}
    if len(files) != len(envelope.files) or len({item.id for item in envelope.disks}) != len(envelope.disks):
        raise errors.UnsafeImage(f"{name}: two files or disks of the descriptor have the same id")
    disks, taken = [], set()
    for item in envelope.disks:
        if item.parent:
            raise errors.UnsafeImage(f"{name}: disk {item.id[:80]!a} is a difference to another one")
        member = _file(files, item, members, name) if item.file else None
        if member is not None and member.name in taken:
            raise errors.UnsafeImage(f"{name}: two disks of the descriptor are in {member.name}")
        taken.add(member.name if member else None)
        disks.append(Disk(item.id, member, _format(item.format), item.capacity))
    return disks


def _file(files: Mapping[str, ovf.File], disk: ovf.Disk, members: Mapping[str, tar.Member], name: str) -> tar.Member:
    file = files.get(disk.file)
    if file is None:
        raise errors.UnsafeImage(f"{name}: disk {disk.id[:80]!a} is in a file that the descriptor does not list")
    if file.compression not in ("", "identity") or file.chunked:
        raise errors.Unsupported(
            f"compressed or divided files in OVA ({name})", hint="unpack the archive and commit its disks one by one"
        )
    # A name is looked up among the members and never opened.
    member = members.get(urllib.parse.unquote(file.href).removeprefix("./"))
    if member is None:
        raise errors.UnsafeImage(f"{name}: the descriptor names the file {file.href[:80]!a}, which the archive has not")
    if file.size is not None and file.size != member.length:
        raise errors.UnsafeImage(
            f"{name}: {member.name} has {member.length} bytes, allowed is what the descriptor says, {file.size}"
        )
    return member


def _format(address: str) -> str | None:
    address = address.lower()
    return next((fmt for prefix, fmt in _FORMATS if address.startswith(prefix)), None)


def _digests(manifest: bytes, name: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for line in manifest.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        match = _DIGEST.fullmatch(line.strip())
        if match is None or len(match[3]) != _HEX[match[1]] or match[2] in found:
            raise errors.UnsafeImage(
                f"{name}: a line of the manifest is {line[:80]!a}, allowed is SHA256(file)= digest"
            )
        found[match[2]] = (match[1], match[3])
    return found


def _optional(file: protocol.Source, member: tar.Member | None, name: str) -> bytes | None:
    return None if member is None else _content(file, member, name, _MAX_MANIFEST)


def _content(file: protocol.Source, member: tar.Member, name: str, limit: int) -> bytes:
    if member.length > limit:
        raise errors.UnsafeImage(f"{name}: {member.name} has {member.length} bytes, allowed are {limit}")
    data = bytearray(member.length)
    file.pread_into(member.offset, memoryview(data))
    return bytes(data)


def _digest(reader: protocol.Reader, algorithm: str) -> str:
    # usedforsecurity: SHA-1 is in many manifests, which protect against accidents only.
    total = hashlib.new(algorithm, usedforsecurity=False)
    view = room.pages(_PIECE)
    for start in range(0, reader.size, _PIECE):
        part = view[: min(_PIECE, reader.size - start)]
        reader.pread_into(start, part)
        total.update(part)
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """A disk to put into a new OVA: `image` is a streamOptimized vmdk of a disk of `capacity` bytes."""

    image: protocol.Source
    capacity: int


def own_names(name: str, disks: int) -> list[str]:
    """What the descriptor, the manifest and the disks are called in a new OVA of the machine `name`."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:_MAX_NAME] or "machine"
    return [f"{stem}.ovf", f"{stem}.mf", *(f"{stem}-disk{number}.vmdk" for number in range(1, disks + 1))]


def build(name: str, parts: Sequence[Part], others: Sequence[tuple[str, protocol.Source]] = ()) -> protocol.Source:
    """A new OVA of the machine `name`, as a Source to be copied to where it is wanted.

    Descriptor, manifest (SHA-256) and disks by `own_names`, in this order, and then `others` by names that must be
    different ones. Everything is read once here, for its digest. Closing the Source closes the images.
    """
    descriptor, _, *names = own_names(name, len(parts))
    described = [ovf.NewDisk(file, part.image.size, part.capacity) for file, part in zip(names, parts, strict=True)]
    files = [*((file, part.image) for file, part in zip(names, parts, strict=True)), *others]
    listed = [(file, source.size) for file, source in others]
    return _pack(descriptor.removesuffix(".ovf"), ovf.write(name, described, listed), files)


def rebuild(stem: str, descriptor: bytes, files: Sequence[tuple[str, protocol.Source]]) -> protocol.Source:
    """As `build`, but of a machine with a descriptor, which lists `files` by these names.

    The sizes in it become those of the files. Raises as `ovf.resized`.
    """
    sizes = {urllib.parse.quote(name): source.size for name, source in files}
    sizes |= {name: source.size for name, source in files}
    return _pack(stem, ovf.resized(descriptor, sizes), files)


def _pack(stem: str, descriptor: bytes, files: Sequence[tuple[str, protocol.Source]]) -> protocol.Source:
    lines = [f"SHA256({stem}.ovf)= {hashlib.sha256(descriptor).hexdigest()}\n"]
    lines += [f"SHA256({file})= {_digest(source, 'SHA256')}\n" for file, source in files]
    texts: list[tuple[str, protocol.Source]] = [
        (f"{stem}.ovf", memory.MemoryDisk.of(descriptor)),
        (f"{stem}.mf", memory.MemoryDisk.of("".join(lines).encode())),
    ]
    found: list[pieces.Piece] = []
    for file, source in [*texts, *files]:
        head = tar.header(file, source.size)
        found.append(pieces.Piece(len(head), memory.MemoryDisk.of(head)))
        if source.size:
            found.append(pieces.Piece(source.size, source))
        if source.size % tar.BLOCK:
            found.append(pieces.Piece(-source.size % tar.BLOCK))
    found.append(pieces.Piece(2 * tar.BLOCK))
    return pieces.PiecesReader(found)
