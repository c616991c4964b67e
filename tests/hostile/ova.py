"""OVA archives, made with Python's tarfile: DMTF DSP0243."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator

from tests.hostile import case, vmdk

_ENVELOPE = """<?xml version="1.0"?>
{prolog}<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
 <References><File ovf:id="file1" ovf:href="{href}" ovf:size="{size}"/></References>
 <DiskSection><Info>disks</Info><Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}"
  ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
 <VirtualSystem ovf:id="vm"><Info>{info}</Info></VirtualSystem>
</Envelope>
"""
_DISK = bytes(vmdk.stream())
_NAME = "vm-disk1.vmdk"

Entry = tuple[str, bytes | str]


def _descriptor(
    href: str = _NAME,
    *,
    size: int = len(_DISK),
    capacity: int | str = vmdk.SIZE,
    prolog: str = "",
    info: str = "a machine",
) -> Entry:
    return "vm.ovf", _ENVELOPE.format(href=href, size=size, capacity=capacity, prolog=prolog, info=info).encode()


def _manifest(digest: str | None = None) -> Entry:
    return "vm.mf", f"SHA256({_NAME})= {digest or hashlib.sha256(_DISK).hexdigest()}\n".encode()


def archive(*entries: Entry, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A file for each pair of a name and bytes; for a name and a text, a symbolic link that leads there."""
    place = io.BytesIO()
    with tarfile.open(fileobj=place, mode="w", format=form) as made:
        for name, body in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(body, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, body
                made.addfile(entry)
            else:
                entry.size = len(body)
                made.addfile(entry, io.BytesIO(body))
    return place.getvalue()


def _case(row: str, name: str, code: int | set[int], data: bytes) -> case.Case:
    content = vmdk.CONTENT if code == case.OK else None
    return case.case(row, f"ova-{name}", code, case.write(content, data), foreign=True)


def cases() -> list[case.Case]:
    return [*_good(), *_bad()]


def _good() -> Iterator[case.Case]:
    disk = (_NAME, _DISK)
    for name, form in {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items():
        yield _case("I24", name, case.OK, archive(_descriptor(), disk, _manifest(), form=form))
    yield _case("I24", "manifest-first", case.OK, archive(_descriptor(), _manifest(), disk))


def _bad() -> Iterator[case.Case]:
    disk = (_NAME, _DISK)
    refused = {20, 21}
    for name, href in {
        "absolute": "/etc/passwd",
        "dot-dot": "../canary",
        "https": "https://127.0.0.1/disk.vmdk",
        "file": "file:///etc/passwd",
        "not-there": "other.vmdk",
    }.items():
        row = "I3" if ":" in href else "I2"
        yield _case(row, f"href-{name}", {1, *refused}, archive(_descriptor(href), disk))
    yield _case("I4", "disk-is-a-symlink", refused, archive(_descriptor(), (_NAME, "/etc/passwd")))
    yield _case("I4", "descriptor-is-a-symlink", refused, archive(("vm.ovf", "/etc/passwd"), disk))
    yield _case("I24", "two-disks-of-one-name", refused, archive(_descriptor(), disk, disk))
    yield _case("I24", "digest", refused, archive(_descriptor(), disk, _manifest("0" * 64)))
    bomb = "".join(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10}">' for at in range(1, 10))
    entities = f'<!DOCTYPE x [<!ENTITY e0 "lolololol">{bomb}]>'
    yield _case("I24", "entities", refused, archive(_descriptor(prolog=entities, info="&e9;"), disk))
    outside = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    yield _case("I3", "outside-entity", refused, archive(_descriptor(prolog=outside, info="&e;"), disk))
    yield _case("I24", "descriptor-of-20-mib", refused, archive(_descriptor(info="x" * (20 << 20)), disk))
    yield _case("I19", "capacity-max", {0, *refused}, archive(_descriptor(capacity=2**64 - 1), disk))
    yield _case("I19", "capacity-negative", {0, *refused}, archive(_descriptor(capacity=-1), disk))
    yield _case("I24", "not-xml", refused, archive(("vm.ovf", case.noise(1, 3000)), disk))
    whole = bytearray(archive(_descriptor(), disk))
    yield _case("I30", "cut", refused, bytes(whole[: -len(_DISK) // 2 - 8192]))
    at = whole.index(_NAME.encode() + b"\0\0")
    size = bytearray(whole)
    size[at + 124 : at + 136] = b"77777777777\0"
    size[at + 148 : at + 156] = b" " * 8
    size[at + 148 : at + 156] = b"%06o\0 " % sum(size[at : at + 512])
    yield _case("I24", "member-beyond", refused, bytes(size))
    inner = vmdk.text("monolithicFlat", ['RW 9 FLAT "/etc/shadow" 0'])
    yield _case("I24", "disk-names-a-file", {21, 23}, archive(_descriptor(size=len(inner)), (_NAME, inner)))
