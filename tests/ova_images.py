"""OVA files made field by field: tar headers of every kind, and descriptors with what a test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

VMDK = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"


def block(name: bytes, size: int, kind: bytes = b"0", *, size_field: bytes | None = None, checksum: int = 0) -> bytes:
    """A header; `checksum` is added to the right one."""
    field = size_field if size_field is not None else b"%011o\0" % size
    head = name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"0" * 11 + b"\0" + b" " * 8 + kind
    head = (head + bytes(100) + b"ustar\x0000").ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % (sum(head) + checksum) + head[156:]


def member(name: str, data: bytes, kind: bytes = b"0") -> bytes:
    return block(name.encode(), len(data), kind) + data + bytes(-len(data) % 512)


def pax(records: Mapping[str, str], kind: bytes = b"x") -> bytes:
    data = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 2 if len(rest) + 2 < 100 else len(rest) + 3
        data += str(length).encode() + rest
    return member("PaxHeader", data, kind)


def envelope(files: Sequence[str], disks: Sequence[str], *, more: str = "", head: str = "") -> bytes:
    """A descriptor; `files` and `disks` are the attributes of these elements."""
    listed = "".join(f"<File {item}/>" for item in files)
    described = "".join(f"<Disk {item}/>" for item in disks)
    return (
        f'<?xml version="1.0"?>{head}<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" '
        f'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>{listed}</References>'
        f'<DiskSection><Info>x</Info>{described}</DiskSection><VirtualSystem ovf:id="vm"/>{more}</Envelope>'
    ).encode()


def file_of(name: str, number: int = 1, more: str = "") -> str:
    return f'ovf:id="file{number}" ovf:href="{name}" {more}'


def disk_of(capacity: int, number: int = 1, more: str = f'ovf:format="{VMDK}"') -> str:
    return f'ovf:diskId="disk{number}" ovf:fileRef="file{number}" ovf:capacity="{capacity}" {more}'


def manifest(files: Mapping[str, bytes], algorithm: str = "SHA256") -> bytes:
    return "".join(
        f"{algorithm}({name})= {hashlib.new(algorithm, data).hexdigest()}\n" for name, data in files.items()
    ).encode()


def ova(disks: Mapping[str, bytes], capacity: int, *, text: bytes | None = None, sums: bytes | None = b"") -> bytes:
    """An archive: descriptor, manifest (right unless given, none if None), disks of `capacity` bytes each."""
    if text is None:
        names = list(disks)
        text = envelope(
            [file_of(name, number) for number, name in enumerate(names)],
            [disk_of(capacity, number, "") for number in range(len(names))],
        )
    content = {"vm.ovf": text, **disks}
    if sums is not None:
        content = {"vm.ovf": text, "vm.mf": sums or manifest(content), **disks}
    return b"".join(member(name, data) for name, data in content.items()) + bytes(1024)
